"""Scripts by way of QEMU's guest agent. What is said to it is in `domain.libvirt.guest_agent`.

Nothing is kept of a script on this side. An agent that was killed in the midst asks for the same
job again, and gets the result of the one that runs or ended meanwhile.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

import structlog
from rollcall_contracts.model import FailureCode

from instance_agent.domain.libvirt import guest_agent as say
from instance_agent.domain.libvirt.guest_agent import Ending, Job, Refused, Unanswered
from instance_agent.domain.record import Disk
from instance_agent.driver import CUSTOM_DATA, InstanceRef, Script, ScriptResult
from instance_agent.drivers.libvirt.connection import Connection, bindings
from instance_agent.drivers.qemu.channel import (
    ASK_CUSTOM_DATA,
    GuestSilent,
    contents,
    packed,
)
from instance_agent.failures import OperationFailed

log = structlog.get_logger()

_ANSWER = 10  # seconds for an answer to one command, which is never that something has ended
_SOON, _SELDOM = 0.1, 1.0  # seconds between two questions whether it has ended
_END = 30.0  # seconds for what is left of a script to be killed


@cache
def _qemu_bindings() -> Any:
    return import_module("libvirt_qemu")  # comes with libvirt's own


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestAgent:
    """The guest agent of one domain; `silence` is how many seconds it may not answer."""

    lib: Connection
    domain: Callable[[Any], Any]  # finds it on an open connection
    silence: float

    async def check(self) -> None:
        """Raise Refused where it runs no programs, and Unanswered."""
        say.check_can_execute(await self.ask(say.info()))

    async def run(self, ref: InstanceRef, disk: Disk, script: Script) -> ScriptResult:
        """Run a script in the guest, unless it runs there already, and wait for its end.

        It ends with its time, and when this is cancelled. Raises Refused and Unanswered as long as
        it has not begun; later GuestSilent and OperationFailed.
        """
        if script.name != CUSTOM_DATA:
            await self._booted()
        say.check_brought(await self.done(say.execute(say.PLACE)))
        job, content = await self.job(ref, disk, script)
        try:
            for order in job.bring(content):
                say.check_brought(await self.done(order))
            code, output = await self._ran(job, ref, script)
        finally:
            await self._end(job)
        return ScriptResult(exit_code=code, output=output)

    async def _booted(self) -> None:
        try:
            async with asyncio.timeout(self.silence):
                await self.done(say.execute(say.BOOTED))
        except TimeoutError as error:
            raise Unanswered(f"the guest has not booted within {self.silence:g} s") from error

    async def _ran(self, job: Job, ref: InstanceRef, script: Script) -> tuple[int | None, str]:
        try:
            async with asyncio.timeout(script.timeout + self.silence):
                return say.outcome(await self.done(job.run(script.timeout)))
        except TimeoutError:  # the guest does not keep the time itself
            return None, ""
        except Unanswered as error:
            raise GuestSilent from error
        except Refused as error:
            why = f"{script.name} has no result: {error}"
            raise OperationFailed(FailureCode.START, why, ref.instance_id) from error

    async def job(self, ref: InstanceRef, disk: Disk, script: Script) -> tuple[Job, bytes]:
        """Return what a script is in the guest, and its files as a tar."""
        uuid = await self.lib.call(lambda c: self.domain(c).UUIDString())
        asks = script.name == CUSTOM_DATA  # it ran, or runs, as the guest boots
        given = {} if asks else await asyncio.to_thread(contents, script)
        words = ("/bin/sh", "-c", ASK_CUSTOM_DATA) if asks else script.command
        what = (*(word.encode() for word in words), await asyncio.to_thread(packed, given))
        job = say.job_of(uuid, disk.name.encode(), script.name.encode(), *what)
        variables = {
            "ROLLCALL_INSTANCE_ID": ref.instance_id,
            "ROLLCALL_IMAGE_VERSION": disk.version,
        }
        given[say.COMMAND] = job.command(words, variables, root=script.in_root).encode()
        given[say.JOB] = files("instance_agent.drivers.libvirt").joinpath("job.sh").read_bytes()
        return job, await asyncio.to_thread(packed, given)

    async def done(self, order: str) -> Ending:
        """Have something done in the guest that may be done twice, and return how it ended.

        It is ordered again where the guest agent has lost it, as when it was started anew. Raises
        Refused and Unanswered.
        """
        loop = asyncio.get_running_loop()
        heard = loop.time()
        pid: int | None = None
        pause = _SOON
        while True:
            try:
                if pid is None:
                    pid = say.process_of(await self.ask(order))
                    heard = loop.time()
                ending = say.ending_of(await self.ask(say.status(pid)))
                heard = loop.time()
                if ending is not None and ending.exit_code is not None:
                    return ending
                if ending is not None:  # it was killed, as when the guest agent ends
                    pid = None
            except Refused:
                if pid is None:
                    raise
                pid, heard = None, loop.time()
            except Unanswered:
                if loop.time() - heard > self.silence or not await self._runs():
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _SELDOM)

    async def _end(self, job: Job) -> None:
        try:
            async with asyncio.timeout(_END):
                await self.done(job.end())
        except (Refused, Unanswered, OperationFailed, TimeoutError) as error:
            # What is left ends with its time, or with the guest.
            log.warning("guest_script_not_ended", job=job.folder, error=str(error))

    async def _runs(self) -> bool:
        libvirt = bindings()

        def look(connection: Any) -> bool:
            with suppress(libvirt.libvirtError):  # it is gone
                return bool(self.domain(connection).isActive())
            return False

        return await self.lib.call(look)

    async def ask(self, command: str) -> str:
        """Return the guest agent's answer. Raises Refused and Unanswered."""

        def ask(connection: Any) -> str:
            libvirt = bindings()
            domain = self.domain(connection)
            try:
                return str(_qemu_bindings().qemuAgentCommand(domain, command, _ANSWER, 0))
            except libvirt.libvirtError as error:
                found = say.failure(command, error.get_error_code(), error.get_error_message())
                if found is None:
                    raise
                raise found from error

        return await self.lib.call(ask)
