"""`rollcall demo` as a user runs it: its exit code, its last words, and what it leaves behind."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from rollcall_testing import eventually

ROLLCALL = str(Path(sys.executable).with_name("rollcall"))


def _running(folder: Path) -> list[int]:
    """Return the processes that the demo started: by their environment, or where they work.

    Instances have an environment of their own, but their OS disk is in the demo's folder.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            place = str((entry / "cwd").readlink())
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # it ended while we looked, or is a zombie
        if str(folder).encode() in environment or place.startswith(str(folder)):
            found.append(int(entry.name))
    return found


async def _start(folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        ROLLCALL,
        "demo",
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_the_demo_keeps_every_promise_and_prints_the_history_last(folder: Path) -> None:
    process = await _start(folder)
    async with asyncio.timeout(170):
        out, err = await process.communicate()
    assert process.returncode == 0, out.decode() + err.decode()
    text = out.decode()
    assert text.count("held ") == 8
    assert "BROKEN" not in text
    history = json.loads(text[text.rindex("\n{\n") :])
    codes = [item["properties"]["runningStatus"]["code"] for item in history["value"]]
    assert codes == ["Faulted", "Completed"]
    assert _running(folder) == []


async def test_ctrl_c_in_the_middle_of_the_demo_leaves_no_process(folder: Path) -> None:
    process = await _start(folder)
    assert process.stdout is not None
    async with asyncio.timeout(90):
        line = b""
        while not line.lstrip().startswith(b"3."):
            line = await process.stdout.readline()
            assert line, "the demo ended early"
    assert len(_running(folder)) > 18  # ten instances, and the stack
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(40):
        await process.communicate()
    assert process.returncode == 130
    await eventually(lambda: _running(folder) == [], timeout=5)
