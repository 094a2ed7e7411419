"""Whether this host's guests really run with KVM: tried once per boot of the host.

The device file says little: under nested or emulated virtualisation it opens, and guests hang or
crawl. So a tiny guest is run to its end, without KVM and with it, and the faster one is taken.
"""

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

import structlog

from instance_agent.drivers import procfs
from instance_agent.drivers.qemu.programs import missing

log = structlog.get_logger()

_DEVICE = "/dev/kvm"
_LONGEST = 30.0  # seconds for a boot that takes a third of a second without KVM
_ENDED = 33  # what isa-debug-exit makes of the 0x10 that the guest writes: 0x10 * 2 + 1

# A boot sector, the source of which is probe.S beside this file: it goes through protected mode and
# paging into long mode, counts to 50 million, and ends QEMU.
_PROBE = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007cfcbf00106631c0b9000c66f3ab66c70600100320000066c70600200330000066c706"
    "0030830000000f20e06683c8200f22e066b8001000000f22d866b9800000c00f32660d000100000f300f0116907c"
    "0f20c0660d010000800f22c0ea6d7c080048c7c180f0fa0248ffc975fbb010e6f4f4ebfd00000000000000000000"
    "0000009a20000f00807c"
)


async def accelerator(wanted: str, binary: str, memory: Path) -> str:
    """Return kvm or tcg; `memory` is the file in which the outcome of the trial is kept."""
    if wanted != "auto":
        return wanted
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return "tcg"
    known = _read(memory)
    if known.get("host_boot") == procfs.host_boot() and known.get("binary") == binary:
        return known["accelerator"]
    plain = await trial(binary, ("-accel", "tcg", "-cpu", "max"), _LONGEST)
    with_kvm = await trial(binary, ("-accel", "kvm", "-cpu", "host"), max(plain or _LONGEST, 1))
    chosen = "tcg" if with_kvm is None else "kvm"
    log.info("accelerator_chosen", accelerator=chosen, tcg_seconds=plain, kvm_seconds=with_kvm)
    fresh = memory.with_suffix(".new")
    fresh.write_text(
        json.dumps({"host_boot": procfs.host_boot(), "binary": binary, "accelerator": chosen})
    )
    fresh.rename(memory)
    return chosen


async def trial(binary: str, how: tuple[str, ...], limit: float) -> float | None:
    """Return how many seconds a guest ran to its end, or None when it did not within `limit`."""
    with tempfile.NamedTemporaryFile(prefix="rollcall-probe-") as file:
        file.write(_PROBE.ljust(510, b"\0") + b"\x55\xaa")
        file.flush()
        began = time.monotonic()
        try:
            process = await asyncio.create_subprocess_exec(
                *(binary, "-machine", "pc", *how, "-m", "32", "-nodefaults", "-no-user-config"),
                *("-display", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
                *("-drive", f"file={file.name},format=raw,if=ide"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except FileNotFoundError as error:
            raise missing(binary) from error
        try:
            async with asyncio.timeout(limit):
                code = await process.wait()
        except TimeoutError:
            return None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return time.monotonic() - began if code == _ENDED else None


def _read(memory: Path) -> dict[str, str]:
    try:
        known: dict[str, str] = json.loads(memory.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return known
