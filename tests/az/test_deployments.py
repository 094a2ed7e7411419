"""The seed's template, and one with a load balancer's probe, deployed by az (M53)."""

import json
from pathlib import Path
from typing import Any

import pytest
from rollcall_testing.script_server import ScriptServer

pytestmark = pytest.mark.timeout(1800)

TEMPLATES = Path(__file__).parents[2] / "examples" / "templates"
SECRET = "Pa55-word-that-nobody-sees"
SEEDS_SCRIPTS = (
    "https://raw.githubusercontent.com/Azure/azure-quickstart-templates/master"
    "/201-vmss-bottle-autoscale"
)


def test_the_seeds_template_deploys_and_upgrades_by_itself(
    az: Any, group: str, script_server: ScriptServer
) -> None:
    # Only the address of its scripts is another one.
    text = (TEMPLATES / "autoupdate.json").read_text()
    template = json.loads(text.replace(SEEDS_SCRIPTS, script_server.url))
    given = (
        f"-g {group} -n seed --template-file {{template}} --parameters vmssNamePrefix=Seed "
        f"instanceCount=3 adminUsername=me adminPassword={SECRET}"
    )
    checked = az(f"deployment group validate {given}", template=template)
    assert checked["properties"]["error"] is None
    changes = az(f"deployment group what-if --no-pretty-print {given}", template=template)
    assert [each["changeType"] for each in changes["changes"]] == ["Create", "Create"]
    made = az(f"deployment group create {given}", template=template)
    assert made["properties"]["provisioningState"] == "Succeeded"
    assert SECRET not in json.dumps(made)
    assert [each["name"] for each in az(f"deployment group list -g {group}")] == ["seed"]
    exported = az(f"deployment group export -g {group} -n seed")
    assert exported["contentVersion"] == "1.0.0.0"

    assert az.upgrades_by_itself(group, "Seed")
    assert _versions(az, group, "Seed") == ["1.0.0"] * 3

    scripts = [f"{script_server.url}/{name}" for name in ("installserver.sh", "workserver.py")]
    variant = (
        f"-g {group} -n front --template-file {TEMPLATES / 'behind-a-load-balancer.json'} "
        f"--parameters vmssName=front instanceCount=2 adminPassword={SECRET} "
        f"scripts='{json.dumps(scripts)}' maxBatchInstancePercent=50"
    )
    made = az(f"deployment group create {variant}")
    outputs = made["properties"]["outputs"]
    assert outputs["capacity"]["value"] == 2
    assert outputs["probe"]["value"]["requestPath"] == "/health"

    az.server.publish("2.0.0", "xenial")
    for name, count in (("Seed", 3), ("front", 2)):
        history = f"vmss get-os-upgrade-history -g {group} -n {name}"
        az.until(lambda history=history: _upgrades(az(history)) == [("2.0.0", "Completed")])
        assert _versions(az, group, name) == ["2.0.0"] * count
    # Each instance ran the script on its first OS disk, and again on the upgraded one (M06).
    assert script_server.asked.count("/installserver.sh") >= 2 * (3 + 2)

    az(f"deployment group delete -g {group} -n seed")
    az.refuses(f"deployment group show -g {group} -n seed", "DeploymentNotFound", status=3)
    assert az(f"vmss show -g {group} -n Seed")["sku"]["capacity"] == 3  # what it wrote stays
    wrong = {**template, "outputs": {"x": {"type": "string", "value": "[concta('a')]"}}}
    refused = az.run(f"deployment group create {given}", template=wrong)
    assert refused.returncode == 1
    # az shows an error of a validation as it came.
    error = json.loads(refused.stderr.removeprefix("ERROR: "))
    assert error["code"] == "InvalidTemplate"
    assert "did you mean concat" in error["message"]


def _upgrades(history: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the target and the state of each upgrade, newest first."""
    return [
        (
            each["properties"]["targetImageReference"]["version"],
            each["properties"]["runningStatus"]["code"],
        )
        for each in history
    ]


def _versions(az: Any, group: str, name: str) -> list[str]:
    """Return the version of each instance."""
    instances = az(f"vmss list-instances -g {group} -n {name}")
    return [each["storageProfile"]["imageReference"]["exactVersion"] for each in instances]
