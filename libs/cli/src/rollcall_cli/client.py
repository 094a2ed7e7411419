"""The server as the commands reach it: over HTTP, logged in, with errors in words."""

import json
import os
import ssl
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import typer

from rollcall_cli.contexts import ContextError, ContextFile
from rollcall_cli.exits import Exit
from rollcall_cli.naming import InstallationNames, near
from rollcall_cli.reaching import Account, Target

API_VERSION = "2018-10-01"
PAGE = 1000  # entries of the event log
TIMEOUT = 60.0  # seconds for one answer; a long log takes its time
CONNECTING = 10.0  # seconds until a server that does not answer is given up
EARLY = 60.0  # seconds before its end that a token is renewed

Params = Mapping[str, str | int]


class ClientError(Exception):
    """The server gave no answer, or another one than was needed; the message says what to do."""

    def __init__(self, what: str, todo: str = "") -> None:
        """Take what is wrong, and what mends it."""
        super().__init__(f"{what}: {todo}" if todo else what)
        self.what = what
        self.todo = todo


class NotFoundError(ClientError):
    """The server knows no such thing."""


class UnreachableError(ClientError):
    """Nothing answers there, or it cannot be trusted."""


class UntrustedError(UnreachableError):
    """Nobody that is trusted vouches for the server's certificate."""


class BusyError(ClientError):
    """The server cannot answer just now; later it may."""


class NotDoneError(ClientError):
    """What was asked for did not come about; the message says why."""


class LoginError(ClientError):
    """The server does not know who asks."""


class ForbiddenError(ClientError):
    """The server knows who asks, and does not let them."""


@contextmanager
def told_in_words() -> Iterator[None]:
    """Turn an expected error into a sentence and the exit code for that."""
    try:
        yield
    except (ClientError, ContextError) as error:
        print(f"rollcall: {error}", file=sys.stderr)
        failed = Exit.NOT_DONE if isinstance(error, NotDoneError) else Exit.FAILED
        raise typer.Exit(failed) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(Exit.INTERRUPTED) from error


class _Bearer(httpx.Auth):
    """Sends the token; of an account gets a new one when it ends, and when it is refused."""

    def __init__(self, target: Target, keep: Callable[[str, float], None]) -> None:
        self._url = target.url
        self._account: Account | None = target.account
        self._token = target.token
        self._expires = target.expires
        self._keep = keep

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        fresh = False
        if self._account is not None and not self._is_valid(time.time()):
            self._take((yield self._login(self._account)))
            fresh = True
        self._sign(request)
        answer = yield request
        refused = answer.status_code == httpx.codes.UNAUTHORIZED
        if refused and self._account is not None and not fresh:
            self._take((yield self._login(self._account)))
            self._sign(request)
            yield request

    def _is_valid(self, now: float) -> bool:
        return self._token is not None and self._expires is not None and now < self._expires - EARLY

    def _sign(self, request: httpx.Request) -> None:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"

    def _login(self, account: Account) -> httpx.Request:
        return httpx.Request(
            "POST",
            f"{self._url}/{account.tenant}/oauth2/v2.0/token",
            data={
                "grant_type": "client_credentials",
                "client_id": account.client_id,
                "client_secret": account.secret,
                "scope": f"{self._url}/.default",
            },
        )

    def _take(self, answer: httpx.Response) -> None:
        answer.read()  # this answer alone: a stream that was asked for must not be waited for
        try:
            document = answer.json()
            token, seconds = document["access_token"], float(document["expires_in"])
        except (ValueError, KeyError, TypeError) as error:
            raise LoginError(f"{_oauth_words(answer, self._url)}: log in again") from error
        self._token, self._expires = token, time.time() + seconds
        self._keep(token, self._expires)


def _oauth_words(answer: httpx.Response, url: str) -> str:
    try:
        said = answer.json()["error_description"]
    except (ValueError, KeyError, TypeError):
        said = f"status {answer.status_code}"
    return f"{url} does not let this account log in ({said})"


