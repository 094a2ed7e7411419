"""What differs between two documents of a resource, by path. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What the server says, and nobody can write.
READ_ONLY = frozenset(
    {
        *("etag", "systemData", "properties.provisioningState", "properties.uniqueId"),
        *("properties.resourceGuid", "properties.timeCreated", "properties.rollcall"),
    }
)
_OF_PARTS = frozenset({"id", "etag", "type", "provisioningState"})  # such as a probe's
_KEYS = ("name", "lun")  # what tells the items of a list apart
_SECRETS = frozenset(
    {
        *("customdata", "userdata", "protectedsettings"),
        *("adminpassword", "additionalunattendcontent"),
    }
)
SECRET = "(secret)"
NOTHING = object()  # what is not there; None is a value


@dataclass(frozen=True, slots=True)
class Change:
    """A value at a path, before and after."""

    path: str
    before: Any
    after: Any

    @property
    def sign(self) -> str:
        """Return + for new, - for taken away, ~ for changed."""
        return "+" if self.before is NOTHING else "-" if self.after is NOTHING else "~"

    @property
    def is_secret(self) -> bool:
        """Say whether the values must not be shown."""
        return any(_is_secret(part.partition("[")[0]) for part in self.path.split("."))

    def words(self) -> str:
        """Return it in a line."""
        if self.is_secret:
            return f"{self.sign} {self.path}: {SECRET}"
        if self.sign == "~":
            return f"~ {self.path}: {_short(self.before)} -> {_short(self.after)}"
        return f"{self.sign} {self.path}: {_short(self.after if self.sign == '+' else self.before)}"

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        values = {"before": self.before, "after": self.after}
        shown = {k: v for k, v in values.items() if v is not NOTHING}
        if self.is_secret:
            return {"path": self.path, **dict.fromkeys(shown, SECRET)}
        return {"path": self.path, **{k: _masked(v) for k, v in shown.items()}}


def _short(value: Any) -> str:
    text = json.dumps(_masked(value), ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _is_secret(name: str) -> bool:
    return name.lower() in _SECRETS


def _masked(value: Any) -> Any:
    """Return a value without the secrets in it."""
    if isinstance(value, Mapping):
        return {k: SECRET if _is_secret(k) else _masked(v) for k, v in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value


def differences(before: Any, after: Any) -> list[Change]:
    """Return what is different in two documents of the server."""
    return list(_compared(before, after, "", named_only=False))


def wanted_changes(before: Any, body: Any) -> list[Change]:
    """Return what a document that somebody wrote would change: what it leaves out stays."""
    return list(_compared(before, body, "", named_only=True))


def _compared(before: Any, after: Any, path: str, *, named_only: bool) -> Iterator[Change]:
    if path in READ_ONLY:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _objects(before, after, path, named_only)
    elif after is None and (named_only and before is NOTHING):
        return  # null takes away what is not there
    elif after is None and named_only:
        yield Change(path, before, NOTHING)
    elif before is NOTHING and isinstance(after, Mapping) and after:
        yield from _objects({}, after, path, named_only)
    elif (keyed := _keyed(before, after)) is not None:
        yield from _lists(*keyed, path)
    elif before is NOTHING or after is NOTHING or not _same(before, after):
        yield Change(path, before, after)


def _objects(
    before: Mapping[str, Any], after: Mapping[str, Any], path: str, named_only: bool
) -> Iterator[Change]:
    spelled = {key.lower(): key for key in before}  # names have no case
    seen = set()
    for key, value in after.items():
        old = spelled.get(key.lower(), key)
        seen.add(old)
        if not path.endswith("]") or key not in _OF_PARTS:
            place = f"{path}.{old}" if path else old
            # Tags are one value: a PUT replaces them.
            inner = named_only and place != "tags"
            yield from _compared(before.get(old, NOTHING), value, place, named_only=inner)
    if not named_only:
        for key in before:
            if key not in seen and not (path.endswith("]") and key in _OF_PARTS):
                place = f"{path}.{key}" if path else key
                yield from _compared(before[key], NOTHING, place, named_only=False)


def _keyed(before: Any, after: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return two lists by the names of their items, where they have some."""
    if not isinstance(before, list) or not isinstance(after, list):
        return None
    for key in _KEYS:
        both = (before, after)
        if all(isinstance(item, Mapping) and key in item for items in both for item in items):
            return _by(before, key), _by(after, key)
    return None


def _by(items: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    return {str(item[key]): item for item in items}


def _lists(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> Iterator[Change]:
    """Compare items of one name; what a list leaves out is taken away, for lists are replaced."""
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name, NOTHING), after.get(name, NOTHING)
        named_only = old is not NOTHING and new is not NOTHING
        if named_only:
            yield from _compared(old, new, f"{path}[{name}]", named_only=True)
        else:
            yield Change(f"{path}[{name}]", old, new)


def _same(before: Any, after: Any) -> bool:
    """Say whether two values are the same; ids have no case, and true is not 1."""
    if isinstance(before, bool) or isinstance(after, bool):
        return before is after
    if isinstance(before, str) and isinstance(after, str) and before.startswith("/subscriptions/"):
        return before.lower() == after.lower()
    return bool(before == after)
