"""Domains of libvirt that somebody made long before Rollcall: what a demo adopts."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from rollcall_embedded.libvirt import POOL, LibvirtDaemon
from rollcall_embedded.process import free_port

NAMESPACE = "urn:rollcall:libvirt:1"
OS_DISK, SEED_DISK = "vda", "vdc"
MIB = 1024**2

# Much of it means nothing to Rollcall, and all of it must stay as it is.
_XML = """\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <title>{name}, as its owner made it</title>
  <description>Rack 7. Ask the owner before you change anything.</description>
  <metadata>
    <o:inventory xmlns:o='urn:example:owner' number='0815'>
      <o:cost-centre>42</o:cost-centre>
    </o:inventory>
  </metadata>
  <memory unit='MiB'>112</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <clock offset='utc'><timer name='rtc' tickpolicy='catchup'/></clock>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='writeback'/>
      <source file='{pool}/{name}-os'/>
      <target dev='vda' bus='virtio'/>
      <serial>os</serial>
      <boot order='1'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='writeback'/>
      <source file='{pool}/{name}-data'/>
      <target dev='vdb' bus='virtio'/>
      <iotune><total_iops_sec>5000</total_iops_sec></iotune>
      <serial>data-0</serial>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{pool}/{name}-seed'/>
      <target dev='vdc' bus='virtio'/>
      <readonly/>
      <serial>seed</serial>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{pool}/{name}-scratch'/>
      <target dev='vdd' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{pool}/{name}.log'/></serial>
    <channel type='unix'><target type='virtio' name='org.rollcall.0'/></channel>
    <watchdog model='i6300esb' action='none'/>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-netdev'/>
    <qemu:arg value='user,id=net,hostfwd=tcp:127.0.0.1:{port}-:80'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='virtio-net-pci,netdev=net,romfile=,addr=0x1e'/>
  </qemu:commandline>
</domain>
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A domain as its owner sees it."""

    xml: str  # of its next start
    autostart: bool

    def but_for_rollcall(self) -> tuple[str, bool]:
        """Return what must never change: all but where OS disk and seed are, and our metadata."""
        root = ElementTree.fromstring(self.xml)
        for metadata in root.iter("metadata"):
            for own in metadata.findall(f"{{{NAMESPACE}}}instance"):
                metadata.remove(own)
        for disk in root.iter("disk"):
            if _target(disk) in (OS_DISK, SEED_DISK):
                disk.attrib.pop("type")
                for element in list(disk):
                    if element.tag == "driver":
                        element.attrib.pop("type")
                    elif element.tag in ("source", "backingStore"):
                        disk.remove(element)
        return ElementTree.canonicalize(ElementTree.tostring(root), strip_text=True), self.autostart

    @property
    def os_disk(self) -> str:
        """Return the file of its OS disk."""
        for disk in ElementTree.fromstring(self.xml).iter("disk"):
            source = disk.find("source")
            if _target(disk) == OS_DISK and source is not None:
                return source.get("file", "")
        return ""

    @property
    def is_adopted(self) -> bool:
        """Say whether its metadata tell that it was adopted."""
        marks = ElementTree.fromstring(self.xml).iter(f"{{{NAMESPACE}}}instance")
        return any(mark.get("adopted") == "yes" for mark in marks)


def _target(disk: ElementTree.Element) -> str:
    target = disk.find("target")
    return target.get("dev", "") if target is not None else ""


class Owner:
    """Somebody with virtual machines, which run from an image of their own choice."""

    def __init__(self, daemon: LibvirtDaemon, image: Path) -> None:
        """Take where the domains are to be, and what is on their OS disks."""
        self._daemon = daemon
        self._image = image
        self.before: dict[str, Seen] = {}

    def make(self, name: str) -> None:
        """Make a domain and start it, all with virsh."""
        with tempfile.TemporaryDirectory(dir=self._daemon.folder) as place:
            folder = Path(place)
            seed = folder / "seed"
            _build_seed(seed, name)
            self._add_volume(f"{name}-os", 64 * MIB, self._image, "qcow2")
            self._add_volume(f"{name}-seed", seed.stat().st_size, seed)
            self._add_volume(f"{name}-data", 16 * MIB)
            self._add_volume(f"{name}-scratch", MIB)
            file = folder / "domain.xml"
            file.write_text(_XML.format(name=name, pool=self._daemon.pool, port=free_port()))
            self._daemon.virsh("define", str(file))
        self._daemon.virsh("autostart", name)
        self._daemon.virsh("start", name)
        self.before[name] = self.look(name)

    def mark(self, name: str, element: str) -> None:
        """Say that a domain may be adopted, in its metadata."""
        self._daemon.virsh(
            *("metadata", name, NAMESPACE, "--key", "rollcall", "--config", "--set", element)
        )

    def look(self, name: str) -> Seen:
        """Return a domain as it is now."""
        facts = self._daemon.virsh("dominfo", name)
        return Seen(
            xml=self._daemon.virsh("dumpxml", "--inactive", name),
            autostart="enable" in facts.split("Autostart:")[1].split("\n")[0],
        )

    def has_its_file(self, name: str) -> bool:
        """Say whether the OS disk that a domain came with is still there."""
        return Path(self.before[name].os_disk).is_file()

    def _add_volume(
        self, name: str, size: int, content: Path | None = None, form: str = "raw"
    ) -> None:
        self._daemon.virsh("vol-create-as", POOL, name, f"{size}b", "--format", form)
        if content is not None:
            self._daemon.virsh("vol-upload", "--pool", POOL, name, str(content))


def _build_seed(file: Path, name: str) -> None:
    """Write the seed that the owner's own tools had made."""
    folder = file.with_name("cidata")
    folder.mkdir()
    (folder / "meta-data").write_text(f"instance-id: {name}\nlocal-hostname: {name}\n")
    (folder / "user-data").write_text("#!/bin/sh\necho made by its owner\n")
    (folder / "vendor-data").write_text("#!/bin/sh\n")
    subprocess.run(
        ["xorriso", "-as", "mkisofs", "-quiet", "-V", "cidata", "-J", "-r", "-o", file, folder],
        check=True,
        capture_output=True,
        start_new_session=True,
    )
