"""The server as the commands reach it: over HTTP, reading only."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import httpx
import typer
from rollcall_embedded.folder import default_state_dir

DEFAULT_URL = "http://127.0.0.1:8470"  # where `rollcall up` serves
API_VERSION = "2018-10-01"
PAGE = 1000  # entries of the event log
TIMEOUT = 60.0  # seconds for one answer; a long log takes its time
FAILED = 2  # exit code: no answer could be given

Url = Annotated[
    str, typer.Option("--url", envvar="ROLLCALL_URL", help="Where the API is.", metavar="URL")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="The file with the API's token.",
        show_default="ROLLCALL_API_TOKEN itself, else the file of `rollcall up`",
        dir_okay=False,
    ),
]
Subscription = Annotated[
    str | None,
    typer.Option("--subscription", "-s", help="Only sets of this subscription have the name."),
]
Group = Annotated[
    str | None,
    typer.Option("--resource-group", "-g", help="Only sets of this resource group have the name."),
]


class ClientError(Exception):
    """The server gave no answer, or another one than was needed; the message says what to do."""


class NotFoundError(ClientError):
    """The server knows no such thing."""


@contextmanager
def told_in_words() -> Iterator[None]:
    """Turn an expected error into a sentence and the exit code for that."""
    try:
        yield
    except ClientError as error:
        print(f"rollcall: {error}", file=sys.stderr)
        raise typer.Exit(FAILED) from error


class Api:
    """A server, read with GET alone: nothing that a command asks changes anything."""

    def __init__(self, url: str, token: str) -> None:
        """Take where it is. Raises ClientError for an address that is none."""
        self.url = url.rstrip("/")
        try:
            self._http = httpx.Client(
                base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ClientError(f"{url} is no address of an API: {error}") from error

    @classmethod
    def of(cls, url: str, token_file: Path | None) -> Self:
        """Return the server of the options. Raises ClientError when there is no token."""
        return cls(url, _token(token_file))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, params: Mapping[str, str | int] | None = None) -> Any:
        """Return the JSON of a GET. Raises NotFoundError, or ClientError for all else."""
        try:
            answer = self._http.get(path, params={"api-version": API_VERSION, **(params or {})})
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ClientError(f"{self.url} is no address of an API: {error}") from error
        except httpx.TransportError as error:
            raise ClientError(self._unreachable(error)) from error
        if answer.is_success:
            try:
                return answer.json()
            except ValueError as error:
                raise ClientError(f"{self.url} gives no JSON: is it Rollcall's API?") from error
        raise self._refused(answer)

    def _unreachable(self, error: httpx.TransportError) -> str:
        text = str(error) or type(error).__name__
        if "CERTIFICATE" in text.upper():
            return (
                f"the certificate of {self.url} is not trusted ({text}): set SSL_CERT_FILE to the "
                "authority's file, which `rollcall up --tls` prints"
            )
        return (
            f"the API at {self.url} cannot be reached ({text}): is the server up, and is --url "
            "(or ROLLCALL_URL) right?"
        )

    def _refused(self, answer: httpx.Response) -> ClientError:
        try:
            error = answer.json()["error"]
            said = f"{error['code']}: {error['message']}"
        except (ValueError, KeyError, TypeError):
            said = f"status {answer.status_code}"
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            return ClientError(
                f"the API at {self.url} does not take this token: name its file with --token-file, "
                "or set ROLLCALL_API_TOKEN"
            )
        cls = NotFoundError if answer.status_code == httpx.codes.NOT_FOUND else ClientError
        return cls(f"the API at {self.url} answered {said}")

    # --- what there is ----------------------------------------------------------------------------

    def set_ids(self) -> list[str]:
        """Return the ids of all scale sets."""
        return [item["id"] for item in self.get("/rollcall/scaleSets")["value"]]

    def find_set(self, name: str, subscription: str | None, group: str | None) -> str:
        """Return the id of a set, given by name or id. Raises ClientError, which lists others."""
        if name.startswith("/"):
            return name.rstrip("/")
        ids = self.set_ids()
        found = [id for id in ids if _matches(id, name, subscription, group)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ClientError(
                f"{len(found)} scale sets are called {name}: give --subscription and "
                f"--resource-group, or the id. They are:\n  " + "\n  ".join(found)
            )
        names = ", ".join(id.rpartition("/")[2] for id in ids[:20]) or "none at all"
        where = "".join(
            f" in the {what} {value}"
            for what, value in (("subscription", subscription), ("resource group", group))
            if value is not None
        )
        raise ClientError(f"there is no scale set {name}{where}. There are: {names}")

    def log(self, **stream: str) -> Iterator[dict[str, Any]]:
        """Yield the entries of a log, oldest first: `scaleSet=<id>` or `stream="images"`."""
        after = 0
        while True:
            page = self.get("/rollcall/events", {**stream, "after": after, "limit": PAGE})
            yield from page["value"]
            if "nextLink" not in page:
                return
            after = int(page["value"][-1]["sequence"])


def _matches(id: str, name: str, subscription: str | None, group: str | None) -> bool:
    parts = id.lower().split("/")  # "", subscriptions, S, resourcegroups, G, …, name
    return (
        parts[-1] == name.lower()
        and (subscription is None or parts[2] == subscription.lower())
        and (group is None or parts[4] == group.lower())
    )


def _token(file: Path | None) -> str:
    given = os.environ.get("ROLLCALL_API_TOKEN", "")
    if given and file is None:
        return given
    path = file or default_state_dir() / "api-token"
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ClientError(
            f"the API's token cannot be read from {path} ({why}): name its file with "
            "--token-file, or set ROLLCALL_API_TOKEN"
        ) from error
