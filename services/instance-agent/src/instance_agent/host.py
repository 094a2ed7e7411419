"""The instances of this host: orders are carried out step by step, each written down when done."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import assert_never

import structlog
from rollcall_contracts.events import Event
from rollcall_contracts.model import Drain, Failure, FailureCode, Image, Provisioning

from instance_agent import drain, guard
from instance_agent.domain.drain import DrainEnd
from instance_agent.domain.record import (
    Answered,
    Decision,
    Disk,
    Operation,
    Order,
    Record,
    Refused,
    Stale,
    Step,
    advance,
    begin,
    believe,
    commit,
    fail,
    kept_disks,
    remaining,
    replaces,
    succeed,
)
from instance_agent.driver import Adopter, Driver, Endpoint, InstanceRef, NewDisk
from instance_agent.failures import OperationFailed
from instance_agent.images import ImageCache
from instance_agent.journal import Journal
from instance_agent.metrics import drains, operations
from instance_agent.outcomes import deleted, failure_in, refused
from instance_agent.power import PowerWatch
from instance_agent.provisioning import Provisioner
from instance_agent.space import Room

log = structlog.get_logger()

_LAST_WORDS = 4096  # characters of a console that an event carries

Report = Callable[[Event], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An order with what is needed to carry it out."""

    order: Order
    image: Image | None = None
    provisioning: Provisioning | None = None
    drain: Drain | None = None


