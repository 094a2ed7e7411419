"""The names and types of the properties that Rollcall acts on, for bodies that spell otherwise.

ARM matches property names without regard to case, and templates send `"true"` and `"20"` for true
and 20. What is not named here is kept exactly as it came.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeAlias


class Leaf(Enum):
    """What a known property holds."""

    ANY = "any"  # kept as it is
    FLAG = "flag"
    WHOLE = "whole"


Shape: TypeAlias = "Leaf | Mapping[str, Shape] | tuple[Shape]"  # a tuple is a list of that shape

_ID: Shape = {"id": Leaf.ANY}
_IMAGE: Shape = dict.fromkeys(("id", "publisher", "offer", "sku", "version"), Leaf.ANY)
_UPGRADE_POLICY: Shape = {
    "mode": Leaf.ANY,
    "rollingUpgradePolicy": {
        "maxBatchInstancePercent": Leaf.WHOLE,
        "maxUnhealthyInstancePercent": Leaf.WHOLE,
        "maxUnhealthyUpgradedInstancePercent": Leaf.WHOLE,
        "pauseTimeBetweenBatches": Leaf.ANY,
        "enableCrossZoneUpgrade": Leaf.FLAG,
        "healthTimeout": Leaf.ANY,
        "provisioningTimeout": Leaf.ANY,
    },
    "automaticOSUpgradePolicy": {
        "enableAutomaticOSUpgrade": Leaf.FLAG,
        "disableAutomaticRollback": Leaf.FLAG,
        "useRollingUpgradePolicy": Leaf.FLAG,
        "osRollingUpgradeDeferral": Leaf.FLAG,
    },
}
_PROFILE: Shape = {
    "osProfile": {
        "computerNamePrefix": Leaf.ANY,
        "adminPassword": Leaf.ANY,
        "customData": Leaf.ANY,
        "windowsConfiguration": {"additionalUnattendContent": ({"content": Leaf.ANY},)},
    },
    "storageProfile": {
        "imageReference": _IMAGE,
        "osDisk": {
            "encryptionSettings": {"enabled": Leaf.FLAG},
            "managedDisk": {"diskEncryptionSet": _ID},
        },
        "dataDisks": ({"lun": Leaf.WHOLE},),
    },
    "networkProfile": {"healthProbe": _ID},
    "securityProfile": {"encryptionAtHost": Leaf.FLAG},
    "extensionProfile": {
        "extensionsTimeBudget": Leaf.ANY,
        "extensions": (
            {
                "name": Leaf.ANY,
                "properties": {
                    "publisher": Leaf.ANY,
                    "type": Leaf.ANY,
                    "settings": Leaf.ANY,
                    "protectedSettings": Leaf.ANY,
                },
            },
        ),
    },
}
SCALE_SET: Shape = {
    **dict.fromkeys(("id", "name", "type", "etag", "location", "tags", "zones"), Leaf.ANY),
    "sku": {"name": Leaf.ANY, "tier": Leaf.ANY, "capacity": Leaf.WHOLE},
    "properties": {
        "provisioningState": Leaf.ANY,
        "uniqueId": Leaf.ANY,
        "timeCreated": Leaf.ANY,
        "rollcall": Leaf.ANY,
        "singlePlacementGroup": Leaf.FLAG,
        "overprovision": Leaf.FLAG,
        "upgradePolicy": _UPGRADE_POLICY,
        "virtualMachineProfile": _PROFILE,
    },
}
LOAD_BALANCER: Shape = {
    **dict.fromkeys(("id", "name", "type", "etag", "location", "tags"), Leaf.ANY),
    "sku": {"name": Leaf.ANY, "tier": Leaf.ANY},
    "properties": {
        "provisioningState": Leaf.ANY,
        "resourceGuid": Leaf.ANY,
        "probes": (
            {
                **dict.fromkeys(("id", "name", "type", "etag"), Leaf.ANY),
                "properties": {
                    "provisioningState": Leaf.ANY,
                    "protocol": Leaf.ANY,
                    "port": Leaf.WHOLE,
                    "requestPath": Leaf.ANY,
                    "intervalInSeconds": Leaf.WHOLE,
                    "numberOfProbes": Leaf.WHOLE,
                    "probeThreshold": Leaf.WHOLE,
                },
            },
        ),
    },
}


def canonical(value: Any, shape: Shape) -> Any:
    """Return the value with its known properties spelled and typed as Azure does.

    What cannot be converted stays as it is, for the reader of the property to refuse.
    """
    match shape, value:
        case Leaf.FLAG, str() if value.lower() in ("true", "false"):
            return value.lower() == "true"
        case Leaf.WHOLE, str() if value.isascii() and value.isdigit() and len(value) < 10:
            return int(value)
        case Leaf.WHOLE, float() if value.is_integer():
            return int(value)
        case (item,), list():
            return [canonical(each, item) for each in value]
        case Mapping(), dict():
            return _canonical_object(value, shape)
        case _:
            return value


def _canonical_object(value: Mapping[str, Any], shape: Mapping[str, Shape]) -> dict[str, Any]:
    names = {name.lower(): name for name in shape}
    result: dict[str, Any] = {}
    for key, item in value.items():
        name = names.get(key.lower())
        result[name or key] = item if name is None else canonical(item, shape[name])
    return result
