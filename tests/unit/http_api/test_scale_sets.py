"""A scale set's ARM JSON, read into the model: what is taken, refused and warned of."""

import copy
from typing import Any

import pytest
from http_api.domain.documents import ModelError
from http_api.domain.load_balancers import LoadBalancer, read_load_balancer
from http_api.domain.rules import (
    MUST_BE_LATEST,
    NO_HEALTH_SOURCE,
    NO_HEALTH_SOURCE_TO_ROLL,
    UPDATES_INSIDE,
)
from http_api.domain.scale_sets import Rules, Sealed, has_data_disks, read_scale_set
from http_api.domain.shape import SCALE_SET, canonical
from rollcall_contracts.model import Failure, ImageReference, ScaleSetSpec
from rollcall_kit.config import CatalogueEntry, Config

GROUP = "/subscriptions/s/resourceGroups/g/providers"
ID = f"{GROUP}/Microsoft.Compute/virtualMachineScaleSets/web"
PROBE_ID = f"{GROUP}/Microsoft.Network/loadBalancers/lb/probes/app"
POLICY = "properties.upgradePolicy.rollingUpgradePolicy"
AUTOMATIC = "properties.upgradePolicy.automaticOSUpgradePolicy"
PROFILE = "properties.virtualMachineProfile"
IMAGE = f"{PROFILE}.storageProfile.imageReference"
CONFIG = Config(catalogue=(CatalogueEntry(publisher="contoso", offer="*", sku="*"),))

PLAIN: dict[str, Any] = {
    "location": "local",
    "sku": {"capacity": 10},
    "properties": {
        "virtualMachineProfile": {
            "storageProfile": {
                "imageReference": {
                    "publisher": "Contoso",
                    "offer": "Web",
                    "sku": "stable",
                    "version": "latest",
                }
            }
        }
    },
}


def balancer(*, sku: str = "Standard", interval: int = 5) -> LoadBalancer:
    """Return a load balancer with one probe, `app`."""
    return read_load_balancer(
        {
            "sku": {"name": sku},
            "properties": {
                "probes": [
                    {
                        "name": "app",
                        "properties": {
                            "protocol": "Http",
                            "port": 80,
                            "requestPath": "/health",
                            "intervalInSeconds": interval,
                        },
                    }
                ]
            },
        }
    )


