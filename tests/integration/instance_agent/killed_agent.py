"""Run by test_kill.py: carries one operation out again and again, killed at every point in turn.

`killed_agent.py FOLDER OPERATION DRIVER [NEXT]`. For each point: a child makes an instance, takes
the operation up and kills itself (SIGKILL) at that point; a second child gets the same request
again, as the broker would redeliver it, or the operation NEXT. What is found then is printed, one
line of JSON per point.
"""

import asyncio
import base64
import hashlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiodocker
from instance_agent.app import build_driver, build_host, open_journal
from instance_agent.domain.record import Operation, Order
from instance_agent.driver import InstanceRef
from instance_agent.drivers import files
from instance_agent.host import Host, Job
from instance_agent.settings import Settings
from instance_agent.stop_instances import stop_all
from rollcall_contracts.events import Event
from rollcall_contracts.model import Drain, Extension, Image, Provisioning
from rollcall_kit.secrets import new_key, seal
from rollcall_testing import eventually
from rollcall_testing.instances import HOST, Place, kinds

KIND = kinds()[sys.argv[3]]
SET = "/sets/web"
ASKED = 9  # the attempt of the operation that is killed
NEXT = Operation(sys.argv[4]) if len(sys.argv) > 4 else None
REF = InstanceRef(scale_set=SET, instance_id="0")
KEY = new_key()
# Before a driver's step there is what was after the last write of the journal, which has points on
# both sides, as have writes within a step. A point takes seconds where instances are no processes.
BEFORE_TOO = KIND.driver == "process"
_SWAPS = ("/rename", "/start")
SCRIPT = '#!/bin/sh\necho "$ROLLCALL_IMAGE_VERSION" >> "$ROLLCALL_DATA_DIR/scripts"\n'
EXTENSION = 'echo "$ROLLCALL_IMAGE_VERSION" >> "$ROLLCALL_DATA_DIR/extensions"'


class Killer:
    """Ends this process at the chosen point: before or after one of the calls that matter."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.point = 0

    def reach(self) -> None:
        self.point += 1
        if self.point == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.reach()
            result = call(*args, **kwargs)
            self.reach()
            return result

        return wrapped

    def around_async(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            if BEFORE_TOO:
                self.reach()
            result = await call(*args, **kwargs)
            self.reach()
            return result

        return wrapped

    def arm(self, host: Host) -> None:
        for name in ("save", "bury") if NEXT is None else ():
            setattr(host.journal, name, self.around(getattr(host.journal, name)))
        if KIND.driver == "docker":
            self._arm_engine()
            return
        names: tuple[str, ...] = (
            "prepare",
            "stop",
            "swap",
            "start",
            "run",
            "observe",
            "commit",
            "delete",
        )
        folders: Any = files.Folders
        if NEXT is not None:  # what matters is whether it was written down what is in place
            names = ("swap", "start")
        for name in names:
            setattr(host.driver, name, self.around_async(getattr(host.driver, name)))
        folders.keep_process = self.around(folders.keep_process)
        folders.point_to = self.around(folders.point_to)

    def _arm_engine(self) -> None:
        """Take the points after each request that changes something in the engine.

        They are those between two steps, too; a container takes its time, so there are no others.
        """
        client: Any = aiodocker.Docker
        ask = client._do_query

        def counts(path: str) -> bool:
            return not path.endswith("/exec") if NEXT is None else path.endswith(_SWAPS)

        async def query(docker: Any, path: Any, method: str = "GET", **how: Any) -> Any:
            answer = await ask(docker, path, method, **how)
            if method != "GET" and counts(str(path)):
                self.reach()
            return answer

        client._do_query = query


def settings(folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "host": HOST,
            "driver": KIND.driver,
            "state_dir": folder,
            "stop_grace": 1 if KIND.takes_scripts else 0.1,
            "secrets_key": KEY,
        }
    )


def image(folder: Path, version: str) -> Image:
    path = KIND.build(folder / f"{version}{KIND.image_suffix}", version)
    content = path.read_bytes()
    return Image(
        publisher="P",
        offer="O",
        sku="S",
        version=version,
        url=f"file://{path}",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )


def job(operation: Operation, attempt: int, source: Image | None) -> Job:
    order = Order(
        scale_set=SET,
        instance_id="0",
        attempt=attempt,
        operation=operation,
        version=source.version if source else "",
        digest=source.sha256 if source else "",
        generation=attempt,
    )
    if not (KIND.takes_scripts and attempt == ASKED):
        return Job(order=order, image=source, provisioning=Provisioning(generation=attempt))
    provisioning = Provisioning(
        generation=attempt,
        sealed_custom_data=seal(KEY, base64.b64encode(SCRIPT.encode()).decode()),
        extensions=(Extension(name="e", settings={"commandToExecute": EXTENSION}),),
    )
    # Nothing listens, so the drain ends at once: what counts are the points. The container's server
    # answers 501, which would be asked again until the deadline.
    drain = None if KIND.driver == "docker" else Drain(request_path="/health", deadline=30)
    return Job(order=order, image=source, provisioning=provisioning, drain=drain)


async def work(folder: Path, jobs: list[Job], killer: Killer | None) -> list[Event]:
    host = build_host(settings(folder))
    reports: list[Event] = []

    async def report(event: Event) -> None:
        if killer is not None:
            killer.reach()
        reports.append(event)

    await host.power.recover(report)
    if killer is not None:
        killer.arm(host)
    for each in jobs:
        await host.carry_out(each, report)
    await host.power.close()
    return reports


def in_child(run: Callable[[], None]) -> int:
    """Return how a child ended that did this."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run()
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def booted(place: Place, version: str) -> None:
    """Wait until the instance has written its line, a moment after its start."""
    await eventually(lambda: KIND.boots(place)[-1:] == [version], timeout=20)


