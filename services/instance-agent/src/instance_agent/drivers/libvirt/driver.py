"""The driver itself: what each step does with a domain. See docs/libvirt.md."""

import asyncio
import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog
from rollcall_contracts.model import FailureCode

from instance_agent.domain.libvirt.domains import DomainXml
from instance_agent.domain.libvirt.template import TemplateInvalid, check_template
from instance_agent.domain.record import Disk
from instance_agent.driver import (
    Capabilities,
    DriverNotFound,
    Endpoint,
    InstanceRef,
    NewDisk,
    Observation,
    Options,
    Script,
    ScriptResult,
)
from instance_agent.drivers.addresses import until_known
from instance_agent.drivers.boots import Boots, Turn, usual_folder
from instance_agent.drivers.files import tail
from instance_agent.drivers.libvirt import guest
from instance_agent.drivers.libvirt.busy import refuse_saved
from instance_agent.drivers.libvirt.claims import definition
from instance_agent.drivers.libvirt.connection import Connection, bindings
from instance_agent.drivers.libvirt.machines import (
    Ingredients,
    Machines,
    in_place,
    is_running,
    running_states,
)
from instance_agent.drivers.libvirt.network import address_of
from instance_agent.drivers.libvirt.settings import LibvirtSettings
from instance_agent.drivers.qemu import disks
from instance_agent.drivers.qemu.accelerator import accelerator
from instance_agent.drivers.qemu.channel import GuestSilent
from instance_agent.drivers.qemu.seed import build_seed
from instance_agent.failures import OperationFailed

log = structlog.get_logger()

T = TypeVar("T")

_ASK_AGAIN = 1.0  # seconds between two presses of the power button
_LOOK = 0.1  # seconds between two looks at a domain that is to stop
_LOOK_AT_ALL = 1.0  # seconds between two looks at all domains that run
_CONSOLE_TAIL = 4096  # bytes
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n\t -~]")


