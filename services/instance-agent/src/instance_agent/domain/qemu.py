"""The command that a virtual machine is, and what a disk image's first bytes say."""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

CHANNEL = "org.rollcall.0"  # the virtio port on which the guest takes scripts
QMP_SOCKET, CHANNEL_SOCKET = "qmp.sock", "channel.sock"
PORT_TAKEN = "Could not set up host forwarding rule"  # in QEMU's own words

_QCOW2_MAGIC = b"QFI\xfb"
_EXTERNAL_DATA = 1 << 2  # an incompatible feature (QEMU, docs/interop/qcow2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One boot of one virtual machine; file names are relative to its folder."""

    binary: str
    name: str
    kind: str
    accelerator: str  # kvm or tcg
    memory: int  # MiB
    cpus: int
    os_disk: str
    seed: str
    data_disks: Mapping[int, str]
    console: str
    netdev: str
    mac: str


def mac_address(key: str) -> str:
    """Return the instance's network address, the same for ever, of QEMU's own range."""
    return "52:54:00:" + hashlib.sha256(key.encode()).digest()[:3].hex(":")


def forwarding(address: str, port: int, guest_port: int) -> str:
    """Return QEMU's own network, which forwards one port of the host to one of the guest."""
    return f"user,id=net,hostfwd=tcp:{address}:{port}-:{guest_port}"


def plugged(descriptor: int) -> str:
    """Return the network of a tap that QEMU inherits: its sandbox lets it open none by a helper."""
    return f"tap,id=net,fd={descriptor}"


def command(machine: Machine) -> list[str]:
    """Return the whole command line: nothing is QEMU's default, nothing is read from files."""
    arguments = [
        machine.binary,
        "-name",
        _escaped(machine.name),
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-vga",
        "std",  # boot loaders and Windows want one, seen or not
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-machine",
        f"{machine.kind},usb=off",
        "-accel",
        "kvm" if machine.accelerator == "kvm" else "tcg,thread=multi,tb-size=64",
        "-cpu",
        "host" if machine.accelerator == "kvm" else "max",
        "-m",
        str(machine.memory),
        "-smp",
        str(machine.cpus),
        "-rtc",
        "base=utc",
        "-chardev",
        f"socket,id=qmp,path={QMP_SOCKET},server=on,wait=off",
        "-mon",
        "chardev=qmp,mode=control",
        "-chardev",
        # Appended to, so that it can be cut short while the guest writes.
        f"file,id=console,path={_escaped(machine.console)},append=on",
        "-serial",
        "chardev:console",
        "-device",
        "virtio-serial-pci",
        "-chardev",
        f"socket,id=channel,path={CHANNEL_SOCKET},server=on,wait=off",
        "-device",
        f"virtserialport,chardev=channel,name={CHANNEL}",
        "-device",
        "virtio-rng-pci",
        "-netdev",
        machine.netdev,
        "-device",
        f"virtio-net-pci,netdev=net,romfile=,mac={machine.mac}",
    ]
    arguments += _disk("os", machine.os_disk, "qcow2", "bootindex=1")
    for lun, file in sorted(machine.data_disks.items()):
        arguments += _disk(f"data-{lun}", file, "raw")
    arguments += _disk("seed", machine.seed, "raw", read_only=True)
    return arguments


def _disk(
    name: str, file: str, kind: str, *properties: str, read_only: bool = False
) -> tuple[str, ...]:
    """Return a disk that the guest finds by its serial number, `name`."""
    how = "readonly=on" if read_only else "discard=unmap"
    return (
        "-drive",
        f"if=none,id={name},file={_escaped(file)},format={kind},{how}",
        "-device",
        ",".join(("virtio-blk-pci", f"drive={name}", f"serial={name}", *properties)),
    )


def _escaped(text: str) -> str:
    return text.replace(",", ",,")


def compression(head: bytes) -> str:
    """Return how a file is compressed: gz, xz, zst, or "" for not at all."""
    for magic, name in ((b"\x1f\x8b", "gz"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zst")):
        if head.startswith(magic):
            return name
    return ""


def image_format(head: bytes) -> str:
    """Return the format of a disk image: qcow2 or raw. Raises ValueError, with the reason.

    A qcow2 file can name other files of the host as its content; such a one is refused.
    """
    if head.startswith(_QCOW2_MAGIC):
        if len(head) < 104:
            raise ValueError("its qcow2 header is cut off")
        version, backing = struct.unpack_from(">IQ", head, 4)
        (crypt,) = struct.unpack_from(">I", head, 32)
        (features,) = struct.unpack_from(">Q", head, 72)
        if backing:
            raise ValueError("it names a backing file; publish an image that is whole by itself")
        if crypt:
            raise ValueError("it is encrypted")
        if version >= 3 and features & _EXTERNAL_DATA:
            raise ValueError("it keeps its data in another file")
        return "qcow2"
    if head[510:512] == b"\x55\xaa":
        return "raw"
    raise ValueError(
        "it is neither a qcow2 image nor a raw one that could boot (or .gz, .xz, .zst)"
    )
