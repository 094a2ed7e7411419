"""The qemu driver on a bridge, with a DHCP server: in a network namespace of the test's own."""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from instance_agent.app import build_driver, build_host
from instance_agent.domain.network import own_link
from instance_agent.domain.record import Disk, Operation
from instance_agent.driver import DriverNotFound, Endpoint, NewDisk
from instance_agent.drivers import procfs
from instance_agent.drivers.qemu.network import link_of
from instance_agent.drivers.taps import TapBusy, TapUnusable, interfaces, make_tap, open_tap
from instance_agent.failures import OperationFailed
from rollcall_contracts.events import InstanceCreated, InstanceRestored, InstanceUpgraded
from rollcall_testing import eventually
from rollcall_testing.machines import Rig, status

BRIDGE = "rcbr0"
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge that this host has an address on; nothing of it reaches the real network."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(_NEW_NETWORK) != 0:
        os.close(home)
        pytest.skip("a network namespace takes root")
    try:
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "address", "add", "10.77.0.1/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "mtu", "1400", "up")
        yield BRIDGE
    finally:
        libc.setns(home, _NEW_NETWORK)
        os.close(home)


@pytest.fixture
def dhcp(bridge: str, tmp_path: Path) -> Iterator[None]:
    config = tmp_path / "udhcpd.conf"
    (tmp_path / "leases").touch()
    config.write_text(
        f"interface {bridge}\nstart 10.77.0.20\nend 10.77.0.30\nlease_file {tmp_path}/leases\n"
        f"pidfile {tmp_path}/udhcpd.pid\noption subnet 255.255.255.0\noption router 10.77.0.1\n"
    )
    server = subprocess.Popen(["busybox", "udhcpd", "-f", str(config)], stderr=subprocess.DEVNULL)
    yield
    server.kill()
    server.wait()


