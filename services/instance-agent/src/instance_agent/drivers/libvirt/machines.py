"""What is done to domains and their volumes, each on an open connection, in a thread."""

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from rollcall_contracts.model import FailureCode

from instance_agent.domain.data_disks import HEAD, DataDisk, identify
from instance_agent.domain.libvirt.claim import Claim, Kept, Source
from instance_agent.domain.libvirt.domains import (
    DiskView,
    data_disks,
    new_disk,
    target_name,
)
from instance_agent.domain.libvirt.template import fill_template
from instance_agent.domain.qemu import mac_address
from instance_agent.domain.record import Disk
from instance_agent.driver import InstanceRef, NewDisk, Observation, Options
from instance_agent.drivers.libvirt import claims
from instance_agent.drivers.libvirt.busy import refuse_busy
from instance_agent.drivers.libvirt.claims import Claims, definition
from instance_agent.drivers.libvirt.connection import bindings
from instance_agent.drivers.libvirt.settings import LibvirtSettings
from instance_agent.drivers.libvirt.volumes import Pool
from instance_agent.drivers.ports import Ports
from instance_agent.drivers.qemu.disks import BASE
from instance_agent.failures import OperationFailed

log = structlog.get_logger()

_BOOT = "boot-"  # begins what follows an instance's name in that of a boot's log
_LOGS_KEPT = 10  # of boots before the present one
_OVERLAID, _RAW = ".qcow2", ".raw"  # bases that disks stand on, and those that are copied
OS_TARGET, SEED_TARGET = target_name(0), target_name(701)  # of domains that we make


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What an OS disk is made from, on the agent's machine."""

    new: NewDisk
    seed: Path
    digest: str  # of the base
    type: str  # of a new domain: kvm or qemu


