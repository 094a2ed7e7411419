"""Parts of resources that have ids of their own, such as subnets and inbound NAT rules."""

from collections.abc import Mapping
from typing import Any

from http_api.domain.documents import Reader
from http_api.domain.merging import READ_ONLY, without
from http_api.domain.resource_ids import LOAD_BALANCERS
from http_api.domain.secrets import redacted
from http_api.domain.shape import LOAD_BALANCER, RESOURCE, Leaf, Shape, canonical

# By the type of their resource; SDKs refer to them by their ids.
CHILDREN: Mapping[str, tuple[str, ...]] = {
    LOAD_BALANCERS.lower(): (
        "frontendIPConfigurations",
        "backendAddressPools",
        "loadBalancingRules",
        "probes",
        "inboundNatRules",
        "inboundNatPools",
        "outboundRules",
    ),
    "microsoft.network/virtualnetworks": ("subnets", "virtualNetworkPeerings"),
    "microsoft.network/networksecuritygroups": ("securityRules", "defaultSecurityRules"),
    "microsoft.network/routetables": ("routes",),
    "microsoft.network/networkinterfaces": ("ipConfigurations",),
}
_PART: Shape = dict.fromkeys(("id", "name", "type", "etag", "properties"), Leaf.ANY)


def part_kind(type: str, kind: str) -> str | None:
    """Return how a resource's type spells a kind of its parts; None: it has no such parts."""
    for known in CHILDREN.get(type.lower(), ()):
        if known.lower() == kind.lower():
            return known
    return None


def read_resource(body: Mapping[str, Any], type: str) -> dict[str, Any]:
    """Return what is kept of a body, its known names spelled as Azure does. Raises ModelError."""
    kinds = CHILDREN.get(type.lower(), ())
    base = LOAD_BALANCER if type.lower() == LOAD_BALANCERS.lower() else RESOURCE
    parts: dict[str, Shape] = dict.fromkeys(kinds, (_PART,))
    shape: Shape = {**base, "properties": {**parts, **base["properties"]}}
    spelled = canonical(body, shape)
    reader = Reader(spelled)
    if not isinstance(spelled.get("properties") or {}, Mapping):
        reader.fault("properties", "properties must be an object")
    else:
        for kind in kinds:
            reader.objects(f"properties.{kind}")
    reader.finish()
    kept: dict[str, Any] = redacted(without(spelled, READ_ONLY))
    return kept


def read_part(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what is kept of the body of a part's own PUT."""
    return {**redacted(without(canonical(body, _PART), READ_ONLY)), "name": name}


def find_part(parts: Any, name: str) -> Any:
    """Return the part of this name; None where there is none."""
    for each in parts if isinstance(parts, list) else []:
        if isinstance(each, Mapping) and str(each.get("name")).lower() == name.lower():
            return each
    return None


def with_part(
    model: Mapping[str, Any], kind: str, name: str, item: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the model with a part put in at its end, or without it where `item` is None."""
    properties = dict(model.get("properties") or {})
    before = properties.get(kind)
    parts = before if isinstance(before, list) else []
    known = find_part(parts, name)
    after = [each for each in parts if each is not known]
    if item is not None:
        after.append(item)
    return {**model, "properties": {**properties, kind: after}}
