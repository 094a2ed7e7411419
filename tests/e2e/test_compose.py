"""The stack of docker-compose.yml: built, started, upgraded, killed, and looked through."""

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import DemoFleet, most_down
from rollcall_testing import eventually, until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
CAPACITY = 6
COPIES = ("--scale", "orchestrator=2", "--scale", "health-prober=2")
UP_SECONDS = 420  # with all images to build
IMAGES = {
    line: {"publisher": "Contoso", "offer": "Web", "sku": line} for line in ("killed", "faulted")
}


class Compose:
    """One copy of the stack, under a project name of its own."""

    def __init__(self, folder: Path) -> None:
        self.project = f"rollcall-test-{secrets.token_hex(4)}"
        # boot_seconds gives a rollout a middle in which something can be killed.
        self.feeds = {
            line: Feed(folder / "images" / line, image=image, boot_seconds=1.5)
            for line, image in IMAGES.items()
        }
        self._env_file = folder / "env"
        api, amqp = _free_ports(2)
        self.api_url = f"http://127.0.0.1:{api}"
        _run(str(ROOT / "deploy" / "init"), str(self._env_file))
        lines = self._env_file.read_text().splitlines()
        settings = dict(line.split("=", 1) for line in lines if not line.startswith("#")) | {
            "ROLLCALL_API_LISTEN": f"127.0.0.1:{api}",
            "ROLLCALL_AMQP_LISTEN": f"127.0.0.1:{amqp}",
            "ROLLCALL_CONFIG_FILE": str(self._write_config(folder)),
            "ROLLCALL_IMAGES": str(folder / "images"),
        }
        self._env_file.write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
        self.secrets = {
            name: value
            for name, value in settings.items()
            if name.endswith(("_PASSWORD", "_TOKEN", "_KEY"))
        }
        self.token = self.secrets["ROLLCALL_API_TOKEN"]
        password = self.secrets["ROLLCALL_AUDITOR_PASSWORD"]
        self.auditor_url = f"amqp://auditor:{password}@127.0.0.1:{amqp}/rollcall"

    def _write_config(self, folder: Path) -> Path:
        feeds = [
            feed.section(
                line,
                url=f"file:///images/{line}/{feed.folder.name}",
                keyring=f"/images/{line}/{feed.keyring.name}",
            )
            for line, feed in self.feeds.items()
        ]
        config = folder / "rollcall.yaml"
        config.write_text(yaml.safe_dump({"feeds": feeds, "catalogue": [*IMAGES.values()]}))
        return config

    def __call__(self, *arguments: str, timeout: float = 120) -> str:
        """Run docker compose on this copy, and return what it said."""
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True)
        command = ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]
        options = (
            *("--project-name", self.project, "--env-file", str(self._env_file)),
            *("--project-directory", str(ROOT), "--file", str(ROOT / "docker-compose.yml")),
        )
        return _run(*command, *options, *arguments, timeout=timeout)

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """Return what the engine knows of the containers that run, of one service or of all."""
        labels = [f"label=com.docker.compose.project={self.project}"]
        if service is not None:
            labels.append(f"label=com.docker.compose.service={service}")
        ids = _run("docker", "ps", "--quiet", *(f"--filter={label}" for label in labels)).split()
        return [inspect(name) for name in ids]


def _run(*command: str, timeout: float = 60) -> str:
    # Settings of the shell would go before those of the test's own .env.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROLLCALL_")}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=timeout, check=False
    )
    said = f"{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{said}"
    return done.stdout


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [made.getsockname()[1] for made in sockets]
    for made in sockets:
        made.close()
    return ports


def inspect(name: str) -> dict[str, Any]:
    """Return what the engine knows of a container or an image."""
    found: dict[str, Any] = json.loads(_run("docker", "inspect", name))[0]
    return found


@pytest.fixture(scope="module")
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Compose]:
    """Give the running stack, with two feeds that each offer version 1.0.0 of an image line."""
    before = request.session.testsfailed
    umask = os.umask(0o022)  # containers read the feeds under another account
    compose = Compose(tmp_path_factory.mktemp("compose"))
    try:
        for feed in compose.feeds.values():
            feed.publish("1.0.0")
        compose("up", "--build", "--detach", *COPIES, timeout=UP_SECONDS)
        asyncio.run(eventually(lambda: _is_ready(compose), timeout=90, interval=0.3))
        yield compose
    except BaseException:
        _show_logs(compose)
        raise
    else:
        if request.session.testsfailed > before:
            _show_logs(compose)
    finally:
        compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
        os.umask(umask)


def _is_ready(compose: Compose) -> bool:
    with suppress(httpx.TransportError):  # the port does not answer yet
        return httpx.get(f"{compose.api_url}/readyz", timeout=5).status_code == 200
    return False


def _show_logs(compose: Compose) -> None:
    with suppress(AssertionError, subprocess.TimeoutExpired):  # the first failure is what counts
        sys.stderr.write(compose("logs", "--no-color", "--tail", "60"))


async def _healthy_set(stack: Compose, line: str, *, health_timeout: str) -> DemoFleet:
    fleet = DemoFleet(stack.api_url, stack.token, name=line, image=IMAGES[line])
    await fleet.create(CAPACITY, health_timeout=health_timeout)
    await until(fleet.view, lambda view: view.is_healthy_at("1.0.0", CAPACITY))
    return fleet


def _came_back(container: str) -> bool:
    found = inspect(container)
    return found["RestartCount"] == 1 and found["State"]["Running"] is True