def model(changes: dict[str, Any] | None = None, *, enable: bool = False) -> dict[str, Any]:
    """Return a plain model with values put at dotted paths; None takes away."""
    document = copy.deepcopy(PLAIN)
    if enable:
        changes = {f"{AUTOMATIC}.enableAutomaticOSUpgrade": True, **(changes or {})}
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        place = document
        for part in parents:
            place = place.setdefault(part, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return document


def read(
    document: dict[str, Any],
    *,
    found: LoadBalancer | None = None,
    strict: bool = False,
    had_disks: bool = False,
    sealed: Sealed | None = None,
) -> tuple[ScaleSetSpec, tuple[Failure, ...]]:
    return read_scale_set(
        canonical(document, SCALE_SET),
        id=ID,
        name="web",
        revision=7,
        generation=3,
        sealed=sealed or Sealed(extensions={}),
        balancer=found,
        rules=Rules(supports=CONFIG.supports, require_health_source=strict),
        had_disks=had_disks,
    )


def faults(document: dict[str, Any], **options: Any) -> dict[str | None, str]:
    with pytest.raises(ModelError) as caught:
        read(document, **options)
    return {fault.target: fault.message for fault in caught.value.faults}


def test_plain_model_has_azures_defaults() -> None:
    spec, warnings = read(model())
    assert warnings == ()
    assert (spec.scale_set, spec.revision, spec.capacity) == (ID, 7, 10)
    assert spec.image == ImageReference(publisher="Contoso", offer="Web", sku="stable")
    assert not spec.automatic_os_upgrade
    policy = spec.policy
    assert (
        policy.max_batch_instance_percent,
        policy.max_unhealthy_instance_percent,
        policy.max_unhealthy_upgraded_instance_percent,
        policy.pause_time_between_batches,
        policy.health_timeout,
        policy.provisioning_timeout,
    ) == (20, 20, 20, 0, 300, 2400)
    assert spec.provisioning.generation == 3
    assert spec.provisioning.computer_name_prefix == "web"
    assert spec.provisioning.data_disks == (0,)


def test_everything_that_rollcall_acts_on_is_read() -> None:
    document = model(
        {
            "zones": ["1", "2"],
            f"{POLICY}.maxBatchInstancePercent": 10,
            f"{POLICY}.maxUnhealthyInstancePercent": 30,
            f"{POLICY}.maxUnhealthyUpgradedInstancePercent": 0,
            f"{POLICY}.pauseTimeBetweenBatches": "PT1M30S",
            f"{POLICY}.enableCrossZoneUpgrade": True,
            f"{POLICY}.healthTimeout": "PT20S",
            f"{POLICY}.provisioningTimeout": "PT1H",
            f"{AUTOMATIC}.disableAutomaticRollback": True,
            f"{PROFILE}.osProfile.computerNamePrefix": "app",
            f"{PROFILE}.storageProfile.dataDisks": [{"lun": 1}, {"lun": 0}],
            f"{PROFILE}.networkProfile.healthProbe.id": PROBE_ID.upper(),
            f"{PROFILE}.extensionProfile.extensionsTimeBudget": "PT20M",
            f"{PROFILE}.extensionProfile.extensions": [
                {
                    "name": "Setup",
                    "properties": {
                        "publisher": "P",
                        "type": "CustomScript",
                        "settings": {"commandToExecute": "true"},
                    },
                },
                {"name": "second", "properties": {}},
            ],
        },
        enable=True,
    )
    spec, warnings = read(
        document, found=balancer(), sealed=Sealed(custom_data="S1", extensions={"setup": "S2"})
    )
    assert warnings == ()
    assert spec.zones == ("1", "2")
    assert spec.automatic_os_upgrade
    assert spec.disable_automatic_rollback
    assert spec.policy.pause_time_between_batches == 90
    assert spec.policy.max_unhealthy_upgraded_instance_percent == 0
    assert spec.policy.enable_cross_zone_upgrade
    assert (spec.policy.health_timeout, spec.policy.provisioning_timeout) == (20, 3600)
    assert spec.probe is not None
    assert spec.probe.request_path == "/health"
    provisioning = spec.provisioning
    assert provisioning.computer_name_prefix == "app"
    assert provisioning.data_disks == (1, 0)
    assert provisioning.sealed_custom_data == "S1"
    assert [(e.name, e.timeout, e.sealed_protected_settings) for e in provisioning.extensions] == [
        ("Setup", 1200, "S2"),
        ("second", 1200, None),
    ]
    assert provisioning.extensions[0].settings == {"commandToExecute": "true"}


def test_names_in_another_case_and_values_as_texts_are_understood() -> None:
    """The seed's template sends "true" and "0"; ARM's names have no case."""
    document = {
        "Location": "local",
        "SKU": {"Capacity": "4"},
        "Properties": {
            "UpgradePolicy": {
                "AutomaticOSUpgradePolicy": {"EnableAutomaticOSUpgrade": "true"},
                "rollingUpgradePolicy": {"maxUnhealthyUpgradedInstancePercent": "0"},
            },
            **model()["properties"],
        },
    }
    spec, _ = read(document)
    assert spec.capacity == 4
    assert spec.automatic_os_upgrade
    assert spec.policy.max_unhealthy_upgraded_instance_percent == 0


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sku.capacity", -1),
        ("sku.capacity", 100_001),
        ("sku.capacity", "many"),
        ("sku.capacity", True),
        ("sku.capacity", None),
        ("location", None),
        ("location", 5),
        ("zones", "1"),
        ("zones", [1]),
        ("properties.upgradePolicy.mode", "Sometimes"),
        (f"{POLICY}.maxBatchInstancePercent", 4),
        (f"{POLICY}.maxBatchInstancePercent", 101),
        (f"{POLICY}.maxUnhealthyInstancePercent", 4),
        (f"{POLICY}.maxUnhealthyInstancePercent", 101),
        (f"{POLICY}.maxUnhealthyUpgradedInstancePercent", -1),
        (f"{POLICY}.maxUnhealthyUpgradedInstancePercent", 101),
        (f"{POLICY}.pauseTimeBetweenBatches", "30 seconds"),
        (f"{POLICY}.pauseTimeBetweenBatches", "P30DT1S"),
        (f"{POLICY}.pauseTimeBetweenBatches", -30),
        (f"{POLICY}.pauseTimeBetweenBatches", True),
        (f"{POLICY}.healthTimeout", "PT0S"),
        (f"{POLICY}.provisioningTimeout", "P2D"),
        (f"{AUTOMATIC}.enableAutomaticOSUpgrade", "maybe"),
        (f"{IMAGE}.publisher", None),
        (f"{IMAGE}.offer", ""),
        (f"{IMAGE}.version", 5),
        (f"{PROFILE}.osProfile.computerNamePrefix", 5),
        (f"{PROFILE}.extensionProfile.extensions", {}),
        (f"{PROFILE}.storageProfile.dataDisks", ["0"]),
        # What is no object holds nothing that could be read: taken for absent, it was stored.
        ("properties.upgradePolicy", "Rolling"),
        (AUTOMATIC, True),
        (POLICY, [None]),
        (POLICY, 20),
        (f"{PROFILE}.osProfile", "web"),
        (f"{PROFILE}.extensionProfile", []),
        (f"{PROFILE}.storageProfile", 1),
    ],
)
def test_a_fault_names_its_place(path: str, value: object) -> None:
    assert path in faults(model({path: value}))


