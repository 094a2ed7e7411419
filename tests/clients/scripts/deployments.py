# mypy: ignore-errors
# ruff: noqa: T201
"""Deploy templates with the Azure SDK for Python; run in an environment that has it."""

import json
import os
import time
from pathlib import Path

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient

try:
    from azure.mgmt.resource.deployments import DeploymentsMgmtClient as DeploymentsClient
except ImportError:
    from azure.mgmt.resource import ResourceManagementClient as DeploymentsClient

from azure.mgmt.resource.resources import ResourceManagementClient

KNOWN = json.loads(os.environ["INSTALLATION"])
URL, SUBSCRIPTION, ADDRESS = KNOWN["url"], KNOWN["subscription"], KNOWN["address"]
TEMPLATES = Path(__file__).parents[3] / "examples" / "templates"
GROUP, LOCATION = "templates", "local"
IMAGE = ("Canonical", "UbuntuServer", "16.04-LTS")
RETRIES = 6  # with pauses that grow to 25 s: a busy machine needs its time to start a service
SECRET = "Pa55-word-that-nobody-sees"
SEEDS_SCRIPTS = (
    "https://raw.githubusercontent.com/Azure/azure-quickstart-templates/master"
    "/201-vmss-bottle-autoscale"
)


def client(kind):
    """Return a management client of the installation, logged in as azure-identity does."""
    owner = KNOWN["owner"]
    credential = ClientSecretCredential(
        owner["tenantId"],
        owner["clientId"],
        owner["clientSecret"],
        authority=URL,
        disable_instance_discovery=True,
    )
    return kind(
        credential,
        SUBSCRIPTION,
        base_url=URL,
        credential_scopes=[f"{URL}/.default"],
        retry_connect=RETRIES,
    )


def until(look, seconds=180):
    """Ask until the answer is true."""
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {look}"
        time.sleep(0.3)
    return answer


def publish(version):
    """Have a version published, and wait until the API lists it."""
    print(f"publish {version}", flush=True)
    assert input() == "published"
    until(lambda: version in [each.name for each in images.list(LOCATION, *IMAGE)])


def real_versions(name):
    """Return the versions that the instances show."""
    return sorted(
        each.properties.storage_profile.image_reference.exact_version
        for each in compute.virtual_machine_scale_set_vms.list(GROUP, name)
    )


def upgrades(name):
    """Return the upgrade history, newest first."""
    return [
        (
            each.properties.target_image_reference.version,
            each.properties.running_status.code,
            each.properties.started_by,
        )
        for each in compute.virtual_machine_scale_sets.get_os_upgrade_history(GROUP, name)
    ]


def raises(kind, call, *values, **named):
    """Return the error that a call raises."""
    try:
        call(*values, **named)
    except kind as error:
        return error
    raise AssertionError(f"{call} raised no {kind.__name__}")


def body(template, **parameters):
    """Return what a deployment is made from."""
    return {
        "properties": {
            "mode": "Incremental",
            "template": template,
            "parameters": {name: {"value": value} for name, value in parameters.items()},
        }
    }


groups = client(ResourceManagementClient).resource_groups
api = client(DeploymentsClient)
deployments, operations = api.deployments, api.deployment_operations
compute = client(ComputeManagementClient)
images = compute.virtual_machine_images
groups.create_or_update(GROUP, {"location": LOCATION})
until(lambda: [each.name for each in images.list(LOCATION, *IMAGE)] == ["1.0.0"])

# The seed's template: only the address of its scripts is another one.
seeds = json.loads((TEMPLATES / "autoupdate.json").read_text().replace(SEEDS_SCRIPTS, ADDRESS))
seed = body(seeds, vmssNamePrefix="Seed", instanceCount=3, adminUsername="me", adminPassword=SECRET)
assert not deployments.check_existence(GROUP, "seed")
assert deployments.begin_validate(GROUP, "seed", seed).result().error is None
changes = deployments.begin_what_if(GROUP, "seed", seed).result()
assert changes.status == "Succeeded"
assert [each.change_type for each in changes.changes] == ["Create", "Create"]
made = deployments.begin_create_or_update(GROUP, "seed", seed).result()
assert made.properties.provisioning_state == "Succeeded", made.properties.error
assert made.properties.parameters["adminPassword"] == {"type": "SecureString"}
assert made.properties.parameters["instanceCount"] == {"type": "Int", "value": 3}
assert [each.id.rpartition("/")[2] for each in made.properties.output_resources] == [
    "seedvnet",
    "Seed",
]
assert made.properties.mode == "Incremental"
assert made.properties.timestamp is not None
assert deployments.check_existence(GROUP, "seed")
assert [each.name for each in deployments.list_by_resource_group(GROUP)] == ["seed"]
done = list(operations.list(GROUP, "seed"))
assert {each.properties.provisioning_state for each in done} == {"Succeeded"}
assert {each.properties.target_resource.resource_name for each in done} == {"seedvnet", "Seed"}
one = operations.get(GROUP, "seed", done[0].operation_id)
assert one.properties.target_resource.id == done[0].properties.target_resource.id
exported = deployments.export_template(GROUP, "seed").template
assert exported["contentVersion"] == "1.0.0.0"
assert SECRET not in json.dumps([exported, made.as_dict()])

