"""The `$filter` of an instance list: Azure's three forms (azure-aws-gcp.md 2.1)."""

import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

from http_api.domain.filters import forms_of, refused_filter

# Given the codes of an instance's statuses, and whether it has the model.
Filter: TypeAlias = Callable[[Iterable[str], bool], bool]

_LATEST = re.compile(r"properties/latestModelApplied\s+(eq|ne)\s+(true|false)", re.IGNORECASE)
_STARTS = re.compile(
    r"startswith\(\s*(?:properties/)?instanceView/statuses/code\s*,\s*'([^']*)'\s*\)"
    r"\s+(eq|ne)\s+(true|false)",
    re.IGNORECASE,
)


def parse_filter(text: str) -> Filter:
    """Return a predicate; several forms may be joined by `and`. Raises ModelError."""
    parts = [_parse_one(form) for form in forms_of(text)]
    return lambda codes, latest: all(part(list(codes), latest) for part in parts)


def _parse_one(text: str) -> Filter:
    if match := _LATEST.fullmatch(text):
        wanted = (match[1].lower() == "eq") == (match[2].lower() == "true")
        return lambda _codes, latest: latest is wanted
    if match := _STARTS.fullmatch(text):
        prefix = match[1].lower()
        wanted = (match[2].lower() == "eq") == (match[3].lower() == "true")
        return lambda codes, _latest: (
            any(code.lower().startswith(prefix) for code in codes) is wanted
        )
    raise refused_filter(
        "$filter may be startswith(instanceView/statuses/code,'PowerState') eq true, "
        "properties/latestModelApplied eq true, or the same with false"
    )
