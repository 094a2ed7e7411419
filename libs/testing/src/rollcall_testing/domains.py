"""Domains of a private libvirt, as the libvirt driver makes them, looked at from outside."""

import atexit
import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rollcall_embedded.libvirt import POOL, LibvirtDaemon

from rollcall_testing import tiny_machine
from rollcall_testing.instances import MachineKind, Place
from rollcall_testing.vm_images import TOOLS

_FOLDER = "TEST_LIBVIRT_POOL_FOLDER"  # tells a child where the daemon's pool is


def install_libvirt() -> None:
    """Install what libvirt's tests need, where that is possible."""
    subprocess.run([TOOLS / "install-libvirt"], check=True)


def libvirt_is_there() -> bool:
    """Say whether a private libvirt can be started here, and asked."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return shutil.which("libvirtd", path=path) is not None and find_spec("libvirt") is not None


class DomainKind(MachineKind):
    """A domain with the tiny system."""

    driver = "libvirt"

    def __init__(self) -> None:
        self._daemon: LibvirtDaemon | None = None

    def install(self) -> None:
        install_libvirt()
        self.daemon()

    def daemon(self) -> LibvirtDaemon:
        """Return the daemon of this run of tests, which ends with it."""
        if self._daemon is None:
            self._daemon = LibvirtDaemon()
            atexit.register(self._daemon.stop)
            self._daemon.start()
            (self._daemon.folder / "template.xml").write_text(_template())
        return self._daemon

    @property
    def environment(self) -> Mapping[str, str]:  # type: ignore[override]
        """What the agent is told, once the daemon runs."""
        daemon = self.daemon()
        return {
            _FOLDER: str(daemon.pool),
            "ROLLCALL_LIBVIRT_URI": daemon.uri,
            "ROLLCALL_LIBVIRT_POOL": POOL,
            "ROLLCALL_LIBVIRT_TEMPLATE": str(daemon.folder / "template.xml"),
            "ROLLCALL_LIBVIRT_TYPE": "qemu",
            "ROLLCALL_LIBVIRT_MEMORY": "32",
            "ROLLCALL_LIBVIRT_DATA_DISK_BYTES": str(1024**2),
            "ROLLCALL_LIBVIRT_FREE_BYTES": str(1024**2),
            "ROLLCALL_LIBVIRT_BOOT_TIME": "0.2",
            "ROLLCALL_LIBVIRT_ANSWER_TIME": "1",
        }

    def _pool(self) -> Path:
        return Path(os.environ[_FOLDER])

    def _data_disk(self, place: Place) -> Path:
        return self._pool() / f"rollcall-{place.key}-data-0.raw"

    def boots(self, place: Place) -> list[str]:
        disk = self._data_disk(place)
        return [f"{each}.0.0" for each in tiny_machine.history(disk)] if disk.exists() else []

    def replace_data_disk(self, place: Place) -> None:
        super().replace_data_disk(place)
        owner = self._pool().stat()
        os.chown(self._data_disk(place), owner.st_uid, owner.st_gid)

    def _domains(self) -> list[Any]:
        libvirt: Any = importlib.import_module("libvirt")
        found = libvirt.open(os.environ["ROLLCALL_LIBVIRT_URI"]).listAllDomains()
        return [each for each in found if each.name().startswith("rollcall-")]

    def living(self, state: Path) -> int:
        return sum(bool(domain.isActive()) for domain in self._domains())

    def leftovers(self, place: Place) -> list[str]:
        known = {
            name
            for domain in self._domains()
            for names in re.findall(r'volumes="([^"]*)"', domain.XMLDesc(2))
            for name in names.split()
        }
        begin = f"rollcall-{place.key}-"
        there = {file.name for file in self._pool().iterdir() if file.name.startswith((begin, "."))}
        kept = (f"{begin}data-", f"{begin}boot-")  # data disks, and consoles of boots before
        return sorted(name for name in there - known if not name.startswith(kept))

    def exists(self, place: Place) -> bool:
        begin = f"rollcall-{place.key}"
        return any(domain.name() == begin for domain in self._domains()) or any(
            file.name.startswith(begin) for file in self._pool().iterdir()
        )

    def clear(self, state: Path) -> None:
        for domain in self._domains():
            if domain.isActive():
                domain.destroy()
            domain.undefine()
        for file in self._pool().iterdir():
            file.unlink()


def _template() -> str:
    """Return the default template, with a firmware that shows the tiny system its data disk."""
    text = files("instance_agent.drivers.libvirt").joinpath("template.xml").read_text()
    end = "</qemu:commandline>"
    assert end in text
    return text.replace(end, f"<qemu:arg value='-boot'/><qemu:arg value='strict=off'/>{end}")


DOMAIN = DomainKind()
