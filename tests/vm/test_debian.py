"""Debian 12 with systemd and cloud-init, upgraded by an agent from v1 to v2.

Once as a virtual machine of the qemu driver, with scripts by the seed's program; once as a domain
of libvirt, with scripts and shutdown by the guest agent of QEMU. `make test-debian`. Without KVM
each boot takes the better part of a minute.
"""

import asyncio
import base64
import hashlib
import json
import random
import re
import subprocess
import time
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from instance_agent.app import build_host
from instance_agent.domain.record import Disk, Operation, Order
from instance_agent.driver import InstanceRef, Script, ScriptResult
from instance_agent.drivers.libvirt.driver import LibvirtDriver
from instance_agent.failures import OperationFailed
from instance_agent.host import Host, Job
from instance_agent.settings import Settings
from rollcall_contracts.events import Event, InstanceCreated, InstanceUpgraded
from rollcall_contracts.model import Extension, Image, Provisioning
from rollcall_embedded.libvirt import POOL, LibvirtDaemon
from rollcall_kit.secrets import new_key, seal
from rollcall_testing import eventually
from rollcall_testing.domains import install_libvirt
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
TOOL = '#!/bin/sh\necho "tool in $ROLLCALL_IMAGE_VERSION of $ROLLCALL_INSTANCE_ID"\n'
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


def set_all(monkeypatch: pytest.MonkeyPatch, driver: str, values: dict[str, str]) -> None:
    same = {
        "MEMORY": "512",
        "CPUS": "2",
        "DATA_DISK_BYTES": str(64 * 1024**2),
        "ANSWER_TIME": str(BOOT),
        "BOOT_TIME": str(BOOT),
    }
    for name, value in (same | values).items():
        monkeypatch.setenv(f"ROLLCALL_{driver.upper()}_{name}", value)


def build(driver: str, folder: Path) -> Host:
    return build_host(
        Settings.model_validate(
            {
                "host": "h1",
                "driver": driver,
                "state_dir": folder / "agent",
                "stop_grace": 120,
                "secrets_key": KEY,
            }
        )
    )


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    set_all(monkeypatch, "qemu", {"ACCEL": "tcg"})
    host = build("qemu", tmp_path)
    yield host
    await host.driver.stop(REF, 0)
    await host.power.close()
    host.journal.close()


@pytest.fixture
async def domains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    """An agent with a libvirt of its own, and a template that says nothing of a guest agent."""
    install_libvirt()
    daemon = LibvirtDaemon()
    daemon.start()
    template = daemon.folder / "template.xml"
    own = files("instance_agent.drivers.libvirt").joinpath("template.xml").read_text()
    channel = r"<channel type='unix'>\s*<target [^>]*guest_agent[^>]*/>\s*</channel>"
    without, number = re.subn(channel, "", own)
    assert number == 1
    template.write_text(without)
    values = {
        "URI": daemon.uri,
        "POOL": POOL,
        "TEMPLATE": str(template),
        "TYPE": "qemu",
        "FREE_BYTES": str(1024**2),
    }
    set_all(monkeypatch, "libvirt", values)
    host = build("libvirt", tmp_path)
    yield host
    await host.power.close()
    host.journal.close()
    daemon.stop()


async def ask(
    host: Host,
    operation: Operation,
    attempt: int,
    image: Image,
    custom_data: str = CUSTOM_DATA,
    extension: Extension = KEPT,
) -> Event:
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
        sealed_custom_data=seal(KEY, base64.b64encode(custom_data.encode()).decode()),
        extensions=(extension,),
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
    host: Host, images: dict[str, Image], capsys: pytest.CaptureFixture[str], tmp_path: Path
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
    assert before.disk is not None
    tool = tmp_path / "tool"
    tool.write_text(TOOL)
    told = await run(host, before.disk, "./tool; exit 3", files=(tool,))
    assert (told.exit_code, told.output) == (3, "tool in 1.0.0 of 0")

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


# With the power button dead, only the guest agent can have it stop by itself.
NO_BUTTON = (
    CUSTOM_DATA
    + """mkdir -p /etc/systemd/logind.conf.d
printf '[Login]\nHandlePowerKey=ignore\n' >/etc/systemd/logind.conf.d/no-button.conf
systemctl restart systemd-logind
"""
)
SECRET = "s3cret-word"
# It ends well where the guest agent runs it, and where the secret is neither on the list of
# processes nor in the system's log.
HIDDEN = Extension(
    name="hidden",
    sealed_protected_settings=seal(
        KEY,
        json.dumps(
            {
                "commandToExecute": f"secret={SECRET}; "
                "case $PWD in /run/rollcall/jobs/*) ;; *) exit 7 ;; esac; "
                "look=${secret%?}[${secret#${secret%?}}]; "
                "cat /proc/[0-9]*/cmdline >/tmp/seen; journalctl >>/tmp/seen; "
                'if grep -qa "$look" /tmp/seen; then exit 9; fi; '
                "grep -qa guest-exec /tmp/seen || exit 8; "
                "[ -e /data/kept ] || cat /etc/image-version >/data/kept"
            }
        ),
    ),
    timeout=BOOT,
)


