"""Which of a version's files a driver can boot: the kinds (`ftype`) that mirrors publish.

Mirrors offer one version as many files. Of those, `disk1.img` (Ubuntu) and `disk-kvm.img` (Ubuntu's
minimal kernel; images of LXD's server) are whole disks in qcow2, which boot by BIOS and by UEFI.
`uefi1.img`, of older Ubuntu releases, is sure to boot by UEFI only. Archives of a root file system
(`root.tar.xz`, `squashfs`, `lxd.tar.xz`) hold neither kernel nor boot loader, and disks for other
hypervisors (`vmdk`, `ova`, `azure.vhd.tar.gz`) are not read: nothing here boots those.
"""

from collections.abc import Iterable

from image_publisher.domain.feed import Target

OWN = "image"  # as feeds made by `rollcall feed` have it

# By driver, the most wanted first.
BOOTABLE: dict[str, tuple[str, ...]] = {
    "qemu": ("disk1.img", "disk-kvm.img", OWN),
    "libvirt": ("disk1.img", "disk-kvm.img", "uefi1.img", OWN),
}


def wanted_kinds(item: str | None, driver: str | None) -> tuple[str, ...]:
    """Return the kinds that may be taken, the most wanted first; none: the version's only file."""
    if item is not None:
        return (item,)
    return BOOTABLE[driver] if driver is not None else ()


def in_order(kinds: Iterable[str], target: Target) -> list[str]:
    """Return those of a version's kinds that may be taken, the most wanted first, each once."""
    there = list(dict.fromkeys(kinds))
    return [kind for kind in target.items if kind in there] if target.items else there
