"""`rollcall demo-libvirt` as `make` runs it: what it keeps of its promises, and what it leaves."""

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from rollcall_testing import eventually
from rollcall_testing.domains import install_libvirt
from rollcall_testing.vm_images import build_test_os

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(900)]
ROLLCALL = str(Path(sys.executable).with_name("rollcall"))


@pytest.fixture(scope="module")
def images() -> Path:
    install_libvirt()
    return build_test_os()


async def _start(folder: Path, images: Path, **more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(ROLLCALL, "demo-libvirt", "--images", str(images)),
        env={**os.environ, "TMPDIR": str(folder), **more},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def _naming(*folders: Path) -> list[str]:
    """Return the command lines of processes that name a folder, or were told of it."""
    found = []
    marks = [os.fsencode(folder) for folder in folders]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            told = command + (entry / "environ").read_bytes()
        except OSError:
            continue  # it ended while we looked, or is a zombie
        if any(mark in told for mark in marks):
            found.append(os.fsdecode(command.replace(b"\0", b" ")))
    return found


def _left(folder: Path) -> list[str]:
    """Return what the demo left, but for the turns to boot: agents to come share them."""
    return [name for name in os.listdir(folder) if not name.startswith("rollcall-boots-")]


def _daemon_of(text: str) -> Path:
    """Return the folder of the libvirt that the demo says it has started."""
    found = re.search(r"socket=(/tmp/rcv-\w+)/run/", text)
    assert found, text
    return Path(found[1])


async def test_five_domains_are_upgraded_and_two_bad_versions_are_taken_back(
    folder: Path, images: Path
) -> None:
    process = await _start(folder, images)
    async with asyncio.timeout(850):
        out, err = await process.communicate()
    text = out.decode()
    assert process.returncode == 0, text + err.decode()
    assert text.count("held ") == 14
    assert "BROKEN" not in text
    assert "Kernel panic" in text
    history = json.loads(text[text.rindex("\n{\n") :])
    codes = [item["properties"]["runningStatus"]["code"] for item in history["value"]]
    assert codes == ["Faulted", "Faulted", "Completed"]
    daemon = _daemon_of(text)
    assert not daemon.exists()
    assert _naming(folder, daemon) == []
    assert _left(folder) == []


async def test_ctrl_c_in_the_middle_leaves_no_domain_no_process_and_no_file(
    folder: Path, images: Path
) -> None:
    process = await _start(folder, images)
    assert process.stdout is not None
    text = ""
    async with asyncio.timeout(300):
        # All that were adopted, and one that the driver made, are there then.
        while "4 at 1.0.0" not in text:
            line = await process.stdout.readline()
            assert line, f"the demo ended early: {text}"
            text += line.decode()
    daemon = _daemon_of(text)
    machines = [line for line in _naming(daemon) if line.startswith("/usr/bin/qemu-system")]
    assert len(machines) >= 4
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        await process.communicate()
    assert process.returncode == 130
    assert not daemon.exists()
    assert _left(folder) == []
    await eventually(lambda: _naming(folder, daemon) == [], timeout=10)


@pytest.fixture
def path_without_virsh(tmp_path: Path) -> str:
    """A PATH on which there is everything else."""
    for place in os.environ["PATH"].split(":"):
        for program in Path(place).glob("*"):
            link = tmp_path / program.name
            if program.name != "virsh" and not link.is_symlink():
                link.symlink_to(program)
    return str(tmp_path)


async def test_without_libvirt_the_demo_says_what_to_install(
    folder: Path, images: Path, path_without_virsh: str
) -> None:
    process = await _start(folder, images, PATH=path_without_virsh)
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert process.returncode == 1
    assert "there is no virsh" in err.decode()
    assert "apt-get install" in err.decode()
    assert os.listdir(folder) == []
