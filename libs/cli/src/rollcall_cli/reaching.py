"""Which server a command asks, and as whom: options, then the environment, then a context.

With none of them it is the server of `rollcall up` on this machine, with the token that it keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from rollcall_embedded.folder import default_state_dir

from rollcall_cli.contexts import Context, ContextError, ContextFile, Contexts

DEFAULT_URL = "http://127.0.0.1:8470"  # where `rollcall up` serves


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Credentials of an account, for the server's token endpoint."""

    client_id: str
    secret: str = field(repr=False)
    tenant: str = "organizations"  # the server takes it for its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server, and how to be let in."""

    url: str
    named_by: str  # for messages
    token: str | None = field(default=None, repr=False)
    account: Account | None = None
    expires: float | None = None  # of the account's token
    context: str | None = None  # the name of the one that was used
    ca_file: Path | None = None
    subscription: str | None = None
    resource_group: str | None = None

    @property
    def is_here(self) -> bool:
        """Say whether the server is on this machine."""
        return is_loopback(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the options say."""

    url: str | None = None
    token_file: Path | None = None
    context: str | None = None


def reach(wish: Wish, environment: Mapping[str, str], file: ContextFile) -> Target:
    """Return the server to ask. Raises ContextError, which says what to give."""
    contexts = file.read()
    if wish.context is not None:
        environment = {}  # what was said for this command alone comes first
    name, context = _context(wish, environment, contexts, file)
    url = _url(wish, environment, context)
    token = _given_token(wish, environment)
    named_by = _named_by(wish, environment, name)
    if context is not None and _same(context.server, url):
        target = of_context(context, name)
        if token is not None:
            return Target(
                url=url,
                named_by=named_by,
                token=token,
                context=name,
                ca_file=target.ca_file,
                subscription=context.subscription,
                resource_group=context.resource_group,
            )
        return target
    if token is None and is_loopback(url):
        token = _own_token()
    return Target(url=url, named_by=named_by, token=token, ca_file=_own_authority(url))


def of_context(context: Context, name: str | None) -> Target:
    """Return the server of a context."""
    account = None
    if context.client_id is not None and context.client_secret is not None:
        tenant = {} if context.tenant is None else {"tenant": context.tenant}
        account = Account(client_id=context.client_id, secret=context.client_secret, **tenant)
    return Target(
        url=context.server,
        named_by=f"the context {name}",
        token=context.token,
        account=account,
        expires=context.expires,
        context=name,
        ca_file=Path(context.ca_file) if context.ca_file else _own_authority(context.server),
        subscription=context.subscription,
        resource_group=context.resource_group,
    )


def is_loopback(url: str) -> bool:
    """Say whether an address is one of this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def read_secret(path: Path, what: str) -> str:
    """Return a secret that is in a file. Raises ContextError."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ContextError(f"{what} cannot be read from {path} ({why})") from error


def _token_in(path: Path) -> str:
    try:
        return read_secret(path, "the API's token")
    except ContextError as error:
        raise ContextError(
            f"{error}: name its file with --token-file, set ROLLCALL_API_TOKEN, or log in with "
            "`rollcall login`"
        ) from error


def _context(
    wish: Wish, environment: Mapping[str, str], contexts: Contexts, file: ContextFile
) -> tuple[str | None, Context | None]:
    named = wish.context or environment.get("ROLLCALL_CONTEXT") or None
    name = named or contexts.current
    if name is None:
        return None, None
    if name not in contexts.by_name:
        known = ", ".join(contexts.by_name) or "none yet: `rollcall login` makes one"
        raise ContextError(f"there is no context {name} in {file.path}. There are: {known}")
    return name, contexts.by_name[name]


def _url(wish: Wish, environment: Mapping[str, str], context: Context | None) -> str:
    given = wish.url or environment.get("ROLLCALL_URL")
    return (given or (context.server if context is not None else DEFAULT_URL)).rstrip("/")


def _named_by(wish: Wish, environment: Mapping[str, str], name: str | None) -> str:
    if wish.url is not None:
        return "--url"
    if environment.get("ROLLCALL_URL"):
        return "ROLLCALL_URL"
    return f"the context {name}" if name is not None else "the usual address"


def _given_token(wish: Wish, environment: Mapping[str, str]) -> str | None:
    if wish.token_file is not None:
        return _token_in(wish.token_file)
    return environment.get("ROLLCALL_API_TOKEN") or None


def _same(one: str, other: str) -> bool:
    return one.rstrip("/").lower() == other.rstrip("/").lower()


def _own_token() -> str | None:
    """Return the token of `rollcall up` on this machine, if there is one that may be read."""
    try:
        return (default_state_dir() / "api-token").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _own_authority(url: str) -> Path | None:
    """Return the authority of `rollcall up --tls`, which vouches for loopback names alone."""
    ca = default_state_dir() / "tls" / "ca.pem"
    return ca if url.startswith("https:") and is_loopback(url) and ca.is_file() else None
