"""What a template would change: each resource as it is, as it would be, and where they differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollcall_templates.expressions import is_expression
from rollcall_templates.secure import MASK

# What a server adds to what was written; nobody's template says anything about it.
_SERVERS_OWN = frozenset(
    {"id", "etag", "provisioningstate", "resourceguid", "systemdata", "timecreated", "uniqueid"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A resource as a template would write it."""

    id: str
    type: str
    name: str
    api_version: str
    body: Mapping[str, Any]


def change_json(
    resource: Resource, before: Mapping[str, Any] | None, *, brief: bool
) -> dict[str, Any]:
    """Return one change; `before` is the resource as it is, if it exists.

    What the template leaves out stays as it is, for so does a PUT here. An expression that only a
    deployment can evaluate is shown as it is written, and makes no difference.
    """
    after = {
        "apiVersion": resource.api_version,
        "id": resource.id,
        "name": resource.name.rpartition("/")[2],
        "type": resource.type,
        **resource.body,
    }
    if before is None:
        kind, delta = "Create", None
    else:
        delta = _differences(before, resource.body)
        kind = "Modify" if delta else "NoChange"
    change: dict[str, Any] = {"resourceId": resource.id, "changeType": "Deploy" if brief else kind}
    if brief:
        return change
    if before is not None:
        change["before"] = dict(before)
        after = _merged(before, after)
    change["after"] = after
    if delta:
        change["delta"] = delta
    return change


def _merged(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(before)
    names = {name.lower(): name for name in before}
    for name, value in after.items():
        known = names.get(name.lower(), name)
        old = merged.get(known)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[known] = _merged(old, value)
        else:
            merged[known] = value
    return merged


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what changes below an object; paths of changes are joined as far as they are alone."""
    names = {name.lower(): name for name in before}
    found: list[dict[str, Any]] = []
    for name, value in after.items():
        if name.lower() in _SERVERS_OWN or value is None:
            continue
        known = names.get(name.lower())
        if known is None:
            found.append(_change(name, "Create", None, value))
            continue
        found.extend(_difference(known, before[known], value))
    return found


def _difference(path: str, before: Any, after: Any) -> list[dict[str, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [{**each, "path": f"{path}.{each['path']}"} for each in _differences(before, after)]
    if isinstance(before, list) and isinstance(after, list):
        children = _items(before, after)
        if not children:
            return []
        return [{**_change(path, "Array", None, None), "children": children}]
    if _alike(before, after):
        return []
    return [_change(path, "Modify", before, after)]


def _items(before: list[Any], after: list[Any]) -> list[dict[str, Any]]:
    children: list[dict[str, Any]] = []
    for place in range(max(len(before), len(after))):
        if place >= len(before):
            children.append(_change(str(place), "Create", None, after[place]))
        elif place >= len(after):
            children.append(_change(str(place), "Delete", before[place], None))
        elif isinstance(before[place], Mapping) and isinstance(after[place], Mapping):
            inner = _differences(before[place], after[place])
            if inner:
                changed = _change(str(place), "Modify", None, None)
                children.append({**changed, "children": inner})
        else:
            children.extend(_difference(str(place), before[place], after[place]))
    return children


def _alike(before: Any, after: Any) -> bool:
    """Say whether a value stays: "true" is true and "3" is 3, as ARM takes them."""
    if after == MASK or (isinstance(after, str) and is_expression(after)):
        return True
    if isinstance(after, str) and isinstance(before, bool | int | float):
        return after.lower() == str(before).lower()
    if isinstance(after, str) and isinstance(before, str):
        return after == before
    return bool(before == after) and isinstance(before, bool) == isinstance(after, bool)


def _change(path: str, kind: str, before: Any, after: Any) -> dict[str, Any]:
    return {
        "path": path,
        "propertyChangeType": kind,
        "before": before,
        "after": after,
        "children": None,
    }
