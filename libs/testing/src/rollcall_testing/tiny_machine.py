"""A disk image whose whole operating system is its boot sector: a real guest that is up at once.

It adds its own letter to the history that begins the first data disk, writes it to the serial port,
and halts. It takes no scripts and does not notice the power button. Source (GNU as, .code16):

    xor %ax,%ax; mov %ax,%ds; mov %ax,%es; mov %ax,%ss; mov $0x7c00,%sp
    mov $0x0201,%ax; mov $0x8000,%bx; mov $1,%cx; mov $0x81,%dx; int $0x13; jc fail  # read sector 0
    mov $0x8000,%di
  next: cmpb $0,(%di); je found; inc %di; cmp $0x81f0,%di; jb next
  found: mov version,%al; mov %al,(%di)
    mov $0x0301,%ax; mov $0x8000,%bx; mov $1,%cx; mov $0x81,%dx; int $0x13; jc fail  # write it
    mov version,%al; jmp say
  fail: mov $'!',%al
  say: mov $0x3f8,%dx; out %al,%dx; mov $10,%al; out %al,%dx
  halt: hlt; jmp halt
    .org 509; version: .byte 'V'; .word 0xaa55
"""

from pathlib import Path

_CODE = bytes.fromhex(
    "31c08ed88ec08ed0bc007cb80102bb0080b90100ba8100cd137229bf0080803d0074074781fff08172f4a0fd7d88"
    "05b80103bb0080b90100ba8100cd137205a0fd7deb02b021baf803eeb00aeef4ebfd"
)
_SIZE = 1024**2

# What the agent is told for it; it never says that it is up, so its boot counts for a moment only.
ENVIRONMENT = {
    "ROLLCALL_QEMU_ACCEL": "tcg",
    "ROLLCALL_QEMU_MEMORY": "32",
    "ROLLCALL_QEMU_DATA_DISK_BYTES": str(1024**2),
    "ROLLCALL_QEMU_FREE_BYTES": str(1024**2),
    "ROLLCALL_QEMU_BOOT_TIME": "0.2",
    "ROLLCALL_QEMU_ANSWER_TIME": "1",
}


def build_tiny_machine(path: Path, version: str) -> Path:
    """Write a raw disk image to `path`; the first character of the version is its letter."""
    sector = _CODE.ljust(509, b"\0") + version[:1].encode() + b"\x55\xaa"
    path.write_bytes(sector.ljust(_SIZE, b"\0"))
    return path


def history(data_disk: Path) -> str:
    """Return the letters of all boots that wrote to a data disk."""
    with data_disk.open("rb") as file:
        return file.read(512).split(b"\0")[0].decode()
