"""A domain's XML: what is read from it, and every change that is made to it.

Nothing is touched but what is named here: where the OS disk's and the seed's content is, disks that
the driver itself adds to domains that it made, and the element of our own namespace.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.dom import minidom

from instance_agent.domain.libvirt.claim import NAMESPACE, Claim, Source
from instance_agent.domain.libvirt.nodes import (
    child,
    children,
    escaped,
    new_element,
    parsed,
    plain,
    text_of,
)

_DISCARD = " discard='unmap'"
_HOLDS_DATA = ("disk", "lun")  # the latter: a block device whose commands are passed on to it


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskView:
    """A disk of a domain, as far as it is looked at."""

    target: str
    device: str  # disk, cdrom, …
    serial: str
    boot: int  # its place in the boot order; 0 for none
    source: Source | None
    path: str  # of the file or device; "" where it is none


class DomainXml:
    """The XML of a domain, to be looked at and changed."""

    def __init__(self, text: str) -> None:
        """Take what libvirt gave. Raises ValueError where it is no domain."""
        self._root = parsed(text)
        if self._root.tagName != "domain":
            raise ValueError(f"it is a <{self._root.tagName}> and not a <domain>")

    def text(self) -> str:
        """Return it as it is now."""
        return str(self._root.toxml())

    def disks(self) -> list[DiskView]:
        """Return its disks in their order."""
        return [_view(disk) for disk in self._disks()]

    def disk(self, target: str) -> DiskView | None:
        """Return the disk that the guest sees at a target, such as vda."""
        return next((disk for disk in self.disks() if disk.target == target), None)

    def point(self, target: str, source: Source) -> None:
        """Have a disk's content be elsewhere; its address, options and name stay."""
        disk = next(d for d in self._disks() if _view(d).target == target)
        disk.setAttribute("type", source.kind)
        driver = child(disk, "driver")
        if driver is None and source.format:
            driver = new_element("driver")
            driver.setAttribute("name", "qemu")
            disk.insertBefore(driver, disk.firstChild)
        if driver is not None:
            if source.format:
                driver.setAttribute("type", source.format)
            elif driver.hasAttribute("type"):
                driver.removeAttribute("type")
        for old in [*children(disk, "source"), *children(disk, "backingStore")]:
            disk.removeChild(old)
        for fresh in children(parsed(f"<all>{source.xml}</all>")):
            disk.insertBefore(fresh, child(disk, "target"))

    def add_disk(self, xml: str) -> None:
        """Add a disk, as the last one."""
        (devices,) = children(self._root, "devices")
        devices.appendChild(parsed(xml))

    def endpoint(self) -> tuple[str, int] | None:
        """Return the first address and port that QEMU's own network forwards to the guest."""
        for argument in self._root.getElementsByTagName("*"):
            found = re.search(
                r"hostfwd=tcp:(\[[^\]]*\]|[^:,]*):(\d+)-", argument.getAttribute("value")
            )
            if found:
                return found[1].strip("[]") or "127.0.0.1", int(found[2])
        return None

    def channel(self, name: str) -> str | None:
        """Return the path of the socket of a virtio channel that the guest sees by that name.

        None where there is none; "" where it is there, and the domain does not run.
        """
        for channel in self._root.getElementsByTagName("channel"):
            target, source = child(channel, "target"), child(channel, "source")
            if target is not None and target.getAttribute("name") == name:
                return source.getAttribute("path") if source is not None else ""
        return None

    def connected(self, name: str) -> bool | None:
        """Say whether something in the guest has opened a virtio channel; None: there is none."""
        for target in self._root.getElementsByTagName("target"):
            if target.getAttribute("type") == "virtio" and target.getAttribute("name") == name:
                return bool(target.getAttribute("state") == "connected")
        return None

    def add_channel(self, name: str) -> None:
        """Add a virtio channel whose host's end libvirt places."""
        (devices,) = children(self._root, "devices")
        target = f"<target type='virtio' name='{escaped(name)}'/>"
        devices.appendChild(parsed(f"<channel type='unix'>{target}</channel>"))

    def console(self) -> str:
        """Return the file that the first serial port is written to, or ""."""
        for serial in self._root.getElementsByTagName("serial"):
            for part in ("log", "source"):
                found = child(serial, part)
                place = found.getAttribute("file" if part == "log" else "path") if found else ""
                if place and (part == "log" or serial.getAttribute("type") == "file"):
                    return place
        return ""

    def _disks(self) -> list[minidom.Element]:
        (devices,) = children(self._root, "devices")
        return list(children(devices, "disk"))


