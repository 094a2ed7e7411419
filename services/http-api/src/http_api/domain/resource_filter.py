"""The `$filter` of lists of resources and of groups: what az sends for its own look-ups."""

import re
from collections.abc import Mapping

from http_api.domain.filters import forms_of, refused_filter

_EQUALS = re.compile(r"(resourceType|resourceGroup|name)\s+eq\s+'([^']*)'", re.IGNORECASE)


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
