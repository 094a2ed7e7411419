"""What only the libvirt driver has: domains of others, their traps, and a daemon that goes away."""

import asyncio
import hashlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from instance_agent.app import build_host
from instance_agent.domain.libvirt.domains import same_but
from instance_agent.domain.record import Operation, Order
from instance_agent.driver import Adopter, DriverNotFound, InstanceRef
from instance_agent.drivers.boots import Boots
from instance_agent.host import Host, Job
from instance_agent.settings import Settings
from rollcall_contracts.events import (
    Event,
    InstanceCreated,
    InstanceDeleted,
    InstanceFailed,
    InstanceRestored,
    InstanceUpgraded,
)
from rollcall_contracts.model import Image, Provisioning
from rollcall_embedded.libvirt import POOL, LibvirtDaemon
from rollcall_kit.secrets import new_key
from rollcall_testing import eventually, tiny_machine
from rollcall_testing.domains import DOMAIN
from rollcall_testing.instances import HOST

pytestmark = pytest.mark.libvirt

SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"

# A domain as its owner made it, with things that Rollcall knows nothing of.
XML = """
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <title>the owner's</title>
  <metadata><o:note xmlns:o="urn:owner" kind="x">keep <o:b/>me</o:note></metadata>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='writeback'/>
      <source file='{os}'/>
      <target dev='vda' bus='virtio'/>
      <serial>owners-os</serial>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{data}'/>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <serial type='file'><source path='{log}'/></serial>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-netdev'/>
    <qemu:arg value='user,id=net,hostfwd=tcp:127.0.0.1:{port}-:80'/>
    <qemu:arg value='-boot'/><qemu:arg value='strict=off'/>
  </qemu:commandline>
</domain>
"""


class Rig:
    """An agent's host, and domains that somebody else made."""

    def __init__(self, folder: Path, daemon: LibvirtDaemon) -> None:
        self.folder, self.daemon = folder, daemon
        self.settings = Settings.model_validate(
            {
                "host": HOST,
                "driver": "libvirt",
                "state_dir": folder / "agent",
                "stop_grace": 0.2,
                "secrets_key": new_key(),
            }
        )
        self.host: Host = build_host(self.settings)
        self.reports: list[Event] = []

    async def report(self, event: Event) -> None:
        self.reports.append(event)

    def define(self, name: str, port: int) -> None:
        pool = self.daemon.pool
        for disk in ("os", "data"):
            tiny_machine.build_tiny_machine(pool / f"{name}-{disk}", "1.0.0")
        (pool / f"{name}-data").write_bytes(bytes(1024**2))
        owner = pool.stat()
        for disk in ("os", "data"):
            subprocess.run(
                ["chown", f"{owner.st_uid}:{owner.st_gid}", pool / f"{name}-{disk}"], check=True
            )
        places = {each: f"{pool}/{name}-{each}" for each in ("os", "data", "log")}
        file = self.folder / f"{name}.xml"
        file.write_text(XML.format(name=name, port=port, **places))
        self.daemon.virsh("define", str(file))
        self.daemon.virsh("start", name)

    def mark(self, name: str, element: str) -> None:
        self.daemon.virsh(
            *("metadata", name, "urn:rollcall:libvirt:1", "--key", "rollcall"),
            *("--set", element, "--config"),
        )

    def xml(self, name: str) -> str:
        return self.daemon.virsh("dumpxml", "--inactive", name)

    def history(self, name: str) -> str:
        return tiny_machine.history(self.daemon.pool / f"{name}-data")

    async def booted(self, name: str, history: str) -> None:
        await eventually(lambda: self.history(name) == history, timeout=20)

    async def ask(
        self, operation: Operation, attempt: int, version: str = "", instance: str = "0"
    ) -> Event:
        image = None
        if version:
            path = tiny_machine.build_tiny_machine(self.folder / f"{version}.img", version)
            content = path.read_bytes()
            image = Image(
                publisher="P",
                offer="O",
                sku="S",
                version=version,
                url=f"file://{path}",
                sha256=hashlib.sha256(content).hexdigest(),
                size=len(content),
            )
        order = Order(
            scale_set=SET,
            instance_id=instance,
            attempt=attempt,
            operation=operation,
            version=version,
            generation=attempt,
        )
        job = Job(order=order, image=image, provisioning=Provisioning(generation=attempt))
        await self.host.carry_out(job, self.report)
        return self.reports[-1]

    async def commit(self, attempt: int) -> None:
        order = Order(scale_set=SET, instance_id="0", attempt=attempt, operation=Operation.UPGRADE)
        await self.host.commit(order)

    async def restart(self) -> None:
        await self.host.power.close()
        self.host.journal.close()
        self.host = build_host(self.settings)


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    DOMAIN.install()
    for name, value in DOMAIN.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ROLLCALL_LIBVIRT_ADOPT", "web-*=web@1.0.0")
    rig = Rig(tmp_path, DOMAIN.daemon())
    yield rig
    await rig.host.power.close()
    rig.host.journal.close()
    for name in rig.daemon.virsh("list", "--all", "--name").split():
        for snapshot in rig.daemon.virsh("snapshot-list", name, "--name").split():
            rig.daemon.virsh("snapshot-delete", name, snapshot, "--metadata")
        if name in rig.daemon.virsh("list", "--name").split():
            rig.daemon.virsh("destroy", name)
        rig.daemon.virsh("undefine", name)
    DOMAIN.clear(rig.settings.state_dir)


