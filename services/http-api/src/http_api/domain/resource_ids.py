"""ARM resource ids: what names a resource, in which case, and how two of them compare."""

import re
from dataclasses import dataclass
from typing import Self

from rollcall_contracts.model import Failure

from http_api.domain.documents import ModelError

SCALE_SETS = "Microsoft.Compute/virtualMachineScaleSets"
LOAD_BALANCERS = "Microsoft.Network/loadBalancers"

_RULES = {
    "subscription": re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII),
    "resource group": re.compile(r"[A-Za-z0-9_().-]{0,89}[A-Za-z0-9_()-]", re.ASCII),
    "resource": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", re.ASCII),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceId:
    """A resource's place: subscription, group, type and name, as the client wrote them."""

    subscription: str
    group: str
    type: str
    name: str

    @classmethod
    def parse(cls, id: str) -> Self:
        """Return the parts of an id that `id` made."""
        _, _, subscription, _, group, _, namespace, kind, name = id.split("/")
        return cls(subscription=subscription, group=group, type=f"{namespace}/{kind}", name=name)

    @property
    def group_id(self) -> str:
        """Return the ARM id of the resource group."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"

    @property
    def id(self) -> str:
        """Return the ARM id."""
        return f"{self.group_id}/providers/{self.type}/{self.name}"

    @property
    def key(self) -> str:
        """Return what two spellings of one id have in common."""
        return self.id.lower()


def group_id(subscription: str, group: str) -> str:
    """Return a resource group's id. Raises ModelError for what cannot be a name."""
    return resource_id(subscription=subscription, group=group, type="x/y", name="z").group_id


def resource_id(*, subscription: str, group: str, type: str, name: str) -> ResourceId:
    """Return an id whose parts are allowed names. Raises ModelError, which names the part."""
    parts = (("subscription", subscription), ("resource group", group), ("resource", name))
    faults = [
        Failure(
            code="InvalidResourceName",
            message=f"'{value[:100]}' is not a name that a {what} may have",
            target=what,
        )
        for what, value in parts
        if not _RULES[what].fullmatch(value)
    ]
    if faults:
        raise ModelError(*faults)
    return ResourceId(subscription=subscription, group=group, type=type, name=name)


_PROBE = re.compile(
    r"(?P<balancer>/subscriptions/[^/]+/resourcegroups/[^/]+/providers/microsoft\.network"
    r"/loadbalancers/[^/]+)/probes/(?P<probe>[^/]+)"
)


def probe_parts(id: str) -> tuple[str, str] | None:
    """Return a probe id's load balancer key and probe name, both in lower case; else None."""
    match = _PROBE.fullmatch(id.lower().rstrip("/"))
    return (match["balancer"], match["probe"]) if match else None
