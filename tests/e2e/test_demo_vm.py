"""`rollcall demo-vm` as `make` runs it: what it keeps of its promises, and what it leaves."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from rollcall_testing.vm_images import build_test_os

pytestmark = pytest.mark.timeout(1200)  # four to five minutes on two cores; more beside others
ROLLCALL = str(Path(sys.executable).with_name("rollcall"))


@pytest.fixture(scope="module")
def images() -> Path:
    return build_test_os()


def _machines(folder: Path) -> list[str]:
    """Return the processes of QEMU that were told a place below a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            told = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue  # it ended while we looked, or is a zombie
        if b"ROLLCALL_QEMU_INSTANCE=" + os.fsencode(folder) in told:
            found.append(entry.name)
    return found


async def test_five_machines_are_upgraded_and_two_bad_versions_are_taken_back(
    folder: Path, images: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(ROLLCALL, "demo-vm", "--images", str(images)),
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(1100):
        out, err = await process.communicate()
    text = out.decode()
    assert process.returncode == 0, text + err.decode()
    assert text.count("held ") == 11
    assert "BROKEN" not in text
    assert "Kernel panic" in text
    history = json.loads(text[text.rindex("\n{\n") :])
    codes = [item["properties"]["runningStatus"]["code"] for item in history["value"]]
    assert codes == ["Faulted", "Faulted", "Completed"]
    assert _machines(folder) == []
    assert os.listdir(folder) == []
