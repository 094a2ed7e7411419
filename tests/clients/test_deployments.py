"""Templates deployed by the unmodified azure-mgmt-resource: the seed's, and one with a load
balancer and its probe (M53). The fleets come up, and upgrade by themselves (M01).
"""

from pathlib import Path
from typing import Any

import pytest
from rollcall_testing.script_server import ScriptServer

SEEDS_IMAGE = {"publisher": "Canonical", "offer": "UbuntuServer", "sku": "16.04-LTS"}
# The deployments' API went from one package to another in 2026.
NEWEST = (
    "azure-identity",
    "azure-mgmt-compute",
    "azure-mgmt-resource",
    "azure-mgmt-resource-deployments",
)
BEFORE = ("azure-identity", "azure-mgmt-compute", "azure-mgmt-resource==24.0.0")


@pytest.fixture
def image() -> dict[str, str]:
    """The feed offers the seed's image."""
    return SEEDS_IMAGE


@pytest.mark.clients
@pytest.mark.timeout(600)
@pytest.mark.parametrize("python", [NEWEST, BEFORE], indirect=["python"], ids=["newest", "24.0.0"])
async def test_the_seeds_template_and_one_with_a_probe_deploy_and_upgrade(
    python: Path, installation: Any, script_server: ScriptServer
) -> None:
    await installation.drive(python, "deployments.py", address=script_server.url)
    # Each instance ran the scripts on its first OS disk, and again on the upgraded one (M06).
    assert script_server.asked.count("/installserver.sh") >= 2 * (3 + 4)
