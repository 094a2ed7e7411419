"""The `$filter` of a list of resources: what az sends for its own look-ups."""

import re
from collections.abc import Mapping

from rollcall_contracts.model import Failure

from http_api.domain.documents import ModelError

_EQUALS = re.compile(r"(resourceType|resourceGroup|name)\s+eq\s+'([^']*)'", re.IGNORECASE)


def parse_resource_filter(text: str) -> Mapping[str, list[str]]:
    """Return, in lower case, which values `resourcetype`, `resourcegroup` and `name` must equal.

    Forms are joined by `and`; an empty text asks for nothing. Raises ModelError for any other
    form: a filter that is not heeded would give resources that the client did not ask for.
    """
    wanted: dict[str, list[str]] = {"resourcetype": [], "resourcegroup": [], "name": []}
    parts = re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE) if text.strip() else []
    for part in parts:
        if (match := _EQUALS.fullmatch(part)) is None:
            raise ModelError(
                Failure(
                    code="InvalidParameter",
                    message="$filter may be resourceType eq '…', resourceGroup eq '…' and "
                    "name eq '…' here, joined by and",
                    target="$filter",
                )
            )
        wanted[match[1].lower()].append(match[2].lower())
    return wanted
