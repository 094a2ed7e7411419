"""How a PUT or a PATCH changes what is stored, and which parts a client may not write."""

from collections.abc import Iterable, Mapping
from typing import Any

from http_api.domain.documents import at

# Without these there is no scale set, so a null in a PUT cannot mean "take it away": az writes the
# set back with the image reference unset.
REQUIRED = (
    "location",
    "sku",
    "sku.capacity",
    "properties.virtualMachineProfile",
    "properties.virtualMachineProfile.storageProfile",
    "properties.virtualMachineProfile.storageProfile.imageReference",
)
READ_ONLY = (
    *("id", "name", "type", "etag", "systemData"),
    "properties.provisioningState",
    "properties.uniqueId",
    "properties.resourceGuid",
    "properties.timeCreated",
    "properties.rollcall",
)


def merge_patch(old: Any, patch: Any) -> Any:
    """Return `old` changed as RFC 7396 says: null takes a member away, lists are replaced."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(old) if isinstance(old, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def merge_put(old: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a PUT leaves: what it names is replaced, what it leaves out stays.

    That is what ARM's clients rely on: az writes parts of what it read. Tags are one value.
    """
    kept = {
        path
        for path in REQUIRED
        if at(old, path) is not None and at(body, path) is None and names(body, path)
    }
    merged: dict[str, Any] = merge_patch(old, without(body, kept))
    if body.get("tags") is not None:
        merged["tags"] = body["tags"]
    return merged


def names(document: Any, path: str) -> bool:
    """Say whether a document has a member at a dotted path, if only a null."""
    parent, _, name = path.rpartition(".")
    holder = at(document, parent) if parent else document
    return isinstance(holder, Mapping) and name in holder


def without(document: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """Return the document without the members at these dotted paths."""
    result = dict(document)
    for path in paths:
        head, _, rest = path.partition(".")
        if not rest:
            result.pop(head, None)
        elif isinstance(result.get(head), Mapping):
            result[head] = without(result[head], [rest])
    return result
