"""The docker driver beyond what every driver must do: archives, registries, ports, strangers."""

import gzip
import hashlib
import io
import json
import os
import secrets
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from instance_agent.app import build_host
from instance_agent.domain.record import Disk, Operation, Order
from instance_agent.driver import InstanceRef, NewDisk
from instance_agent.failures import OperationFailed
from instance_agent.host import Host, Job
from instance_agent.settings import Settings
from rollcall_contracts.events import (
    Event,
    InstanceCreated,
    InstanceFailed,
    InstancePowerChanged,
    InstanceUpgraded,
)
from rollcall_contracts.model import FailureCode, Image, Power, Provisioning
from rollcall_kit.secrets import new_key
from rollcall_testing import eventually
from rollcall_testing.instances import HOST, KINDS, Place, docker, only_of_agent
from rollcall_testing.tiny_container import build_tiny_container

pytestmark = pytest.mark.compose

KIND = KINDS["docker"]
REF = InstanceRef(scale_set="/sets/web", instance_id="0")
ADDRESS = "127.0.0.1"


class Rig:
    """An agent's host with one container."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings.model_validate(
            {
                "host": HOST,
                "driver": "docker",
                "state_dir": folder / "agent",
                "stop_grace": 1,
                "start_settle": 0.5,
                "secrets_key": new_key(),
            }
        )
        self.host: Host = build_host(self.settings)
        self.reports: list[Event] = []

    @property
    def driver(self) -> Any:
        return self.host.driver

    @property
    def place(self) -> Place:
        return Place(self.settings.state_dir, REF.key)

    async def report(self, event: Event) -> None:
        self.reports.append(event)

    async def fetch(self, file: Path) -> Path:
        return await self.host.images.fetch(describe(file))

    async def ask(self, operation: Operation, attempt: int, file: Path) -> Event:
        image = describe(file)
        order = Order(
            scale_set=REF.scale_set,
            instance_id=REF.instance_id,
            attempt=attempt,
            operation=operation,
            version="1.0.0",
            digest=image.sha256,
            generation=attempt,
        )
        job = Job(order=order, image=image, provisioning=Provisioning(generation=attempt))
        await self.host.carry_out(job, self.report)
        return self.reports[-1]

    async def prepared(self, file: Path, name: str = "1") -> Disk:
        disk = Disk(name=name, version="1.0.0", generation=1)
        await self.driver.prepare(REF, NewDisk(disk=disk, image=await self.fetch(file)))
        return disk


def describe(file: Path) -> Image:
    content = file.read_bytes()
    return Image(
        publisher="P",
        offer="O",
        sku="S",
        version="1.0.0",
        url=f"file://{file}",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    await rig.host.power.close()
    rig.host.journal.close()
    await rig.driver.stop(REF, 0)
    KIND.clear(rig.settings.state_dir)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    # Of its own: an image that others run cannot be removed from the engine.
    return build_tiny_container(tmp_path / "good.tar", f"1.0.0-{secrets.token_hex(4)}")


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: f.read() for m in tar if (f := tar.extractfile(m)) is not None}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def blob(content: bytes) -> dict[str, Any]:
    return {"digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}


def parts(archive: Path) -> tuple[bytes, bytes, bytes]:
    """Return an image's configuration, its layer, packed, and a manifest of both."""
    found = members(archive)
    entry = json.loads(found["manifest.json"])[0]
    config, layer = found[entry["Config"]], gzip.compress(found[entry["Layers"][0]], mtime=0)
    media = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{media}.manifest.v1+json",
        "config": {"mediaType": f"{media}.config.v1+json", **blob(config)},
        "layers": [{"mediaType": f"{media}.layer.v1.tar+gzip", **blob(layer)}],
    }
    return config, layer, json.dumps(manifest).encode()


def layout(path: Path, archive: Path) -> Path:
    """Write the image again, as an OCI image layout."""
    blobs = parts(archive)
    index = {"schemaVersion": 2, "manifests": [blob(blobs[2])]}
    files = {f"blobs/{blob(each)['digest'].replace(':', '/')}": each for each in blobs}
    return pack(path, {"index.json": json.dumps(index).encode(), **files})


