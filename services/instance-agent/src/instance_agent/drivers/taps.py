"""Taps: what a virtual machine is plugged into a network of its host with.

An agent's own tap is not made to last: the kernel takes it away when the last one who has it open
ends, which is QEMU, however it ends. So none is ever left behind, by kill -9 of anybody, and QEMU
itself needs neither rights nor, which its sandbox forbids, a helper.
"""

import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

_DEVICE = Path("/dev/net/tun")
# linux/if_tun.h, linux/sockios.h, linux/if.h
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCGIFMTU, _SIOCSIFMTU = 0x8921, 0x8922
_SIOCSIFHWADDR = 0x8924
_SIOCBRADDIF = 0x89A2
_ETHER = 1
_UP = 0x1


class TapUnusable(Exception):
    """The tap cannot be had; the message says what to do."""


class TapBusy(TapUnusable):
    """Another program has it."""


def make_tap(name: str, mac: str, bridge: str) -> int:
    """Make a tap, put it on a bridge, and return its descriptor. Raises TapUnusable."""
    if name_of(bridge) is None:
        raise TapUnusable(
            f"there is no bridge {bridge} on this host: make it (ip link add {bridge} type bridge; "
            f"ip link set {bridge} up), or name another one"
        )
    descriptor = _open(
        name,
        "make a tap: run it as root, or give it CAP_NET_ADMIN (in a unit of systemd "
        "AmbientCapabilities=CAP_NET_ADMIN)",
    )
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            _put_on(control, name, mac, bridge)
    except OSError as error:
        os.close(descriptor)
        what = "it is no bridge" if error.errno in (errno.EOPNOTSUPP, errno.EINVAL) else str(error)
        raise TapUnusable(f"a tap cannot be put on {bridge}: {what}") from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_tap(name: str) -> int:
    """Open a tap that somebody made for us, and return its descriptor. Raises TapUnusable."""
    if name_of(name) is None:
        raise TapUnusable(
            f"the tap {name} is gone: make it again (ip tuntap add dev {name} mode tap user "
            f"{os.geteuid()}), and put it where the machine is to be"
        )
    return _open(name, f"use the tap {name}: make it for its user (… mode tap user {os.geteuid()})")


def name_of(interface: str) -> str | None:
    """Return an interface's name if it is there."""
    return interface if interface in interfaces() else None


def interfaces() -> list[str]:
    """Return the names of the host's network interfaces."""
    return [name for _, name in socket.if_nameindex()]


def _open(name: str, what: str) -> int:
    try:
        descriptor = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise TapUnusable(f"this host has no {_DEVICE}: modprobe tun") from error
    except PermissionError as error:
        raise TapUnusable(f"the agent may not {what}") from error
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EBUSY:
            raise TapBusy(f"the tap {name} is used by another program: end that one") from error
        if error.errno == errno.EPERM:
            raise TapUnusable(f"the agent may not {what}") from error
        raise TapUnusable(f"{name} cannot be used as a tap: {error}") from error
    return descriptor


def _put_on(control: socket.socket, name: str, mac: str, bridge: str) -> None:
    own, other = name.encode(), bridge.encode()
    # A bridge takes the lowest address and the shortest packets of what is on it for its own; as
    # libvirt does, so that nobody notices another machine.
    address = bytes.fromhex("fe" + mac.replace(":", "")[2:])
    fcntl.ioctl(control, _SIOCSIFHWADDR, struct.pack("16sH6s16x", own, _ETHER, address))
    answer = fcntl.ioctl(control, _SIOCGIFMTU, struct.pack("16s24x", other))
    (longest,) = struct.unpack_from("i", answer, 16)
    fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", own, longest))
    index = socket.if_nametoindex(name)
    fcntl.ioctl(control, _SIOCBRADDIF, struct.pack("16si20x", other, index))
    answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16s24x", own))
    (flags,) = struct.unpack_from("H", answer, 16)
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", own, flags | _UP))
