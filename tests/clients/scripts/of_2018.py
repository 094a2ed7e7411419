# mypy: ignore-errors
# ruff: noqa: T201
"""What the Azure SDK for Python of 2018 does, pinned to api-version 2018-10-01."""

import json
import os
import time

from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient
from msrest.authentication import BasicTokenAuthentication
from msrestazure.azure_exceptions import CloudError

KNOWN = json.loads(os.environ["INSTALLATION"])
URL, SUBSCRIPTION = KNOWN["url"], KNOWN["subscription"]
GROUP, NAME, LOCATION = "fleets", "old", "local"
IMAGE = {"publisher": "Contoso", "offer": "Web", "sku": "stable"}


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
    until(
        lambda: (
            version
            in [
                each.name for each in compute.virtual_machine_images.list(LOCATION, *IMAGE.values())
            ]
        )
    )


def raises(call, *values):
    """Return the error that a call raises."""
    try:
        call(*values)
    except CloudError as error:
        return error
    raise AssertionError(f"{call} raised no CloudError")


def real_versions():
    """Return the versions that the instances show: 2018 has no exactVersion."""
    return sorted(
        each.storage_profile.image_reference.version
        for each in compute.virtual_machine_scale_set_vms.list(GROUP, NAME)
    )


owner = KNOWN["owner"]
token = ClientSecretCredential(
    owner["tenantId"],
    owner["clientId"],
    owner["clientSecret"],
    authority=URL,
    disable_instance_discovery=True,
).get_token(f"{URL}/.default")
compute = ComputeManagementClient(
    BasicTokenAuthentication({"access_token": token.token}),
    SUBSCRIPTION,
    api_version="2018-10-01",
    base_url=URL,
)
compute.config.connection.verify = KNOWN["ca"]
models = compute.virtual_machine_scale_sets.models
sets, rolling = (
    compute.virtual_machine_scale_sets,
    compute.virtual_machine_scale_set_rolling_upgrades,
)

model = models.VirtualMachineScaleSet(
    location=LOCATION,
    sku=models.Sku(name="Standard_D1_v2", capacity=2),
    upgrade_policy=models.UpgradePolicy(
        mode="Manual",
        rolling_upgrade_policy=models.RollingUpgradePolicy(
            max_batch_instance_percent=50,
            max_unhealthy_instance_percent=50,
            max_unhealthy_upgraded_instance_percent=50,
            pause_time_between_batches="PT0S",
        ),
    ),
    virtual_machine_profile=models.VirtualMachineScaleSetVMProfile(
        os_profile=models.VirtualMachineScaleSetOSProfile(computer_name_prefix="old"),
        storage_profile=models.VirtualMachineScaleSetStorageProfile(
            image_reference=models.ImageReference(**IMAGE, version="latest")
        ),
    ),
)
made = sets.create_or_update(GROUP, NAME, model).result()
assert made.provisioning_state == "Succeeded", made.provisioning_state
assert not made.upgrade_policy.automatic_os_upgrade_policy.enable_automatic_os_upgrade
assert [each.name for each in sets.list(GROUP)] == [NAME]
assert [each.name for each in sets.list_all()] == [NAME]
assert real_versions() == ["1.0.0"] * 2
view = compute.virtual_machine_scale_set_vms.get_instance_view(GROUP, NAME, "0")
assert "PowerState/running" in {status.code for status in view.statuses}

images = compute.virtual_machine_images
assert [each.name for each in images.list_publishers(LOCATION)] == ["Contoso"]
one = images.get(LOCATION, *IMAGE.values(), "1.0.0")
assert one.automatic_os_upgrade_properties.automatic_os_upgrade_supported
assert one.os_disk_image.operating_system.value == "Linux"

assert raises(rolling.get_latest, GROUP, NAME).status_code == 404
publish("2.0.0")
rolling.start_os_upgrade(GROUP, NAME).result()
latest = rolling.get_latest(GROUP, NAME)
assert latest.running_status.code.value == "Completed"
assert latest.progress.successful_instance_count == 2
assert real_versions() == ["2.0.0"] * 2

update = models.VirtualMachineScaleSetUpdate(
    upgrade_policy=models.UpgradePolicy(
        rolling_upgrade_policy=models.RollingUpgradePolicy(pause_time_between_batches="PT10M")
    )
)
assert sets.update(GROUP, NAME, update).result().provisioning_state == "Succeeded"
publish("3.0.0")
started = rolling.start_os_upgrade(GROUP, NAME)
until(lambda: real_versions() == ["2.0.0", "3.0.0"])
rolling.cancel(GROUP, NAME).result()
assert rolling.get_latest(GROUP, NAME).running_status.code.value == "Cancelled"
raises(started.result)

# The seed's way: read, enable, put back.
model = sets.get(GROUP, NAME)
model.upgrade_policy.rolling_upgrade_policy.pause_time_between_batches = "PT0S"
model.upgrade_policy.automatic_os_upgrade_policy.enable_automatic_os_upgrade = True
sets.create_or_update(GROUP, NAME, model).result()


def history():
    """Return the history, newest first."""
    return [
        (
            each.properties.target_image_reference.version,
            each.properties.running_status.code.value,
            each.properties.started_by.value,
        )
        for each in sets.get_os_upgrade_history(GROUP, NAME)
    ]


until(lambda: history()[0] == ("3.0.0", "Completed", "Platform"))
assert history()[1:] == [("3.0.0", "Cancelled", "User"), ("2.0.0", "Completed", "User")]
assert real_versions() == ["3.0.0"] * 2
sets.reimage(GROUP, NAME, ["0"]).result()
compute.virtual_machine_scale_set_vms.reimage(GROUP, NAME, "1").result()
sets.update_instances(GROUP, NAME, ["*"]).result()
sets.delete(GROUP, NAME).result()
assert raises(sets.get, GROUP, NAME).error.error == "ResourceNotFound"
print("all is well")
