# mypy: ignore-errors
# ruff: noqa: T201
"""What operators do with the newest Azure SDK for Python; run in an environment that has it."""

import json
import os
import time

from azure.core import MatchConditions
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.core.rest import HttpRequest
from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient, models
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient

KNOWN = json.loads(os.environ["INSTALLATION"])
URL, SUBSCRIPTION = KNOWN["url"], KNOWN["subscription"]
GROUP, NAME, LOCATION = "fleets", "web", "local"
RETRIES = 6  # with pauses that grow to 25 s: a busy machine needs its time to start a service
IMAGE = {"publisher": "Contoso", "offer": "Web", "sku": "stable"}


def credential(account, **changes):
    """Log in as azure-identity does."""
    return ClientSecretCredential(
        account["tenantId"],
        account["clientId"],
        changes.get("secret", account["clientSecret"]),
        authority=URL,
        disable_instance_discovery=True,
    )


def client(kind, account=KNOWN["owner"], **changes):
    """Return a management client of the installation."""
    return kind(
        credential(account, **changes),
        SUBSCRIPTION,
        base_url=URL,
        credential_scopes=[f"{URL}/.default"],
        retry_connect=RETRIES,
    )


def until(look, seconds=60):
    """Ask until the answer is true."""
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {look}"
        time.sleep(0.2)
    return answer


def publish(version):
    """Have a version published, and wait until the API lists it."""
    print(f"publish {version}", flush=True)
    assert input() == "published"
    until(lambda: version in [each.name for each in versions()])


def versions(**options):
    """Return the versions of the image."""
    return compute.virtual_machine_images.list(LOCATION, *IMAGE.values(), **options)


def raises(kind, call, *values, **named):
    """Return the error that a call raises."""
    try:
        call(*values, **named)
    except kind as error:
        return error
    raise AssertionError(f"{call} raised no {kind.__name__}")


def real_versions():
    """Return the versions that the instances show."""
    return sorted(
        each.properties.storage_profile.image_reference.exact_version
        for each in compute.virtual_machine_scale_set_vms.list(GROUP, NAME)
    )


def history():
    """Return the upgrade history, newest first, as (version, code, by whom)."""
    return [
        (
            each.properties.target_image_reference.version,
            each.properties.running_status.code,
            each.properties.started_by,
        )
        for each in sets.get_os_upgrade_history(GROUP, NAME)
    ]


def power(instance):
    """Return the power state that an instance shows."""
    statuses = instances.get_instance_view(GROUP, NAME, instance).statuses
    return next(each.code for each in statuses if each.code.startswith("PowerState/"))


compute = client(ComputeManagementClient)
network = client(NetworkManagementClient)
resources = client(ResourceManagementClient)
sets = compute.virtual_machine_scale_sets
rolling = compute.virtual_machine_scale_set_rolling_upgrades
instances = compute.virtual_machine_scale_set_vms

# A group, a network, a load balancer with a probe.
assert not resources.resource_groups.check_existence(GROUP)
group = resources.resource_groups.create_or_update(
    GROUP, {"location": LOCATION, "tags": {"a": "b"}}
)
assert (group.name, group.properties.provisioning_state) == (GROUP, "Succeeded")
assert resources.resource_groups.check_existence(GROUP)
assert [each.name for each in resources.resource_groups.list()] == [GROUP]
assert resources.providers.get("Microsoft.Compute").registration_state == "Registered"
vnet = network.virtual_networks.begin_create_or_update(
    GROUP,
    "net",
    {
        "location": LOCATION,
        "properties": {
            "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
            "subnets": [{"name": "default", "properties": {"addressPrefix": "10.0.0.0/24"}}],
        },
    },
).result()
subnet = network.subnets.get(GROUP, "net", "default")
assert subnet.id == vnet.properties.subnets[0].id
balancer = network.load_balancers.begin_create_or_update(
    GROUP,
    "front",
    {
        "location": LOCATION,
        "sku": {"name": "Standard"},
        "properties": {
            "frontendIPConfigurations": [
                {"name": "in", "properties": {"subnet": {"id": subnet.id}}}
            ],
            "backendAddressPools": [{"name": "pool"}],
            "probes": [
                {
                    "name": "health",
                    "properties": {
                        "protocol": "Http",
                        "port": 80,
                        "requestPath": "/health",
                        "intervalInSeconds": 5,
                        "numberOfProbes": 1,
                    },
                }
            ],
        },
    },
).result()
probe = network.load_balancer_probes.get(GROUP, "front", "health")
assert probe.id == balancer.properties.probes[0].id
assert probe.properties.interval_in_seconds == 5

