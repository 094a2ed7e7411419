"""The servers that somebody works with: a file of contexts, which only its owner may read.

`$XDG_CONFIG_HOME/rollcall/contexts.json`, by default below `~/.config`.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

PRIVATE = 0o600


class ContextError(Exception):
    """The file of contexts cannot be used; the message names it and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A server, how to log in there, and where names are looked for."""

    server: str
    ca_file: str | None = None  # PEM; who vouches for the server's certificate
    tenant: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)  # given, or the last that was issued
    expires: float | None = None  # of an issued token, in seconds since 1970
    subscription: str | None = None
    resource_group: str | None = None

    @property
    def login(self) -> str:
        """Return how the context logs in, without a secret."""
        if self.client_id is not None:
            return f"account {self.client_id}"
        return "a token" if self.token is not None else "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """All of them, and which one is used unless told."""

    current: str | None = None
    by_name: Mapping[str, Context] = field(default_factory=dict)

    def put(self, name: str, context: Context, *, use: bool = False) -> "Contexts":
        """Return them with one more, or another one of this name."""
        current = name if use or self.current is None else self.current
        return Contexts(current=current, by_name={**self.by_name, name: context})

    def without(self, name: str) -> "Contexts":
        """Return them without one; none is current when that was."""
        kept = {each: context for each, context in self.by_name.items() if each != name}
        return Contexts(current=None if self.current == name else self.current, by_name=kept)

    def use(self, name: str) -> "Contexts":
        """Return them with another current one."""
        return replace(self, current=name)


class ContextFile:
    """The file. Written whole, and never readable by others."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def default(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return the user's own file."""
        base = environment.get("XDG_CONFIG_HOME") or "~/.config"
        return cls(Path(base).expanduser() / "rollcall" / "contexts.json")

    def read(self) -> Contexts:
        """Return what is in the file; nothing where there is none. Raises ContextError."""
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return Contexts()
        except (OSError, UnicodeDecodeError) as error:
            raise ContextError(f"{self.path} cannot be read: {_why(error)}") from error
        try:
            document = json.loads(text)
            return Contexts(
                current=document["current"],
                by_name={name: _context(item) for name, item in document["contexts"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ContextError(
                f"{self.path} is no file of contexts: remove it and log in again ({error})"
            ) from error

    def write(self, contexts: Contexts) -> None:
        """Replace what is in the file. Raises ContextError."""
        document = {
            "current": contexts.current,
            "contexts": {name: _document(each) for name, each in contexts.by_name.items()},
        }
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # mkstemp makes the file readable by its owner alone, before anything is in it.
            handle, name = tempfile.mkstemp(prefix=".contexts-", dir=self.path.parent)
            with os.fdopen(handle, "w") as file:
                file.write(json.dumps(document, indent=2) + "\n")
            Path(name).chmod(PRIVATE)
            Path(name).replace(self.path)
        except OSError as error:
            raise ContextError(f"{self.path} cannot be written: {_why(error)}") from error

    def keep_token(self, name: str, token: str, expires: float) -> None:
        """Keep a token that was issued for a context, if that is still there."""
        contexts = self.read()
        known = contexts.by_name.get(name)
        if known is not None:
            self.write(contexts.put(name, replace(known, token=token, expires=expires)))


_NAMES = {
    each.name: "".join(
        word.capitalize() if place else word for place, word in enumerate(each.name.split("_"))
    )
    for each in fields(Context)
}


def _context(item: Mapping[str, Any]) -> Context:
    values: dict[str, Any] = {name: item.get(shown) for name, shown in _NAMES.items()}
    return Context(**{**values, "server": str(item["server"])})


def _document(context: Context) -> dict[str, Any]:
    return {_NAMES[name]: value for name, value in asdict(context).items() if value is not None}


def _why(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is no text"