class Machines:
    """The domains of one agent."""

    def __init__(self, options: Options, settings: LibvirtSettings, template: str) -> None:
        """Take what the driver was told, and the checked template."""
        self._options = options
        self._settings = settings
        self._template = template
        self.claims = Claims(options.host, settings.adoptions)
        self._port_lock = threading.Lock()

    def pool(self, connection: Any) -> Pool:
        """Return the pool that all volumes are made in."""
        return Pool(connection, self._settings.libvirt_pool)

    def _name(self, ref: InstanceRef) -> str:
        return f"{self._settings.libvirt_prefix}-{ref.key}"

    def prepare(self, connection: Any, ref: InstanceRef, given: Ingredients) -> None:
        """Make the domain, data disks and the OS disk on its base, as far as they are missing.

        The OS disk is there once the domain's facts list it: before, nothing knows of its volumes.
        """
        pool = self.pool(connection)
        pool.refresh()
        found = self.claims.find(connection, ref)
        if found is None:
            found = self._define(connection, pool, ref, given.type)
        domain, claim = found
        refuse_busy(domain)
        if not claim.adopted:
            self._add_data_disks(connection, pool, ref, domain, given.new.data_disks)
        if claim.kept(given.new.disk.name) is not None:
            return
        kept = self._make_os_disk(pool, ref, claim, given, self._base(pool, given.digest))
        claims.write(domain, claim.with_disk(kept))

    def free_for(self, connection: Any, ref: InstanceRef, disk: str) -> tuple[str, int] | None:
        """Return where a new OS disk will be and how many bytes are free; None: it is made."""
        found = self.claims.find(connection, ref)
        if found is not None and found[1].kept(disk) is not None:
            return None
        pool = self.pool(connection)
        return pool.words, pool.free()

    def bring_base(self, connection: Any, image: Path, digest: str, stop: threading.Event) -> None:
        """Have what OS disks of an image stand on in the pool; one call at a time."""
        pool = self.pool(connection)
        pool.refresh()
        base = self._base(pool, digest)
        pool.make_base(base, image / BASE, raw=base.endswith(_RAW), stop=stop)

    def _base(self, pool: Pool, digest: str) -> str:
        return self._base_stem(digest) + (_RAW if self._clones(pool) else _OVERLAID)

    def _base_stem(self, digest: str) -> str:
        return f"{self._settings.libvirt_prefix}-base-{digest[:32]}"

    def _clones(self, pool: Pool) -> bool:
        wanted = self._settings.libvirt_disks
        return wanted == "clone" or (wanted == "auto" and not pool.folder())

    def _make_os_disk(
        self, pool: Pool, ref: InstanceRef, claim: Claim, given: Ingredients, base: str
    ) -> Kept:
        disk = given.new.disk
        begin = f"{self._name(ref)}-{disk.name}"
        overlay = base.endswith(_OVERLAID)
        volume = f"{begin}-os.{'qcow2' if overlay else 'raw'}"
        (pool.make_overlay if overlay else pool.make_clone)(volume, base)
        volumes = [volume]
        seed = None
        if claim.seed_target:
            volumes.append(f"{begin}-seed.iso")
            pool.make_from(volumes[1], given.seed)
            seed = pool.source(volumes[1], "raw")
        return Kept(
            disk=disk,
            source=pool.source(volume, "qcow2" if overlay else "raw"),
            seed=seed,
            volumes=tuple(volumes),
            base=base if overlay else "",
        )

    def _define(
        self, connection: Any, pool: Pool, ref: InstanceRef, type: str
    ) -> tuple[Any, Claim]:
        """Make a domain from the template: without disks, and with its facts."""
        libvirt = bindings()
        settings = self._settings
        name = self._name(ref)
        with self._port_lock:  # until the domain is there, and says that it has the port
            port = self._free_port(connection) if "${port}" in self._template else 0
            claim = replace(
                self.claims.new(ref),
                os_target=OS_TARGET,
                seed_target=SEED_TARGET,
                address=self._options.address if port else "",
                port=port,
            )
            folder = settings.libvirt_console_dir or pool.folder() or "/var/log/libvirt/qemu"
            values: dict[str, str | int] = {
                "name": name,
                "type": type,
                "memory": settings.libvirt_memory,
                "cpus": settings.libvirt_cpus,
                "mac": mac_address(ref.key),
                "console": f"{folder}/{name}.log",
                "address": self._options.address,
                "port": port,
                "guest_port": settings.libvirt_guest_port,
            }
            text = fill_template(self._template, values, claim)
            try:
                domain = connection.defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
            except libvirt.libvirtError as error:
                raise OperationFailed(
                    FailureCode.DRIVER,
                    f"libvirt takes no domain from the template: {error}; mend "
                    "ROLLCALL_LIBVIRT_TEMPLATE",
                    ref.instance_id,
                ) from error
        return domain, claim

    def _free_port(self, connection: Any) -> int:
        taken = {claim.port for _, claim in claims.all_claims(connection)}
        options = self._options
        return Ports(options.ports, options.address, options.agent, taken).take()

    def _add_data_disks(
        self,
        connection: Any,
        pool: Pool,
        ref: InstanceRef,
        domain: Any,
        luns: tuple[int, ...],
    ) -> None:
        xml = definition(domain)
        there = {disk.serial for disk in xml.disks()}
        missing = [lun for lun in luns if f"data-{lun}" not in there]
        for lun in missing:
            volume = f"{self._name(ref)}-data-{lun}.raw"
            pool.make_empty(volume, self._settings.libvirt_data_disk_bytes)
            source = pool.source(volume, "raw")
            target, serial = target_name(lun + 1), f"data-{lun}"
            xml.add_disk(new_disk(source, target, serial, read_only=False))
        if missing:
            connection.defineXML(xml.text())

    def swap(self, connection: Any, ref: InstanceRef, old: str | None, new: str) -> None:
        """Have the OS disk, and the seed with it, be others: one new definition of the domain."""
        domain, claim = self._found(connection, ref)
        xml = definition(domain)
        now = in_place(xml.disk(claim.os_target), claim)
        if now is not None and now.name == new:
            return
        if (now.name if now else None) != old:
            raise OperationFailed(
                FailureCode.DRIVER,
                f"OS disk {now.name if now else None} is in place where {old} was expected; "
                "nothing was changed",
                ref.instance_id,
            )
        kept = claim.kept(new)
        if kept is None:
            raise OperationFailed(
                FailureCode.DRIVER, f"OS disk {new} does not exist", ref.instance_id
            )
        refuse_busy(domain)
        for target, source, serial in (
            (claim.os_target, kept.source, "os"),
            (claim.seed_target, kept.seed, "seed"),
        ):
            if not target or source is None:
                continue
            if xml.disk(target) is None:
                xml.add_disk(new_disk(source, target, serial, read_only=serial == "seed"))
            else:
                xml.point(target, source)
        connection.defineXML(xml.text())

    def keep_console(self, connection: Any, ref: InstanceRef) -> None:
        """Keep what the boot before wrote to the console: the next one begins its file anew.

        Where that file is in the pool, and the domain one that we made.
        """
        domain, claim = self._found(connection, ref)
        place = Path(definition(domain).console())
        pool = self.pool(connection)
        if claim.adopted or str(place.parent) != pool.folder():
            return
        begin = f"{self._name(ref)}-{_BOOT}"
        try:
            kept = sorted(name for name in pool.names() if name.startswith(begin))
            last = int(kept[-1].removeprefix(begin).partition(".")[0]) if kept else 0
            pool.copy(place.name, f"{begin}{last + 1:06d}.log")
            for name in kept[: -_LOGS_KEPT + 1]:
                pool.drop(name)
        except bindings().libvirtError as error:  # no reason not to start it
            log.warning("console_not_kept", instance=ref.instance_id, why=str(error))

    def observe(self, connection: Any, ref: InstanceRef) -> Observation:
        """Look at a domain's state, its definition and its volumes."""
        found = self.claims.find(connection, ref)
        if found is None:
            return Observation(running=False, disk=None)
        domain, claim = found
        xml = definition(domain)
        pool = self.pool(connection)
        return Observation(
            running=is_running(domain),
            disk=in_place(xml.disk(claim.os_target), claim),
            disks=frozenset(
                kept.disk.name for kept in claim.disks if all(map(pool.is_there, kept.volumes))
            ),
            data_disks={
                lun: seen
                for lun, disk in data_disks(xml, claim).items()
                if (seen := _identity(domain, disk)) is not None
            },
        )

    def commit(self, connection: Any, ref: InstanceRef, keep: frozenset[str]) -> None:
        """Drop the other OS disks: first from the domain's facts, then their volumes."""
        found = self.claims.find(connection, ref)
        if found is None:
            return
        domain, claim = found
        fewer = claim.keeping(keep)
        if fewer != claim:
            claims.write(domain, fewer)
        self._drop_volumes(connection, ref, fewer)

    def _drop_volumes(self, connection: Any, ref: InstanceRef, claim: Claim | None) -> None:
        """Drop an instance's volumes that its facts do not name.

        Data disks and logs go with the instance only.
        """
        pool = self.pool(connection)
        begin = f"{self._name(ref)}-"
        wanted = {volume for kept in claim.disks for volume in kept.volumes} if claim else set()
        lasting = (f"{begin}data-", f"{begin}{_BOOT}")
        for name in sorted(pool.names() - wanted):
            if name.startswith(begin) and (claim is None or not name.startswith(lasting)):
                pool.drop(name)
            if claim is None and name == f"{self._name(ref)}.log":
                pool.drop(name)

    def drop_bases(self, connection: Any, wanted: Iterable[str]) -> None:
        """Drop the bases that no disk stands on, but for those of these digests.

        None goes while a domain's metadata cannot be read: they may name any of them.
        """
        try:
            known = claims.every_claim(connection)
        except OperationFailed as error:
            log.warning("bases_kept", why=str(error))
            return
        pool = self.pool(connection)
        used = {kept.base for claim in known for kept in claim.disks}
        used |= {self._base_stem(digest) + _OVERLAID for digest in wanted}
        # Raw ones are kept: no disk stands on them.
        doomed = [
            name
            for name in pool.names() - used
            if name.startswith(self._base_stem("")) and name.endswith(_OVERLAID)
        ]
        for name in sorted(set(doomed) - pool.stood_on()) if doomed else ():
            pool.drop_base(name)

    def delete(self, connection: Any, ref: InstanceRef) -> None:
        """Drop a domain that we made, with all its volumes; let go of one that was adopted.

        Raises OperationFailed where it is not found and a domain's metadata cannot be read: that
        may be the one, and use the volumes.
        """
        libvirt = bindings()
        found = self.claims.find(connection, ref)
        if found is None:
            claims.every_claim(connection)
        if found is not None and found[1].adopted:
            domain, claim = found
            now = in_place(definition(domain).disk(claim.os_target), claim)
            rest = claim.keeping({now.name} if now else ())
            claims.write(domain, replace(rest, released=True))
            self._drop_volumes(connection, ref, rest)
            return
        if found is not None:
            domain = found[0]
            with suppress(libvirt.libvirtError):
                domain.destroy()
            domain.undefineFlags(
                libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
            )
        self._drop_volumes(connection, ref, None)

    def _found(self, connection: Any, ref: InstanceRef) -> tuple[Any, Claim]:
        found = self.claims.find(connection, ref)
        if found is None:
            raise OperationFailed(
                FailureCode.DRIVER,
                f"libvirt has no domain that is instance {ref.instance_id}: was it undefined, or "
                "its metadata removed?",
                ref.instance_id,
            )
        return found

    def domain(self, connection: Any, ref: InstanceRef) -> tuple[Any, Claim]:
        """Return an instance's domain with its facts. Raises OperationFailed where it is gone."""
        return self._found(connection, ref)


