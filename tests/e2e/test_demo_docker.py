"""`rollcall demo-docker` as `make` runs it: what it keeps of its promises, and what it leaves."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rollcall_testing.instances import docker

pytestmark = [pytest.mark.compose, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]
ROLLCALL = str(Path(sys.executable).with_name("rollcall"))


def _ours() -> set[str]:
    """Return what the agents of demos have in the engine."""
    kinds = (("ps", "-aq", "--filter"), ("volume", "ls", "-q", "--filter"))
    found = set("".join(docker(*kind, "label=rollcall.agent") for kind in kinds).split())
    return found | set(docker("images", "-q", "rollcall-*").split())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    subprocess.run([ROOT / "tests" / "docker" / "build-images", tmp_path], check=True, timeout=100)
    return tmp_path


async def test_ten_containers_are_upgraded_and_two_bad_versions_are_taken_back(
    folder: Path, images: Path
) -> None:
    before = _ours()
    process = await asyncio.create_subprocess_exec(
        *(ROLLCALL, "demo-docker", "--images", str(images)),
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(380):
        out, err = await process.communicate()
    text = out.decode()
    assert process.returncode == 0, text + err.decode()
    assert text.count("held ") == 11
    assert "BROKEN" not in text
    assert "(exit code 3): it cannot start" in " ".join(text.split())
    history = json.loads(text[text.rindex("\n{\n") :])
    codes = [item["properties"]["runningStatus"]["code"] for item in history["value"]]
    assert codes == ["Faulted", "Faulted", "Completed"]
    assert _ours() <= before