def test_a_batch_above_the_unhealthy_limit_is_refused() -> None:
    found = faults(model({f"{POLICY}.maxBatchInstancePercent": 30}))
    assert list(found) == [f"{POLICY}.maxBatchInstancePercent"]
    assert "30" in found[f"{POLICY}.maxBatchInstancePercent"]


def test_a_pause_of_thirty_days_is_the_longest() -> None:
    spec, _ = read(model({f"{POLICY}.pauseTimeBetweenBatches": "P30D"}))
    assert spec.policy.pause_time_between_batches == 30 * 86_400


def test_all_faults_are_reported_at_once() -> None:
    found = faults(model({"sku.capacity": -1, f"{POLICY}.healthTimeout": "x", "zones": 1}))
    assert set(found) == {"sku.capacity", f"{POLICY}.healthTimeout", "zones"}


def test_doubled_luns_and_extensions_are_refused() -> None:
    document = model(
        {
            f"{PROFILE}.storageProfile.dataDisks": [{"lun": 0}, {"lun": 0}],
            f"{PROFILE}.extensionProfile.extensions": [{"name": "a"}, {"name": "A"}],
        }
    )
    assert set(faults(document)) == {
        f"{PROFILE}.storageProfile.dataDisks[1].lun",
        f"{PROFILE}.extensionProfile.extensions[1].name",
    }


def test_m21_version_must_be_latest_to_enable() -> None:
    pinned = {f"{IMAGE}.version": "1.2.3"}
    assert faults(model(pinned, enable=True)) == {f"{IMAGE}.version": MUST_BE_LATEST}
    spec, _ = read(model(pinned))
    assert spec.image.version == "1.2.3"


def test_m20_custom_images_are_refused() -> None:
    custom = {IMAGE: {"id": "/subscriptions/s/images/mine"}}
    assert faults(model(custom, enable=True)) == {f"{IMAGE}.id": MUST_BE_LATEST}
    assert "custom image" in faults(model(custom))[f"{IMAGE}.id"]


def test_m20_only_images_of_the_catalogue_can_be_enabled() -> None:
    other = {f"{IMAGE}.publisher": "Fabrikam"}
    assert "Fabrikam:Web:stable" in faults(model(other, enable=True))[IMAGE]
    read(model(other))
    read(model(enable=True))


@pytest.mark.parametrize(
    ("path", "value", "target"),
    [
        (f"{PROFILE}.storageProfile.osDisk.encryptionSettings.enabled", True, None),
        (f"{PROFILE}.storageProfile.osDisk.encryptionSettings.enabled", "True", None),
        (f"{PROFILE}.storageProfile.osDisk.managedDisk.diskEncryptionSet", {"id": "/x"}, None),
        (f"{PROFILE}.securityProfile.encryptionAtHost", True, None),
        (
            f"{PROFILE}.extensionProfile.extensions",
            [{"name": "ade", "properties": {"type": "AzureDiskEncryptionForLinux"}}],
            f"{PROFILE}.extensionProfile.extensions[0]",
        ),
    ],
)
def test_m07_os_disk_encryption_cannot_be_enabled(
    path: str, value: object, target: str | None
) -> None:
    document = {path: value}
    assert list(faults(model(document, enable=True))) == [target or path]
    read(model(document))


