"""The upgrade policy: reading it with Azure's ranges, and writing it out with its defaults."""

from collections.abc import Mapping
from typing import Any

from rollcall_contracts.model import RollingPolicy

from http_api.domain.documents import Reader
from http_api.domain.durations import format_duration

_POLICY = "properties.upgradePolicy.rollingUpgradePolicy"
MODES = ("Manual", "Automatic", "Rolling")
MAX_PAUSE = 30 * 86_400.0  # seconds; P30D
DEFAULT = RollingPolicy()


def read_policy(reader: Reader) -> RollingPolicy | None:
    """Return the rolling policy, or None after noting its faults.

    The ranges are those of the mission's decisions: 5-100, 5-100, 0-100, and no batch larger than
    what may be unhealthy.
    """
    before = len(reader.faults)
    values = {
        field: reader.whole(f"{_POLICY}.{name}", low=low, high=100, default=20)
        for field, name, low in (
            ("max_batch_instance_percent", "maxBatchInstancePercent", 5),
            ("max_unhealthy_instance_percent", "maxUnhealthyInstancePercent", 5),
            ("max_unhealthy_upgraded_instance_percent", "maxUnhealthyUpgradedInstancePercent", 0),
        )
    }
    durations = {
        "pause_time_between_batches": reader.duration(
            f"{_POLICY}.pauseTimeBetweenBatches", high=MAX_PAUSE, default=0, zero=True
        ),
        "health_timeout": reader.duration(
            f"{_POLICY}.healthTimeout", high=86_400, default=DEFAULT.health_timeout
        ),
        "provisioning_timeout": reader.duration(
            f"{_POLICY}.provisioningTimeout", high=86_400, default=DEFAULT.provisioning_timeout
        ),
    }
    cross_zone = reader.flag(f"{_POLICY}.enableCrossZoneUpgrade")
    batch = values["max_batch_instance_percent"] or 0
    unhealthy = values["max_unhealthy_instance_percent"] or 0
    if batch > unhealthy:
        reader.fault(
            f"{_POLICY}.maxBatchInstancePercent",
            f"maxBatchInstancePercent ({batch}) must not be above "
            f"maxUnhealthyInstancePercent ({unhealthy})",
        )
    if len(reader.faults) > before:
        return None
    return RollingPolicy.model_validate(
        {**values, **durations, "enable_cross_zone_upgrade": cross_zone}
    )


def policy_json(policy: RollingPolicy) -> dict[str, Any]:
    """Return a rolling policy as the API writes it."""
    return {
        "maxBatchInstancePercent": policy.max_batch_instance_percent,
        "maxUnhealthyInstancePercent": policy.max_unhealthy_instance_percent,
        "maxUnhealthyUpgradedInstancePercent": policy.max_unhealthy_upgraded_instance_percent,
        "pauseTimeBetweenBatches": format_duration(policy.pause_time_between_batches),
        "enableCrossZoneUpgrade": policy.enable_cross_zone_upgrade,
        "healthTimeout": format_duration(policy.health_timeout),
        "provisioningTimeout": format_duration(policy.provisioning_timeout),
    }


def upgrade_policy_json(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a set's upgradePolicy with everything that clients expect to find in it.

    New versions of az can only `--set` below a key that the answer shows.
    """
    policy = dict(stored or {})
    return {
        "mode": "Manual",
        **policy,
        "rollingUpgradePolicy": {
            **policy_json(DEFAULT),
            **(policy.get("rollingUpgradePolicy") or {}),
        },
        "automaticOSUpgradePolicy": {
            "enableAutomaticOSUpgrade": False,
            "disableAutomaticRollback": False,
            **(policy.get("automaticOSUpgradePolicy") or {}),
        },
    }