async def _audit_until_completed(auditor: asyncio.subprocess.Process, subject: str) -> None:
    assert auditor.stdout is not None
    async with asyncio.timeout(60):
        while line := (await auditor.stdout.readline()).decode():
            _, kind, about, *_ = line.split()
            if (kind, about.lower()) == ("upgrade.completed.v1", subject.lower()):
                return
    raise AssertionError("the auditor ended before the upgrade did")


async def test_a_rollout_completes_while_copies_are_killed_and_the_auditor_can_prove_it(
    stack: Compose, tmp_path: Path
) -> None:
    fleet = await _healthy_set(stack, "killed", health_timeout="PT60S")
    auditor = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / "auditor" / "auditor.py"),
        *("--url", stack.auditor_url, "--position", str(tmp_path / "position.json")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    crashed, killed = (container["Id"] for container in stack.containers("orchestrator"))
    prober = stack.containers("health-prober")[0]["Id"]

    stack.feeds["killed"].publish("2.0.0")
    await until(fleet.view, lambda view: sum(i.version == "2.0.0" for i in view.instances) >= 1)
    # kill -9 from inside is a crash to the engine, and the restart policy answers it. `docker kill`
    # is somebody's wish: the engine leaves such a container down, and the other copy must do.
    _run("docker", "exec", crashed, "sh", "-c", "kill -KILL -1")
    await until(fleet.view, lambda view: sum(i.version == "2.0.0" for i in view.instances) >= 2)
    await eventually(lambda: _came_back(crashed), timeout=30, interval=0.1)
    _run("docker", "kill", "--signal", "KILL", killed)
    _run("docker", "kill", "--signal", "KILL", prober)
    during = await fleet.view()
    assert during.has_ended("2.0.0") is None, "the rollout was over before everything was killed"
    ended = await until(fleet.view, lambda view: view.has_ended("2.0.0") is not None)
    _run("docker", "start", killed, prober)

    assert ended.has_ended("2.0.0") == "Completed"
    assert ended.is_healthy_at("2.0.0", CAPACITY)
    (entry,) = (await fleet.history())["value"]
    assert entry["properties"]["runningStatus"]["code"] == "Completed"
    assert entry["properties"]["progress"]["successfulInstanceCount"] == CAPACITY
    events = await fleet.events()
    await fleet.close()
    requested = Counter(
        order["instance_id"]
        for event in events
        if event["type"] == "instances.upgrade_requested.v1"
        for order in event["data"]["instances"]
    )
    assert requested == {str(i): 1 for i in range(CAPACITY)}
    assert most_down(events) == 1  # 20 % of six

    await _audit_until_completed(auditor, fleet.id)
    auditor.terminate()
    _, errors = await auditor.communicate()
    assert auditor.returncode == 0, errors.decode()  # no gap in the chain
    position = json.loads((tmp_path / "position.json").read_text())
    (completed,) = (e["sequence"] for e in events if e["type"] == "upgrade.completed.v1")
    assert position[fleet.id.lower()][0] >= int(completed)


async def test_an_image_that_never_becomes_healthy_is_stopped_and_put_back(stack: Compose) -> None:
    fleet = await _healthy_set(stack, "faulted", health_timeout="PT10S")
    stack.feeds["faulted"].publish("3.0.0", healthy=False)
    ended = await until(fleet.view, lambda view: view.has_ended("3.0.0") is not None)
    assert ended.has_ended("3.0.0") == "Faulted"
    await until(fleet.view, lambda view: view.is_healthy_at("1.0.0", CAPACITY))
    (entry,) = (await fleet.history())["value"]
    assert entry["properties"]["runningStatus"]["code"] == "Faulted"
    assert most_down(await fleet.events()) == 1
    await fleet.close()


async def test_every_container_is_healthy_and_no_process_is_root(stack: Compose) -> None:
    def all_healthy() -> bool:
        states = {c["Name"]: c["State"]["Health"]["Status"] for c in stack.containers()}
        assert set(states.values()) == {"healthy"}, states
        return True

    await eventually(all_healthy, timeout=60, interval=0.5)
    found = stack.containers()
    services = Counter(c["Config"]["Labels"]["com.docker.compose.service"] for c in found)
    assert services == {
        **dict.fromkeys(("postgres", "rabbitmq", "image-publisher", "http-api"), 1),
        **dict.fromkeys(("agent-a", "agent-b"), 1),
        **dict.fromkeys(("orchestrator", "health-prober"), 2),
    }
    for container in found:
        own = container["Config"]["Image"].startswith("rollcall/")
        # The official images begin as root, hand over, and run their health checks as root.
        looked_at = "/proc/[0-9]*/status" if own else "/proc/1/status"
        script = f"cat {looked_at} 2>/dev/null | grep ^Uid:"  # a process may end meanwhile
        uids = _run("docker", "exec", container["Id"], "sh", "-c", script).splitlines()
        assert uids, container["Name"]
        assert all("0" not in line.split()[1:] for line in uids), (container["Name"], uids)


def test_no_image_holds_a_secret(stack: Compose) -> None:
    found = {c["Config"]["Image"]: c["Id"] for c in stack.containers()}
    own = {image: name for image, name in found.items() if image.startswith("rollcall/")}
    assert len(own) == 6
    for image, container in own.items():
        config = json.dumps(inspect(image))
        history = _run("docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
        # By name too: an image from the builder's cache would hold secrets of another day.
        for name, value in stack.secrets.items():
            for text in (config, history):
                assert name not in text, (image, name)
                assert value not in text, (image, name)
        find = ("find", "/", "-xdev", "-name", ".env*", "-o", "-xdev", "-name", "definitions.json")
        assert _run("docker", "exec", "--user", "0", container, *find) == "", image


def test_no_two_services_build_an_image_of_one_name() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    names = Counter(service["image"] for service in services.values() if "build" in service)
    assert set(names.values()) == {1}, names  # the file says why