def zipped(archive: Path) -> Path:
    path = archive.with_suffix(".tar.gz")
    path.write_bytes(gzip.compress(archive.read_bytes()))
    return path


async def test_an_oci_layout_and_a_packed_archive_are_the_same_image(
    rig: Rig, good: Path, tmp_path: Path
) -> None:
    images = set()
    for file in (good, zipped(good), layout(tmp_path / "layout.tar", good)):
        facts = json.loads((await rig.fetch(file) / "image.json").read_text())
        images.add(facts["id"])
        assert facts["ports"] == [8080]
    assert len(images) == 1


async def test_an_archive_cannot_take_a_name_that_the_host_uses(rig: Rig, good: Path) -> None:
    """The archive says that it is `tiny:latest`; the host's own image of that name stays."""
    await rig.fetch(good)
    assert docker("images", "-q", "tiny:latest") == ""


async def test_an_image_that_was_pruned_comes_back_from_the_cache(rig: Rig, good: Path) -> None:
    folder = await rig.fetch(good)
    docker("rmi", "--force", json.loads((folder / "image.json").read_text())["id"])
    await rig.prepared(good)
    assert (await rig.driver.observe(REF)).disks == {"1"}


def broken(good: Path, path: Path, **change: object) -> Path:
    found = members(good)
    entry = json.loads(found["manifest.json"])[0]
    config = json.loads(found[entry["Config"]])
    return pack(path, {**found, entry["Config"]: json.dumps(config | change).encode()})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"architecture": "s390x"}, "it is for linux/s390x"),
        ({"os": "windows"}, "it is for windows/"),
        ({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]}}, "the Docker engine"),
    ],
)
async def test_an_image_that_cannot_run_here_is_refused_before_anything_stops(
    rig: Rig, good: Path, tmp_path: Path, change: dict[str, object], why: str
) -> None:
    created = await rig.ask(Operation.CREATE, 1, good)
    assert isinstance(created, InstanceCreated), created
    failed = await rig.ask(Operation.UPGRADE, 2, broken(good, tmp_path / "broken.tar", **change))
    assert isinstance(failed, InstanceFailed), failed
    assert failed.error.code == FailureCode.IMAGE_UNSAFE
    assert why in failed.error.message
    assert (await rig.driver.observe(REF)).running


async def test_what_is_no_archive_is_refused(rig: Rig, tmp_path: Path) -> None:
    for content in (b"", b"no tar at all" * 1000, gzip.compress(b"x" * 1000)[:20]):
        file = tmp_path / "file"
        file.write_bytes(content)
        with pytest.raises(OperationFailed, match="the image cannot be used"):
            await rig.fetch(file)


