"""The real `az`, unmodified, against `rollcall up --tls`; a stack of its own for each version."""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import yaml
from rollcall_cli.demo_feed import Feed
from rollcall_embedded.certificates import Certificates
from rollcall_embedded.packages import ensure_packages
from rollcall_testing.environments import environment
from rollcall_testing.wait import eventually

T = TypeVar("T")

PAGE = Path(__file__).parents[2] / "docs" / "azure-compatibility.md"
ROW = re.compile(r"^\| `az ([^`]+)` \| ([^|]+) \|", re.MULTILINE)

# 2.80.0 is the last that takes the path of `--set` as Azure's documentation printed it in 2018.
VERSIONS = {"2.80.0": "azure-cli==2.80.0", "newest": "azure-cli"}
IMAGES = {
    "web": {"publisher": "Contoso", "offer": "Web", "sku": "stable"},
    # What Azure's template of 2018 and Azure's quickstart ask for.
    "xenial": {"publisher": "Canonical", "offer": "UbuntuServer", "sku": "16.04-LTS"},
    "jammy": {
        "publisher": "Canonical",
        "offer": "0001-com-ubuntu-server-jammy",
        "sku": "22_04-lts-gen2",
    },
}
COMMAND_PATIENCE = 240.0  # seconds; az waits for an operation by itself
STOPS_IN = 30.0  # seconds


class _Outside(socketserver.StreamRequestHandler):
    """A proxy that notes who is asked for, and lets nobody through."""

    def handle(self) -> None:
        host = re.match(rb"CONNECT ([^ :]+)|\S+ \w+://([^/: ]+)", self.rfile.readline())
        found = b"?" if host is None else host[1] or host[2]
        self.server.asked.append(found.decode())  # type: ignore[attr-defined]
        self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@contextmanager