def _view(disk: minidom.Element) -> DiskView:
    target, serial, boot = (child(disk, name) for name in ("target", "serial", "boot"))
    driver, source = child(disk, "driver"), child(disk, "source")
    parts = [*children(disk, "source"), *children(disk, "backingStore")]
    path = ""
    if source is not None:
        path = source.getAttribute("file") or source.getAttribute("dev")
    return DiskView(
        target=target.getAttribute("dev") if target else "",
        device=disk.getAttribute("device") or "disk",
        serial=text_of(serial),
        boot=int(boot.getAttribute("order")) if boot else 0,
        source=Source(
            kind=disk.getAttribute("type"),
            format=driver.getAttribute("type") if driver else "",
            xml="".join(plain(part) for part in parts),
        )
        if source is not None
        else None,
        path=path,
    )


def os_disk(domain: DomainXml) -> str:
    """Return the target of the disk that a domain boots from. Raises ValueError.

    That is the first one in the boot order, or the first one at all.
    """
    disks = [disk for disk in domain.disks() if disk.device == "disk" and disk.serial != "seed"]
    if not disks:
        raise ValueError("it has no disk")
    ordered = sorted((disk for disk in disks if disk.boot), key=lambda disk: disk.boot)
    return (ordered or disks)[0].target


def seed_disk(domain: DomainXml) -> str:
    """Return the target of the disk that holds a NoCloud seed, or ""."""
    return next((disk.target for disk in domain.disks() if disk.serial == "seed"), "")


def data_disks(domain: DomainXml, claim: Claim) -> dict[int, DiskView]:
    """Return the data disks by logical unit number.

    A serial number `data-LUN` says it; else the disks are counted in their order, from 0 on.
    """
    others = [
        disk
        for disk in domain.disks()
        if disk.device in _HOLDS_DATA and disk.target not in (claim.os_target, claim.seed_target)
    ]
    found = {}
    for disk in others:
        said = re.fullmatch(r"data-(\d+)", disk.serial)
        if said:
            found[int(said[1])] = disk
    free = (lun for lun in range(len(others) + len(found)) if lun not in found)
    unsaid = [disk for disk in others if disk not in found.values()]
    return found | dict(zip(free, unsaid, strict=False))


def new_disk(source: Source, target: str, serial: str, *, read_only: bool) -> str:
    """Return a disk that the guest finds by its serial number."""
    return (
        f"<disk type='{source.kind}' device='disk'>"
        f"<driver name='qemu' type='{source.format}'"
        f"{'' if read_only else _DISCARD}/>"
        f"{source.xml}<target dev='{target}' bus='virtio'/>"
        f"{'<readonly/>' if read_only else ''}<serial>{serial}</serial></disk>"
    )


def place_of(path: str, *, block: bool, format: str) -> Source:
    """Return the source of a volume at a path."""
    attribute = "dev" if block else "file"
    return Source(
        kind="block" if block else "file",
        format=format,
        xml=plain(parsed(f"<source {attribute}='{escaped(path)}'/>")),
    )


def target_name(number: int) -> str:
    """Return the name of the `number`-th virtio disk: vda, vdb, …, vdz, vdaa, …"""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return f"vd{letters}"


def same_but(before: str, after: str, targets: Sequence[str]) -> bool:
    """Say whether two XMLs of a domain differ in nothing but those disks' sources and our facts."""
    return _without(before, targets) == _without(after, targets)


def _without(text: str, targets: Sequence[str]) -> str:
    domain = DomainXml(text)
    nowhere = Source(kind="file", format="raw", xml='<source file="/"/>')
    for target in targets:
        domain.point(target, nowhere)
    root = parsed(domain.text())
    for own in root.getElementsByTagNameNS(NAMESPACE, "instance"):
        if own.parentNode is not None:
            own.parentNode.removeChild(own)
    for metadata in children(root, "metadata"):
        if not list(children(metadata)):
            root.removeChild(metadata)
    return plain(root)