found = compute.virtual_machine_scale_sets.get(GROUP, "Seed").properties
assert found.single_placement_group is False
assert found.upgrade_policy.automatic_os_upgrade_policy.enable_automatic_os_upgrade is True
assert found.upgrade_policy.rolling_upgrade_policy.max_unhealthy_upgraded_instance_percent == 0
assert real_versions("Seed") == ["1.0.0"] * 3
again = deployments.begin_what_if(GROUP, "seed", seed).result()
assert [each.change_type for each in again.changes] == ["NoChange", "NoChange"], again.as_dict()

# The variant with a Standard load balancer and its probe.
variant = json.loads((TEMPLATES / "behind-a-load-balancer.json").read_text())
given = {
    "vmssName": "front",
    "instanceCount": 4,
    "adminPassword": SECRET,
    "scripts": [f"{ADDRESS}/installserver.sh", f"{ADDRESS}/workserver.py"],
    "maxBatchInstancePercent": 50,
    "autoscale": True,
}
begun = deployments.begin_create_or_update(GROUP, "front", body(variant, **given))
# A deployment goes on, and its poller too, when the service restarts in the middle.
print("restart http-api", flush=True)
assert input() == "restarted"
made = begun.result()
assert made.properties.provisioning_state == "Succeeded", made.properties.error
outputs = made.properties.outputs
assert outputs["capacity"] == {"type": "Int", "value": 4}
assert outputs["probe"]["value"]["requestPath"] == "/health"
assert outputs["scaleSetId"]["value"].endswith("/virtualMachineScaleSets/front")
assert len(made.properties.output_resources) == 6
assert real_versions("front") == ["1.0.0"] * 4
changes = deployments.begin_what_if(
    GROUP, "front", body(variant, **{**given, "instanceCount": 5})
).result()
by_type = {each.resource_id.split("/")[7]: each for each in changes.changes}
resize = by_type["virtualMachineScaleSets"]
assert resize.change_type == "Modify"
assert [(each.path, each.before, each.after) for each in resize.delta] == [("sku.capacity", 4, 5)]
assert by_type["loadBalancers"].change_type == "NoChange", by_type["loadBalancers"].as_dict()

# Both upgrade by themselves when a version is published (M01).
publish("2.0.0")
for name, count in (("Seed", 3), ("front", 4)):
    until(lambda name=name: upgrades(name)[:1] == [("2.0.0", "Completed", "Platform")])
    assert real_versions(name) == ["2.0.0"] * count, name

# What is wrong is said as Azure says it.
wrong = {**seeds, "outputs": {"x": {"type": "string", "value": "[concta('a')]"}}}
error = raises(
    HttpResponseError,
    lambda: deployments.begin_create_or_update(
        GROUP,
        "wrong",
        {"properties": {**seed["properties"], "template": wrong}},
    ).result(),
)
assert error.error.code == "InvalidTemplate", error
assert "outputs.x.value" in error.message, error.message
assert "did you mean concat" in error.message, error.message
failing = body(
    {
        **seeds,
        "parameters": {},
        "variables": {},
        "resources": [
            {
                "type": "Microsoft.Compute/virtualMachineScaleSets",
                "apiVersion": "2023-09-01",
                "name": "broken",
                "sku": {"capacity": "many"},
            }
        ],
    }
)
error = raises(
    HttpResponseError,
    lambda: deployments.begin_create_or_update(GROUP, "broken", failing).result(),
)
assert error.error.code == "DeploymentFailed", error
state = deployments.get(GROUP, "broken").properties
assert state.provisioning_state == "Failed"
assert state.error.code == "DeploymentFailed"
assert state.error.details, state.error
(step,) = operations.list(GROUP, "broken")
assert step.properties.status_code == "BadRequest"
assert step.properties.status_message.error.code, step.as_dict()
error = raises(HttpResponseError, lambda: deployments.cancel(GROUP, "broken"))
assert error.status_code == 409

deployments.begin_delete(GROUP, "broken").result()
assert raises(ResourceNotFoundError, deployments.get, GROUP, "broken").error.code == (
    "DeploymentNotFound"
)
assert compute.virtual_machine_scale_sets.get(GROUP, "front").name == "front"
print("all is well")
