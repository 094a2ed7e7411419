"""The `$filter` of lists of resources and of groups: what az sends for its own look-ups."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from http_api.domain.documents import ModelError
from http_api.domain.filters import forms_of, refused_filter

_EQUALS = re.compile(r"(resourceType|resourceGroup|name)\s+eq\s+'([^']*)'", re.IGNORECASE)
_TAG = re.compile(r"(tagName|tagValue)\s+eq\s+'((?:[^']|'')*)'", re.IGNORECASE)


def parse_resource_filter(text: str) -> Mapping[str, list[str]]:
    """Return, in lower case, which values `resourcetype`, `resourcegroup` and `name` must equal.

    Forms are joined by `and`; an empty text asks for nothing. Raises ModelError for any other form.
    """
    wanted: dict[str, list[str]] = {"resourcetype": [], "resourcegroup": [], "name": []}
    for form in forms_of(text):
        if (match := _EQUALS.fullmatch(form)) is None:
            raise refused_filter(
                "$filter may be resourceType eq '…', resourceGroup eq '…' and name eq '…' here, "
                "joined by and"
            )
        wanted[match[1].lower()].append(match[2].lower())
    return wanted


def parse_tag_filter(text: str) -> Callable[[Any], bool]:
    """Return what says whether tags have the one that `tagName`, `tagValue` ask for.

    A name matches in any case, as in ARM; an empty text asks for nothing. Raises ModelError for
    any other form, and for a value without a name.
    """
    wanted: dict[str, str] = {}
    for form in forms_of(text):
        match = _TAG.fullmatch(form)
        if match is None or match[1].lower() in wanted:
            raise _no_tag()
        wanted[match[1].lower()] = match[2].replace("''", "'")
    if wanted and "tagname" not in wanted:
        raise _no_tag()
    return lambda tags: not wanted or _has_tag(tags, wanted["tagname"], wanted.get("tagvalue"))


def _has_tag(tags: Any, name: str, value: str | None) -> bool:
    return any(
        each.lower() == name.lower() and (value is None or found == value)
        for each, found in (tags.items() if isinstance(tags, Mapping) else ())
    )


def _no_tag() -> ModelError:
    return refused_filter(
        "$filter may be tagName eq '…' here, or tagName eq '…' and tagValue eq '…'"
    )
