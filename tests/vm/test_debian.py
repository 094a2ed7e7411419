"""Debian 12 with systemd and cloud-init: one virtual machine, upgraded by an agent from v1 to v2.

`make test-debian`. Without KVM each boot takes the better part of a minute.
"""

import asyncio
import base64
import hashlib
import json
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from instance_agent.app import build_host
from instance_agent.domain.record import Operation, Order
from instance_agent.driver import InstanceRef
from instance_agent.host import Host, Job
from instance_agent.settings import Settings
from rollcall_contracts.events import Event, InstanceCreated, InstanceUpgraded
from rollcall_contracts.model import Extension, Image, Provisioning
from rollcall_kit.secrets import new_key, seal
from rollcall_testing import eventually
from rollcall_testing.vm_images import cache

pytestmark = [pytest.mark.debian, pytest.mark.timeout(1800)]

REF = InstanceRef(scale_set="/sets/debian", instance_id="0")
KEY = new_key()
BOOT = 600  # seconds for a boot without KVM, on a busy machine
# cloud-init's own fs_setup makes a file system anew for each instance-id, which comes with each OS
# disk, so who keeps data asks first.
CUSTOM_DATA = """#!/bin/sh -e
disk=/dev/disk/by-id/virtio-data-0
blkid "$disk" || mkfs.ext4 -q "$disk"
mkdir -p /data
echo "$disk /data ext4 defaults,nofail 0 0" >>/etc/fstab
mount /data
cat /etc/image-version >>/data/custom-data
"""
KEPT = Extension(
    name="keep",
    settings={"commandToExecute": "[ -e /data/kept ] || cat /etc/image-version >/data/kept"},
    timeout=BOOT,
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """Both versions: one as a qcow2 file, one compressed, as feeds have them."""
    folder = cache()
    subprocess.run([Path(__file__).with_name("build-debian"), folder], check=True)
    packed = tmp_path_factory.mktemp("feed") / "debian-v2.qcow2.zst"
    subprocess.run(["zstd", "-q1", folder / "debian-v2.qcow2", "-o", packed], check=True)
    return {"v1": describe(folder / "debian-v1.qcow2", "1.0.0"), "v2": describe(packed, "2.0.0")}


def describe(file: Path, version: str) -> Image:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return Image(
        publisher="Debian",
        offer="debian-12",
        sku="12",
        version=version,
        url=f"file://{file}",
        sha256=digest,
        size=file.stat().st_size,
    )


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    for name, value in {
        "ACCEL": "tcg",
        "MEMORY": "512",
        "CPUS": "2",
        "DATA_DISK_BYTES": str(64 * 1024**2),
        "ANSWER_TIME": str(BOOT),
        "BOOT_TIME": str(BOOT),
    }.items():
        monkeypatch.setenv(f"ROLLCALL_QEMU_{name}", value)
    settings = Settings.model_validate(
        {
            "host": "h1",
            "driver": "qemu",
            "state_dir": tmp_path / "agent",
            "stop_grace": 120,
            "secrets_key": KEY,
        }
    )
    host = build_host(settings)
    yield host
    await host.driver.stop(REF, 0)
    await host.power.close()
    host.journal.close()


async def ask(host: Host, operation: Operation, attempt: int, image: Image) -> Event:
    reports: list[Event] = []

    async def report(event: Event) -> None:
        reports.append(event)

    order = Order(
        scale_set=REF.scale_set,
        instance_id=REF.instance_id,
        attempt=attempt,
        operation=operation,
        version=image.version,
        digest=image.sha256,
        generation=attempt,
    )
    provisioning = Provisioning(
        generation=attempt,
        sealed_custom_data=seal(KEY, base64.b64encode(CUSTOM_DATA.encode()).decode()),
        extensions=(KEPT,),
    )
    await host.carry_out(Job(order=order, image=image, provisioning=provisioning), report)
    return reports[0]


async def health(event: Event) -> dict[str, Any]:
    assert isinstance(event, InstanceCreated | InstanceUpgraded), event
    url = f"http://{event.address}:{event.port}/health"

    async def answer() -> str:
        try:
            limit = aiohttp.ClientTimeout(total=2)
            async with aiohttp.ClientSession(timeout=limit) as session, session.get(url) as told:
                return await told.text() if told.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError):
            return ""

    found: dict[str, Any] = json.loads(await eventually(answer, timeout=BOOT, interval=0.2))
    return found


async def test_debian_is_upgraded_with_its_custom_data_and_its_data_disk(
    host: Host, images: dict[str, Image], capsys: pytest.CaptureFixture[str]
) -> None:
    times: dict[str, float] = {}
    begun = time.monotonic()
    await host.images.fetch(images["v1"])
    times["image v1 (qcow2): fetched and made a base"] = time.monotonic() - begun

    begun = time.monotonic()
    created = await asyncio.wait_for(ask(host, Operation.CREATE, 1, images["v1"]), 2 * BOOT)
    facts = {"version": "v1", "boots": ["v1"], "custom_data": ["v1"], "kept": ["v1"]}
    assert await health(created) == facts
    times["created: from the request to healthy, all scripts run"] = time.monotonic() - begun
    before = await host.driver.observe(REF)
    assert before.data_disks[0].content.startswith("ext:")  # its file system's UUID

    begun = time.monotonic()
    await host.images.fetch(images["v2"])
    times["image v2 (qcow2.zst): fetched and made a base"] = time.monotonic() - begun

    begun = time.monotonic()
    upgraded = await asyncio.wait_for(ask(host, Operation.UPGRADE, 2, images["v2"]), 2 * BOOT)
    facts = {"version": "v2", "boots": ["v1", "v2"], "custom_data": ["v1", "v2"], "kept": ["v1"]}
    assert await health(upgraded) == facts
    times["upgraded: from the request to healthy, all scripts run"] = time.monotonic() - begun

    after = await host.driver.observe(REF)
    assert after.data_disks == before.data_disks
    assert isinstance(created, InstanceCreated)
    assert isinstance(upgraded, InstanceUpgraded)
    assert (upgraded.address, upgraded.port) == (created.address, created.port)
    (top,) = host.driver._top.glob("0-*")  # type: ignore[attr-defined]  # the qemu driver's folder
    consoles = sorted((top / "logs").glob("boot-*.log"))
    assert len(consoles) == 2  # one boot each
    assert "reboot: Power down" in consoles[0].read_text(errors="replace")  # asked, not killed
    with capsys.disabled():
        print(*(f"\n{seconds:7.1f} s  {what}" for what, seconds in times.items()))  # noqa: T201