def test_m07_encrypted_data_disks_are_no_obstacle() -> None:
    extension = {
        "name": "ade",
        "properties": {"type": "AzureDiskEncryption", "settings": {"VolumeType": "Data"}},
    }
    read(model({f"{PROFILE}.extensionProfile.extensions": [extension]}, enable=True))


@pytest.mark.parametrize(
    "id", [PROBE_ID.replace("/app", "/other"), "/no/probe", PROBE_ID.replace("/probes/app", "")]
)
def test_m31_an_unknown_probe_is_named(id: str) -> None:
    path = f"{PROFILE}.networkProfile.healthProbe.id"
    assert id in faults(model({path: id}), found=balancer())[path]


@pytest.mark.parametrize(("interval", "codes"), [(119, []), (120, ["SlowProbe"])])
def test_m31_a_slow_probe_gets_a_warning(interval: int, codes: list[str]) -> None:
    document = model({f"{PROFILE}.networkProfile.healthProbe.id": PROBE_ID}, enable=True)
    _, warnings = read(document, found=balancer(interval=interval))
    assert [warning.code for warning in warnings] == codes


@pytest.mark.parametrize(
    ("one_group", "sku", "refused"),
    [
        (False, "Basic", True),
        (False, "Standard", False),
        (True, "Basic", False),
        (None, "Basic", False),
    ],
)
def test_m32_several_placement_groups_need_a_standard_balancer(
    one_group: bool | None, sku: str, refused: bool
) -> None:
    document = model(
        {
            f"{PROFILE}.networkProfile.healthProbe.id": PROBE_ID,
            "properties.singlePlacementGroup": one_group,
        }
    )
    if refused:
        place = f"{PROFILE}.networkProfile.healthProbe"
        assert "Standard" in faults(document, found=balancer(sku=sku))[place]
    else:
        read(document, found=balancer(sku=sku))


def test_m34_no_health_source_is_a_warning_or_azures_refusal() -> None:
    _, warnings = read(model(enable=True))
    assert [warning.code for warning in warnings] == ["NoHealthSource"]
    place = f"{PROFILE}.networkProfile.healthProbe"
    assert faults(model(enable=True), strict=True) == {place: NO_HEALTH_SOURCE}
    assert read(model(), strict=True)[1] == ()


def test_the_mode_rolling_needs_a_health_source_as_well() -> None:
    rolling = model({"properties.upgradePolicy.mode": "rolling"})
    assert [warning.code for warning in read(rolling)[1]] == ["NoHealthSource"]
    place = f"{PROFILE}.networkProfile.healthProbe"
    assert faults(rolling, strict=True) == {place: NO_HEALTH_SOURCE_TO_ROLL}


def test_the_automatic_policys_own_fields() -> None:
    spec, _ = read(model())
    assert not spec.os_rolling_upgrade_deferral
    assert spec.minimum_image_age == 0
    assert spec.hold_faulted_versions
    spec, warnings = read(
        model(
            {
                f"{AUTOMATIC}.osRollingUpgradeDeferral": "true",
                f"{AUTOMATIC}.useRollingUpgradePolicy": False,
                f"{AUTOMATIC}.minimumImageAge": "P3D",
                f"{AUTOMATIC}.holdFaultedVersions": False,
            }
        )
    )
    assert spec.os_rolling_upgrade_deferral
    assert spec.minimum_image_age == 3 * 86_400
    assert not spec.hold_faulted_versions
    assert warnings == ()
    wrong = {"minimumImageAge": "P31D", "holdFaultedVersions": 1, "useRollingUpgradePolicy": "no"}
    changes: dict[str, Any] = {f"{AUTOMATIC}.{name}": value for name, value in wrong.items()}
    assert set(faults(model(changes))) == set(changes)


