"""Turns to boot are shared by all agents of a machine, and come back from one that was killed."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from instance_agent.drivers.boots import Boots

OTHER_AGENT = """
import asyncio, sys
from pathlib import Path
from instance_agent.drivers.boots import Boots

async def main():
    await Boots(Path(sys.argv[1]), 2).take()
    print("taken", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_no_more_boot_at_once_than_there_are_turns(tmp_path: Path) -> None:
    agents = [Boots(tmp_path / "boots", 2) for _ in range(2)]
    turns = [await agent.take() for agent in agents]
    waiting = asyncio.create_task(agents[0].take())
    done, _ = await asyncio.wait([waiting], timeout=0.5)
    assert not done
    turns[1].end()
    async with asyncio.timeout(10):
        (await waiting).end()
    turns[0].end()


async def test_the_turn_of_a_killed_agent_is_free_again(tmp_path: Path) -> None:
    folder = tmp_path / "boots"
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OTHER_AGENT, str(folder)), stdout=asyncio.subprocess.PIPE
    )
    assert other.stdout is not None
    async with asyncio.timeout(30):
        assert await other.stdout.readline() == b"taken\n"
    ours = Boots(folder, 2)
    turn = await ours.take()
    waiting = asyncio.create_task(ours.take())
    done, _ = await asyncio.wait([waiting], timeout=0.5)
    assert not done
    os.kill(other.pid, signal.SIGKILL)
    await other.communicate()
    async with asyncio.timeout(10):
        (await waiting).end()
    turn.end()


async def test_a_cancelled_wait_takes_nothing(tmp_path: Path) -> None:
    boots = Boots(tmp_path, 1)
    turn = await boots.take()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await boots.take()
    turn.end()
    async with asyncio.timeout(5):
        (await boots.take()).end()


async def test_a_link_in_the_place_of_the_folder_or_of_a_turn_is_not_followed(
    tmp_path: Path,
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(OSError, match="Not a directory"):
        Boots(tmp_path / "link", 1)
    boots = Boots(tmp_path / "boots", 1)
    (tmp_path / "boots" / "0").symlink_to(victim / "file")
    with pytest.raises(OSError, match="symbolic link"):
        await boots.take()
    assert list(victim.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="to give a folder away needs root")
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(PermissionError, match="belongs to another user"):
        Boots(tmp_path, 1)


async def test_a_folder_that_was_tidied_away_is_made_anew(tmp_path: Path) -> None:
    boots = Boots(tmp_path / "boots", 1)
    (tmp_path / "boots").rmdir()
    (await boots.take()).end()