async def test_an_adopted_domain_gets_another_os_disk_and_nothing_else_of_it_changes(
    rig: Rig,
) -> None:
    rig.define("web-10", 29010)
    rig.define("web-2", 29002)
    await rig.booted("web-2", "1")
    before, running = rig.xml("web-2"), rig.daemon.virsh("domid", "web-2")

    created = await rig.ask(Operation.CREATE, 1, "2.0.0")
    assert isinstance(created, InstanceCreated), created
    assert (created.version, created.address, created.port) == ("1.0.0", "127.0.0.1", 29002)
    assert rig.daemon.virsh("domid", "web-2") == running  # taken over as it runs
    assert same_but(before, rig.xml("web-2"), [])

    await rig.restart()
    upgraded = await rig.ask(Operation.UPGRADE, 2, "2.0.0")
    assert isinstance(upgraded, InstanceUpgraded), upgraded
    await rig.booted("web-2", "12")
    swapped = rig.xml("web-2")
    assert same_but(before, swapped, ["vda"])
    assert not same_but(before, swapped, [])

    restored = await rig.ask(Operation.RESTORE, 3)
    assert isinstance(restored, InstanceRestored), restored
    await rig.booted("web-2", "121")
    assert same_but(before, rig.xml("web-2"), [])  # to the letter, the owner's disk again

    await rig.ask(Operation.UPGRADE, 4, "2.0.0")
    await rig.commit(4)
    await rig.booted("web-2", "1212")
    assert (rig.daemon.pool / "web-2-os").exists()  # what others made is not ours to delete
    assert isinstance(await rig.ask(Operation.DELETE, 5), InstanceDeleted)
    assert same_but(before, rig.xml("web-2"), ["vda"])  # still there, switched off
    assert "web-2" not in rig.daemon.virsh("list", "--name").split()
    assert rig.history("web-2") == "1212"

    second = await rig.ask(Operation.CREATE, 1, "2.0.0", instance="1")
    assert isinstance(second, InstanceCreated), second
    assert second.port == 29010  # one that was let go of is not taken again


async def test_two_asked_at_once_get_a_domain_each_and_then_one_is_made(rig: Rig) -> None:
    rig.define("web-1", 29001)
    rig.define("web-2", 29002)
    await asyncio.gather(
        *(rig.ask(Operation.CREATE, 1, "2.0.0", instance=each) for each in ("0", "1"))
    )
    ports = {event.port for event in rig.reports if isinstance(event, InstanceCreated)}
    assert ports == {29001, 29002}
    third = await rig.ask(Operation.CREATE, 1, "2.0.0", instance="2")
    assert isinstance(third, InstanceCreated), third
    assert third.version == "2.0.0"  # from the template


async def test_an_agent_that_was_killed_after_it_had_claimed_a_domain_takes_the_same_one(
    rig: Rig,
) -> None:
    rig.define("web-1", 29001)
    rig.define("web-2", 29002)
    driver = rig.host.driver
    assert isinstance(driver, Adopter)
    await driver.adopt(InstanceRef(scale_set=SET, instance_id="0"))  # no journal knows of it
    await rig.restart()
    for instance, port in (("1", 29002), ("0", 29001)):
        created = await rig.ask(Operation.CREATE, 1, "2.0.0", instance=instance)
        assert isinstance(created, InstanceCreated), created
        assert created.port == port


async def test_many_are_made_at_once_on_one_base(rig: Rig) -> None:
    numbers = [str(number) for number in range(8)]
    await asyncio.gather(
        *(rig.ask(Operation.CREATE, 1, "2.0.0", instance=each) for each in numbers)
    )
    assert [event for event in rig.reports if not isinstance(event, InstanceCreated)] == []
    assert len(rig.reports) == len(numbers)
    assert len(list(rig.daemon.pool.glob("*-base-*.qcow2"))) == 1
    await asyncio.gather(*(rig.ask(Operation.DELETE, 2, instance=each) for each in numbers))
    assert rig.daemon.virsh("list", "--all", "--name").split() == []
    assert list(rig.daemon.pool.iterdir()) == []