def test_a_misspelled_policy_gets_a_warning() -> None:
    changes = {f"{POLICY}.maxSurgee": True, f"{AUTOMATIC}.enableAutomatic": True}
    _, warnings = read(model(changes))
    assert [(warning.code, warning.target) for warning in warnings] == [
        ("UnknownProperty", f"{POLICY}.maxSurgee"),
        ("UnknownProperty", f"{AUTOMATIC}.enableAutomatic"),
    ]


DISKS = f"{PROFILE}.storageProfile.dataDisks"
SURGE = f"{POLICY}.maxSurge"


def test_surging_instances_have_no_data_disk_unless_asked_for() -> None:
    assert read(model({SURGE: True}))[0].provisioning.data_disks == ()
    assert read(model({SURGE: True, DISKS: []}))[0].provisioning.data_disks == ()
    assert read(model({SURGE: False}))[0].provisioning.data_disks == (0,)


def test_data_disks_are_never_lost_to_a_surge() -> None:
    assert "never lost" in faults(model({SURGE: True, DISKS: [{"lun": 0}]}))[DISKS]
    # the instances' own disks, which the model never named or names no more
    assert "dataDisks []" in faults(model({SURGE: True}), had_disks=True)[DISKS]
    read(model({SURGE: True, DISKS: []}), had_disks=True)
    read(model({SURGE: False}), had_disks=True)


@pytest.mark.parametrize(
    ("changes", "has"),
    [
        ({}, True),
        ({DISKS: [{"lun": 3}]}, True),
        ({DISKS: []}, False),
        ({SURGE: True}, False),
        ({SURGE: False}, True),
    ],
)
def test_which_models_have_data_disks(changes: dict[str, Any], has: bool) -> None:
    assert has_data_disks(model(changes)) is has


def test_a_surge_and_overprovisioning_exclude_each_other() -> None:
    over = "properties.overprovision"
    assert over in faults(model({SURGE: True, over: True}))
    read(model({SURGE: True, over: False}))
    read(model({over: True}))


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("windowsConfiguration.enableAutomaticUpdates", True, UPDATES_INSIDE),
        ("windowsConfiguration.enableAutomaticUpdates", "True", UPDATES_INSIDE),
        ("windowsConfiguration.patchSettings.patchMode", "AutomaticByPlatform", "patchMode"),
        ("linuxConfiguration.patchSettings.patchMode", "automaticByPlatform", "patchMode"),
    ],
)
def test_only_one_of_both_may_patch_the_os(place: str, value: object, words: str) -> None:
    path = f"{PROFILE}.osProfile.{place}"
    assert words in faults(model({path: value}, enable=True))[path]
    read(model({path: value}))


def test_patching_by_nobody_else_is_no_obstacle() -> None:
    changes = {
        f"{PROFILE}.osProfile.windowsConfiguration.enableAutomaticUpdates": False,
        f"{PROFILE}.osProfile.linuxConfiguration.patchSettings.patchMode": "ImageDefault",
    }
    read(model(changes, enable=True))


@pytest.mark.parametrize(
    ("publisher", "kind", "count", "domains"),
    [
        ("Microsoft.Azure.ServiceFabric", "ServiceFabricNode", None, 5),
        ("microsoft.azure.servicefabric", "servicefabriclinuxnode", None, 5),
        ("Microsoft.Azure.ServiceFabric", "ServiceFabricLinuxNode", 3, 3),
        ("Microsoft.Azure.ServiceFabric", "Other", 3, 0),
        ("Contoso", "ServiceFabricNode", None, 0),
    ],
)
def test_m33_a_service_fabric_set_has_update_domains(
    publisher: str, kind: str, count: int | None, domains: int
) -> None:
    extension = {"name": "sf", "properties": {"publisher": publisher, "type": kind}}
    document = model(
        {
            f"{PROFILE}.extensionProfile.extensions": [{"name": "other"}, extension],
            "properties.platformUpdateDomainCount": count,
        }
    )
    assert read(document)[0].update_domains == domains


@pytest.mark.parametrize("count", [0, 21, "many"])
def test_m33_update_domains_are_one_to_twenty(count: object) -> None:
    path = "properties.platformUpdateDomainCount"
    assert path in faults(model({path: count}))
