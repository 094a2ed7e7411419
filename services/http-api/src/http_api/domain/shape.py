"""The names and types of the properties that Rollcall acts on, for bodies that spell otherwise.

ARM matches property names without regard to case, and templates send `"true"` and `"20"` for true
and 20. A duration may be a number of seconds; clients always see ISO 8601. What is not named here
is kept exactly as it came.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeAlias

from rollcall_contracts.model import RollingPolicy

from http_api.domain.durations import format_duration
from http_api.domain.fields import Field, Kind, fields_of


class Leaf(Enum):
    """What a known property holds."""

    ANY = "any"  # kept as it is
    FLAG = "flag"
    WHOLE = "whole"
    DURATION = "duration"


Shape: TypeAlias = "Leaf | Mapping[str, Shape] | tuple[Shape]"  # a tuple is a list of that shape

_ID: Shape = {"id": Leaf.ANY}
_IMAGE: Shape = dict.fromkeys(("id", "publisher", "offer", "sku", "version"), Leaf.ANY)


def _shape_of(fields: tuple[Field, ...]) -> Mapping[str, Shape]:
    leaves = {Kind.FLAG: Leaf.FLAG, Kind.WHOLE: Leaf.WHOLE, Kind.DURATION: Leaf.DURATION}
    return {
        field.key: _shape_of(field.fields)
        if field.kind is Kind.OBJECT
        else leaves.get(field.kind, Leaf.ANY)
        for field in fields
    }


ROLLING_POLICY = _shape_of(fields_of(RollingPolicy))
AUTOMATIC_POLICY: Mapping[str, Shape] = {
    "enableAutomaticOSUpgrade": Leaf.FLAG,
    "disableAutomaticRollback": Leaf.FLAG,
    "useRollingUpgradePolicy": Leaf.FLAG,
    "osRollingUpgradeDeferral": Leaf.FLAG,
    "minimumImageAge": Leaf.DURATION,
    "holdFaultedVersions": Leaf.FLAG,
}
MAINTENANCE_WINDOW: Mapping[str, Shape] = {
    "startDateTime": Leaf.ANY,
    "timeZone": Leaf.ANY,
    "duration": Leaf.DURATION,
    "recurEvery": Leaf.ANY,
    "expirationDateTime": Leaf.ANY,
}
_UPGRADE_POLICY: Shape = {
    "mode": Leaf.ANY,
    "rollingUpgradePolicy": ROLLING_POLICY,
    "automaticOSUpgradePolicy": AUTOMATIC_POLICY,
    "maintenanceWindows": (MAINTENANCE_WINDOW,),
}
_LIFECYCLE_HOOKS: Shape = {
    "lifecycleHooks": (
        {"type": Leaf.ANY, "waitDuration": Leaf.DURATION, "defaultAction": Leaf.ANY},
    )
}
_PATCH_SETTINGS: Shape = {"patchMode": Leaf.ANY}
_PROFILE: Shape = {
    "osProfile": {
        "computerNamePrefix": Leaf.ANY,
        "adminPassword": Leaf.ANY,
        "customData": Leaf.ANY,
        "windowsConfiguration": {
            "additionalUnattendContent": ({"content": Leaf.ANY},),
            "enableAutomaticUpdates": Leaf.FLAG,
            "patchSettings": _PATCH_SETTINGS,
        },
        "linuxConfiguration": {"patchSettings": _PATCH_SETTINGS},
    },
    "storageProfile": {
        "imageReference": _IMAGE,
        "osDisk": {
            "encryptionSettings": {"enabled": Leaf.FLAG},
            "managedDisk": {"diskEncryptionSet": _ID},
            "diskSizeGB": Leaf.WHOLE,
        },
        "dataDisks": ({"lun": Leaf.WHOLE, "diskSizeGB": Leaf.WHOLE},),
    },
    "networkProfile": {
        "healthProbe": _ID,
        "networkInterfaceConfigurations": ({"properties": {"primary": Leaf.FLAG}},),
    },
    "securityProfile": {"encryptionAtHost": Leaf.FLAG},
    "userData": Leaf.ANY,
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
        "platformUpdateDomainCount": Leaf.WHOLE,
        "lifecycleHooksProfile": _LIFECYCLE_HOOKS,
        "upgradePolicy": _UPGRADE_POLICY,
        "virtualMachineProfile": _PROFILE,
    },
}
# What all resources have in common, whatever else a kept one has.
RESOURCE: Mapping[str, Any] = {
    **dict.fromkeys(("id", "name", "type", "etag", "location", "tags"), Leaf.ANY),
    "sku": {"name": Leaf.ANY, "tier": Leaf.ANY},
    "properties": {"provisioningState": Leaf.ANY, "resourceGuid": Leaf.ANY},
}
LOAD_BALANCER: Mapping[str, Any] = {
    **RESOURCE,
    "properties": {
        **RESOURCE["properties"],
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
        case Leaf.DURATION, int() | float() if not isinstance(value, bool) and value >= 0:
            return format_duration(value)
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
