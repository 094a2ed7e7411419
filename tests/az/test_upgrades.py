"""A fleet made, upgraded and taken away by az alone, in the words of the seed (M01, M05)."""

from typing import Any

import pytest

pytestmark = pytest.mark.timeout(1800)

WEB = "-g upgrades -n web"
SET_AS_OF_2018 = "UpgradePolicy.AutomaticOSUpgradePolicy.EnableAutomaticOSUpgrade=true"
SET = "upgradePolicy.automaticOSUpgradePolicy.enableAutomaticOSUpgrade=true"


def test_a_fleet_from_creation_over_upgrades_to_deletion(az: Any, rows: Any) -> None:
    az("group create -n upgrades -l local")
    _create_behind_a_probe(az)
    made = az(f"vmss show {WEB}")
    assert made["provisioningState"] == "Succeeded"
    assert made["sku"]["capacity"] == 3
    assert made["upgradePolicy"]["mode"] == "Rolling"
    profile = made["virtualMachineProfile"]
    assert profile["storageProfile"]["imageReference"]["version"] == "latest"
    assert profile["networkProfile"]["healthProbe"]["id"].endswith("/front/probes/health")
    assert [each["name"] for each in az("vmss list -g upgrades")] == ["web"]
    # The newest that there was: other tests may have published more.
    first, second, third, fourth = _versions(az, 4)
    assert _running(az) == [first] * 3

    # Enabled in the seed's own words; a version that is published rolls out by itself.
    if az.version == "2.80.0":
        az(f"vmss update {WEB} --set {SET_AS_OF_2018}")
    else:
        az(f"vmss update {WEB} --set {SET}")
    assert az.upgrades_by_itself("upgrades", "web")
    az.server.publish(second)
    az.until(lambda: _history(az)[:1] == [(second, "Completed", "Platform")])
    assert _running(az) == [second] * 3

    # Disabled, a version that is published waits to be started.
    az(f"vmss update {WEB} --enable-auto-os-upgrade false")
    az.server.publish(third)
    az.until(lambda: _published(az)[-1] == third)
    az(f"vmss rolling-upgrade start {WEB}")
    assert _history(az) == [(third, "Completed", "User"), (second, "Completed", "Platform")]
    assert _running(az) == [third] * 3
    latest = az(f"vmss rolling-upgrade get-latest {WEB}")
    assert latest["runningStatus"]["code"] == "Completed"
    assert latest["progress"]["successfulInstanceCount"] == 3

    # A pause between batches is time enough to cancel.
    az(f"vmss update {WEB} --pause-time-between-batches PT5M")
    az.server.publish(fourth)
    az.until(lambda: _published(az)[-1] == fourth)
    az(f"vmss rolling-upgrade start {WEB} --no-wait")
    az.until(lambda: sorted(_running(az)) == [third, third, fourth])
    refusal = az.refuses(f"vmss reimage {WEB}", "OperationNotAllowed")
    assert "rollingUpgrades/cancel" in refusal
    az(f"vmss rolling-upgrade cancel {WEB}")
    latest = az(f"vmss rolling-upgrade get-latest {WEB}")
    assert latest["runningStatus"]["code"] == "Cancelled"
    assert _history(az)[0] == (fourth, "Cancelled", "User")
    assert sorted(_running(az)) == [third, third, fourth]

    assert az(f"vmss scale {WEB} --new-capacity 4")["sku"]["capacity"] == 4
    instances = az(f"vmss list-instances {WEB}")
    assert len(instances) == 4
    behind = next(each["instanceId"] for each in instances if _version(each) == third)
    az(f"vmss reimage {WEB} --instance-ids {behind}")
    view = az(f"vmss get-instance-view {WEB} --instance-id {behind}")
    assert "PowerState/running" in [each["code"] for each in view["statuses"]]
    az(f"vmss delete-instances {WEB} --instance-ids {behind}")
    left = [each["instanceId"] for each in az(f"vmss list-instances {WEB}")]
    assert left == [each["instanceId"] for each in instances if each["instanceId"] != behind]

    documented = {
        command.replace("-g shop", "-g upgrades")
        for command, _ in rows("While a version rolls out", "## Logging in")
    }
    assert documented
    assert documented <= az.done
    az(f"vmss delete {WEB}")
    assert az("vmss list -g upgrades") == []
    az("group delete -n upgrades --yes")
    assert az("group exists -n upgrades") is False


def _create_behind_a_probe(az: Any) -> None:
    """Make a set of three whose health is a load balancer's probe."""
    az("network public-ip create -g upgrades -n address --sku Standard")
    az(
        "network lb create -g upgrades -n front --sku Standard --public-ip-address address "
        "--backend-pool-name web"
    )
    az(
        "network lb probe create -g upgrades --lb-name front -n health --protocol Http --port 80 "
        "--path /health --interval 5"
    )
    az(
        "network lb rule create -g upgrades --lb-name front -n http --protocol Tcp "
        "--frontend-port 80 --backend-port 80 --probe-name health"
    )
    az(
        f"vmss create {WEB} --image Contoso:Web:stable:latest --orchestration-mode Uniform "
        "--instance-count 3 --load-balancer front --health-probe health "
        "--upgrade-policy-mode Rolling --admin-username azureuser --generate-ssh-keys"
    )
    az(f"vmss update {WEB} --pause-time-between-batches PT0S")


def _published(az: Any) -> list[str]:
    """Return the versions of the image, oldest first."""
    return [each["version"] for each in az("vm image list --all -l local -p Contoso")]


def _versions(az: Any, count: int) -> list[str]:
    """Return the newest version that is published, and those that could follow it."""
    newest = int(_published(az)[-1].partition(".")[0])
    return [f"{number}.0.0" for number in range(newest, newest + count)]


def _history(az: Any) -> list[tuple[str, str, str]]:
    """Return the target, state and starter of each upgrade, newest first."""
    return [
        (
            each["properties"]["targetImageReference"]["version"],
            each["properties"]["runningStatus"]["code"],
            each["properties"]["startedBy"],
        )
        for each in az(f"vmss get-os-upgrade-history {WEB}")
    ]


def _version(instance: dict[str, Any]) -> str:
    """Return the version that an instance really runs, never `latest`."""
    image = instance["storageProfile"]["imageReference"]
    assert image["version"] == image["exactVersion"]
    return str(image["version"])


def _running(az: Any) -> list[str]:
    """Return the version of each instance."""
    return [_version(each) for each in az(f"vmss list-instances {WEB}")]
