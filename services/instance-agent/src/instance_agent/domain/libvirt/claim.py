"""What a domain's metadata says of it, in an element of our own namespace."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from xml.dom import minidom

from instance_agent.domain.libvirt.nodes import (
    children,
    new_element,
    parsed,
    set_all,
    text_of,
)
from instance_agent.domain.record import Disk

NAMESPACE = "urn:rollcall:libvirt:1"
PREFIX = "rollcall"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The part of a disk's XML that says where its content is: all that a swap changes."""

    kind: str  # file, block, volume, network: the attribute `type` of the disk
    format: str  # qcow2 or raw: the attribute `type` of its driver; "" where it says none
    xml: str  # the elements `source` and `backingStore` as they are; "" for an empty drive


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One OS disk of a domain, with what was made for it."""

    disk: Disk
    source: Source
    seed: Source | None = None
    volumes: tuple[str, ...] = ()  # made for it, in our pool; nothing else is ever deleted
    base: str = ""  # the volume that it stands on


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a domain's metadata says: whose instance it is, and what its OS disks are made from.

    Without an instance id it is an operator's mark: the domain may be adopted for that scale set.
    """

    scale_set: str
    instance_id: str = ""
    host: str = ""
    adopted: bool = False
    released: bool = False  # it was adopted once, and is not to be adopted again
    version: str = ""  # of the OS disk of a domain to be adopted
    os_target: str = ""
    seed_target: str = ""
    address: str = ""
    port: int = 0
    disks: tuple[Kept, ...] = ()

    def kept(self, name: str) -> Kept | None:
        """Return the OS disk of that name."""
        return next((each for each in self.disks if each.disk.name == name), None)

    def at(self, source: Source | None) -> Kept | None:
        """Return the OS disk whose content is there."""
        return next((each for each in self.disks if each.source == source), None)

    def with_disk(self, kept: Kept) -> "Claim":
        """Return the claim with one more OS disk."""
        return replace(self, disks=(*self.disks, kept))

    def keeping(self, names: Iterable[str]) -> "Claim":
        """Return the claim without all OS disks but these."""
        wanted = set(names)
        return replace(self, disks=tuple(k for k in self.disks if k.disk.name in wanted))


def write_claim(claim: Claim) -> str:
    """Return the element as libvirt takes it: without its namespace, which goes beside it."""
    root = new_element("instance")
    attributes = {
        "scaleSet": claim.scale_set,
        "id": claim.instance_id,
        "host": claim.host,
        "adopted": "yes" if claim.adopted else "",
        "released": "yes" if claim.released else "",
        "version": claim.version,
        "osDisk": claim.os_target,
        "seedDisk": claim.seed_target,
        "address": claim.address,
        "port": str(claim.port or ""),
    }
    set_all(root, attributes)
    for kept in claim.disks:
        disk = new_element("disk")
        set_all(
            disk,
            {
                "name": kept.disk.name,
                "version": kept.disk.version,
                "generation": str(kept.disk.generation),
                "digest": kept.disk.digest,
                "base": kept.base,
                "volumes": " ".join(kept.volumes),
            },
        )
        for name, source in (("source", kept.source), ("seed", kept.seed)):
            if source is not None:
                child = new_element(name)
                set_all(child, {"type": source.kind, "format": source.format})
                # As text, so that it comes back to the letter.
                child.appendChild(minidom.Document().createTextNode(source.xml))
                disk.appendChild(child)
        root.appendChild(disk)
    return str(root.toxml())


def read_claim(text: str) -> Claim:
    """Return what `write_claim` wrote, or an operator's mark. Raises ValueError."""
    root = parsed(text)
    port = root.getAttribute("port")
    if not root.getAttribute("scaleSet"):
        raise ValueError("the element says no scaleSet")
    if port and not port.isdecimal():
        raise ValueError(f"port {port!r} is no number")
    return Claim(
        scale_set=root.getAttribute("scaleSet"),
        instance_id=root.getAttribute("id"),
        host=root.getAttribute("host"),
        adopted=root.getAttribute("adopted") == "yes",
        released=root.getAttribute("released") == "yes",
        version=root.getAttribute("version"),
        os_target=root.getAttribute("osDisk"),
        seed_target=root.getAttribute("seedDisk"),
        address=root.getAttribute("address"),
        port=int(port or 0),
        disks=tuple(_read_kept(each) for each in children(root, "disk")),
    )


def _read_kept(element: minidom.Element) -> Kept:
    name = element.getAttribute("name")
    sources = {
        child.localName: Source(
            kind=child.getAttribute("type"),
            format=child.getAttribute("format"),
            xml=text_of(child),
        )
        for child in children(element)
    }
    if "source" not in sources:
        raise ValueError(f"disk {name!r} has no source")
    return Kept(
        disk=Disk(
            name=name,
            version=element.getAttribute("version"),
            generation=int(element.getAttribute("generation")),
            digest=element.getAttribute("digest"),
        ),
        source=sources["source"],
        seed=sources.get("seed"),
        volumes=tuple(element.getAttribute("volumes").split()),
        base=element.getAttribute("base"),
    )