@pytest.fixture
async def rig(
    tmp_path: Path, test_os: Path, bridge: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    for name, value in {
        "ACCEL": "tcg",
        "MEMORY": "96",
        "DATA_DISK_BYTES": str(16 * 1024**2),
        "NETWORK": f"bridge:{bridge}",
        "LEASES": str(tmp_path / "no-leases"),
    }.items():
        monkeypatch.setenv(f"ROLLCALL_QEMU_{name}", value)
    rig = Rig(tmp_path, test_os)
    yield rig
    await rig.driver.stop(rig.ref(), 0.5)
    await rig.host.power.close()
    rig.host.journal.close()


def taps() -> list[str]:
    return [name for name in interfaces() if name.startswith("rc-")]


async def test_a_machine_on_a_bridge_keeps_its_address_and_has_its_own_ports(
    rig: Rig, dhcp: None
) -> None:
    created = await rig.ask(Operation.CREATE, 1, "v1")
    assert isinstance(created, InstanceCreated), created
    assert created.address.startswith("10.77.0.")
    assert created.port == 0  # so the ports of the model count
    guest = created.model_copy(update={"port": 80})
    assert (await status(guest))["version"] == "v1"
    link = link_of(rig.driver._folders(rig.ref()))
    assert link == own_link(
        f"{rig.settings.host}:{rig.top().parent.resolve()}", rig.ref().key, BRIDGE
    )
    assert taps() == [link.tap]
    assert rig.driver.capabilities.tcp_probe_proves_guest  # nobody but the guest takes connections

    upgraded = await rig.ask(Operation.UPGRADE, 2, "v2")
    assert isinstance(upgraded, InstanceUpgraded), upgraded
    assert upgraded.address == created.address
    assert (await status(guest))["history"] == "v1 v2"
    restored = await rig.ask(Operation.RESTORE, 3)
    assert isinstance(restored, InstanceRestored), restored
    assert restored.address == created.address
    assert (await status(guest))["history"] == "v1 v2 v1"
    assert link_of(rig.driver._folders(rig.ref())) == link

    # An agent that is killed leaves the machine and its tap as they are; the next one finds both.
    await rig.host.power.close()
    rig.host.journal.close()
    rig.host = build_host(rig.settings)
    assert taps() == [link.tap]
    record = rig.host.journal.get(rig.ref().scale_set, rig.ref().instance_id)
    assert record is not None
    # The host has forgotten it, as when its bridge gets another address.
    run("ip", "neighbour", "flush", "dev", BRIDGE)
    endpoint = await rig.driver.start(rig.ref(), record.disk)
    assert endpoint == Endpoint(address=created.address, port=0)

    await rig.ask(Operation.DELETE, 4)
    assert taps() == []


async def prepared(rig: Rig) -> Disk:
    """Return the OS disk in place of an instance that was not started yet."""
    image = await rig.host.images.fetch(rig.image("v4-unbootable"))
    disk = Disk(name="1", version="4.0.0", generation=1)
    await rig.driver.prepare(rig.ref(), NewDisk(disk=disk, image=image))
    await rig.driver.swap(rig.ref(), None, disk.name)
    return disk


async def test_a_machine_that_never_says_where_it_is_fails_with_its_console_and_leaves_no_tap(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLCALL_QEMU_ADDRESS_TIME", "2")
    rig.host.journal.close()
    rig.host = build_host(rig.settings)
    disk = await prepared(rig)
    with pytest.raises(OperationFailed, match=r"neither a lease .* its console ends with: "):
        await rig.driver.start(rig.ref(), disk)
    process = rig.driver._folders(rig.ref()).process()
    assert len(taps()) == 1
    os.kill(process.pid, signal.SIGKILL)  # however QEMU ends
    await procfs.wait_exit(process)
    await eventually(lambda: taps() == [])  # the kernel takes it away a moment later


async def test_an_agent_that_starts_makes_the_host_forget_no_neighbour(rig: Rig) -> None:
    machine = make_tap("rc-1", "52:fe:00:00:00:01", BRIDGE)  # whose address the bridge takes
    run("ip", "neighbour", "add", "10.77.0.25", "lladdr", "52:fe:00:00:00:01", "dev", BRIDGE)
    run("ip", "neighbour", "change", "10.77.0.25", "dev", BRIDGE, "nud", "stale")
    before = run("ip", "neighbour")
    assert "52:fe:00:00:00:01 STALE" in before
    build_driver(rig.settings)
    assert run("ip", "neighbour") == before
    os.close(machine)


async def test_a_lease_tells_the_address_before_the_guest_has_spoken(
    rig: Rig, tmp_path: Path
) -> None:
    disk = await prepared(rig)
    link = link_of(rig.driver._folders(rig.ref()))
    assert link is not None
    (tmp_path / "no-leases").write_text(f"1700000000 {link.mac} 10.77.0.25 web *\n")
    assert (await rig.driver.start(rig.ref(), disk)).address == "10.77.0.25"


async def test_a_bridge_that_went_away_fails_the_start_and_says_what_to_do(rig: Rig) -> None:
    disk = await prepared(rig)
    run("ip", "link", "delete", BRIDGE)
    with pytest.raises(OperationFailed, match=rf"no bridge {BRIDGE} .*ip link add {BRIDGE}"):
        await rig.driver.start(rig.ref(), disk)
    with pytest.raises(DriverNotFound, match=f"ROLLCALL_QEMU_NETWORK=bridge:{BRIDGE}: there is no"):
        build_driver(rig.settings)


async def test_taps_that_are_there_are_each_given_to_one_machine_and_stay(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLCALL_QEMU_NETWORK", "tap:vm*")
    rig.host.journal.close()
    rig.host = build_host(rig.settings)
    with pytest.raises(OperationFailed, match=r"no tap vm\* of this host is left .*ip tuntap add"):
        await prepared(rig)
    for name in ("vm2", "vm10"):
        run("ip", "tuntap", "add", "dev", name, "mode", "tap")
    taken = open_tap("vm2")  # by another program: a new machine gets the next one
    disk = await prepared(rig)
    link = link_of(rig.driver._folders(rig.ref()))
    assert link is not None
    assert link.tap == "vm2"
    (tmp_path / "no-leases").write_text(f"1700000000 {link.mac} 10.77.0.25 web *\n")
    await rig.driver.start(rig.ref(), disk)
    assert (found := link_of(rig.driver._folders(rig.ref()))) is not None
    assert (found.tap, found.mac) == ("vm10", link.mac)
    os.close(taken)
    await rig.driver.stop(rig.ref(), 0.5)
    await rig.driver.delete(rig.ref())
    assert {"vm2", "vm10"} <= set(interfaces())


def test_a_tap_goes_with_the_one_who_has_it_and_does_not_change_its_bridge(bridge: str) -> None:
    before = Path(f"/proc/{os.getpid()}/net/dev").read_text().count("\n")
    code = (
        "import os, signal\n"
        "from instance_agent.drivers.taps import make_tap\n"
        f"make_tap('rc-1', '52:00:00:00:00:01', '{bridge}')\n"
        "print('made', flush=True)\n"
        "signal.pause()\n"
    )
    agent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert agent.stdout is not None
    with agent.stdout:
        assert agent.stdout.readline() == b"made\n"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, 0x8921, bridge.encode().ljust(40, b"\0"))
    assert int.from_bytes(answer[16:20], sys.byteorder) == 1400
    with pytest.raises(TapBusy, match="used by another program"):
        make_tap("rc-1", "52:00:00:00:00:01", bridge)
    agent.kill()
    agent.wait()
    assert "rc-1" not in interfaces()
    assert Path(f"/proc/{os.getpid()}/net/dev").read_text().count("\n") == before


def test_an_interface_that_is_no_bridge_is_refused(bridge: str) -> None:
    with pytest.raises(TapUnusable, match="cannot be put on lo: it is no bridge"):
        make_tap("rc-1", "52:00:00:00:00:01", "lo")
    assert "rc-1" not in interfaces()


def test_an_agent_without_the_right_is_told_which_one(bridge: str) -> None:
    code = (
        "import os\n"
        "from instance_agent.drivers.taps import TapUnusable, make_tap\n"
        "os.setuid(65534)\n"
        "try:\n"
        f"    make_tap('rc-1', '52:00:00:00:00:01', '{bridge}')\n"
        "except TapUnusable as error:\n"
        "    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "CAP_NET_ADMIN" in said.stdout
