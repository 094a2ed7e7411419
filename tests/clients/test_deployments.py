"""Templates deployed by the unmodified azure-mgmt-resource: the seed's, and one with a load
balancer and its probe (M53). The fleets come up, and upgrade by themselves (M01).
"""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SEEDS_IMAGE = {"publisher": "Canonical", "offer": "UbuntuServer", "sku": "16.04-LTS"}
# The deployments' API went from one package to another in 2026.
NEWEST = (
    "azure-identity",
    "azure-mgmt-compute",
    "azure-mgmt-resource",
    "azure-mgmt-resource-deployments",
)
BEFORE = ("azure-identity", "azure-mgmt-compute", "azure-mgmt-resource==24.0.0")
SCRIPTS = {
    "/installserver.sh": b"echo installed >> installed && python3 workserver.py\n",
    "/workserver.py": b"print('at work')\n",
}


class _Scripts(http.server.BaseHTTPRequestHandler):
    """Serves the scripts of the templates' extensions, and counts."""

    def do_GET(self) -> None:
        content = SCRIPTS.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")
        self.server.asked.append(self.path)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""


@pytest.fixture
def scripts() -> Iterator[Any]:
    """A server of the scripts, with the paths that it was asked for."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Scripts)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def image() -> dict[str, str]:
    """The feed offers the seed's image."""
    return SEEDS_IMAGE


@pytest.mark.clients
@pytest.mark.timeout(600)
@pytest.mark.parametrize("python", [NEWEST, BEFORE], indirect=["python"], ids=["newest", "24.0.0"])
async def test_the_seeds_template_and_one_with_a_probe_deploy_and_upgrade(
    python: Path, installation: Any, scripts: Any
) -> None:
    address = f"http://127.0.0.1:{scripts.server_address[1]}"
    await installation.drive(python, "deployments.py", address=address)
    # Each instance ran the scripts on its first OS disk, and again on the upgraded one (M06).
    assert scripts.asked.count("/installserver.sh") >= 2 * (3 + 4)
