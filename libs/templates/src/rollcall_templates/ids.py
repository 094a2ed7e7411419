"""Resource ids: made from types and names, and taken apart."""

from collections.abc import Sequence
from dataclasses import dataclass

from rollcall_templates.values import FunctionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where resources of one deployment are: in a subscription and a resource group."""

    subscription: str
    group: str

    @property
    def id(self) -> str:
        """Return the id of the resource group."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"


def type_and_names(type: str, names: Sequence[str]) -> str:
    """Return `provider/type/name/type/name` for `provider/type/type`. Raises FunctionError."""
    parts = [part for part in type.split("/") if part]
    if len(parts) < 2:
        raise FunctionError(
            "the resource type must have a provider and a type, such as "
            "Microsoft.Network/virtualNetworks"
        )
    flat = [part for name in names for part in name.split("/")]
    if len(flat) != len(parts) - 1:
        raise FunctionError(
            f"the resource type {type} has {len(parts) - 1} parts after its provider, so it needs "
            f"{len(parts) - 1} names, and {len(flat)} were given"
        )
    if not all(flat):
        raise FunctionError(f"a name of the resource of type {type} is empty")
    pairs = "/".join(f"{kind}/{name}" for kind, name in zip(parts[1:], flat, strict=True))
    return f"{parts[0]}/{pairs}"


def leading(arguments: Sequence[str]) -> int:
    """Return at which argument the resource type stands: the first with a slash in it."""
    for place, each in enumerate(arguments):
        if "/" in each:
            return place
    raise FunctionError(
        "one argument must be a resource type, such as Microsoft.Network/virtualNetworks"
    )


def resource_id(place: Place, arguments: Sequence[str]) -> str:
    """Return the id of `([subscription], [group], type, name…)`. Raises FunctionError."""
    at = leading(arguments)
    if at > 2:
        raise FunctionError("before the resource type stand at most a subscription and a group")
    subscription = arguments[0] if at == 2 else place.subscription
    group = arguments[at - 1] if at else place.group
    there = Place(subscription=subscription, group=group)
    return f"{there.id}/providers/{type_and_names(arguments[at], arguments[at + 1 :])}"


def subscription_resource_id(place: Place, arguments: Sequence[str]) -> str:
    """Return the id of `([subscription], type, name…)`. Raises FunctionError."""
    at = leading(arguments)
    if at > 1:
        raise FunctionError("before the resource type stands at most a subscription")
    subscription = arguments[0] if at else place.subscription
    rest = type_and_names(arguments[at], arguments[at + 1 :])
    return f"/subscriptions/{subscription}/providers/{rest}"


def extension_resource_id(arguments: Sequence[str]) -> str:
    """Return the id of a resource that extends another: `(id, type, name…)`."""
    base = arguments[0].rstrip("/")
    return f"{base}/providers/{type_and_names(arguments[1], arguments[2:])}"


def type_of(id: str) -> tuple[str, str]:
    """Return a resource id's type and name, each with its parts joined by slashes."""
    parts = id.rpartition("/providers/")[2].split("/")
    return "/".join([parts[0], *parts[1::2]]), "/".join(parts[2::2])