class LibvirtDriver:
    """See `instance_agent.driver.Driver`."""

    name = "libvirt"
    capabilities = Capabilities(adopts=True, cloud_init=True)

    def __init__(self, options: Options) -> None:
        """Reach libvirt, and check the template. Raises DriverNotFound."""
        self._options = options
        self._settings = LibvirtSettings()
        bindings()
        self._lib = Connection(self._settings.libvirt_uri, self._settings.libvirt_patience)
        template = _template(self._settings)
        # Where QEMU's own network forwards a port, QEMU itself takes connections.
        self.capabilities = replace(
            type(self).capabilities, tcp_probe_proves_guest="${port}" not in template
        )
        self._machines = Machines(options, self._settings, template)
        patience = self._settings.libvirt_answer_time
        self.guests = guest.Guests(self._lib, self._machines.domain, patience)
        self._lib.check()
        options.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in options.folder.glob(".seed-*"):  # of a preparation that was killed
            shutil.rmtree(left)
        self._boots = _boots(self._settings)
        self._booting: set[asyncio.Task[None]] = set()
        self._trial = asyncio.Lock()
        self._bases = asyncio.Lock()  # held while one is brought into the pool, or dropped
        self._wanted: Counter[str] = Counter()  # digests of those that disks are being made on
        self._look: asyncio.Task[dict[str, int]] | None = None

    async def import_image(self, file: Path, folder: Path) -> None:
        """Make a qcow2 base, as the qemu driver does; libvirt gets it when a disk is made on it."""
        await disks.make_base(file, folder, max_bytes=self._options.max_unpacked_bytes)

    async def adopt(self, ref: InstanceRef) -> Disk | None:
        """Take over the next domain that may become this instance; None where none is left."""

        def take(connection: Any) -> Disk | None:
            found = self._machines.claims.adopt(connection, ref)
            if found is None:
                return None
            domain, claim = found
            return in_place(definition(domain).disk(claim.os_target), claim)

        disk = await self._lib.call(take)
        if disk is None and not self._settings.libvirt_create:
            raise OperationFailed(
                FailureCode.DRIVER,
                "no domain is left here that may become an instance of this scale set: mark or "
                "name one (ROLLCALL_LIBVIRT_ADOPT), lower the capacity, or allow new ones "
                "(ROLLCALL_LIBVIRT_CREATE)",
                ref.instance_id,
            )
        return disk

    async def prepare(self, ref: InstanceRef, new: NewDisk) -> None:
        """Make the domain if need be, and beside its OS disk the new one with its seed."""
        await asyncio.to_thread(disks.check_base, new.image)
        await self._ask_for_room(ref, new.disk)
        with tempfile.TemporaryDirectory(dir=self._options.folder, prefix=".seed-") as folder:
            seed = Path(folder) / disks.SEED
            await build_seed(seed, ref, new.disk, new.custom_data)
            digest = disks.base_digest(new.image)
            given = Ingredients(new=new, seed=seed, digest=digest, type=await self._type())
            machines = self._machines
            self._wanted[digest] += 1
            try:
                async with self._bases:
                    await self._stoppable(
                        lambda c, stop: machines.bring_base(c, new.image, digest, stop)
                    )
                await self._lib.call(lambda c: machines.prepare(c, ref, given))
            finally:
                self._wanted[digest] -= 1

    async def _ask_for_room(self, ref: InstanceRef, disk: Disk) -> None:
        found = await self._lib.call(lambda c: self._machines.free_for(c, ref, disk.name))
        if found is not None:
            wanted, what = self._settings.libvirt_free_bytes, "a new OS disk, as it fills,"
            self._options.room.promise_at(ref.key, *found, wanted, what)

    async def _stoppable(self, work: Callable[[Any, threading.Event], T]) -> T:
        """Do work that ends early when nobody waits for it any more."""
        stop = threading.Event()
        task = asyncio.create_task(self._lib.call(lambda connection: work(connection, stop)))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # nobody asks for it any more
            raise

    async def _type(self) -> str:
        """Return the type of new domains: kvm where guests really run with it."""
        wanted = self._settings.libvirt_type
        if wanted != "auto":
            return wanted
        if urlsplit(self._settings.libvirt_uri).hostname is None:
            memory = self._options.folder / ".accelerator.json"
            async with self._trial:
                found = await accelerator("auto", "qemu-system-x86_64", memory)
            return "kvm" if found == "kvm" else "qemu"
        return await self._lib.call(_offered)

    async def stop(self, ref: InstanceRef, grace: float) -> None:
        """Ask the guest agent, or press the power button, until it has stopped; then end it."""
        if not await self._lib.call(lambda c: self._is_active(c, ref)):
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        asked: asyncio.Task[None] | None = None
        asked_at = -_ASK_AGAIN
        try:
            while loop.time() < deadline:
                # Again and again: a guest that is still booting does not notice. Not waited for: an
                # agent in the guest may take the question and never answer.
                if (asked is None or asked.done()) and loop.time() >= asked_at + _ASK_AGAIN:
                    asked_at = loop.time()
                    asked = asyncio.create_task(self._lib.call(lambda c: self._ask(c, ref)))
                await asyncio.sleep(min(_LOOK, max(0, deadline - loop.time())))
                if not await self._lib.call(lambda c: self._is_active(c, ref)):
                    return
            log.warning("domain_stopped_hard", instance=ref.key)
            await self._lib.call(lambda c: self._end(c, ref))
        finally:
            if asked is not None:
                with suppress(OperationFailed):
                    await asked

    def _is_active(self, connection: Any, ref: InstanceRef) -> bool:
        found = self._machines.claims.find(connection, ref)
        return found is not None and bool(found[0].isActive())

    def _ask(self, connection: Any, ref: InstanceRef) -> None:
        libvirt = bindings()
        found = self._machines.claims.find(connection, ref)
        if found is not None:
            with suppress(libvirt.libvirtError):  # it has stopped by now, or is asked again
                found[0].shutdown()  # by the guest agent where one is connected, else by ACPI

    def _end(self, connection: Any, ref: InstanceRef) -> None:
        libvirt = bindings()
        found = self._machines.claims.find(connection, ref)
        if found is None:
            return
        try:
            found[0].destroy()
        except libvirt.libvirtError:
            if found[0].isActive():
                raise

    async def swap(self, ref: InstanceRef, old: str | None, new: str) -> None:
        """Define the domain with the other OS disk."""
        await self._lib.call(lambda c: self._machines.swap(c, ref, old, new))

    async def start(self, ref: InstanceRef, disk: Disk) -> Endpoint:
        """Start the domain once it is this instance's turn to boot; returns when it runs."""
        if not await self._lib.call(lambda c: self._runs_from_its_disk(c, ref)):
            turn = await self._boots.take()
            try:
                await self._lib.call(lambda c: self._start(c, ref))
                await asyncio.sleep(self._options.start_settle)
                if not await self._lib.call(lambda c: self._is_active(c, ref)):
                    raise OperationFailed(
                        FailureCode.START,
                        f"the domain stopped soon after its start: {await self.console(ref)}",
                        ref.instance_id,
                    )
            except BaseException:
                turn.end()
                raise
            task = asyncio.create_task(self._watch_boot(ref))
            self._booting.add(task)
            task.add_done_callback(partial(self._boot_is_over, turn))
        return await self._endpoint(ref)

    def _runs_from_its_disk(self, connection: Any, ref: InstanceRef) -> bool:
        """Have a halted domain go on, and say whether it runs now; one with another disk ends."""
        libvirt = bindings()
        domain, claim = self._machines.domain(connection, ref)
        if not domain.isActive():
            return False
        live, defined = DomainXml(domain.XMLDesc()), definition(domain)
        now, then = live.disk(claim.os_target), defined.disk(claim.os_target)
        same = now is not None and then is not None and now.path == then.path
        state = domain.info()[0]
        if same and state == libvirt.VIR_DOMAIN_PAUSED:  # such as after a full disk
            domain.resume()
            return True
        if same and state == libvirt.VIR_DOMAIN_PMSUSPENDED:
            domain.pMWakeup()
            return True
        if same and is_running(domain):
            return True
        self._end(connection, ref)
        return False

    def _start(self, connection: Any, ref: InstanceRef) -> None:
        libvirt = bindings()
        domain, _ = self._machines.domain(connection, ref)
        refuse_saved(domain)
        try:
            if not domain.isActive():
                self._machines.keep_console(connection, ref)
                domain.create()
        except libvirt.libvirtError as error:
            raise OperationFailed(
                FailureCode.START, f"libvirt does not start the domain: {error}", ref.instance_id
            ) from error

    async def _endpoint(self, ref: InstanceRef) -> Endpoint:
        """Return where the application listens; the network may know only when the guest is up."""

        def look(connection: Any) -> Endpoint | None:
            domain, claim = self._machines.domain(connection, ref)
            return address_of(domain, claim)

        found = await until_known(lambda: self._lib.call(look), self._settings.libvirt_address_time)
        if found is None:
            raise OperationFailed(
                FailureCode.START,
                "neither a lease, nor the guest agent, nor the neighbour table tells the "
                "domain's address: say it in the metadata's address",
                ref.instance_id,
            )
        return found

    async def _watch_boot(self, ref: InstanceRef) -> None:
        """Return when the guest has booted, ended, or had its time: then the next one may boot."""
        patience = self._settings.libvirt_boot_time
        with suppress(OperationFailed):
            socket = await self._lib.call(lambda c: self._socket(c, ref))
            ending = asyncio.create_task(self.wait_stopped(ref))
            greeting = asyncio.create_task(
                guest.greet(socket, patience) if socket else asyncio.sleep(patience)
            )
            try:
                await asyncio.wait((greeting, ending), return_when=asyncio.FIRST_COMPLETED)
            finally:
                greeting.cancel()
                ending.cancel()

    def _boot_is_over(self, turn: Turn, task: asyncio.Task[None]) -> None:
        self._booting.discard(task)
        turn.end()

    def _socket(self, connection: Any, ref: InstanceRef) -> Path | None:
        domain, _ = self._machines.domain(connection, ref)
        return guest.socket_of(DomainXml(domain.XMLDesc()))

    async def run(self, ref: InstanceRef, disk: Disk, script: Script) -> ScriptResult:
        """Run a script in the guest, or ask it what came of the custom data that it booted with.

        Raises OperationFailed (InstanceStartFailed), with the guest's console, where the guest does
        not answer.
        """
        try:
            return await self.guests.run(ref, disk, script)
        except GuestSilent as error:
            runs = await self._lib.call(lambda c: self._is_active(c, ref))
            raise OperationFailed(
                FailureCode.START,
                f"the guest {'does not answer' if runs else 'has stopped'}, {script.name} cannot "
                f"run in it; its console ends with: {await self.console(ref) or 'nothing'}",
                ref.instance_id,
            ) from error

    async def observe(self, ref: InstanceRef) -> Observation:
        """Look at the domain, its definition and its volumes."""
        return await self._lib.call(lambda c: self._machines.observe(c, ref))

    async def wait_stopped(self, ref: InstanceRef) -> None:
        """Wait for the domain to end or to be halted; while libvirt is away, it counts as running.

        All who wait share one look at all domains, once a second: events would have to be asked for
        anew, and made up for, after each restart of the daemon.
        """
        uuid = await self._lib.call(lambda c: self._uuid(c, ref))
        while uuid:
            if self._look is None or self._look.done():
                self._look = asyncio.create_task(self._look_at_all())
            try:
                states = await asyncio.shield(self._look)
            except OperationFailed as error:
                log.warning("libvirt_away", error=str(error))
                continue
            if states.get(uuid) not in running_states():
                return

    def _uuid(self, connection: Any, ref: InstanceRef) -> str:
        found = self._machines.claims.find(connection, ref)
        return str(found[0].UUIDString()) if found is not None else ""

    async def _look_at_all(self) -> dict[str, int]:
        await asyncio.sleep(_LOOK_AT_ALL)
        return await self._lib.call(_states)

    async def console(self, ref: InstanceRef) -> str:
        """Return the last of what the guest wrote to its first serial port."""

        def read(connection: Any) -> str:
            found = self._machines.claims.find(connection, ref)
            place = definition(found[0]).console() if found is not None else ""
            if not place:
                return ""
            with suppress(PermissionError):
                here = tail(Path(place), _CONSOLE_TAIL)
                if here:
                    return here
            there = self._machines.pool(connection).tail(place, _CONSOLE_TAIL)
            return there.decode(errors="replace").strip()

        return _UNPRINTABLE.sub("", await self._lib.call(read))

    async def commit(self, ref: InstanceRef, keep: frozenset[str]) -> None:
        """Drop the other OS disks that we made, with their seeds."""
        await self._lib.call(lambda c: self._machines.commit(c, ref, keep))
        await self._drop_bases()

    async def delete(self, ref: InstanceRef) -> None:
        """Drop the domain and its volumes; one that was adopted stays, switched off."""
        await self._lib.call(lambda c: self._machines.delete(c, ref))
        await self._drop_bases()

    async def _drop_bases(self) -> None:
        async with self._bases:
            wanted = frozenset(+self._wanted)
            await self._lib.call(lambda c: self._machines.drop_bases(c, wanted))


