"""Leases: who is probed, how often, and until when."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

import aiohttp
import structlog
from rollcall_contracts.events import (
    Event,
    InstanceHealthy,
    InstanceUnhealthy,
    ProbeRequested,
    ProbeTarget,
)
from rollcall_contracts.model import Health
from rollcall_kit.service import Context

from health_prober.domain.answer import Answer
from health_prober.domain.custom_metrics import Wish
from health_prober.domain.schedule import first_pause, grow, next_pause
from health_prober.domain.verdict import judge, opening
from health_prober.metrics import probes_made, targets_watched
from health_prober.probe import open_session, probe_once
from health_prober.settings import HealthProberSettings

log = structlog.get_logger()

Report = Callable[[Event], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One instance under a lease: a task that probes it until it is cancelled.

    A task per instance, rather than a heap of due times: it keeps one probe under way per instance
    by itself, and ten thousand sleeping tasks cost less than the two thousand probes they make in
    a second.
    """

    lease: int
    task: asyncio.Task[None]


class Prober:
    """All leases of this process. It remembers nothing that the broker would not give again."""

    def __init__(self, settings: HealthProberSettings) -> None:
        self._settings = settings
        self._watches: dict[tuple[str, str], Watch] = {}
        # Instances that hang keep a place for their whole timeout. They wait in a lane of their
        # own, else a dead rack would hold up the probes of all others.
        self._lane = asyncio.Semaphore(settings.probe_concurrency)
        self._slow_lane = asyncio.Semaphore(settings.probe_concurrency)
        self._session: aiohttp.ClientSession | None = None
        self._opened = asyncio.Event()

    async def run(self, context: Context | None = None) -> None:
        """Keep the session open until cancelled; leases wait for it."""
        async with open_session() as session:
            self._session = session
            self._opened.set()
            try:
                await asyncio.Event().wait()
            finally:
                self._opened.clear()
                for watch in list(self._watches.values()):
                    watch.task.cancel()

    async def hold(self, request: ProbeRequested, *, report: Report, now: datetime) -> None:
        """Probe a request's instances until its lease is over, or newer ones took all of them.

        Asked again for a lease that it holds (the broker does so after a lost connection), it
        joins the tasks that run.
        """
        lease = (request.until - now).total_seconds()
        if lease <= 0:
            return
        await self._opened.wait()
        watches = [self._watch(request, target, lease, report) for target in request.targets]
        tasks = {watch.task for watch in watches if watch is not None}
        if not tasks:
            return
        try:
            # No watch ends by itself: it is superseded (cancelled), or it has failed.
            done, _ = await asyncio.wait(tasks, timeout=lease, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
        for task in done:
            if not task.cancelled():
                task.result()

    def _watch(
        self, request: ProbeRequested, target: ProbeTarget, lease: float, report: Report
    ) -> Watch | None:
        """Return the watch over an instance under this lease; None when a newer one has it."""
        key = (request.scale_set.lower(), target.instance_id)
        held = self._watches.get(key)
        if held is not None and not held.task.done():
            if held.lease == target.lease:
                return held
            if held.lease > target.lease:
                return None
            held.task.cancel()
        task = asyncio.create_task(self._probe_until_cancelled(request, target, lease, report))
        watch = Watch(lease=target.lease, task=task)
        self._watches[key] = watch
        targets_watched.set(len(self._watches))
        task.add_done_callback(lambda _: self._forget(key, watch))
        return watch

    def _forget(self, key: tuple[str, str], watch: Watch) -> None:
        if self._watches.get(key) is watch:
            del self._watches[key]
            targets_watched.set(len(self._watches))

    async def _probe_until_cancelled(
        self, request: ProbeRequested, target: ProbeTarget, lease: float, report: Report
    ) -> None:
        settings, probe = self._settings, request.probe
        clock = asyncio.get_running_loop().time
        known = Wish(
            phase_ordering_number=target.phase_ordering_number, skip_upgrade=target.skip_upgrade
        )
        standing = opening(target.health, known)
        fast, fast_pause = request.fast, min(settings.probe_fast_interval, probe.interval)
        lane = self._lane
        if not fast:
            await asyncio.sleep(
                first_pause(interval=probe.interval, lease=lease, chance=random.random())
            )
        while True:
            async with lane:
                started = clock()
                answer = await self._probe(request, target)
                took = clock() - started
            lane = self._slow_lane if took >= probe.timeout else self._lane
            standing, verdict = judge(standing, answer.health, probe.number_of_probes, answer.wish)
            if verdict is not None:
                await report(_verdict_event(request, target, verdict, standing.told, answer.reason))
                fast = fast and verdict is not Health.HEALTHY
            if fast:
                await asyncio.sleep(fast_pause)
                fast_pause = grow(
                    fast_pause,
                    growth=settings.probe_fast_growth,
                    interval=probe.interval,
                    ceiling=settings.probe_fast_ceiling,
                )
            else:
                await asyncio.sleep(
                    next_pause(
                        interval=probe.interval,
                        took=clock() - started,
                        jitter=settings.probe_jitter,
                        chance=random.random(),
                    )
                )

    async def _probe(self, request: ProbeRequested, target: ProbeTarget) -> Answer:
        if self._session is None:
            raise RuntimeError("the prober's session is not open")
        answer = await probe_once(self._session, request.probe, target)
        probes_made.labels(answer.health.value).inc()
        return answer


def _verdict_event(
    request: ProbeRequested, target: ProbeTarget, verdict: Health, wish: Wish, reason: str
) -> InstanceHealthy | InstanceUnhealthy:
    if verdict is Health.HEALTHY:
        return InstanceHealthy(
            scale_set=request.scale_set,
            instance_id=target.instance_id,
            attempt=target.attempt,
            lease=target.lease,
            phase_ordering_number=wish.phase_ordering_number,
            skip_upgrade=wish.skip_upgrade,
            reason=reason,
        )
    return InstanceUnhealthy(
        scale_set=request.scale_set,
        instance_id=target.instance_id,
        attempt=target.attempt,
        lease=target.lease,
        health=verdict,
        phase_ordering_number=wish.phase_ordering_number,
        skip_upgrade=wish.skip_upgrade,
        reason=reason,
    )
