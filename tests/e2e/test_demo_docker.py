"""`rollcall demo-docker` as `make` runs it: what it keeps of its promises, and what it leaves."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rollcall_testing import eventually
from rollcall_testing.instances import docker, images_of

pytestmark = [pytest.mark.compose, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]
ROLLCALL = str(Path(sys.executable).with_name("rollcall"))


def _demos() -> set[str]:
    """Return the demos that have something in the engine: each has a name of its own there."""
    label = ("--format", '{{.Label "rollcall.agent"}}')
    listed = docker("ps", "-a", *label) + docker("volume", "ls", *label)
    return {line for line in listed.splitlines() if line.startswith("rollcall-demo-")}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    subprocess.run([ROOT / "tests" / "docker" / "build-images", tmp_path], check=True, timeout=100)
    return tmp_path


async def test_ten_containers_are_upgraded_and_two_bad_versions_are_taken_back(
    folder: Path, images: Path
) -> None:
    before = _demos()
    process = await asyncio.create_subprocess_exec(
        *(ROLLCALL, "demo-docker", "--images", str(images)),
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(380):
        ending = asyncio.create_task(process.communicate())
        await eventually(lambda: ending.done() or _demos() > before, timeout=300, interval=0.5)
        seen = _demos() - before
        out, err = await ending
    text = out.decode()
    assert process.returncode == 0, text + err.decode()
    assert text.count("held ") == 11
    assert "BROKEN" not in text
    assert "(exit code 3): it cannot start" in " ".join(text.split())
    history = json.loads(text[text.rindex("\n{\n") :])
    codes = [item["properties"]["runningStatus"]["code"] for item in history["value"]]
    assert codes == ["Faulted", "Faulted", "Completed"]
    (demo,) = seen
    assert demo not in _demos()
    assert images_of(demo) == []
