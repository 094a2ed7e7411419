"""What tells data disks apart, as tables."""

import uuid

import pytest
from instance_agent.domain.data_disks import HEAD, DataDisk, changed, identify

ID = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")


def disk(*parts: tuple[int, bytes]) -> bytes:
    head = bytearray(HEAD)
    for place, content in parts:
        head[place : place + len(content)] = content
    return bytes(head)


EXT = disk((1080, b"\x53\xef"), (1128, ID.bytes))


@pytest.mark.parametrize(
    ("head", "identity"),
    [
        (disk(), ""),
        (b"", ""),
        (disk((510, b"\x55\xaa")), ""),  # a boot sector without a signature of its disk
        (disk((510, b"\x55\xaa"), (440, b"\x12\x34\x56\x78")), "mbr:12345678"),
        (disk((510, b"\x55\xaa"), (512, b"EFI PART"), (568, ID.bytes_le)), f"gpt:{ID}"),
        (EXT, f"ext:{ID}"),
        (disk((0, b"XFSB"), (32, ID.bytes)), f"xfs:{ID}"),
        (disk((0x10040, b"_BHRfS_M"), (0x10020, ID.bytes)), f"btrfs:{ID}"),
        (disk((0, b"LUKS\xba\xbe"), (168, str(ID).encode())), f"luks:{ID}"),
    ],
)
def test_a_disk_is_known_by_what_it_holds(head: bytes, identity: str) -> None:
    assert identify(head) == identity


ONE = DataDisk(place="inode 1", content="ext:a")


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({}, {}, ""),
        ({0: ONE}, {0: ONE}, ""),
        ({0: ONE}, {0: ONE, 1: ONE}, ""),  # the model asks for one more
        ({0: DataDisk(place="inode 1")}, {0: ONE}, ""),  # the first boot formatted it
        ({0: ONE}, {}, "data disk 0 (inode 1) is gone"),
        ({0: ONE}, {0: DataDisk(place="inode 2", content="ext:a")}, "was inode 1 and now is"),
        ({0: ONE}, {0: DataDisk(place="inode 1", content="ext:b")}, "held ext:a, and now holds"),
        ({0: ONE}, {0: DataDisk(place="inode 1")}, "now holds nothing known: it was overwritten"),
    ],
)
def test_a_data_disk_that_is_another_one_is_named(
    before: dict[int, DataDisk], now: dict[int, DataDisk], said: str
) -> None:
    what = changed(before, now)
    assert said in what
    assert bool(what) == bool(said)
