"""Paths and addresses in a feed: a feed must not be able to point outside of itself unawares."""

import re
from urllib.parse import SplitResult, quote, unquote, urlsplit

from image_publisher.domain.feed import FeedCode, FeedError

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")
_PLAIN = "/:@!$&'()*+,;=~"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def safe_path(path: object) -> str:
    """Return `path` when it is relative and stays below the feed's top; raises FeedError."""
    if not isinstance(path, str) or not path:
        raise FeedError(FeedCode.PATH_UNSAFE, f"path {path!r} is not a text")
    unsafe = (
        path.startswith("/")
        or "\\" in path
        or _SCHEME.match(path)
        or _CONTROL.search(path)
        or any(part in ("", ".", "..") for part in path.split("/"))
    )
    if unsafe:
        raise FeedError(
            FeedCode.PATH_UNSAFE,
            f"path {path!r} must be relative, without scheme, backslash or `..`",
        )
    return path


def join(top: str, path: str) -> str:
    """Return the address of a safe path below `top`; characters with a meaning are quoted."""
    return f"{top.rstrip('/')}/{quote(safe_path(path), safe=_PLAIN)}"


def image_url(list_url: str, location: object) -> str:
    """Return the address of an image that a JSON list names: absolute, or relative to the list.

    Only a list that was itself read from a file may name files. Raises FeedError.
    """
    if isinstance(location, str) and _SCHEME.match(location) and not _CONTROL.search(location):
        parts = _split(location)
        if parts.scheme in ("http", "https") and parts.hostname:
            return location
        own_kind = parts.scheme == "file" and list_url.startswith("file:") and not parts.netloc
        if own_kind and ".." not in unquote(parts.path).split("/"):
            return location
        raise FeedError(
            FeedCode.PATH_UNSAFE,
            f"address {location!r} is not of http, https, or of the list's own kind",
        )
    return join(list_url.rsplit("/", 1)[0], safe_path(location))


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise FeedError(FeedCode.PATH_UNSAFE, f"{url!r}: {error}") from error


def normal_url(url: str) -> str:
    """Return a configured address in its full form; a folder's path becomes `file://`.

    Raises FeedError when it is neither an address that can be read nor an absolute path.
    """
    if url.startswith("/"):
        return "file://" + quote(url)
    if _split(url).scheme not in ("http", "https", "file"):
        raise FeedError(
            FeedCode.UNREACHABLE, f"{url}: must be http://, https://, file:// or an absolute path"
        )
    return url
