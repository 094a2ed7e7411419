"""A machine's place on the network: a port that QEMU forwards, or a tap."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import structlog
from rollcall_contracts.model import FailureCode

from instance_agent.domain.libvirt.adoption import in_natural_order
from instance_agent.domain.network import (
    Link,
    lan_address,
    leases,
    neighbours,
    own_link,
    parse_network,
)
from instance_agent.domain.qemu import forwarding, mac_address, plugged
from instance_agent.driver import DriverNotFound, Endpoint, Options
from instance_agent.drivers.files import Folders, ports_of
from instance_agent.drivers.neighbours import meet
from instance_agent.drivers.ports import Ports
from instance_agent.drivers.qemu.settings import QemuSettings
from instance_agent.drivers.taps import TapBusy, TapUnusable, interfaces, make_tap, open_tap
from instance_agent.failures import OperationFailed

log = structlog.get_logger()

_TRIES, _MOMENT = 20, 0.05  # seconds
# A bridge takes the lowest address of what is on it for its own, and the host then forgets all
# neighbours there: what is only tried must not be the one.
_HIGHEST = "52:ff:ff:ff:ff:ff"
_NEIGHBOURS = Path("/proc/net/arp")


@dataclass(frozen=True, slots=True)
class Plug:
    """What a machine is started with."""

    netdev: str
    mac: str
    files: tuple[int, ...] = ()  # that QEMU inherits


class Networks:
    """Gives each new machine its place on the network that the settings say, and keeps it there."""

    def __init__(
        self, options: Options, settings: QemuSettings, instances: Iterable[Folders]
    ) -> None:
        """Take note of what instances have. Raises DriverNotFound where no tap could be had."""
        self._options = options
        self._settings = settings
        self._wanted = parse_network(settings.qemu_network)
        there = list(instances)
        ports = ports_of(folders.top for folders in there)
        self._ports = Ports(options.ports, options.address, options.agent, ports)
        self._taps = _taps_of(there)
        # Whether QEMU itself takes connections, of new machines or of some that are there.
        self.forwards = self._wanted.kind == "user" or bool(ports)
        if self._wanted.kind == "bridge":
            self._try_bridge()

    def _try_bridge(self) -> None:
        link = own_link(self._options.agent, "", self._wanted.name)
        try:
            os.close(make_tap(link.tap, _HIGHEST, link.bridge))
        except TapUnusable as error:
            raise DriverNotFound(
                f"ROLLCALL_QEMU_NETWORK={self._settings.qemu_network}: {error}"
            ) from error

    def give(self, folders: Folders) -> None:
        """Give a new machine its place; one that has one keeps it, whatever the settings say."""
        if folders.port() is None and link_of(folders) is None:
            self.give_another(folders)

    def give_another(self, folders: Folders) -> None:
        """Give a machine another port or tap than it has: another program took that one."""
        key = folders.top.name
        match self._wanted.kind:
            case "user":
                folders.keep_port(self._ports.take())
            case "bridge":
                folders.keep_identity(asdict(own_link(self._options.agent, key, self._wanted.name)))
            case "tap":
                tap = self._free_tap()
                mac = lan_address(self._options.agent, key)
                folders.keep_identity(asdict(Link(tap=tap, mac=mac)))

    def _free_tap(self) -> str:
        pattern = self._wanted.name
        for name in sorted(interfaces(), key=in_natural_order):
            if fnmatchcase(name, pattern) and name not in self._taps:
                self._taps.add(name)
                return name
        raise OperationFailed(
            FailureCode.DRIVER,
            f"no tap {pattern} of this host is left for another machine: make one more (ip tuntap "
            f"add dev NAME mode tap user {os.geteuid()}), or lower the capacity",
        )

    @asynccontextmanager
    async def plug(self, folders: Folders) -> AsyncIterator[Plug]:
        """Give what QEMU is to be started with, while that is open here. Raises TapUnusable."""
        link = link_of(folders)
        if link is None:
            port, guest = folders.port() or 0, self._settings.qemu_guest_port
            yield Plug(
                forwarding(self._options.address, port, guest), mac_address(folders.top.name)
            )
            return
        descriptor = await _opened(link)
        try:
            yield Plug(plugged(descriptor), link.mac, (descriptor,))
        finally:
            os.close(descriptor)  # QEMU alone has it from now on

    def taken(self, folders: Folders) -> str:
        """Say what another program took of a machine that must keep it."""
        link = link_of(folders)
        what = (
            f"the tap {link.tap}"
            if link is not None
            else f"port {folders.port()} of {self._options.address}"
        )
        return f"{what}, which is this instance's, is taken by another program: end that one"

    def endpoint(self, folders: Folders) -> Endpoint | None:
        """Return where a machine is reached; None while nobody knows it.

        The host forgets its neighbours: when its bridge gets another address, or there are many.
        So it is made to ask at the address that the machine had; who answers is in the table then.
        """
        link = link_of(folders)
        if link is None:
            return Endpoint(address=self._options.address, port=folders.port() or 0)
        for address in self._addresses(link):
            folders.keep_address(address)
            return Endpoint(address=address, port=0)
        last = folders.address()
        if last is not None:
            meet(last)
        return None

    def _addresses(self, link: Link) -> Iterator[str]:
        for file in self._settings.lease_files():
            try:
                yield from leases(file.read_text(errors="replace"), link.mac)
            except OSError as error:
                log.warning("leases_unreadable", file=str(file), error=str(error))
        yield from neighbours(_NEIGHBOURS.read_text(), link.mac)

    def give_back(self, port: int | None, link: Link | None) -> None:
        """Let another machine have the place of one that is deleted."""
        if port is not None:
            self._ports.give_back(port)
        if link is not None:
            self._taps.discard(link.tap)


async def _opened(link: Link) -> int:
    """Return a tap's descriptor; the machine that had it before ended just now, or is about to."""
    for _ in range(_TRIES):
        try:
            return _open(link)
        except TapBusy:
            await asyncio.sleep(_MOMENT)
    return _open(link)


def _open(link: Link) -> int:
    if link.bridge:
        return make_tap(link.tap, link.mac, link.bridge)
    return open_tap(link.tap)


def _taps_of(instances: Iterable[Folders]) -> set[str]:
    """Return the taps of all machines; one whose tap cannot be read fails by itself, later."""
    found = set()
    for folders in instances:
        with suppress(OperationFailed):
            link = link_of(folders)
            if link is not None:
                found.add(link.tap)
    return found


def link_of(folders: Folders) -> Link | None:
    """Return a machine's tap, if it has one."""
    kept = folders.identity()
    return Link(**kept) if "tap" in kept else None
