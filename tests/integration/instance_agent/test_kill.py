"""kill -9 of the agent at every point of every operation: it goes on, and acts once."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rollcall_testing.instances import InstanceKind, kinds

pytestmark = pytest.mark.timeout(900)  # a container takes seconds for each of its points
SCRIPT = Path(__file__).with_name("killed_agent.py")


NEEDS = {
    "docker": [pytest.mark.compose],
    "libvirt": [pytest.mark.libvirt, pytest.mark.timeout(900)],
}
PARAMS = [pytest.param(name, marks=NEEDS.get(name, [])) for name in kinds()]


def but(*slow: str) -> pytest.MarkDecorator:
    """Leave drivers out that take minutes: the agent, not its driver, says what comes next."""
    quick = [param for param in PARAMS if param.values[0] not in slow]
    return pytest.mark.parametrize("kind", quick, indirect=True)


@pytest.fixture(params=PARAMS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> InstanceKind:
    kind = kinds()[request.param]
    kind.install()
    for name, value in kind.environment.items():
        monkeypatch.setenv(name, value)
    return kind


async def at_every_point(
    folder: Path, operation: str, kind: InstanceKind, then: str = ""
) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        str(folder),
        operation,
        kind.driver,
        *([then] if then else []),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    found = [json.loads(line) for line in output.splitlines() if line.startswith(b'{"reports"')]
    assert len(found) >= (2 if then else 8), output.decode()
    return found


def ran(lines: list[str], version: str, kind: InstanceKind) -> bool:
    """A script that was cut off runs again; never more often. The tiny machine takes none."""
    return lines.count(version) in ((1, 2) if kind.takes_scripts else (0,))


async def test_an_upgrade_swaps_and_boots_once(tmp_path: Path, kind: InstanceKind) -> None:
    for facts in await at_every_point(tmp_path, "upgrade", kind):
        (report,) = facts["reports"]
        assert (report["type"], report["attempt"]) == ("instance.upgraded.v1", 9), facts
        assert facts["boots"] == ["1.0.0", "2.0.0"], facts
        assert facts["swaps"] == 2, facts  # one for its creation, one for the upgrade
        assert facts["kept"] == ["content"]
        assert facts["os"] == "000009-2.0.0"
        assert facts["disks"] == ["000001-1.0.0", "000009-2.0.0"]
        assert ran(facts["scripts"], "2.0.0", kind), facts
        assert ran(facts["extensions"], "2.0.0", kind), facts
        assert facts["alive"] == 1, facts
        assert facts["leftovers"] == []


async def test_a_creation_makes_one_instance(tmp_path: Path, kind: InstanceKind) -> None:
    for facts in await at_every_point(tmp_path, "create", kind):
        (report,) = facts["reports"]
        assert (report["type"], report["attempt"]) == ("instance.created.v1", 9), facts
        assert (facts["boots"], facts["swaps"]) == (["2.0.0"], 1), facts
        assert ran(facts["scripts"], "2.0.0", kind), facts
        assert facts["alive"] == 1, facts


async def test_a_restore_puts_the_old_disk_back_once(tmp_path: Path, kind: InstanceKind) -> None:
    for facts in await at_every_point(tmp_path, "restore", kind):
        (report,) = facts["reports"]
        assert (report["type"], report["version"]) == ("instance.restored.v1", "1.0.0"), facts
        assert facts["boots"] == ["1.0.0", "2.0.0", "1.0.0"], facts
        assert facts["swaps"] == 3, facts
        assert facts["disks"] == ["000001-1.0.0"], facts
        assert facts["scripts"] == []  # they do not run again
        assert facts["kept"] == ["content"]
        assert facts["alive"] == 1, facts


async def test_a_deletion_leaves_nothing(tmp_path: Path, kind: InstanceKind) -> None:
    for facts in await at_every_point(tmp_path, "delete", kind):
        (report,) = facts["reports"]
        assert report["type"] == "instance.deleted.v1"
        assert facts["alive"] == 0
        assert "boots" not in facts  # no folder is left


@but("docker", "libvirt")
async def test_a_restore_after_an_upgrade_that_was_cut_off_leads_to_the_old_disk(
    tmp_path: Path, kind: InstanceKind
) -> None:
    for facts in await at_every_point(tmp_path, "upgrade", kind, then="restore"):
        (report,) = facts["reports"]
        assert (report["type"], report["version"]) == ("instance.restored.v1", "1.0.0"), facts
        assert facts["os"] == "000001-1.0.0", facts
        assert facts["disks"] == ["000001-1.0.0"], facts
        assert (facts["boots"][-1], facts["alive"]) == ("1.0.0", 1), facts
        assert facts["kept"] == ["content"]


@but("docker", "libvirt", "qemu")
async def test_a_newer_upgrade_takes_the_place_of_one_that_was_cut_off(
    tmp_path: Path, kind: InstanceKind
) -> None:
    for facts in await at_every_point(tmp_path, "upgrade", kind, then="upgrade"):
        (report,) = facts["reports"]
        assert (report["type"], report["version"]) == ("instance.upgraded.v1", "3.0.0"), facts
        assert facts["os"] == "000010-3.0.0", facts
        assert facts["disks"] == ["000001-1.0.0", "000010-3.0.0"], facts  # the way back
        assert (facts["boots"][-1], facts["alive"]) == ("3.0.0", 1), facts
        assert facts["kept"] == ["content"]


@but("docker", "libvirt", "qemu")
@pytest.mark.parametrize("operation", ["create", "upgrade"])
async def test_a_deletion_after_what_was_cut_off_leaves_nothing(
    tmp_path: Path, kind: InstanceKind, operation: str
) -> None:
    for facts in await at_every_point(tmp_path, operation, kind, then="delete"):
        (report,) = facts["reports"]
        assert report["type"] == "instance.deleted.v1"
        assert facts["alive"] == 0
        assert "boots" not in facts  # no folder is left


@but("docker", "libvirt", "qemu")
async def test_a_newer_creation_takes_the_place_of_one_that_was_cut_off(
    tmp_path: Path, kind: InstanceKind
) -> None:
    for facts in await at_every_point(tmp_path, "create", kind, then="create"):
        (report,) = facts["reports"]
        assert (report["type"], report["version"]) == ("instance.created.v1", "3.0.0"), facts
        assert (facts["os"], facts["disks"]) == ("000010-3.0.0", ["000010-3.0.0"]), facts
        assert (facts["boots"][-1], facts["alive"]) == ("3.0.0", 1), facts


@but("docker", "libvirt", "qemu")
async def test_an_upgrade_of_what_was_cut_off_as_it_was_made_ends_with_the_new_disk(
    tmp_path: Path, kind: InstanceKind
) -> None:
    for facts in await at_every_point(tmp_path, "create", kind, then="upgrade"):
        (report,) = facts["reports"]
        assert (report["type"], report["version"]) == ("instance.upgraded.v1", "3.0.0"), facts
        assert (facts["os"], facts["alive"]) == ("000010-3.0.0", 1), facts
