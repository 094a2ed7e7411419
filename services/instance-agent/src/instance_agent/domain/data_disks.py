"""What tells a data disk from any other, and whether it is still the same one (M06)."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

_DEVICE = re.compile(r"(?<=^inode )\d+:")
HEAD = 0x11000  # bytes from a disk's beginning in which all that is looked for stands


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDisk:
    """A data disk as it was found."""

    place: str  # which file, folder or volume it is; another one has another
    content: str = ""  # the identity that its content carries; "" where none can be read


def identify(head: bytes) -> str:
    """Return the identity in a disk's first `HEAD` bytes, or "" where nothing known stands there.

    A partition table counts before a file system: what lies inside of partitions is not looked at.
    """
    if head[512:520] == b"EFI PART":
        return f"gpt:{uuid.UUID(bytes_le=head[568:584])}"
    if head[1080:1082] == b"\x53\xef":
        return f"ext:{uuid.UUID(bytes=head[1128:1144])}"
    if head[:4] == b"XFSB":
        return f"xfs:{uuid.UUID(bytes=head[32:48])}"
    if head[0x10040:0x10048] == b"_BHRfS_M":
        return f"btrfs:{uuid.UUID(bytes=head[0x10020:0x10030])}"
    if head[:6] == b"LUKS\xba\xbe":
        return f"luks:{head[168:208].split(bytes(1))[0].decode('ascii', 'replace')}"
    if head[510:512] == b"\x55\xaa" and any(head[440:444]):
        return f"mbr:{head[440:444].hex()}"
    return ""


def missing(before: Mapping[int, DataDisk], now: Mapping[int, DataDisk]) -> str:
    """Say which data disk is no longer there, or "" when all are."""
    for lun, was in before.items():
        if lun not in now:
            return f"data disk {lun} ({was.place}) is gone"
    return ""


def replaced(before: Mapping[int, DataDisk], now: Mapping[int, DataDisk]) -> str:
    """Say which data disk is gone or another one than it was an operation ago, or "".

    What was written to it since is its owner's. The numbers of devices change with each boot.
    """
    for lun, was in before.items():
        if lun in now and _DEVICE.sub("", was.place) != _DEVICE.sub("", now[lun].place):
            return f"data disk {lun} was {was.place} and now is {now[lun].place}"
    return missing(before, now)


def changed(before: Mapping[int, DataDisk], now: Mapping[int, DataDisk]) -> str:
    """Say which data disk is no longer the one that it was, or "" when all are.

    New ones are fine, and so is content where there was none before: the first boot formats.
    """
    for lun, was in before.items():
        if lun not in now:
            continue
        disk = now[lun]
        if disk.place != was.place:
            return f"data disk {lun} was {was.place} and now is {disk.place}"
        if was.content and disk.content != was.content:
            found = disk.content or "nothing known"
            return f"data disk {lun} held {was.content}, and now holds {found}: it was overwritten"
    return missing(before, now)