# Images.
images = compute.virtual_machine_images
assert [each.name for each in images.list_publishers(LOCATION)] == ["Contoso"]
assert [each.name for each in images.list_offers(LOCATION, "Contoso")] == ["Web"]
assert [each.name for each in images.list_skus(LOCATION, "Contoso", "Web")] == ["stable"]
(newest,) = versions(top=1, orderby="name desc")
one = images.get(LOCATION, *IMAGE.values(), newest.name)
assert one.properties.os_disk_image.operating_system == "Linux"
assert one.properties.automatic_os_upgrade_properties.automatic_os_upgrade_supported

# A set, made and found again.
MODEL = models.VirtualMachineScaleSet(
    location=LOCATION,
    tags={"team": "web"},
    sku=models.Sku(name="Standard_D2s_v3", tier="Standard", capacity=3),
    properties=models.VirtualMachineScaleSetProperties(
        upgrade_policy=models.UpgradePolicy(
            mode="Manual",
            rolling_upgrade_policy=models.RollingUpgradePolicy(
                max_batch_instance_percent=34,
                max_unhealthy_instance_percent=50,
                max_unhealthy_upgraded_instance_percent=50,
                pause_time_between_batches="PT0S",
            ),
        ),
        virtual_machine_profile=models.VirtualMachineScaleSetVMProfile(
            os_profile=models.VirtualMachineScaleSetOSProfile(
                computer_name_prefix="web", admin_username="me", admin_password="s3cret-Word!"
            ),
            storage_profile=models.VirtualMachineScaleSetStorageProfile(
                image_reference=models.ImageReference(**IMAGE, version="latest")
            ),
            network_profile=models.VirtualMachineScaleSetNetworkProfile(
                health_probe=models.ApiEntityReference(id=probe.id),
                network_interface_configurations=[
                    models.VirtualMachineScaleSetNetworkConfiguration(
                        name="nic",
                        properties=models.VirtualMachineScaleSetNetworkConfigurationProperties(
                            primary=True,
                            ip_configurations=[
                                models.VirtualMachineScaleSetIPConfiguration(
                                    name="ip",
                                    properties=models.VirtualMachineScaleSetIPConfigurationProperties(
                                        subnet=models.ApiEntityReference(id=subnet.id)
                                    ),
                                )
                            ],
                        ),
                    )
                ],
            ),
        ),
    ),
)
made = sets.begin_create_or_update(GROUP, NAME, MODEL).result()
assert made.properties.provisioning_state == "Succeeded"
assert made.properties.virtual_machine_profile.os_profile.admin_password is None
assert made.properties.virtual_machine_profile.os_profile.admin_username == "me"
nic = made.properties.virtual_machine_profile.network_profile.network_interface_configurations[0]
assert nic.properties.ip_configurations[0].properties.subnet.id == subnet.id
assert not made.properties.upgrade_policy.automatic_os_upgrade_policy.enable_automatic_os_upgrade
for listed in (sets.list(GROUP), sets.list_all(), sets.list_by_location(LOCATION)):
    assert [(each.name, each.sku.capacity, each.tags) for each in listed] == [
        (NAME, 3, {"team": "web"})
    ]
kinds = {each.type for each in resources.resources.list_by_resource_group(GROUP)}
assert "Microsoft.Compute/virtualMachineScaleSets" in kinds
assert raises(ResourceNotFoundError, sets.get, GROUP, "nobody").error.code == "ResourceNotFound"
assert real_versions() == ["1.0.0"] * 3, "concrete ones, not 'latest'"
first = next(iter(instances.list(GROUP, NAME, expand="instanceView")))
assert first.properties.latest_model_applied is True
assert first.properties.provisioning_state == "Succeeded"
codes = {status.code for status in first.properties.instance_view.statuses}
assert codes == {"ProvisioningState/succeeded", "PowerState/running"}
assert [
    each.instance_id
    for each in instances.list(GROUP, NAME, filter="properties/latestModelApplied eq false")
] == []
raises(ResourceNotFoundError, rolling.get_latest, GROUP, NAME)

# Started by hand, followed to its end.
until(
    lambda: instances.get_instance_view(GROUP, NAME, "0").vm_health.status.code.endswith("healthy")
)
publish("2.0.0")
rolling.begin_start_os_upgrade(GROUP, NAME).result()
assert real_versions() == ["2.0.0"] * 3
latest = rolling.get_latest(GROUP, NAME)
assert latest.properties.running_status.code == "Completed"
assert latest.properties.running_status.last_action == "Start"
assert latest.properties.progress.successful_instance_count == 3
assert latest.properties.policy.max_batch_instance_percent == 34
assert history() == [("2.0.0", "Completed", "User")]
(entry,) = sets.get_os_upgrade_history(GROUP, NAME)
assert entry.properties.running_status.end_time > entry.properties.running_status.start_time
nothing_to_do = raises(HttpResponseError, rolling.begin_start_os_upgrade, GROUP, NAME)
assert (nothing_to_do.status_code, nothing_to_do.error.code) == (409, "OperationNotAllowed")

