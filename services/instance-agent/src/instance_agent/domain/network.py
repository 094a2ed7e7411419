"""How a virtual machine is on the network, and what tells where it is reached there."""

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.*?-]{0,14}")  # Linux takes no longer one
_COMPLETE = 0x2  # of a neighbour: its hardware address is known (linux/if_arp.h, ATF_COM)


@dataclass(frozen=True, slots=True)
class Network:
    """Which network new machines get."""

    kind: Literal["user", "bridge", "tap"]
    name: str = ""  # of the bridge, or a pattern of taps


def parse_network(text: str) -> Network:
    """Return what `user`, `bridge:NAME` or `tap:PATTERN` means. Raises ValueError."""
    if text == "user":
        return Network("user")
    kind, _, name = text.partition(":")
    if _NAME.fullmatch(name):
        if kind == "bridge" and not set(name) & set("*?"):
            return Network("bridge", name)
        if kind == "tap":
            return Network("tap", name)
    raise ValueError(
        f"{text!r} is no network: say user, bridge:NAME or tap:PATTERN (a name has at most 15 "
        "characters; a pattern may have * and ?)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One machine's place on a network of the host, the same for as long as the machine exists."""

    tap: str
    mac: str
    bridge: str = ""  # that a tap of our own is put on; "" for a tap that somebody else made


def own_link(agent: str, key: str, bridge: str) -> Link:
    """Return the tap that an agent makes for an instance, by names that no other one has."""
    digest = hashlib.sha256(f"{agent}\n{key}".encode()).hexdigest()
    return Link(tap=f"rc-{digest[:12]}", mac=lan_address(agent, key), bridge=bridge)


def lan_address(agent: str, key: str) -> str:
    """Return a network address for a net that others are on, too: of those that anybody may use."""
    return "52:" + hashlib.sha256(f"{agent}\n{key}".encode()).digest()[-5:].hex(":")


def leases(text: str, mac: str) -> list[str]:
    """Return the IPv4 addresses that a DHCP server's file has for a network address, newest first.

    It is dnsmasq's file of leases, or the status that libvirt keeps of each of its networks.
    """
    found = sorted((each for each in _entries(text) if each[1].lower() == mac), reverse=True)
    return [address for _, _, address in found if is_reachable(address)]


def _entries(text: str) -> Iterator[tuple[int, str, str]]:
    if text.lstrip().startswith("["):
        try:
            for entry in json.loads(text):
                yield int(entry["expiry-time"]), entry["mac-address"], entry["ip-address"]
        except (ValueError, KeyError, TypeError):  # being written just now
            return
        return
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 4 and words[0].isdigit():
            yield int(words[0]), words[1], words[2]


def neighbours(text: str, mac: str) -> list[str]:
    """Return the addresses that the host's neighbour table (/proc/net/arp) has for one."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return [
        row[0]
        for row in rows
        if len(row) >= 6
        and row[3].lower() == mac
        and int(row[2], 16) & _COMPLETE
        and is_reachable(row[0])
    ]


def is_reachable(address: str) -> bool:
    """Say whether an address is one under which others reach a machine."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return parsed.version == 4 and not (parsed.is_loopback or parsed.is_link_local)