async def test_a_domain_of_libvirt_is_upgraded_by_way_of_the_guest_agent(
    domains: Host, images: dict[str, Image], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    host, times = domains, dict[str, float]()
    begun = time.monotonic()
    asked = ask(host, Operation.CREATE, 1, images["v1"], NO_BUTTON, HIDDEN)
    created = await asyncio.wait_for(asked, 2 * BOOT)
    facts = {"version": "v1", "boots": ["v1"], "custom_data": ["v1"], "kept": ["v1"]}
    assert await health(created) == facts
    times["domain created: from the request to healthy, all scripts run"] = time.monotonic() - begun
    before = await host.driver.observe(REF)
    assert before.data_disks[0].content.startswith("ext:")
    assert before.disk is not None
    await scripts_keep_their_promises(host, before.disk, tmp_path)

    begun = time.monotonic()
    asked = ask(host, Operation.UPGRADE, 2, images["v2"], NO_BUTTON, HIDDEN)
    upgraded = await asyncio.wait_for(asked, 2 * BOOT)
    facts = {"version": "v2", "boots": ["v1", "v2"], "custom_data": ["v1", "v2"], "kept": ["v1"]}
    assert await health(upgraded) == facts
    times["domain upgraded: from the request to healthy, all scripts run"] = (
        time.monotonic() - begun
    )
    after = await host.driver.observe(REF)
    assert after.data_disks == before.data_disks

    assert after.disk is not None
    button = "busctl get-property org.freedesktop.login1 /org/freedesktop/login1 "
    button += "org.freedesktop.login1.Manager HandlePowerKey"
    assert (await run(host, after.disk, button)).output == 's "ignore"'
    await without_guest_exec(host, after.disk)
    begun = time.monotonic()
    await host.driver.stop(REF, BOOT)
    times["domain stopped by the guest agent"] = time.monotonic() - begun
    assert "reboot: Power down" in await host.driver.console(REF)  # asked, not killed
    with capsys.disabled():
        print(*(f"\n{seconds:7.1f} s  {what}" for what, seconds in times.items()))  # noqa: T201


async def run(
    host: Host, disk: Disk, command: str, seconds: float = BOOT, files: tuple[Path, ...] = ()
) -> ScriptResult:
    return await host.driver.run(REF, disk, script(command, seconds, files))


def script(command: str, seconds: float = BOOT, files: tuple[Path, ...] = ()) -> Script:
    return Script(
        name="s",
        command=("/bin/sh", "-c", command),
        timeout=seconds,
        files={file.name: file for file in files},
    )


async def scripts_keep_their_promises(host: Host, disk: Disk, folder: Path) -> None:
    """Ask what `Driver.run` promises, as the conformance suite does of guests without an agent."""
    tool, large = folder / "tool", folder / "large"
    tool.write_text(TOOL)
    large.write_bytes(random.Random(1).randbytes(1024**2))
    told = await run(host, disk, "./tool; cat large | sha256sum; exit 3", files=(tool, large))
    digest = hashlib.sha256(large.read_bytes()).hexdigest()
    assert (told.exit_code, told.output) == (3, f"tool in 1.0.0 of 0\n{digest}  -")

    endless = "while :; do echo x >>/root/{}; sleep 0.2; done"
    late = await run(host, disk, f"echo said; {endless.format('late')}", seconds=2)
    assert (late.exit_code, late.output) == (None, "said")
    cancelled = asyncio.create_task(run(host, disk, endless.format("cancelled")))
    while (await run(host, disk, "[ -s /root/cancelled ]")).exit_code != 0:
        assert not cancelled.done()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    count = "cat /root/late | wc -l; cat /root/cancelled | wc -l"
    counted = await run(host, disk, count)
    assert (await run(host, disk, f"sleep 1; {count}")).output == counted.output  # nothing goes on

    # A guest agent that is started anew by the script has lost what it was asked.
    restarts = "systemctl restart qemu-guest-agent; sleep 2; echo once >>/root/restarts; wc -l <"
    assert (await run(host, disk, f"{restarts}/root/restarts")).output == "1"

    # An agent of ours that was killed after it had the script run: the next one gets its result.
    counting = "sleep 5; echo once >>/root/joined; wc -l </root/joined"
    driver = host.driver
    assert isinstance(driver, LibvirtDriver)
    killed = driver.guests.agent(REF)
    job, content = await killed.job(REF, disk, script(counting))
    for order in job.bring(content):
        await killed.done(order)
    await killed.ask(job.run(BOOT))
    assert (await run(host, disk, counting)).output == "1"
    assert (await run(host, disk, counting)).output == "2"  # that was fetched: it runs again
    left = await run(host, disk, "ls -A /run/rollcall/jobs | wc -l")
    assert left.output == "1"  # this one itself


async def without_guest_exec(host: Host, disk: Disk) -> None:
    """Have the guest agent run no programs any more: the seed's program does then."""
    settings = "[general]\\nblock-rpcs=guest-exec\\n"
    forbid = f"mkdir -p /etc/qemu; printf '{settings}' >/etc/qemu/qemu-ga.conf"
    later = "systemd-run --quiet --on-active=1 systemctl restart qemu-guest-agent"
    assert (await run(host, disk, f"{forbid}; {later}; pwd")).output.startswith(
        "/run/rollcall/jobs/"
    )

    async def by_the_seeds_program() -> bool:
        try:
            return (await run(host, disk, "pwd")).output.startswith("/run/rollcall/scripts/")
        except OperationFailed:  # it was forbidden in the midst of this one
            return False

    await eventually(by_the_seeds_program, timeout=BOOT)