# Cancelled after its first batch.
pause = {
    "properties": {"upgradePolicy": {"rollingUpgradePolicy": {"pauseTimeBetweenBatches": "PT10M"}}}
}
changed = sets.begin_update(GROUP, NAME, pause).result()
assert (
    changed.properties.upgrade_policy.rolling_upgrade_policy.pause_time_between_batches == "PT10M"
)
publish("3.0.0")
started = rolling.begin_start_os_upgrade(GROUP, NAME)
print("restart http-api", flush=True)  # what is polled survives it
assert input() == "restarted"
until(lambda: real_versions() == ["2.0.0", "2.0.0", "3.0.0"])
rolling.begin_cancel(GROUP, NAME).result()
assert rolling.get_latest(GROUP, NAME).properties.running_status.code == "Cancelled"
assert "cancelled" in raises(HttpResponseError, started.result).message.lower()
assert history()[0] == ("3.0.0", "Cancelled", "User")
assert raises(HttpResponseError, rolling.begin_cancel, GROUP, NAME).status_code == 409

# Enabled by an update of what was read: the rest comes by itself.
model = sets.get(GROUP, NAME)
policy = model.properties.upgrade_policy
policy.rolling_upgrade_policy.pause_time_between_batches = "PT0S"
policy.automatic_os_upgrade_policy.enable_automatic_os_upgrade = True
enabled = sets.begin_create_or_update(GROUP, NAME, model).result()
assert enabled.properties.upgrade_policy.automatic_os_upgrade_policy.enable_automatic_os_upgrade
until(lambda: history()[0] == ("3.0.0", "Completed", "Platform"))
assert real_versions() == ["3.0.0"] * 3
assert [version for version, _, _ in history()] == ["3.0.0", "3.0.0", "2.0.0"]

# Instances: their view, the model deployed to them, a reimage, protection.
view = sets.get_instance_view(GROUP, NAME)
counts = {each.code: each.count for each in view.virtual_machine.statuses_summary}
assert counts["ProvisioningState/succeeded"] == 3
sets.begin_update_instances(GROUP, NAME, {"instanceIds": ["*"]}).result()
sets.begin_reimage(GROUP, NAME, {"instanceIds": ["0"]}).result()
instances.begin_reimage(GROUP, NAME, "1").result()
sets.begin_power_off(GROUP, NAME, {"instanceIds": ["1"]}).result()
assert power("1") == "PowerState/stopped"
sets.begin_start(GROUP, NAME, {"instanceIds": ["1"]}).result()
assert power("1") == "PowerState/running"
protected = instances.begin_update(
    GROUP,
    NAME,
    "0",
    {"location": LOCATION, "properties": {"protectionPolicy": {"protectFromScaleIn": True}}},
).result()
assert protected.properties.protection_policy.protect_from_scale_in
refused = raises(
    HttpResponseError, sets.begin_delete_instances, GROUP, NAME, {"instanceIds": ["0"]}
)
assert refused.error.code == "OperationNotAllowed"
sets.begin_delete_instances(GROUP, NAME, {"instanceIds": ["1"]}).result()
assert sets.get(GROUP, NAME).sku.capacity == 2
assert {each.instance_id for each in instances.list(GROUP, NAME)} == {"0", "2"}
smaller = sets.begin_update(GROUP, NAME, {"sku": {"capacity": 1}}).result()
assert smaller.sku.capacity == 1
assert [each.instance_id for each in instances.list(GROUP, NAME)] == ["0"], "it is protected"

# Nobody overwrites what another one changed.
raises(
    ResourceModifiedError,
    sets.begin_update,
    GROUP,
    NAME,
    {"tags": {}},
    etag=enabled.etag,
    match_condition=MatchConditions.IfNotModified,
)

# Who may not, and who is nobody.
reader = client(ComputeManagementClient, KNOWN["reader"])
assert reader.virtual_machine_scale_sets.get(GROUP, NAME).name == NAME
denied = raises(
    HttpResponseError, reader.virtual_machine_scale_sets.begin_update, GROUP, NAME, {"tags": {}}
)
assert (denied.status_code, denied.error.code) == (403, "AuthorizationFailed")
stranger = client(ComputeManagementClient, secret="wrong")
raises(ClientAuthenticationError, stranger.virtual_machine_scale_sets.get, GROUP, NAME)

# And away with it.
sets.begin_delete(GROUP, NAME).result()
raises(ResourceNotFoundError, sets.get, GROUP, NAME)
network.load_balancers.begin_delete(GROUP, "front").result()
raises(ResourceNotFoundError, network.load_balancers.get, GROUP, "front")
resources.resource_groups.begin_delete(GROUP).result()
assert not resources.resource_groups.check_existence(GROUP)
answer = compute._client.send_request(
    HttpRequest("GET", f"{URL}/subscriptions/{SUBSCRIPTION}/resources?api-version=2021-04-01")
)
assert answer.json()["value"] == []
print("all is well")
