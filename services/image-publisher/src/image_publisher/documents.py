"""The documents of one feed in one poll: fetched once each, verified, with their validators."""

import asyncio
from collections.abc import Mapping

from image_publisher.domain.feed import FeedCode, FeedError
from image_publisher.fetch import Body, Fetcher, Missing
from image_publisher.signature import verify

GPGV_TIMEOUT = 30.0  # seconds

Validators = Mapping[str, Mapping[str, str]]  # by address: {etag, last_modified}


class Documents:
    """What a format reads from; lives for one poll."""

    def __init__(self, fetcher: Fetcher, *, keyring: bytes | None, max_bytes: int) -> None:
        self._fetcher = fetcher
        self._keyring = keyring
        self._max_bytes = max_bytes
        self._bodies: dict[str, Body] = {}

    @property
    def signed(self) -> bool:
        """Say whether every document must be signed."""
        return self._keyring is not None

    async def unchanged(self, validators: Validators) -> bool:
        """Say whether the server confirms that each of these documents is still the same."""
        for url, known in validators.items():
            try:
                body = await self._fetcher.get(url, known)
            except Missing:
                return False  # text() says what that means
            if body is not None:
                self._bodies[url] = body  # read() need not ask again
                return False
        return bool(validators)

    async def text(self, url: str) -> str:
        """Return a document's trusted text. Raises FeedError."""
        body = self._bodies.get(url) or await self._fetch(url)
        self._bodies[url] = body
        content = body.content
        if self._keyring is not None:
            content = await asyncio.to_thread(
                verify,
                content,
                self._keyring,
                url=url,
                max_bytes=self._max_bytes,
                timeout=GPGV_TIMEOUT,
            )
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise FeedError(FeedCode.MALFORMED, f"{url}: is not UTF-8: {error.reason}") from error

    async def _fetch(self, url: str) -> Body:
        try:
            body = await self._fetcher.get(url)
        except Missing as error:
            if not self.signed:
                raise
            raise FeedError(
                FeedCode.SIGNATURE_MISSING,
                f"{error.message}; with a keyring every document must be there in its signed form",
            ) from error
        if body is None:  # only an answer to a conditional request, which this was not
            raise FeedError(FeedCode.UNREACHABLE, f"{url}: HTTP 304 though nothing was asked for")
        return body

    def validators(self) -> dict[str, dict[str, str]]:
        """Return what to ask with next time; empty unless every document has validators."""
        found = {
            url: {
                key: value
                for key, value in (("etag", body.etag), ("last_modified", body.last_modified))
                if value is not None
            }
            for url, body in self._bodies.items()
        }
        return found if all(found.values()) else {}