def outside() -> Iterator[tuple[str, list[str]]]:
    """Give a proxy's address, and the list of the hosts that were asked for through it."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Outside)
    server.daemon_threads = True
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """A running `rollcall up --tls`."""

    url: str
    token: str
    ca: Path
    feeds: dict[str, Feed]

    def publish(self, version: str, image: str = "web") -> None:
        """Publish an image in its feed."""
        self.feeds[image].publish(version)

    def account(self, role: str) -> dict[str, Any]:
        """Make an account with a role on everything."""
        trust = Certificates(ca=self.ca, certificate=self.ca, key=self.ca).client_context()
        answer = httpx.post(
            f"{self.url}/rollcall/accounts",
            headers={"Authorization": f"Bearer {self.token}"},
            json={"name": role, "roles": [{"role": role, "scope": "/"}]},
            verify=trust,
        )
        made: dict[str, Any] = answer.json()
        return made


@contextmanager
def up(folder: Path) -> Iterator[Up]:
    """Run `rollcall up --tls` with feeds of each of the images, and stop it at the end."""
    ensure_packages(lambda _: None)
    feeds = {}
    for name, image in IMAGES.items():
        (folder / name).mkdir()
        feeds[name] = Feed(folder / name, image=image)
        feeds[name].publish("1.0.0")
    config = folder / "rollcall.yaml"
    sections = [feed.section(name) for name, feed in feeds.items()]
    config.write_text(yaml.safe_dump({"feeds": sections, "catalogue": [IMAGES["web"]]}))
    command = [sys.executable, "-c", "from rollcall_cli.main import app; app()", "up", "--tls"]
    process = subprocess.Popen(
        [*command, "--api-port=0", f"--state-dir={folder / 'state'}", f"--config={config}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("ROLLCALL_")},
    )
    assert process.stdout is not None
    rest: threading.Thread | None = None
    try:
        said = ""
        while "Ctrl-C stops it" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        rest = threading.Thread(target=process.stdout.read)  # what it says later
        rest.start()
        yield Up(
            url=_said(r"API +(\S+)", said),
            token=Path(_said(r"token +(\S+)", said)).read_text().strip(),
            ca=Path(_said(r"REQUESTS_CA_BUNDLE=(\S+)", said)),
            feeds=feeds,
        )
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):  # then it is killed
            process.wait(STOPS_IN)
        process.kill()
        process.wait()
        if rest is not None:
            rest.join()
        process.stdout.close()


def _said(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]


@dataclass(slots=True, kw_only=True)
class Az:
    """An `az` with a configuration of its own, and what it did so far."""

    version: str
    python: Path
    folder: Path
    server: Up
    proxy: str
    asked: list[str]  # hosts outside that it asked for
    done: set[str] = field(default_factory=set)  # commands that did what they are for

    def __call__(self, command: str, **files: object) -> Any:
        """Run a command, `{name}` standing for a file with that JSON, and return its JSON.

        Raises AssertionError where it fails, or warns of anything.
        """
        done = self.run(command, **files)
        assert (done.returncode, done.stderr) == (0, ""), f"az {command}\n{done.stderr}"
        self.done.add(command)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def refuses(self, command: str, code: str, *, status: int = 1, **files: object) -> str:
        """Run a command that the server refuses with this error code, and return the message.

        `status` is az's own: 3 where something is not there. Raises AssertionError.
        """
        done = self.run(command, **files)
        assert done.returncode == status, f"az {command}\n{done.stdout}{done.stderr}"
        assert f"({code})" in done.stderr, f"az {command}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr

    def until(self, look: Callable[[], T], seconds: float = 120) -> T:
        """Ask until the answer is true, and return it."""
        return asyncio.run(eventually(look, seconds, interval=0.2))

    def upgrades_by_itself(self, group: str, name: str) -> bool:
        """Say whether automatic upgrade of a set is enabled."""
        policy = self(f"vmss show -g {group} -n {name}")["upgradePolicy"]
        # az 2.80.0 writes automaticOsUpgradePolicy, newer ones automaticOSUpgradePolicy.
        (automatic,) = (v for k, v in policy.items() if k.lower() == "automaticosupgradepolicy")
        (enabled,) = (v for k, v in automatic.items() if k.lower() == "enableautomaticosupgrade")
        return bool(enabled)

    def another(self, name: str) -> "Az":
        """Return an az that knows the same clouds, and logs in by itself."""
        shutil.copytree(self.folder, folder := self.folder.with_name(name))
        return Az(
            version=self.version,
            python=self.python,
            folder=folder,
            server=self.server,
            proxy=self.proxy,
            asked=self.asked,
        )

    def log_in(self, account: dict[str, Any]) -> Any:
        """Log in with an account's secret."""
        return self(
            f"login --service-principal --username {account['clientId']} "
            f"--password={account['clientSecret']} --tenant {account['tenantId']}"
        )

    def run(self, command: str, **files: object) -> "subprocess.CompletedProcess[str]":
        """Run a command, `{name}` standing for a file with that JSON, to its end."""
        words = shlex.split(command)
        for name, document in files.items():
            path = self.folder / f"{name}.json"
            path.write_text(json.dumps(document))
            words = [word.replace(f"{{{name}}}", str(path)) for word in words]
        return subprocess.run(
            [str(self.python), "-m", "azure.cli", *words],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_PATIENCE,
        )

    def _environment(self) -> dict[str, str]:
        own = ("AZURE_", "ARM_", "PYTHON")
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(own)},
            "HOME": str(self.folder),  # where `--generate-ssh-keys` leaves them
            "AZURE_CONFIG_DIR": str(self.folder),
            "AZURE_CORE_COLLECT_TELEMETRY": "no",
            "AZURE_CORE_ONLY_SHOW_ERRORS": "yes",
            "AZURE_EXTENSION_USE_DYNAMIC_INSTALL": "no",
            "REQUESTS_CA_BUNDLE": str(self.server.ca),
            "HTTPS_PROXY": self.proxy,
            "HTTP_PROXY": self.proxy,
            "NO_PROXY": "127.0.0.1",
        }


@pytest.fixture(scope="session", params=VERSIONS)
def az(request: pytest.FixtureRequest) -> Iterator[Az]:
    """An az of one version that is logged in to a running stack as its owner."""
    python = environment(VERSIONS[request.param])
    # The database server's own user must pass through it, unlike through pytest's.
    folder = Path(tempfile.mkdtemp(prefix="rollcall-az-"))
    folder.chmod(0o755)
    try:
        (folder / "owner").mkdir()
        with up(folder) as server, outside() as (proxy, asked):
            made = Az(
                version=request.param,
                python=python,
                folder=folder / "owner",
                server=server,
                proxy=proxy,
                asked=asked,
            )
            made(f"cloud register -n rollcall --endpoint-resource-manager {server.url}")
            made("cloud set -n rollcall")
            made.log_in(server.account("owner"))
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def group(az: Az, request: pytest.FixtureRequest) -> str:
    """A resource group with the test's name."""
    name = request.node.originalname.removeprefix("test_").replace("_", "-")
    made = az(f"group create -n {name} -l local")
    assert made["properties"]["provisioningState"] == "Succeeded"
    return str(made["name"])


@pytest.fixture(scope="session")
def rows() -> Callable[[str, str], list[tuple[str, str]]]:
    """What reads (command, status) of each documented command between two texts of the page."""
    text = PAGE.read_text()
    return lambda after, before: ROW.findall(text.split(after)[1].split(before)[0])
