"""Volumes of a storage pool, wherever libvirt runs: made, filled, read and deleted through it."""

import json
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.dom import minidom

from rollcall_contracts.model import FailureCode

from instance_agent import space
from instance_agent.domain.libvirt.claim import Source
from instance_agent.domain.libvirt.domains import place_of
from instance_agent.domain.libvirt.nodes import child, escaped, parsed, text_of
from instance_agent.drivers.libvirt.connection import bindings
from instance_agent.failures import OperationFailed

_CHUNK = 256 * 1024
_BUSY, _LOOK = 5.0, 0.02  # seconds that a pool may be busy with volumes, and between two looks
_COMPLETE = ".complete"  # a volume of this ending says that a base was written to its end


class Stopped(Exception):
    """An upload was cut short, as nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A storage pool of an open connection. Raises libvirt's own errors, and OperationFailed."""

    connection: Any
    name: str

    def _pool(self) -> Any:
        libvirt = bindings()
        try:
            found = self.connection.storagePoolLookupByName(self.name)
        except libvirt.libvirtError as error:
            known = ", ".join(pool.name() for pool in self.connection.listAllStoragePools())
            raise OperationFailed(
                FailureCode.DRIVER,
                f"there is no storage pool {self.name!r}, but: {known or 'none'}; make it (virsh "
                "pool-define-as, pool-start, pool-autostart), or mend ROLLCALL_LIBVIRT_POOL",
            ) from error
        if not found.isActive():
            found.create()
        return found

    def folder(self) -> str:
        """Return where its files are, or "" where it is no pool of files."""
        root = minidom.parseString(self._pool().XMLDesc()).documentElement
        if root is None or root.getAttribute("type") not in ("dir", "fs", "netfs"):
            return ""
        (path,) = root.getElementsByTagName("path")
        return "".join(part.data for part in path.childNodes if isinstance(part, minidom.Text))

    def free(self) -> int:
        """Return how many bytes may still be written to it."""
        self.refresh()
        return int(self._pool().info()[3])

    def need(self, wanted: int, what: str) -> None:
        """Raise OperationFailed (HostDiskFull) where it has not that many bytes left."""
        space.compare(self.free(), wanted, what, self.words)

    @property
    def words(self) -> str:
        """Return what people call it."""
        return f"the storage pool {self.name}"

    def find(self, name: str) -> Any:
        """Return the volume of that name, or None."""
        libvirt = bindings()
        try:
            return self._pool().storageVolLookupByName(name)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
                return None
            raise

    def is_there(self, name: str) -> bool:
        """Say whether a volume is there, and has not been taken away behind libvirt's back."""
        volume = self.find(name)
        if volume is None:
            return False
        try:
            volume.info()
        except bindings().libvirtError:
            return False
        return True

    def refresh(self) -> None:
        """Have libvirt look what there is, which it does not do by itself.

        It refuses while a volume is being made, as another instance's may be; where that lasts,
        such as for a large copy, what libvirt knows must do.
        """
        deadline = time.monotonic() + _BUSY
        while True:
            try:
                self._pool().refresh()
            except bindings().libvirtError as error:
                if "asynchronous jobs" not in str(error):  # its code is that of any fault
                    raise
                if time.monotonic() >= deadline:
                    return
                time.sleep(_LOOK)
            else:
                return

    def source(self, name: str, format: str) -> Source:
        """Return a volume as a disk names it."""
        libvirt = bindings()
        volume = self.find(name)
        if volume is None:
            raise OperationFailed(FailureCode.DRIVER, f"volume {name} of {self.name} is gone")
        kind = volume.info()[0]
        if kind not in (libvirt.VIR_STORAGE_VOL_FILE, libvirt.VIR_STORAGE_VOL_BLOCK):
            raise OperationFailed(
                FailureCode.DRIVER,
                f"volumes of the pool {self.name} are neither files nor block devices: name "
                "another one in ROLLCALL_LIBVIRT_POOL",
            )
        block = kind == libvirt.VIR_STORAGE_VOL_BLOCK
        return place_of(volume.path(), block=block, format=format)

    def names(self) -> set[str]:
        """Return the names of all volumes."""
        self.refresh()
        return {str(volume.name()) for volume in self._pool().listAllVolumes()}

    def stood_on(self) -> set[str]:
        """Return the names of the volumes that others of the pool stand on."""
        volumes = self._pool().listAllVolumes()
        names = {str(volume.path()): str(volume.name()) for volume in volumes}
        found = set()
        for volume in volumes:
            with suppress(bindings().libvirtError):  # it has just been dropped
                store = child(parsed(volume.XMLDesc()), "backingStore")
                path = text_of(child(store, "path")) if store is not None else ""
                if path in names:
                    found.add(names[path])
        return found

    def drop(self, name: str) -> None:
        """Delete a volume, if it is there."""
        volume = self.find(name)
        if volume is not None:
            volume.delete()

    def make_empty(self, name: str, size: int) -> None:
        """Make an empty raw volume, sparse where the pool can; one that is there stays."""
        if self.find(name) is None:
            self._pool().createXML(_volume(name, size, "raw"), 0)

    def make_overlay(self, name: str, base: str) -> None:
        """Make a volume that holds what changes, on top of a base."""
        self.drop(name)
        below = self.find(base)
        backing = (
            f"<backingStore><path>{escaped(below.path())}</path><format type='qcow2'/>"
            "</backingStore>"
        )
        self._pool().createXML(_volume(name, below.info()[1], "qcow2", backing), 0)

    def make_clone(self, name: str, base: str) -> None:
        """Make a whole copy of a base."""
        self.drop(name)
        below = self.find(base)
        self._pool().createXMLFrom(_volume(name, below.info()[1], "raw"), below, 0)

    def make_base(self, name: str, image: Path, *, raw: bool, stop: threading.Event) -> None:
        """Bring a base into the pool, unless it is there; one that was cut off is made anew.

        Raises Stopped.
        """
        if self.find(name) is not None and self.find(name + _COMPLETE) is not None:
            return
        self.drop(name + _COMPLETE)
        self.drop(name)
        facts = json.loads(_qemu_img("info", "--output", "json", "-f", "qcow2", str(image)))
        size = int(facts["virtual-size"])
        if not raw:
            self.need(image.stat().st_size, "the image")
            self._pool().createXML(_volume(name, size, "qcow2"), 0)
            self._upload(name, image, stop)
        else:
            self.need(size, "the image, as a raw volume,")
            plain = image.with_name(f".{name}.raw")
            try:
                _qemu_img("convert", "-f", "qcow2", "-O", "raw", str(image), str(plain))
                self._pool().createXML(_volume(name, size, "raw"), 0)
                self._upload(name, plain, stop)
            finally:
                plain.unlink(missing_ok=True)
        self.refresh()  # libvirt itself reads what the file holds now
        self._pool().createXML(_volume(name + _COMPLETE, 4096, "raw"), 0)

    def copy(self, name: str, to: str) -> None:
        """Make a volume with the content that another one has now, if that is there and has any."""
        volume = self.find(name)
        size = volume.info()[1] if volume is not None else 0
        if size:
            self._pool().createXMLFrom(_volume(to, size, "raw"), volume, 0)

    def drop_base(self, name: str) -> None:
        """Delete a base."""
        self.drop(name + _COMPLETE)
        self.drop(name)

    def make_from(self, name: str, file: Path) -> None:
        """Make a small volume with a file's content."""
        self.drop(name)
        self._pool().createXML(_volume(name, file.stat().st_size, "raw"), 0)
        self._upload(name, file, threading.Event())

    def _upload(self, name: str, file: Path, stop: threading.Event) -> None:
        stream = self.connection.newStream()
        volume = self.find(name)
        volume.upload(stream, 0, 0, 0)
        try:
            with file.open("rb") as opened:
                while chunk := opened.read(_CHUNK):
                    if stop.is_set():
                        raise Stopped
                    _send(stream, chunk)
            stream.finish()
        except BaseException:
            with suppress(bindings().libvirtError):  # the stream may have ended by its own fault
                stream.abort()
            raise

    def tail(self, path: str, size: int) -> bytes:
        """Return the last of a file in the pool; b"" where it is not there."""
        libvirt = bindings()
        try:
            self.refresh()
            volume = self.connection.storageVolLookupByPath(path)
            length = volume.info()[1]
            return self._read(volume, max(0, length - size), min(size, length))
        except libvirt.libvirtError:
            return b""

    def _read(self, volume: Any, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        stream = self.connection.newStream()
        volume.download(stream, offset, length, 0)
        parts: list[bytes] = []
        stream.recvAll(lambda _stream, data, _opaque: parts.append(data), None)
        stream.finish()
        return b"".join(parts)


def _send(stream: Any, chunk: bytes) -> None:
    while chunk:
        sent = stream.send(chunk)
        if sent < 0:
            raise OperationFailed(FailureCode.DRIVER, "libvirt took no more of an upload")
        chunk = chunk[sent:]


def _volume(name: str, size: int, format: str, more: str = "") -> str:
    allocation = "" if format == "qcow2" else "<allocation>0</allocation>"
    return (
        f"<volume><name>{escaped(name)}</name><capacity>{size}</capacity>{allocation}"
        f"<target><format type='{format}'/></target>{more}</volume>"
    )


def _qemu_img(*arguments: str) -> str:
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise OperationFailed(FailureCode.DRIVER, f"qemu-img failed: {done.stderr.strip()}")
    return done.stdout