@pytest.fixture
async def registry(good: Path) -> AsyncIterator[str]:
    """A registry with one image; returns the image's reference."""
    config, layer, manifest = parts(good)
    content = {blob(each)["digest"]: each for each in (config, layer, manifest)}

    async def serve(request: web.Request) -> web.Response:
        kind = json.loads(manifest)["mediaType"] if "manifests" in request.path else None
        found = content.get(request.match_info["digest"])
        if found is None:
            return web.Response(status=404)
        digest = {"Docker-Content-Digest": request.match_info["digest"]}
        return web.Response(body=found, content_type=kind, headers=digest)

    async def is_there(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/v2/", is_there)
    app.router.add_get("/v2/team/web/{kind}/{digest}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, ADDRESS, 0)
    await site.start()
    port = runner.addresses[0][1]
    yield f"{ADDRESS}:{port}/team/web@{blob(manifest)['digest']}"
    await runner.cleanup()


async def test_an_image_of_a_registry_is_pulled_by_its_digest(
    rig: Rig, registry: str, tmp_path: Path
) -> None:
    file = tmp_path / "reference.json"
    file.write_text(json.dumps({"reference": registry}))
    created = await rig.ask(Operation.CREATE, 1, file)
    assert isinstance(created, InstanceCreated), created
    assert (await rig.driver.observe(REF)).running
    docker("rm", "--force", *docker("ps", "-aq", "--filter", f"ancestor={registry}").split())
    docker("rmi", "--force", registry)


async def test_an_image_that_its_registry_does_not_have_is_told(
    rig: Rig, registry: str, tmp_path: Path
) -> None:
    file = tmp_path / "reference.json"
    name = f"{registry.partition('@')[0]}@sha256:{'0' * 64}"
    file.write_text(json.dumps({"reference": name}))
    with pytest.raises(OperationFailed) as caught:
        await rig.fetch(file)
    assert caught.value.failure.code == FailureCode.IMAGE_UNAVAILABLE


async def test_a_container_that_ends_at_once_says_why(rig: Rig, good: Path, tmp_path: Path) -> None:
    await rig.ask(Operation.CREATE, 1, good)
    bad = build_tiny_container(tmp_path / "bad.tar", "2.0.0", starts=False)
    failed = await rig.ask(Operation.UPGRADE, 2, bad)
    assert isinstance(failed, InstanceFailed), failed
    assert failed.error.code == FailureCode.START
    assert "exit code 3" in failed.error.message
    assert "it cannot start" in failed.error.message


async def test_a_port_that_somebody_took_is_not_held_against_a_new_instance(
    rig: Rig, good: Path
) -> None:
    disk = await rig.prepared(good)
    await rig.driver.swap(REF, None, disk.name)
    (made,) = json.loads(docker("inspect", docker(*_all_of(rig)).strip()))
    port = int(made["Config"]["Labels"]["rollcall.port"])
    with socket.create_server((ADDRESS, port)):
        endpoint = await rig.driver.start(REF, disk)
    assert endpoint.port != port
    seen = await rig.driver.observe(REF)
    assert (seen.running, seen.disk, seen.disks) == (True, disk, {disk.name})
    await rig.driver.stop(REF, 0)
    taken = pytest.raises(OperationFailed, match=f"port {endpoint.port}.* taken by another")
    await rig.prepared(good, "2")
    with socket.create_server((ADDRESS, endpoint.port)), taken:
        await rig.driver.start(REF, disk)


def _all_of(rig: Rig, what: str = "{{.ID}}") -> tuple[str, ...]:
    """Ask for what this rig's agent has alone: tests beside this one name their instances alike."""
    agent = only_of_agent(rig.settings.state_dir)
    return ("ps", "-a", *agent, "--filter", f"label=rollcall.key={REF.key}", "--format", what)


async def test_an_instance_that_does_not_listen_is_killed_at_the_deadline(
    rig: Rig, good: Path
) -> None:
    await rig.ask(Operation.CREATE, 1, good)
    (container,) = docker(*_all_of(rig)).split()
    docker("pause", container)  # nothing in it can answer
    assert not (await rig.driver.observe(REF)).running
    began = time.monotonic()
    await rig.driver.stop(REF, 1)
    assert time.monotonic() - began < 60
    state = json.loads(docker("inspect", container))[0]["State"]
    assert (state["Running"], state["Paused"]) == (False, False)


async def test_a_paused_instance_goes_on_at_its_start(rig: Rig, good: Path) -> None:
    created = await rig.ask(Operation.CREATE, 1, good)
    assert isinstance(created, InstanceCreated)
    (container,) = docker(*_all_of(rig)).split()
    docker("pause", container)
    record = rig.host.journal.get(REF.scale_set, REF.instance_id)
    assert record is not None
    endpoint = await rig.driver.start(REF, record.disk)
    assert endpoint.port == created.port
    assert (await rig.driver.observe(REF)).running


async def test_what_is_not_ours_is_never_touched(rig: Rig, good: Path) -> None:
    """A container with the same names as ours would have, and a volume: they stay as they are."""
    disk = await rig.prepared(good)
    (name,) = docker(*_all_of(rig, "{{.Names}}")).split()
    image = json.loads((await rig.fetch(good) / "image.json").read_text())["id"]
    base = name.partition(".new.")[0]
    foreign = [f"{base}.new.2", f"{base}.stranger", "rollcall-stranger"]
    try:
        for each in foreign:
            docker("create", "--name", each, image)
        docker("volume", "create", f"{base}.data-1")
        with pytest.raises(OperationFailed, match="is already in use"):
            await rig.prepared(good, "2")
        new = NewDisk(disk=disk, image=await rig.fetch(good), data_disks=(0, 1))
        with pytest.raises(OperationFailed, match="is not Rollcall's"):
            await rig.driver.prepare(REF, new)
        await rig.driver.commit(REF, frozenset())
        await rig.driver.delete(REF)
        assert docker(*_all_of(rig)) == ""
        left = docker("ps", "-a", "--format", "{{.Names}}").split()
        assert set(foreign) <= set(left)
        assert f"{base}.data-1" in docker("volume", "ls", "-q").split()
    finally:
        docker("rm", "--force", *foreign)
        docker("volume", "rm", "--force", f"{base}.data-1")


async def test_the_old_container_stays_as_it_was_until_commit(rig: Rig, good: Path) -> None:
    await rig.ask(Operation.CREATE, 1, good)
    (old,) = docker(*_all_of(rig)).split()
    upgraded = await rig.ask(Operation.UPGRADE, 2, good)
    assert isinstance(upgraded, InstanceUpgraded), upgraded
    assert len(docker(*_all_of(rig)).split()) == 2
    kept = json.loads(docker("inspect", old))[0]
    assert kept["State"]["Status"] == "exited"
    labels = kept["Config"]["Labels"]
    assert {name: labels[f"rollcall.{name}"] for name in ("scale-set", "instance", "disk")} == {
        "scale-set": REF.scale_set,
        "instance": "0",
        "disk": "000001-1.0.0",
    }


async def test_an_engine_that_is_not_there_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
        with pytest.raises(OperationFailed, match="start the engine, or set DOCKER_HOST"):
            await rig.driver.observe(REF)


class OwnEngine:
    """A Docker engine with a folder and a socket of its own, to be killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"unix://{folder}/docker.sock"

    def start(self) -> None:
        places = {"data-root": "data", "exec-root": "run", "pidfile": "pid"}
        options = [f"--{name}={self._folder / place}" for name, place in places.items()]
        for left in ("pid", "run/containerd/containerd.pid", "run/containerd/containerd.sock"):
            (self._folder / left).unlink(missing_ok=True)  # of one that was killed
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    # In a network of its own: without a bridge it would remove the other engine's.
                    *("unshare", "--net", "dockerd", f"--host={self.address}", *options),
                    *("--storage-driver=vfs", "--bridge=none", "--iptables=false"),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def answers(self) -> None:
        def asked() -> bool:
            return subprocess.run(["docker", "version"], capture_output=True).returncode == 0

        await eventually(asked, timeout=60)

    def unmount(self) -> None:
        """Let go of what an engine that was killed had mounted."""
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            place = line.split()[1]
            if place.startswith(f"{self._folder}/"):
                subprocess.run(["umount", "--lazy", place], check=True)

    def end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(30)


@pytest.fixture
async def own_engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OwnEngine]:
    if os.getuid() != 0:
        pytest.skip("a second Docker engine needs root")
    with tempfile.TemporaryDirectory(prefix="engine-", ignore_cleanup_errors=True) as folder:
        engine = OwnEngine(Path(folder))
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        monkeypatch.setenv("ROLLCALL_DOCKER_NETWORK", "none")
        engine.start()
        try:
            await engine.answers()
            yield engine
        finally:
            engine.end(signal.SIGTERM)
            engine.unmount()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_instances_that_went_down_with_their_engine_come_back_with_it(
    own_engine: OwnEngine, tmp_path: Path, good: Path, how: signal.Signals
) -> None:
    rig = Rig(tmp_path)
    try:
        created = await rig.ask(Operation.CREATE, 1, good)
        assert isinstance(created, InstanceCreated), created
        for times in (2, 3):
            own_engine.end(how)
            own_engine.start()
            await own_engine.answers()
            await eventually(partial(has_booted, times), timeout=60)
            async with rig.host.turn(REF):  # its start is not over before it has settled
                assert has_booted(times)
        assert rig.reports == [created]  # nobody was told that it had stopped
        docker("kill", *docker("ps", "-q").split())
        await eventually(lambda: len(rig.reports) == 2)
        assert isinstance(rig.reports[-1], InstancePowerChanged)
        assert rig.reports[-1].power is Power.STOPPED  # the watch goes on
    finally:
        await rig.host.power.close()
        rig.host.journal.close()


def has_booted(times: int) -> bool:
    """Say whether the only container of the engine was started so often."""
    return docker("logs", *docker("ps", "-aq").split()).count("boots") == times
