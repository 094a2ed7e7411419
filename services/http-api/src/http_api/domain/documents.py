"""Request bodies: parsed strictly, read by path, with all faults collected before one answer."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from rollcall_contracts.model import Failure

from http_api.domain.durations import parse_duration

MAX_DEPTH = 64
_SURROGATE = re.compile("[\ud800-\udfff]")


class ModelError(Exception):
    """A request's content cannot be taken; each fault names its place and what is wrong."""

    def __init__(self, *faults: Failure) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = faults


def parse_body(raw: bytes) -> dict[str, Any]:
    """Return a request's JSON object.

    What Postgres or another JSON parser would choke on later is refused here: NUL and lone
    surrogates in texts, numbers that are not finite, absurd depth, and a name twice in an object,
    of which parsers take now the first and now the last. Raises ModelError.
    """
    try:
        document = json.loads(
            raw, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates
        )
        _check(document, 0)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            Failure(code="InvalidRequestContent", message=f"the body is not usable JSON: {error}")
        ) from error
    if not isinstance(document, dict):
        raise ModelError(
            Failure(code="InvalidRequestContent", message="the body must be a JSON object")
        )
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        (name, _), *_ = (Counter(name for name, _ in pairs)).most_common(1)
        raise ValueError(f"the name {name[:100]!r} is there twice in one object")
    return document


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    match value:
        case str():
            _check_text(value)
        case float() if not math.isfinite(value):
            raise ValueError("a number is out of range")
        case dict():
            for key, item in value.items():
                _check_text(key)
                _check(item, depth + 1)
        case list():
            for item in value:
                _check(item, depth + 1)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("a text contains the character NUL")
    if _SURROGATE.search(text):
        raise ValueError("a text contains half of a surrogate pair")


def at(document: Any, path: str) -> Any:
    """Return what is at a dotted path, or None where any part of it is absent or no object."""
    for part in path.split("."):
        if not isinstance(document, Mapping):
            return None
        document = document.get(part)
    return document


class Reader:
    """Reads typed values from a document, and collects faults instead of stopping at the first."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.faults: list[Failure] = []

    def fault(self, target: str, message: str, code: str = "InvalidParameter") -> None:
        """Note that the value at `target` cannot be taken."""
        self.faults.append(Failure(code=code, message=message, target=target))

    def take(self, inner: "Reader", place: str) -> None:
        """Note the faults of a part of the document that was read by itself."""
        for fault in inner.faults:
            self.fault(f"{place}.{fault.target}", f"{place}: {fault.message}", fault.code)

    def finish(self) -> None:
        """Raise ModelError when there were faults."""
        if self.faults:
            raise ModelError(*self.faults)

    def value(self, path: str) -> Any:
        """Return what is at a path; what stands in its way and is no object is a fault, noted once.

        To take it for absent would store it, and let the set run on defaults that nobody chose.
        """
        document: Any = self.document
        parts = path.split(".")
        for depth, part in enumerate(parts):
            if document is not None and not isinstance(document, Mapping):
                place = ".".join(parts[:depth])
                if all(fault.target != place for fault in self.faults):
                    self.fault(place, f"{place} must be an object")
                return None
            document = None if document is None else document.get(part)
        return document

    def objects(self, path: str) -> list[Mapping[str, Any]]:
        """Return the objects of a list; an absent list is empty."""
        value = self.value(path)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            self.fault(path, f"{path} must be a list of objects")
            return []
        return value

    def text(self, path: str, default: str | None = None) -> str | None:
        """Return a text that is not empty."""
        value = self.value(path)
        if value is None:
            return default
        if not isinstance(value, str) or not value:
            self.fault(path, f"{path} must be a text that is not empty")
            return default
        return value

    def flag(self, path: str, *, default: bool = False) -> bool:
        """Return true or false."""
        value = self.value(path)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fault(path, f"{path} must be true or false")
            return default
        return value

    def whole(self, path: str, *, low: int, high: int, default: int | None = None) -> int | None:
        """Return a whole number within bounds."""
        value = self.value(path)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fault(path, f"{path} must be a whole number from {low} to {high}")
            return default
        return value

    def duration(
        self, path: str, *, high: float, default: float, low: float = 0, zero: bool = False
    ) -> float:
        """Return the seconds of an ISO 8601 duration within bounds; none is zero unless `zero`."""
        value = self.value(path)
        if value is None:
            return default
        try:
            seconds = parse_duration(value if isinstance(value, str) else str(value))
        except ValueError as error:
            self.fault(path, f"{path}: {error}")
            return default
        if not low <= seconds <= high or (seconds == 0 and not zero):
            least = f"at least {low:g} and " if low else "" if zero else "above zero and "
            self.fault(
                path, f"{path} must be {least}at most {high:.0f} seconds, but is {seconds:g}"
            )
            return default
        return seconds

    def choice(self, path: str, values: Iterable[str], default: str) -> str:
        """Return one of some words, in its own spelling; case is ignored."""
        value = self.value(path)
        if value is None:
            return default
        words = {word.lower(): word for word in values}
        if not isinstance(value, str) or value.lower() not in words:
            self.fault(path, f"{path} must be one of {', '.join(words.values())}")
            return default
        return words[value.lower()]
