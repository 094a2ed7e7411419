"""What clients ask of an ARM installation before they use it: providers, locations, tenants."""

from collections.abc import Mapping, Sequence
from typing import Any

API_VERSIONS = (
    *("2026-04-01", "2025-04-01", "2024-11-01", "2024-07-01", "2024-03-01", "2023-09-01"),
    *("2022-12-01", "2022-01-01", "2021-07-01", "2020-06-01", "2019-03-01", "2018-10-01"),
    *("2018-06-01", "2017-03-30"),
)
TYPES: Mapping[str, Sequence[str]] = {
    "Microsoft.Compute": (
        "virtualMachineScaleSets",
        "virtualMachineScaleSets/virtualMachines",
        "locations",
        "locations/publishers",
        "locations/operations",
        "operations",
    ),
    "Microsoft.Network": (
        "loadBalancers",
        "virtualNetworks",
        "virtualNetworks/subnets",
        "publicIPAddresses",
        "networkSecurityGroups",
        "networkInterfaces",
        "natGateways",
        "routeTables",
        "applicationSecurityGroups",
    ),
    "Microsoft.Resources": (
        "subscriptions",
        "subscriptions/resourceGroups",
        "resourceGroups",
        "tenants",
        "resources",
        "deployments",
        "deployments/operations",
    ),
    "Microsoft.Insights": ("autoscaleSettings",),
}
# Kept and given back; nothing here acts on them.
KEPT_TYPES = tuple(
    name for name in TYPES["Microsoft.Network"] if "/" not in name and name != "loadBalancers"
)


def provider_json(subscription: str, namespace: str, location: str) -> dict[str, Any]:
    """Return one resource provider, which is always registered."""
    return {
        "id": f"/subscriptions/{subscription}/providers/{namespace}",
        "namespace": namespace,
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationFree",
        "resourceTypes": [
            {"resourceType": each, "locations": [location], "apiVersions": list(API_VERSIONS)}
            for each in TYPES[namespace]
        ],
    }


def subscription_json(id: str, tenant: str) -> dict[str, Any]:
    """Return one subscription."""
    return {
        "id": f"/subscriptions/{id}",
        "subscriptionId": id,
        "tenantId": tenant,
        "displayName": "Rollcall",
        "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
        "authorizationSource": "RoleBased",
    }


def location_json(subscription: str, name: str) -> dict[str, Any]:
    """Return one location."""
    return {
        "id": f"/subscriptions/{subscription}/locations/{name}",
        "name": name,
        "type": "Region",
        "displayName": name,
        "regionalDisplayName": name,
        "metadata": {"regionType": "Physical", "regionCategory": "Recommended"},
    }


def tenant_json(tenant: str) -> dict[str, Any]:
    """Return the one tenant."""
    return {
        "id": f"/tenants/{tenant}",
        "tenantId": tenant,
        "displayName": "Rollcall",
        "tenantCategory": "Home",
    }