def facts(folder: Path, reports: list[Event], expect_running: bool) -> dict[str, object]:
    place = Place(folder, REF.key)
    alive = KIND.living(folder)
    told = [r.model_dump(mode="json") for r in reports]
    if not KIND.exists(place):
        return {"reports": told, "alive": alive}
    if expect_running:
        asyncio.run(booted(place, str(getattr(reports[-1], "version", None))))
    record = open_journal(settings(folder)).get(SET, "0")
    seen = asyncio.run(build_driver(settings(folder)).observe(REF))
    return {
        "reports": told,
        "alive": alive,
        "boots": KIND.boots(place),
        "scripts": KIND.lines(place, "scripts"),
        "extensions": KIND.lines(place, "extensions"),
        "kept": KIND.kept(place),
        "os": seen.disk.name if seen.disk else None,
        "disks": sorted(seen.disks),
        "swaps": record.swaps if record else None,
        "leftovers": KIND.leftovers(place),
    }


def main() -> None:
    base, operation = Path(sys.argv[1]), Operation(sys.argv[2])
    v1, v2 = image(base, "1.0.0"), image(base, "2.0.0")
    before = {
        Operation.CREATE: [],
        Operation.UPGRADE: [job(Operation.CREATE, 1, v1)],
        Operation.RESTORE: [job(Operation.CREATE, 1, v1), job(Operation.UPGRADE, 2, v2)],
        Operation.DELETE: [job(Operation.CREATE, 1, v1)],
    }[operation]
    new_disk = (Operation.CREATE, Operation.UPGRADE)
    asked = job(operation, ASKED, v2 if operation in new_disk else None)
    again_asked = asked
    if NEXT is not None:
        v3 = image(base, "3.0.0") if NEXT in new_disk else None
        again_asked = job(NEXT, ASKED + 1, v3)

    def one(folder: Path, point: int) -> None:
        def prepare_then_die() -> None:
            async def both() -> None:
                for each in before:
                    await work(folder, [each], None)
                    await booted(Place(folder, REF.key), each.order.version)
                    KIND.keep(Place(folder, REF.key), "content")
                await work(folder, [asked], Killer(point))

            asyncio.run(both())

        def again() -> None:
            reports = asyncio.run(work(folder, [again_asked], None))
            found = facts(folder, reports, again_asked.order.operation is not Operation.DELETE)
            sys.stdout.write(json.dumps(found) + "\n")

        killed = in_child(prepare_then_die)
        try:
            if killed == 0:
                raise StopIteration  # the operation has no such point: all were tried
            assert killed == -signal.SIGKILL, killed
            assert in_child(again) == 0
        finally:
            in_child(lambda: sys.exit(asyncio.run(stop_all(settings(folder)))))
            KIND.clear(folder)

    point = 1
    while True:
        try:
            one(base / str(point), point)
        except StopIteration:
            return
        point += 1


if __name__ == "__main__":
    main()