async def test_an_operators_mark_says_set_and_version(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLCALL_LIBVIRT_ADOPT", "")
    monkeypatch.setenv("ROLLCALL_LIBVIRT_CREATE", "false")
    await rig.restart()
    rig.define("mine", 29003)
    refused = await rig.ask(Operation.CREATE, 1, "2.0.0")
    assert isinstance(refused, InstanceFailed), refused
    assert "no domain is left here" in refused.error.message
    mark = "<instance scaleSet='WEB' version='1.5.0' address='127.0.0.9' port='81' host='{}'/>"
    rig.mark("mine", mark.format("another"))
    assert isinstance(await rig.ask(Operation.CREATE, 2, "2.0.0"), InstanceFailed)
    rig.mark("mine", mark.format(HOST))
    created = await rig.ask(Operation.CREATE, 3, "2.0.0")
    assert isinstance(created, InstanceCreated), created
    assert (created.version, created.address, created.port) == ("1.5.0", "127.0.0.9", 81)


async def test_metadata_that_make_no_sense_cost_no_base_and_stop_nobody_else(rig: Rig) -> None:
    for instance in ("0", "1"):
        assert isinstance(
            await rig.ask(Operation.CREATE, 1, f"{instance}.0.0", instance=instance),
            InstanceCreated,
        )
    (strange,) = (name for name in rig.daemon.virsh("list", "--name").split() if "-1-" in name)
    own = rig.daemon.virsh("metadata", strange, "urn:rollcall:libvirt:1")
    rig.mark(strange, "<instance scaleSet='web'><disk name='x' generation='1'/></instance>")
    deleted = await rig.ask(Operation.DELETE, 2)
    assert isinstance(deleted, InstanceDeleted), deleted
    assert len(bases(rig)) == 2  # who knows which one that domain stands on?

    rig.define("web-1", 29001)
    adopted = await rig.ask(Operation.CREATE, 1, "0.0.0", instance="2")
    assert isinstance(adopted, InstanceCreated), adopted
    assert adopted.port == 29001
    failed = await rig.ask(Operation.DELETE, 2, instance="1")
    assert isinstance(failed, InstanceFailed), failed
    assert f"of the domain {strange} make no sense" in failed.error.message

    rig.mark(strange, own)
    await rig.restart()
    assert isinstance(await rig.ask(Operation.DELETE, 3, instance="1"), InstanceDeleted)
    assert bases(rig) == []


def bases(rig: Rig) -> list[str]:
    return [file.name for file in rig.daemon.pool.glob("*-base-*.qcow2")]


async def test_a_base_that_a_volume_stands_on_stays_whatever_metadata_say(rig: Rig) -> None:
    assert isinstance(await rig.ask(Operation.CREATE, 1, "1.0.0"), InstanceCreated)
    (name,) = rig.daemon.virsh("list", "--name").split()
    rig.daemon.virsh(
        *("metadata", name, "urn:rollcall:libvirt:1", "--remove", "--config"),
    )
    rig.define("web-1", 29001)
    await rig.ask(Operation.CREATE, 1, "1.0.0", instance="1")
    await rig.ask(Operation.DELETE, 2, instance="1")
    assert len(bases(rig)) == 1
    assert rig.daemon.virsh("list", "--name").split() == [name]


async def test_domains_take_turns_to_boot_with_all_agents_of_the_machine(
    tmp_path: Path, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLCALL_LIBVIRT_BOOT_LOCKS", str(tmp_path / "boots"))
    monkeypatch.setenv("ROLLCALL_LIBVIRT_BOOTS_AT_ONCE", "1")
    await rig.restart()
    turn = await Boots(tmp_path / "boots", 1).take()  # as another agent does
    asked = asyncio.create_task(rig.ask(Operation.CREATE, 1, "1.0.0"))
    await eventually(lambda: len(bases(rig)) == 1)
    done, _ = await asyncio.wait([asked], timeout=1)
    assert not done
    assert rig.daemon.virsh("list", "--name").split() == []
    turn.end()
    assert isinstance(await asked, InstanceCreated)


async def test_the_console_of_each_boot_is_kept_until_the_instance_goes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instance_agent.drivers.libvirt.machines._LOGS_KEPT", 2)
    pool, driver = rig.daemon.pool, rig.host.driver
    ref = InstanceRef(scale_set=SET, instance_id="0")
    assert isinstance(await rig.ask(Operation.CREATE, 1, "1.0.0"), InstanceCreated)
    said = []
    for attempt in (2, 3, 4):
        await eventually(lambda: driver.console(ref))
        said.append(await driver.console(ref))
        upgraded = await rig.ask(Operation.UPGRADE, attempt, f"{attempt}.0.0")
        assert isinstance(upgraded, InstanceUpgraded), upgraded
        await rig.commit(attempt)
    logs = sorted(pool.glob("*-boot-*.log"))
    assert [log.name[-10:] for log in logs] == ["000002.log", "000003.log"]
    assert [log.read_text().strip() for log in logs] == said[1:]
    await rig.ask(Operation.DELETE, 5)
    assert list(pool.iterdir()) == []


async def test_snapshots_and_saved_memory_are_refused_before_anything_is_touched(rig: Rig) -> None:
    rig.define("web-1", 29001)
    await rig.booted("web-1", "1")
    await rig.ask(Operation.CREATE, 1, "2.0.0")
    running = rig.daemon.virsh("domid", "web-1")
    rig.daemon.virsh("snapshot-create-as", "web-1", "s1", "--disk-only", "--diskspec", "vda")
    failed = await rig.ask(Operation.UPGRADE, 2, "2.0.0")
    assert isinstance(failed, InstanceFailed), failed
    assert "has snapshots (s1)" in failed.error.message
    assert "virsh snapshot-delete web-1 s1" in failed.error.message
    assert rig.daemon.virsh("domid", "web-1") == running
    rig.daemon.virsh("snapshot-delete", "web-1", "s1", "--metadata")

    await rig.host.power.close()  # or it would be told that the domain has stopped
    rig.daemon.virsh("managedsave", "web-1")
    failed = await rig.ask(Operation.UPGRADE, 3, "2.0.0")
    assert isinstance(failed, InstanceFailed), failed
    assert "virsh managedsave-remove web-1" in failed.error.message
    rig.daemon.virsh("managedsave-remove", "web-1")


async def test_two_at_once_do_not_count_on_the_same_room(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = rig.daemon.virsh("pool-info", POOL, "--bytes")
    free = int(told.split("Available:")[1].split()[0])
    monkeypatch.setenv("ROLLCALL_LIBVIRT_FREE_BYTES", str(free * 2 // 3))
    await rig.restart()
    await asyncio.gather(
        *(rig.ask(Operation.CREATE, 1, "2.0.0", instance=each) for each in ("0", "1"))
    )
    (failed,) = (event for event in rig.reports if isinstance(event, InstanceFailed))
    assert failed.error.code == "HostDiskFull"
    assert "are promised to instances being upgraded" in failed.error.message
    assert "the storage pool rollcall" in failed.error.message


async def test_a_block_job_is_refused_and_its_end_is_the_way_on(rig: Rig) -> None:
    rig.define("web-1", 29001)
    await rig.booted("web-1", "1")
    await rig.ask(Operation.CREATE, 1, "2.0.0")
    running = rig.daemon.virsh("domid", "web-1")
    copy = f"{rig.daemon.pool}/copy"
    rig.daemon.virsh("blockcopy", "web-1", "vda", "--dest", copy, "--transient-job")
    failed = await rig.ask(Operation.UPGRADE, 2, "2.0.0")
    assert isinstance(failed, InstanceFailed), failed
    assert "a block job is at work on disk vda" in failed.error.message
    assert rig.daemon.virsh("domid", "web-1") == running
    rig.daemon.virsh("blockjob", "web-1", "vda", "--abort")  # as the message says
    upgraded = await rig.ask(Operation.UPGRADE, 3, "2.0.0")
    assert isinstance(upgraded, InstanceUpgraded), upgraded


async def test_a_daemon_that_dies_and_comes_back_is_not_noticed(rig: Rig) -> None:
    rig.define("web-1", 29001)
    await rig.booted("web-1", "1")
    await rig.ask(Operation.CREATE, 1, "2.0.0")
    rig.daemon.kill()
    asked = asyncio.create_task(rig.ask(Operation.UPGRADE, 2, "2.0.0"))
    await asyncio.wait((asked,), timeout=1)
    assert not asked.done()
    rig.daemon.launch()  # from this thread: the daemon ends with the one that started it
    upgraded = await asked
    assert isinstance(upgraded, InstanceUpgraded), upgraded
    await rig.booted("web-1", "12")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("${disks}", ""), "${disks} is missing"),
        (("${name}", "${nmae}"), "${nmae} is no placeholder"),
        (("</devices>", ""), "no well-formed XML"),
        (("${disks}", "${disks}<disk/>"), "leave disks to ${disks}"),
    ],
)
async def test_a_template_that_makes_no_domain_is_told_at_the_start(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], told: str
) -> None:
    file = rig.folder / "template.xml"
    file.write_text((rig.daemon.folder / "template.xml").read_text().replace(*change))
    monkeypatch.setenv("ROLLCALL_LIBVIRT_TEMPLATE", str(file))
    with pytest.raises(DriverNotFound) as refused:
        build_host(rig.settings.model_copy(update={"state_dir": rig.folder / "other"}))
    assert told in str(refused.value)
