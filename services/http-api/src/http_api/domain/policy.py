"""The upgrade policy: reading it with its ranges, and writing it out with its defaults."""

from collections.abc import Mapping
from typing import Any

from rollcall_contracts.model import Failure, RollingPolicy

from http_api.domain.documents import Reader, at
from http_api.domain.fields import fields_of, read_fields, with_defaults, within
from http_api.domain.shape import AUTOMATIC_POLICY, ROLLING_POLICY, canonical

UPGRADE_POLICY = "properties.upgradePolicy"
ROLLING = f"{UPGRADE_POLICY}.rollingUpgradePolicy"
AUTOMATIC = f"{UPGRADE_POLICY}.automaticOSUpgradePolicy"
MODES = ("Manual", "Automatic", "Rolling")

_CONDITION = "a comparison with a number, such as '<= 0.01'"
_EXPECTED = {
    "requestPath": "a path that begins with '/'",
    "server": "an http or https URL without user and password, such as http://prometheus:9090",
    "successCondition": _CONDITION,
    "failureCondition": _CONDITION,
}


def read_policy(reader: Reader, place: str = ROLLING) -> RollingPolicy | None:
    """Return the rolling policy at a place, or None after noting its faults.

    The ranges are the contract's, from the mission's decisions: 5-100, 5-100, 0-100, and no batch
    larger than what may be unhealthy.
    """
    before = len(reader.faults)
    values = read_fields(reader, place, fields_of(RollingPolicy), expected=_EXPECTED)
    if len(reader.faults) > before:
        return None
    batch, unhealthy = (
        values.get(name, RollingPolicy.model_fields[name].default)
        for name in ("max_batch_instance_percent", "max_unhealthy_instance_percent")
    )
    if batch > unhealthy:
        reader.fault(
            within(place, "maxBatchInstancePercent"),
            f"maxBatchInstancePercent ({batch}) must not be above "
            f"maxUnhealthyInstancePercent ({unhealthy})",
        )
    if values.get("max_surge") and values.get("sliding_batches"):
        reader.fault(
            within(place, "maxSurge"),
            "maxSurge and slidingBatches exclude each other: choose one",
        )
    return None if len(reader.faults) > before else RollingPolicy.model_validate(values)


def policy_from_json(document: Mapping[str, Any]) -> RollingPolicy:
    """Return a `rollingUpgradePolicy` that stands alone, as in a file. Raises ModelError."""
    reader = Reader(canonical(document, ROLLING_POLICY))
    policy = read_policy(reader, place="")
    reader.finish()
    return policy or RollingPolicy()


def unknown_members(model: Mapping[str, Any]) -> tuple[Failure, ...]:
    """Return a warning for each member of the policies that nothing acts on: a slip, perhaps."""
    policies: tuple[tuple[str, Mapping[str, Any]], ...] = (
        (ROLLING, ROLLING_POLICY),
        (AUTOMATIC, AUTOMATIC_POLICY),
    )
    return tuple(
        Failure(
            code="UnknownProperty",
            message=f"{name} is kept, but nothing acts on it: is it misspelled?",
            target=f"{place}.{name}",
        )
        for place, known in policies
        for name in (at(model, place) or {})
        if name not in known
    )


def upgrade_policy_json(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a set's upgradePolicy with everything that clients expect to find in it.

    New versions of az can only `--set` below a key that the answer shows.
    """
    policy = dict(stored or {})
    modes = {mode.lower(): mode for mode in MODES}
    return {
        "maintenanceWindows": [],
        **policy,
        "mode": modes[str(policy.get("mode") or MODES[0]).lower()],
        "rollingUpgradePolicy": with_defaults(
            policy.get("rollingUpgradePolicy") or {}, fields_of(RollingPolicy)
        ),
        "automaticOSUpgradePolicy": {
            "enableAutomaticOSUpgrade": False,
            "disableAutomaticRollback": False,
            "useRollingUpgradePolicy": True,
            "osRollingUpgradeDeferral": False,
            "minimumImageAge": "PT0S",
            "holdFaultedVersions": True,
            **(policy.get("automaticOSUpgradePolicy") or {}),
        },
    }
