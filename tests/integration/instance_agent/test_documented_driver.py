"""The driver of docs/drivers.md, as it stands there, with a program of a few lines."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from instance_agent.domain.record import Disk
from instance_agent.driver import Driver, InstanceRef, Options, Script
from instance_agent.failures import OperationFailed

PROGRAM = """#!/bin/sh
step=$1; key=$2; shift 2
mkdir -p "$key/disks"
case $step in
  prepare) mkdir -p "$key/disks/$1" ;;
  swap) echo "$1" > "$key/current" ;;
  start) touch "$key/running"; echo 127.0.0.1 20001 ;;
  stop) rm -f "$key/running" ;;
  observe) if [ -e "$key/running" ]; then echo running; else echo stopped; fi
           cat "$key/current" 2>/dev/null || true ;;
  run) while [ "$1" != -- ]; do shift; done; shift; exec "$@" ;;
  discard) for d in "$key"/disks/*; do
             case " $* " in *" ${d##*/} "*) ;; *) rm -r "$d" ;; esac
           done ;;
  delete) rm -r "$key" ;;
  *) echo "unknown step $step" >&2; exit 2 ;;
esac
"""
REF = InstanceRef(scale_set="/s", instance_id="0")
OLD = Disk(name="1", version="v1", generation=1)
NEW = Disk(name="2", version="v2", generation=2)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    document = Path(__file__).parents[3] / "docs" / "drivers.md"
    blocks = re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)
    assert len(blocks) == 1
    program = tmp_path / "hook"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("ROLLCALL_HOOK_PROGRAM", str(program))
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    made: Driver = names["HookDriver"](
        Options(
            folder=tmp_path / "instances",
            host="h",
            address="127.0.0.1",
            ports=range(20000, 20010),
            stop_grace=1,
            start_settle=0,
            max_unpacked_bytes=1,
        )
    )
    return made


async def test_the_documented_driver_takes_an_instance_through_an_upgrade(
    driver: Driver, tmp_path: Path
) -> None:
    for disk, before in ((OLD, None), (NEW, OLD.name)):
        await driver.prepare(REF, disk, tmp_path, (0,), b"")
        await driver.stop(REF)
        for _ in range(2):  # twice is once
            await driver.swap(REF, before, disk.name)
            endpoint = await driver.start(REF, disk)
        seen = await driver.observe(REF)
        assert (seen.running, seen.disk, endpoint.port) == (True, disk.name, 20001)
    with pytest.raises(OperationFailed, match="2 is in place, not 1"):
        await driver.swap(REF, OLD.name, "3")
    script = Script(name="s", command=("sh", "-c", "echo hello"), timeout=5)
    assert (await driver.run(REF, NEW, script)).output == "hello"
    failing = Script(name="s", command=("sh", "-c", "exit 3"), timeout=5)
    assert (await driver.run(REF, NEW, failing)).exit_code == 1
    await driver.discard(REF, frozenset({NEW.name}))
    await driver.stop(REF)
    async with asyncio.timeout(5):
        await driver.wait_stopped(REF)
    await driver.delete(REF)
    with pytest.raises(OperationFailed, match="unknown step"):
        await driver.console(REF)