@dataclass(slots=True)
class Slot:
    """One instance's turn: its orders are carried out one after the other."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0  # the highest attempt asked for
    order: Order | None = None
    task: asyncio.Task[None] | None = None


def ref_of(item: Order | Record) -> InstanceRef:
    """Return which instance an order or a record is about."""
    return InstanceRef(scale_set=item.scale_set, instance_id=item.instance_id)


def open_disks(journal: Journal) -> dict[str, frozenset[str]]:
    """Return the OS disks of each instance, with the one that a cut-off operation works on."""
    found = {}
    for record in journal.all():
        worked_on = None if record.step is Step.DONE else record.target
        found[ref_of(record).key] = kept_disks(record) | (
            {worked_on.name} if worked_on is not None else set()
        )
    return found


class Host:
    """All that one agent does, apart from talking to the broker."""

    def __init__(
        self,
        *,
        driver: Driver,
        journal: Journal,
        images: ImageCache,
        provisioner: Provisioner,
        concurrency: int,
        stop_grace: float,
        room: Room,
    ) -> None:
        self.driver = driver
        self.journal = journal
        self.images = images
        self._provisioner = provisioner
        self._working = asyncio.Semaphore(concurrency)
        self._stop_grace = stop_grace
        self._room = room
        self._slots: defaultdict[str, Slot] = defaultdict(Slot)
        self.power = PowerWatch(driver, journal, self.turn)

    def turn(self, ref: InstanceRef) -> asyncio.Lock:
        """Return the lock under which alone an instance may be changed."""
        return self._slots[ref.key].lock

    async def carry_out(self, job: Job, report: Report) -> None:
        """Do what is asked, and report; returns when the broker holds the report.

        A newer attempt ends the work on an older one, as kill -9 would, and goes on from there.
        """
        order = job.order
        slot = self._slots[ref_of(order).key]
        if slot.task is not None and slot.order is not None and replaces(order, slot.order):
            slot.task.cancel()
        slot.wanted = max(slot.wanted, order.attempt)
        async with slot.lock:
            if order.attempt < slot.wanted:
                log.info("order_superseded", attempt=order.attempt, newer=slot.wanted)
                return
            slot.order, slot.task = order, asyncio.create_task(self._work(job, report))
            try:
                await slot.task
            except asyncio.CancelledError:
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise  # the agent stops; the request will come again
                log.info("order_superseded", attempt=order.attempt, newer=slot.wanted)
            finally:
                slot.order = slot.task = None
                self._room.release(ref_of(order).key)
                if self.journal.get(order.scale_set, order.instance_id) is None:
                    slot.wanted = 0  # the next one of that name counts from its beginning

    async def commit(self, order: Order) -> None:
        """Drop the previous OS disk (M06)."""
        ref = ref_of(order)
        async with self.turn(ref):
            record = self.journal.get(order.scale_set, order.instance_id)
            if record is None:
                return
            committed = commit(record, order.attempt)
            if isinstance(committed, Stale):
                log.info("stale_order_ignored", attempt=order.attempt, known=committed.known)
                return
            self.journal.save(committed)
            await self._tidy(committed)

    async def _work(self, job: Job, report: Report) -> None:
        order = job.order
        known = self.journal.get(order.scale_set, order.instance_id)
        if known is None and order.operation is Operation.DELETE:
            await self._delete_unknown(order, report)
            return
        if known is None and order.operation is Operation.CREATE:
            buried = self.journal.buried(order.scale_set, order.instance_id)
            if order.attempt <= buried:
                log.info("stale_order_ignored", attempt=order.attempt, known=buried)
                return
        try:
            found = await self._found(known, order)
        except Exception as error:
            await report(refused(order, failure_in(error, order), known))
            return
        decision = self._possible(begin(known, order, found))
        match decision:
            case Stale():
                log.info("stale_order_ignored", attempt=order.attempt, known=decision.known)
            case Answered():
                await report(decision.report)
                if known is not None:
                    await self._tidy(known)  # killed after the report, it could not
            case Refused():
                await report(refused(order, decision.failure, known))
            case Record():
                await self._operate(self.journal.save(decision), job, report)
            case _:
                assert_never(decision)

    async def _delete_unknown(self, order: Order, report: Report) -> None:
        """Delete what the driver has of an instance that the journal knows nothing of.

        The journal may be lost, and the instance run. Both steps leave what is not there alone.
        """
        ref = ref_of(order)
        try:
            await self.driver.stop(ref, self._stop_grace)
            await self.driver.delete(ref)
        except Exception as error:
            await report(refused(order, failure_in(error, order), None))
            return
        self.journal.bury(order.scale_set, order.instance_id, order.attempt)
        self.images.keep_uses(ref.key, frozenset())
        await report(deleted(order))

    async def _found(self, known: Record | None, order: Order) -> Disk | None:
        """Return the OS disk in place where an operation begins; it may be one to be taken over."""
        driver = self.driver
        if order.operation is Operation.DELETE:
            return None  # whatever it is: it goes, also where nobody can say
        if known is not None:
            return (await driver.observe(ref_of(known))).disk if replaces(order, known) else None
        if order.operation is not Operation.CREATE:
            return None
        if not (driver.capabilities.adopts and isinstance(driver, Adopter)):
            return None
        return await driver.adopt(ref_of(order))

    def _possible(self, decision: Decision) -> Decision:
        """Refuse a restore that the driver cannot do, before anything is touched."""
        if (
            isinstance(decision, Record)
            and decision.operation is Operation.RESTORE
            and decision.target != decision.disk
            and not self.driver.capabilities.instant_restore
        ):
            why = f"the driver {self.driver.name} keeps no previous OS disk, so none can come back"
            return Refused(
                failure=Failure(code=FailureCode.DRIVER, message=why, target=decision.instance_id)
            )
        return decision

    async def _operate(self, record: Record, job: Job, report: Report) -> None:
        try:
            record = await self._steps(record, job, report)
        except Exception as error:
            await self._failed(job, failure_in(error, job.order), report)
        else:
            operations.labels(record.operation, "succeeded").inc()
            if record.operation is Operation.DELETE:
                self.journal.bury(record.scale_set, record.instance_id, record.attempt)
                self.images.keep_uses(ref_of(record).key, frozenset())
                await report(deleted(job.order, record.note))
                return
            record = self.journal.save(succeed(record))
            if record.report is not None:
                await report(record.report)
            await self._tidy(record)

    async def _failed(self, job: Job, failure: Failure, report: Report) -> None:
        record = self.journal.get(job.order.scale_set, job.order.instance_id)
        if record is None:
            return
        with suppress(Exception):  # what failed may be the driver; what is in place is told then
            record = believe(record, (await self.driver.observe(ref_of(record))).disk)
        record = self.journal.save(fail(record, failure))
        log.warning(
            "operation_failed",
            operation=record.operation,
            instance=record.instance_id,
            attempt=record.attempt,
            code=failure.code,
            why=failure.message,
        )
        operations.labels(record.operation, "failed").inc()
        if record.report is not None:
            await report(record.report)
        self.power.watch(ref_of(record), report)  # it may have been left stopped
        await self._tidy(record)

    async def _tidy(self, record: Record) -> None:
        """Drop the OS disks that nobody needs; what cannot go now goes the next time.

        The one in place stays, whatever the record says.
        """
        ref = ref_of(record)
        try:
            in_place = (await self.driver.observe(ref)).disk
            kept = kept_disks(record) | ({in_place.name} if in_place else set())
            await self.driver.commit(ref, kept)
            self.images.keep_uses(ref.key, kept)
        except (OSError, OperationFailed) as error:
            log.warning("commit_failed", instance=record.instance_id, error=str(error))
        except Exception:
            log.exception("commit_crashed", instance=record.instance_id)

    async def _steps(self, record: Record, job: Job, report: Report) -> Record:
        if record.step in (Step.STARTED, Step.CUSTOMIZED) and record.target is not None:
            await self._refuse_other_data(record)  # the host may have rebooted meanwhile
            await self._start(record, record.target, report)
        for step in remaining(record):
            record = await self._do(step, record, job, report)
            record = self.journal.save(advance(record, step))
        if record.operation is Operation.DELETE:
            await self.driver.delete(ref_of(record))
        return record

    async def _do(self, step: Step, record: Record, job: Job, report: Report) -> Record:
        """Do one step; returns the record with what was learned."""
        ref = ref_of(record)
        match step:
            case Step.PREPARED:
                await self._refuse_other_data(record)  # before missing ones are made
                async with self._working:
                    await self._prepare(ref, _target(record), job)
            case Step.DRAINED:
                return await self._drain(record, job)
            case Step.STOPPED:
                return await self._stopped(record)
            case Step.SWAPPED:
                await self._swap(record)
            case Step.STARTED:
                await self._compare(record)
                return await self._start(record, _target(record), report)
            case Step.CUSTOMIZED:
                if job.provisioning is not None:
                    await self._provisioner.customize(ref, _target(record), job.provisioning)
            case Step.EXTENDED:
                return await self._extend(record, job)
            case Step.BEGUN | Step.DONE:
                raise ValueError(f"{step} is no step of a plan")
            case _:
                assert_never(step)
        return record

    async def _prepare(self, ref: InstanceRef, disk: Disk, job: Job) -> None:
        if job.image is None or job.provisioning is None:
            raise ValueError(f"{job.order.operation} needs an image and what runs on it")
        self.images.use(job.image, ref.key, disk.name)
        custom_data = self._provisioner.custom_data(ref, job.provisioning)
        able = self.driver.capabilities
        if custom_data and not able.custom_data:
            raise self._cannot(FailureCode.CUSTOM_DATA, "custom data", ref)
        if job.provisioning.extensions and not able.extensions:
            raise self._cannot(FailureCode.EXTENSION, "extensions", ref)
        new = NewDisk(
            disk=disk,
            image=await self.images.fetch(job.image),
            data_disks=job.provisioning.data_disks,
            custom_data=custom_data,
        )
        await self.driver.prepare(ref, new)

    def _cannot(self, code: FailureCode, what: str, ref: InstanceRef) -> OperationFailed:
        return OperationFailed(
            code,
            f"the driver {self.driver.name} cannot run {what}: take them out of the model, or use "
            "another driver",
            ref.instance_id,
        )

    async def _stopped(self, record: Record) -> Record:
        """Stop the instance, where that is needed, and remember the data disks that it has."""
        ref, target = ref_of(record), record.target
        if target is not None:
            guard.refuse_to_stop(record, target, await self.driver.observe(ref))
        self.power.forget(ref)
        if record.operation is Operation.RESTORE and target != record.disk:
            record = replace(record, note=await self._last_words(ref))
        stays = target is None or target == record.disk  # on its OS disk: then stopping is the aim
        if stays or self.driver.capabilities.needs_stop:
            async with self._working:
                await self.driver.stop(ref, self._stop_grace)
        if record.operation is Operation.DELETE:
            return record
        return replace(record, data_disks=(await self.driver.observe(ref)).data_disks)

    async def _last_words(self, ref: InstanceRef) -> str:
        """Return the end of the console of a boot that is given up: all that may say why."""
        try:
            console = await self.driver.console(ref)
        except (OSError, OperationFailed) as error:
            console = f"(it cannot be read: {error})"
        return f"its console ended with: {console[-_LAST_WORDS:] or 'nothing'}"

    async def _swap(self, record: Record) -> None:
        """Swap; when cancelled, not before it is known what is in place."""
        old = record.disk.name if record.disk else None
        swap = self.driver.swap(ref_of(record), old, _target(record).name)
        task = asyncio.ensure_future(swap)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            raise

    async def _compare(self, record: Record) -> None:
        """Fail when a disk is not the one that it must be: a data disk, or the OS disk (M06).

        Asked before the new OS disk starts, and again when it is done: it may have overwritten one.
        """
        guard.compare(record, await self.driver.observe(ref_of(record)))

    async def _refuse_other_data(self, record: Record) -> None:
        guard.refuse_other_data(record, await self.driver.observe(ref_of(record)))

    async def _drain(self, record: Record, job: Job) -> Record:
        """Have the instance emptied, where that is asked for and it runs; never held against it."""
        ref = ref_of(record)
        if job.drain is None or not await self._runs(ref):
            return record
        url = drain.url_of(job.drain, Endpoint(address=record.address, port=record.port))
        if url is None:
            return replace(record, note="not drained: neither driver nor model say on which port")
        # Written down before the first question: an agent after this one goes by the same clock.
        draining = record.draining or drain.begin(job.drain)
        record = self.journal.save(replace(record, draining=draining))
        hook = drain.Hook(
            url=url,
            keep=lambda now_known: self.journal.save(replace(record, draining=now_known)),
            is_running=partial(self._runs, ref),
        )
        end, note = await drain.empty(hook, draining)
        drains.labels(end.value).inc()
        level = log.info if end in (DrainEnd.EMPTY, DrainEnd.STOPPED) else log.warning
        level("instance_drained", instance=ref.instance_id, outcome=end.value, note=note)
        return replace(record, note=note)

    async def _runs(self, ref: InstanceRef) -> bool:
        return (await self.driver.observe(ref)).running

    async def _start(self, record: Record, disk: Disk, report: Report) -> Record:
        ref = ref_of(record)
        async with self._working:
            endpoint = await self.driver.start(ref, disk)
        self.power.watch(ref, report)
        before = Endpoint(address=record.address, port=record.port)
        if (
            record.operation is Operation.UPGRADE
            and before.address  # else it never started, so nobody was told of one
            and endpoint != before
            and self.driver.capabilities.keeps_address
        ):
            raise OperationFailed(
                FailureCode.DRIVER,
                f"it listened on {before.address}:{before.port}, and with the new OS disk on "
                f"{endpoint.address}:{endpoint.port}: an instance keeps its address",
                record.instance_id,
            )
        return replace(record, address=endpoint.address, port=endpoint.port)

    async def _extend(self, record: Record, job: Job) -> Record:
        ref = ref_of(record)
        extensions = job.provisioning.extensions if job.provisioning else ()
        for number, extension in enumerate(extensions):
            if number < record.extensions_done:
                continue
            await self._provisioner.extend(
                ref, _target(record), extension, number, datetime.now(UTC)
            )
            record = self.journal.save(replace(record, extensions_done=number + 1))
        await self._compare(record)
        if not await self._runs(ref):
            raise OperationFailed(
                FailureCode.START,
                f"the instance stopped soon after its start: {await self.driver.console(ref)}",
                ref.instance_id,
            )
        return record


def _target(record: Record) -> Disk:
    if record.target is None:
        raise ValueError(f"{record.operation} of {record.instance_id} names no OS disk")
    return record.target
