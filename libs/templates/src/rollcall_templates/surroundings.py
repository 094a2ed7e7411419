"""What a template may ask about where it is deployed; the shell says so once, and keeps it.

A deployment that goes on after a restart must come to the same names and values, so none of this
is asked again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The answers to `subscription()`, `resourceGroup()` and the like; all of it is JSON."""

    subscription: Mapping[str, Any]
    group: Mapping[str, Any]
    tenant: Mapping[str, Any]
    deployment: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    # Resource types by provider, with their api-versions: `providers('Microsoft.Compute')`.
    providers: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    @property
    def subscription_id(self) -> str:
        """Return the id of the subscription, without `/subscriptions/`."""
        return str(self.subscription["subscriptionId"])

    @property
    def group_name(self) -> str:
        """Return the name of the resource group."""
        return str(self.group["name"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """What may only be asked in the default values of parameters, which are kept: time and ids."""

    now: Any  # a datetime
    guid: str  # each call of newGuid() gives another, derived from it
