"""The orders that a guest agent gets, done by a shell of this machine as the guest's would."""

import asyncio
import base64
import json
import os
from asyncio.subprocess import PIPE, Process
from importlib.resources import files
from pathlib import Path

import pytest
from instance_agent.domain.libvirt.guest_agent import COMMAND, JOB, Ending, Job, Refused, outcome
from instance_agent.drivers.qemu.channel import packed
from rollcall_testing import eventually

WAIT = 60.0  # seconds, on a busy machine


async def order(text: str) -> Process:
    arguments = json.loads(text)["arguments"]
    process = await asyncio.create_subprocess_exec(
        arguments["path"], *arguments["arg"], stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert process.stdin is not None
    process.stdin.write(base64.b64decode(arguments.get("input-data", "")))
    process.stdin.close()
    return process


async def ending(process: Process) -> Ending:
    output, errors = await asyncio.wait_for(process.communicate(), WAIT)
    return Ending(exit_code=process.returncode, output=output.decode(), errors=errors.decode())


async def bring(job: Job, shell: str, **others: bytes) -> None:
    script = job.command(("/bin/sh", "-c", shell), {"WHO": "me & you"}, root=False)
    runner = files("instance_agent.drivers.libvirt").joinpath("job.sh").read_bytes()
    content = packed({**others, COMMAND: script.encode(), JOB: runner})
    for each in job.bring(content):
        assert (await ending(await order(each))).exit_code == 0


async def run(job: Job, seconds: float = WAIT) -> tuple[int | None, str]:
    return outcome(await ending(await order(job.run(seconds))))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(str(tmp_path / "top" / "job-1"))


@pytest.fixture
def count(tmp_path: Path) -> Path:
    return tmp_path / "count"


def lines(file: Path) -> int:
    return len(file.read_text().split()) if file.exists() else 0


async def test_a_script_has_its_files_and_variables_and_says_how_it_ended(job: Job) -> None:
    large = os.urandom(3 * 1024**2)
    await bring(
        job, 'cat "{files}/b"; echo "$# $WHO" >&2; cmp a c; exit 3', a=large, b=b"B\n", c=large
    )
    assert await run(job) == (3, "B\n0 me & you")
    assert (await ending(await order(job.end()))).exit_code == 0
    assert list(Path(job.folder).parent.iterdir()) == []


async def test_who_asks_twice_gets_the_result_of_the_one_that_ran(job: Job, count: Path) -> None:
    await bring(job, f"echo x >>{count}; sleep 1; wc -l <{count}")
    first = await order(job.run(WAIT))
    await eventually(lambda: lines(count) == 1, timeout=WAIT)
    first.kill()  # as the guest agent's end does to what waits
    await first.wait()
    await bring(job, f"echo x >>{count}; sleep 1; wc -l <{count}")
    both = await asyncio.gather(run(job), run(job))
    assert [(code, output.strip()) for code, output in both] == [(0, "1")] * 2
    assert await run(job) == both[0]  # also when it has ended
    await ending(await order(job.end()))
    await bring(job, f"echo x >>{count}; wc -l <{count}")
    assert (await run(job))[1].strip() == "2"  # what was fetched runs again


async def test_a_script_is_killed_when_its_time_is_up(job: Job, count: Path) -> None:
    await bring(job, f"echo said; (while :; do echo x >>{count}; sleep 0.05; done) & wait")
    assert await run(job, 1) == (None, "said")
    await stands_still(count)


async def test_nothing_of_it_goes_on_when_it_is_ended(job: Job, count: Path) -> None:
    await bring(job, f"while :; do echo x >>{count}; sleep 0.05; done")
    waiting = await order(job.run(WAIT))
    await eventually(lambda: lines(count) > 1, timeout=WAIT)
    assert (await ending(await order(job.end()))).exit_code == 0
    await stands_still(count)
    with pytest.raises(Refused):
        outcome(await ending(waiting))  # who waited for it hears that it is gone
    assert list(Path(job.folder).parent.iterdir()) == []
    with pytest.raises(Refused):
        await run(job)  # nor does it begin anew by itself


async def test_one_that_is_ended_before_it_began_never_begins(job: Job, count: Path) -> None:
    await bring(job, f"echo x >>{count}")
    assert (await ending(await order(job.end()))).exit_code == 0
    with pytest.raises(Refused):
        await run(job)
    assert lines(count) == 0


async def stands_still(count: Path) -> None:
    """Assert that no one writes any more: twenty times as long as one that does takes."""
    written = lines(count)
    assert (await ending(await order('{"arguments": {"path": "/bin/sleep", "arg": ["1"]}}'))) == (
        Ending(exit_code=0, output="", errors="")
    )
    assert lines(count) == written
