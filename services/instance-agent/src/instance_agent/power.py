"""Which instances run that should: told when it changes, put right when the agent starts."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog
from rollcall_contracts.events import Event, InstancePowerChanged
from rollcall_contracts.model import Power

from instance_agent.domain.record import Record, Step, believe
from instance_agent.driver import Driver, InstanceRef
from instance_agent.failures import OperationFailed
from instance_agent.guard import refuse_other_data
from instance_agent.journal import Journal

log = structlog.get_logger()

Report = Callable[[Event], Awaitable[None]]

_ASK_AGAIN = 1.0  # seconds until what runs the instances is asked again
_STARTS = 4  # of one that went down, each after twice the time, until it is told that it stopped


class PowerWatch:
    """Waits for each running instance to stop by itself."""

    def __init__(
        self, driver: Driver, journal: Journal, turn: Callable[[InstanceRef], asyncio.Lock]
    ) -> None:
        self._driver = driver
        self._journal = journal
        self._turn = turn
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def watch(self, ref: InstanceRef, report: Report, *, unseen: bool = False) -> None:
        """Report when the instance stops without having been asked to.

        One that is `unseen`, as it could not be looked at, is put right as soon as it can.
        """
        self.forget(ref)
        self._tasks[ref.key] = asyncio.create_task(self._wait(ref, report, unseen))

    def forget(self, ref: InstanceRef) -> None:
        """Stop watching: the instance is about to be stopped."""
        task = self._tasks.pop(ref.key, None)
        if task is not None:
            task.cancel()

    async def _wait(self, ref: InstanceRef, report: Report, unseen: bool) -> None:
        """Wait for the instance to stop, as long as it takes.

        A watch that fails (the engine below was stopped, say, and its instances with it) tells
        nothing of the instance: once it can be looked at again, it is put right. It is tried a few
        times, for that engine may be about to end once more, or not yet be all there.
        """
        starts = 0
        while True:
            try:
                if unseen:
                    async with self._turn(ref):
                        power = await self._put_right(ref)
                        starts += power is Power.STOPPED
                        if power is Power.STOPPED and starts < _STARTS:
                            raise _NotYet
                        await self._compare(ref, report, power)
                    unseen, starts = False, 0
                await self._driver.wait_stopped(ref)
                async with self._turn(ref):  # an operation under way says itself what comes of it
                    await self._compare(ref, report)
                return
            except _NotYet:
                pass
            except Exception as error:  # whatever a driver raises: a lost watch nobody would notice
                if not unseen:
                    log.warning("watch_failed", instance=ref.instance_id, error=repr(error))
                unseen = True
            await asyncio.sleep(_ASK_AGAIN * 2**starts)

    async def _put_right(self, ref: InstanceRef) -> Power | None:
        """Start what should run and does not, from the OS disk in place; its turn is held.

        Not where a data disk is gone. Returns the power that it has then; None where it was not for
        this watch to look at.
        """
        record = self._journal.get(ref.scale_set, ref.instance_id)
        if record is None or not _should_run(record):
            return None
        seen = await self._driver.observe(ref)
        record = self._journal.save(believe(record, seen.disk))
        if seen.running:
            return Power.RUNNING
        if record.disk is None:
            return None
        try:
            refuse_other_data(record, seen)
            await self._driver.start(ref, record.disk)
            log.info("instance_started_again", instance=ref.instance_id)
        except (OSError, OperationFailed) as error:
            log.warning("start_failed", instance=ref.instance_id, error=str(error))
            return Power.STOPPED
        return Power.RUNNING

    async def _compare(self, ref: InstanceRef, report: Report, power: Power | None = None) -> None:
        """Tell the power, as it is known or else seen, if it is not as last told."""
        record = self._journal.get(ref.scale_set, ref.instance_id)
        if record is None or not _should_run(record):
            return
        if power is None:
            running = (await self._driver.observe(ref)).running
            power = Power.RUNNING if running else Power.STOPPED
        if power is not record.power:
            await self._tell(record, power, report)

    async def _tell(self, record: Record, power: Power, report: Report) -> None:
        log.info("power_changed", instance=record.instance_id, power=power)
        await report(
            InstancePowerChanged(
                scale_set=record.scale_set,
                instance_id=record.instance_id,
                attempt=record.attempt,
                power=power,
            )
        )
        self._journal.save(replace(record, power=power))

    async def recover(self, report: Report) -> None:
        """Adopt what runs, and start what should run and does not: the host was rebooted.

        What an operation was at work on is left to its request, which comes again.
        """
        await asyncio.gather(*(self._recover(_ref(r), report) for r in self._journal.all()))

    async def _recover(self, ref: InstanceRef, report: Report) -> None:
        async with self._turn(ref):
            record = self._journal.get(ref.scale_set, ref.instance_id)
            if record is None or not _should_run(record) or record.disk is None:
                return
            unseen = True
            try:
                power = await self._put_right(ref)
                if power is not Power.STOPPED:
                    await self._compare(ref, report, power)
                    unseen = False
            except Exception as error:  # what runs the instances may be away
                log.warning("look_failed", instance=ref.instance_id, error=repr(error))
            self.watch(ref, report, unseen=unseen)

    async def look_again(self, report: Report) -> None:
        """Look whether somebody else started an instance that had stopped."""
        for record in self._journal.all():
            if record.power is Power.STOPPED:
                await self._look_at(_ref(record), report)

    async def _look_at(self, ref: InstanceRef, report: Report) -> None:
        async with self._turn(ref):
            try:
                if (await self._driver.observe(ref)).running:
                    self.watch(ref, report)
                    await self._compare(ref, report)
            except Exception as error:
                log.warning("look_failed", instance=ref.instance_id, error=str(error))

    async def close(self) -> None:
        """Stop watching all; the instances go on."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _NotYet(Exception):
    """The instance did not start, and is to be started again."""


def _ref(record: Record) -> InstanceRef:
    return InstanceRef(scale_set=record.scale_set, instance_id=record.instance_id)


def _should_run(record: Record) -> bool:
    return record.should_run and record.step is Step.DONE