def _template(settings: LibvirtSettings) -> str:
    """Return the template's text. Raises DriverNotFound, saying what is wrong with it."""
    file = settings.libvirt_template
    try:
        own = files("instance_agent.drivers.libvirt").joinpath("template.xml")
        text = own.read_text() if file is None else file.read_text()
        check_template(text)
    except (OSError, UnicodeDecodeError, TemplateInvalid) as error:
        raise DriverNotFound(f"ROLLCALL_LIBVIRT_TEMPLATE={file}: {error}") from error
    return text


def _boots(settings: LibvirtSettings) -> Boots:
    """Return the turns of libvirt's machine. Raises DriverNotFound."""
    remote = urlsplit(settings.libvirt_uri).hostname or ""
    folder = settings.libvirt_boot_locks or usual_folder(remote)
    try:
        return Boots(folder, settings.libvirt_boots_at_once)
    except OSError as error:
        raise DriverNotFound(
            f"ROLLCALL_DRIVER=libvirt: {error}: set ROLLCALL_LIBVIRT_BOOT_LOCKS to a folder of "
            "your own, the same for all agents of this machine"
        ) from error


def _offered(connection: Any) -> str:
    libvirt = bindings()
    try:
        connection.getDomainCapabilities(None, None, None, "kvm")
    except libvirt.libvirtError:
        return "qemu"
    return "kvm"


def _states(connection: Any) -> dict[str, int]:
    """Return the state of each domain, by its UUID."""
    libvirt = bindings()
    found = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE)
    return {domain.UUIDString(): int(facts["state.state"]) for domain, facts in found}