def is_running(domain: Any) -> bool:
    """Say whether a domain's processors run, or will end their work by themselves."""
    return domain.info()[0] in running_states()


def running_states() -> tuple[int, ...]:
    """Return the states in which a domain runs. A paused one does not: such as on a full disk."""
    libvirt = bindings()
    return (
        libvirt.VIR_DOMAIN_RUNNING,
        libvirt.VIR_DOMAIN_BLOCKED,
        libvirt.VIR_DOMAIN_SHUTDOWN,
    )


def in_place(disk: DiskView | None, claim: Claim) -> Disk | None:
    """Return the OS disk that a domain starts from; another one has no facts."""
    if disk is None:
        return None
    kept = claim.at(disk.source)
    if kept is not None:
        return kept.disk
    return Disk(name=disk.path or _words(disk.source), version="", generation=0)


def _words(source: Source | None) -> str:
    return source.xml if source is not None else "nothing"


def _identity(domain: Any, disk: DiskView) -> DataDisk | None:
    """Return what tells a data disk from others; None for one that is gone.

    A file of this machine is known by its inode, any other by its path alone.
    """
    place = disk.path or _words(disk.source)
    if disk.path.startswith("/"):
        try:
            facts = os.stat(disk.path)
            place = f"inode {facts.st_dev}:{facts.st_ino}"
        except PermissionError:
            place = disk.path
        except OSError:
            if not _peek(domain, disk):
                return None
    if disk.source is None or disk.source.format != "raw":
        return DataDisk(place=place)  # what is in a qcow2 file does not stand at its beginning
    return DataDisk(place=place, content=identify(_peek(domain, disk)))


def _peek(domain: Any, disk: DiskView) -> bytes:
    """Return a disk's first bytes, read here or by libvirt; b"" where neither can."""
    with suppress(OSError), open(disk.path, "rb") as opened:
        return opened.read(HEAD)
    with suppress(bindings().libvirtError):
        return bytes(domain.blockPeek(disk.path, 0, HEAD))
    return b""