class Api:
    """A server. Lists are read whole, whatever its pages are."""

    def __init__(self, target: Target, *, keep: Callable[[str, float], None] | None = None) -> None:
        """Take where it is. Raises ClientError for an address that is none.

        `keep` is given each token that an account is issued, with its end in seconds since 1970.
        """
        self.target = target
        self.url = target.url.rstrip("/")
        self._tenants: dict[str, str] = {}
        try:
            self._http = httpx.Client(
                base_url=self.url,
                auth=_Bearer(target, keep or (lambda _token, _expires: None)),
                timeout=httpx.Timeout(TIMEOUT, connect=CONNECTING),
                verify=self._trust(),
                headers={"User-Agent": "rollcall"},
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ClientError(f"{target.url} is no address of an API: {error}") from error

    @classmethod
    def of(cls, target: Target, file: ContextFile) -> Self:
        """Return the server of a target, which keeps the tokens of its context in the file."""
        name = target.context
        if name is None or target.account is None:
            return cls(target)
        return cls(target, keep=lambda token, expires: file.keep_token(name, token, expires))

    def _trust(self) -> ssl.SSLContext | bool:
        if not self.url.startswith("https:"):
            return True
        context = ssl.create_default_context()  # heeds SSL_CERT_FILE
        if self.target.ca_file is not None:
            try:
                context.load_verify_locations(cafile=str(self.target.ca_file))
            except (OSError, ssl.SSLError) as error:
                raise ClientError(
                    f"{self.target.ca_file} holds no certificate that can be trusted ({error}): "
                    "log in again with --ca-file"
                ) from error
        return context

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._http.close()

    # --- asking -----------------------------------------------------------------------------------

    def get(self, path: str, params: Params | None = None) -> Any:
        """Return the JSON of a GET. Raises NotFoundError, or ClientError for all else."""
        return self._json(self.send("GET", path, params=params))

    def items(self, path: str, params: Params | None = None) -> list[Any]:
        """Return all items of a list, page by page. Raises as `get`."""
        page = self.get(path, params)
        found: list[Any] = list(page["value"])
        while page.get("nextLink"):
            page = self.follow(page["nextLink"])
            found += page["value"]
        return found

    def follow(self, link: str) -> Any:
        """Return the JSON at an address that the server gave. Raises as `get`.

        Only its path is taken: the token goes to nobody else, and a proxy that hides the server's
        own name does no harm.
        """
        base, parts = urlsplit(self.url), urlsplit(link)
        path = parts.path.removeprefix(base.path.rstrip("/"))
        return self._json(self.send("GET", f"{path}?{parts.query}", whole=True))

    @staticmethod
    def operation(answer: httpx.Response) -> str:
        """Return where the status of a long-running operation is. Raises ClientError."""
        link = answer.headers.get("Azure-AsyncOperation")
        if link is None:
            raise ClientError(f"{answer.url} does not say how to follow what it began")
        return str(link)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Params | None = None,
        whole: bool = False,
        timeout: float | None = None,
    ) -> httpx.Response:
        """Return the answer to a request that succeeded. Raises as `get`.

        `whole`: the path is an address with its query, as the server gave it. A POST has an id, so
        that it is the same operation when it has to be repeated.
        """
        query = None if whole else {"api-version": API_VERSION, **(params or {})}
        headers = {"x-ms-client-request-id": str(uuid.uuid4())} if method == "POST" else {}
        try:
            answer = self._http.request(
                method,
                path,
                params=query,
                json=body,
                headers=headers,
                timeout=httpx.USE_CLIENT_DEFAULT if timeout is None else timeout,
            )
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ClientError(f"{self.url} is no address of an API: {error}") from error
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if answer.is_success:
            return answer
        raise self._refused(answer)

    def exists(self, path: str) -> Any | None:
        """Return the JSON of a GET, or None where there is no such thing."""
        try:
            return self.get(path)
        except NotFoundError:
            return None

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise ClientError(f"{self.url} gives no JSON: is it Rollcall's API?") from error

    def raw(self, path: str) -> httpx.Response:
        """Return the answer to a GET, whatever its status; without logging in. Raises as `get`."""
        try:
            return self._http.get(path, auth=None, timeout=CONNECTING)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    # --- what went wrong --------------------------------------------------------------------------

    def _unreachable(self, error: httpx.TransportError) -> UnreachableError:
        text = str(error) or type(error).__name__
        if "CERTIFICATE" in text.upper():
            return UntrustedError(
                f"the certificate of {self.url} is not trusted ({text})",
                "name the file of the authority that signed it, with `rollcall login --server "
                f"{self.url} --ca-file FILE` or SSL_CERT_FILE; `rollcall up --tls` prints where "
                "its own is",
            )
        what = f"the API at {self.url} cannot be reached ({text})"
        if isinstance(error, httpx.RemoteProtocolError) and self.url.startswith("http:"):
            other = f"https{self.url.removeprefix('http')}"
            return UnreachableError(what, f"it may speak https; try --url {other}")
        if "WRONG_VERSION_NUMBER" in text.upper() or "RECORD_LAYER" in text.upper():
            other = f"http{self.url.removeprefix('https')}"
            return UnreachableError(what, f"it may speak plain http; try --url {other}")
        return UnreachableError(
            what,
            f"is the server up (`rollcall up`, `docker compose up`), and is {self.target.named_by} "
            "right? --url, ROLLCALL_URL or `rollcall login` name another one; `rollcall doctor` "
            "looks closer",
        )

    def _refused(self, answer: httpx.Response) -> ClientError:
        said, code = _error_words(answer)
        what = f"the API at {self.url} answered {said}"
        match answer.status_code:
            case httpx.codes.UNAUTHORIZED:
                who = "asks for a token" if self._is_nobody else "does not take this token"
                return LoginError(
                    f"the API at {self.url} {who} ({said.rstrip('.')})",
                    f"log in with `rollcall login --server {self.url}`, name a token's file with "
                    "--token-file, or set ROLLCALL_API_TOKEN",
                )
            case httpx.codes.FORBIDDEN:
                return ForbiddenError(
                    what.rstrip("."),
                    "ask the owner for that role, or log in with another account (`rollcall "
                    "login`)",
                )
            case httpx.codes.NOT_FOUND:
                older = "is this Rollcall's API, and not older than this command?"
                return NotFoundError(what.rstrip("."), older if code == "NotFound" else "")
            case httpx.codes.BAD_GATEWAY | httpx.codes.SERVICE_UNAVAILABLE:
                return BusyError(what)
        return ClientError(what)

    @property
    def _is_nobody(self) -> bool:
        return self.target.token is None and self.target.account is None

    # --- what there is ----------------------------------------------------------------------------

    def set_ids(self, timeout: float | None = None) -> list[str]:
        """Return the ids of all scale sets."""
        answer = self.send("GET", "/rollcall/scaleSets", timeout=timeout)
        return [item["id"] for item in self._json(answer)["value"]]

    def find_set(self, name: str, subscription: str | None, group: str | None) -> str:
        """Return the id of a set, given by name or id. Raises ClientError, which lists others."""
        if name.startswith("/"):
            return name.rstrip("/")
        if subscription is not None and group is not None:
            # Who may look at one group only is not told what else there is.
            id = set_id(subscription, group, name)
            if self.exists(id) is not None:
                return id
        names = InstallationNames(self.set_ids())
        found = names.matching(name, subscription, group)
        if len(found) == 1:
            return found[0]
        if found:
            raise ClientError(
                f"{len(found)} scale sets are called {name}: give --subscription and "
                f"--resource-group, or the id. They are:\n  " + "\n  ".join(found)
            )
        where = "".join(
            f" in the {what} {value}"
            for what, value in (("subscription", subscription), ("resource group", group))
            if value is not None
        )
        raise ClientError(
            f"there is no scale set {name}{where}.{near(name, names.names)} "
            f"There are: {names.some()}"
        )

    def log(self, *, after: int = 0, **stream: str) -> Iterator[dict[str, Any]]:
        """Yield the entries of a log, oldest first: `scaleSet=<id>` or `stream="images"`."""
        for text in self.log_texts(after=after, **stream):
            yield json.loads(text)

    def log_texts(self, *, after: int = 0, **stream: str) -> Iterator[str]:
        """Yield the entries of a log after a number, each as the exact text that the server sent.

        A hash is made of a text, which a parser does not keep.
        """
        decoder = json.JSONDecoder()
        while True:
            query: dict[str, str | int] = {**stream, "after": after, "limit": PAGE}
            text = self.send("GET", "/rollcall/events", params=query).text
            place = text.index("[") + 1
            last: dict[str, Any] = {}
            while text[place] != "]":
                last, end = decoder.raw_decode(text, place)
                yield text[place:end]
                place = end + 2 if text[end] == "," else end
            if '"nextLink"' not in text[place:]:
                return
            after = int(last["sequence"])

    def stream(self, after: int | None = None, **stream: str) -> Iterator[str]:
        """Yield what happens from now on, or after an entry: each a CloudEvent's JSON.

        Raises UnreachableError when the connection breaks: whoever asked takes it up again.
        """
        query: dict[str, str | int] = {**stream}
        if after is not None:
            query["after"] = after
        quiet = httpx.Timeout(TIMEOUT, connect=CONNECTING)  # an idle stream speaks every 15 s
        try:
            with self._http.stream(
                "GET", "/rollcall/events/stream", params=query, timeout=quiet
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._refused(answer)
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        yield line.removeprefix("data: ")
        except httpx.TransportError as error:
            raise self._unreachable(error) from error


def set_id(subscription: str, group: str, name: str) -> str:
    """Return the id of a scale set."""
    return (
        f"/subscriptions/{subscription}/resourceGroups/{group}"
        f"/providers/Microsoft.Compute/virtualMachineScaleSets/{name}"
    )


def _error_words(answer: httpx.Response) -> tuple[str, str]:
    """Return what an error says, with each of its details, and its code."""
    try:
        error = answer.json()["error"]
        said = f"{error['code']}: {error['message']}"
        for detail in error.get("details") or ():
            message, target = str(detail["message"]), detail.get("target")
            place = f"{target}: " if target and not message.startswith(target) else ""
            said += f"\n  - {place}{message}"
        return said, str(error["code"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}", ""


def context_file() -> ContextFile:
    """Return the user's file of contexts."""
    return ContextFile.default(os.environ)
