"""Leases: how often, until when, and who takes over. Real listeners; reports go into a list."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from health_prober.prober import Prober
from health_prober.settings import HealthProberSettings
from rollcall_contracts.events import (
    Event,
    HealthReport,
    InstanceHealthy,
    InstanceUnhealthy,
    ProbeRequested,
    ProbeTarget,
)
from rollcall_contracts.model import Health, Probe
from rollcall_testing import eventually

SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"


class Application:
    """An HTTP application whose status can be changed; it notes when it was asked."""

    def __init__(self) -> None:
        self.status: int | None = 200  # None: takes the connection and never answers
        self.body = ""
        self.asked: list[float] = []
        self.under_way = self.most_under_way = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked.append(time.monotonic())
            if self.status is None:
                await reader.read()
            head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(self.body)}\r\n\r\n"
            writer.write((head + self.body).encode())
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the prober hung up: its timeout, or its lease was over
        finally:
            self.under_way -= 1
            writer.close()


@asynccontextmanager
async def running(application: Application) -> AsyncIterator[Application]:
    server = await asyncio.start_server(application.serve, "127.0.0.1", application.port)
    application.port = server.sockets[0].getsockname()[1]
    async with server:
        yield application


@pytest.fixture
async def application() -> AsyncIterator[Application]:
    async with running(Application()) as started:
        yield started


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    async with probing() as started:
        yield started


@asynccontextmanager
async def probing(**settings: Any) -> AsyncIterator[Prober]:
    prober = Prober(HealthProberSettings(**settings))
    keeper = asyncio.create_task(prober.run())
    try:
        yield prober
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


class Lease:
    """A lease that a prober holds, and what it reported."""

    def __init__(self, prober: Prober, request: ProbeRequested) -> None:
        self.reports: list[Event] = []
        self.task = asyncio.create_task(
            prober.hold(request, report=self._report, now=datetime.now(UTC))
        )

    async def _report(self, event: Event) -> None:
        self.reports.append(event)

    @property
    def verdicts(self) -> list[str]:
        return [
            event.health.value if isinstance(event, InstanceUnhealthy) else "Healthy"
            for event in self.reports
        ]

    async def ends(self, within: float = 5) -> None:
        async with asyncio.timeout(within):
            await self.task


def request(
    *ports: int,
    lease: int = 1,
    seconds: float = 60,
    known: Health = Health.UNKNOWN,
    fast: bool = False,
    ids: tuple[str, ...] | None = None,
    **probe: Any,
) -> ProbeRequested:
    probe = {"interval": 0.1, "timeout": 0.5, "number_of_probes": 1, **probe}
    return ProbeRequested(
        scale_set=SET,
        probe=Probe(protocol="Http", port=80, request_path="/", **probe),
        targets=tuple(
            ProbeTarget(
                instance_id=id, attempt=3, lease=lease, address="127.0.0.1", port=port, health=known
            )
            for id, port in zip(ids or [str(n) for n in range(len(ports))], ports, strict=True)
        ),
        until=datetime.now(UTC) + timedelta(seconds=seconds),
        fast=fast,
    )


async def test_the_first_verdict_and_then_changes_only(
    prober: Prober, application: Application
) -> None:
    lease = Lease(prober, request(application.port, lease=7))
    await eventually(lambda: len(application.asked) >= 4)
    assert lease.reports == [
        InstanceHealthy(scale_set=SET, instance_id="0", attempt=3, lease=7, reason="HTTP 200")
    ]
    application.status = 503
    await eventually(lambda: lease.verdicts == ["Healthy", "Unhealthy"])
    assert lease.reports[1].reason == "HTTP 503"
    application.status = 200
    await eventually(lambda: lease.verdicts == ["Healthy", "Unhealthy", "Healthy"])


def rich(state: str, **upgrade: object) -> str:
    metrics = json.dumps({"rollingUpgrade": upgrade})
    return json.dumps({"ApplicationHealthState": state, "customMetrics": metrics})


async def test_a_change_of_custom_metrics_is_reported_once(
    prober: Prober, application: Application
) -> None:
    application.body = rich("Healthy", PhaseOrderingNumber=1, SkipUpgrade=False)
    lease = Lease(prober, request(application.port, interval=0.05))

    async def more_probes() -> None:
        count = len(application.asked)
        await eventually(lambda: len(application.asked) >= count + 4)

    def told() -> list[tuple[str, int | None, bool]]:
        return [
            (verdict, report.phase_ordering_number, report.skip_upgrade)
            for verdict, report in zip(lease.verdicts, lease.reports, strict=True)
            if isinstance(report, HealthReport)
        ]

    await more_probes()
    assert told() == [("Healthy", 1, False)]
    application.body = rich("Healthy", PhaseOrderingNumber=1, SkipUpgrade="True")
    await more_probes()
    assert told()[1:] == [("Healthy", 1, True)]
    application.body = rich("Unhealthy", PhaseOrderingNumber=2, SkipUpgrade=True)
    await more_probes()
    assert told()[2:] == [("Unhealthy", 2, True)]
    application.status, application.body = 503, ""  # says nothing: its last word stands
    await more_probes()
    assert len(told()) == 3
    application.status, application.body = 200, rich("Healthy")
    await more_probes()
    assert told()[3:] == [("Healthy", None, False)]


async def test_a_threshold_takes_as_many_probes(prober: Prober, application: Application) -> None:
    lease = Lease(prober, request(application.port, number_of_probes=4))
    await eventually(lambda: lease.reports)
    assert len(application.asked) == 4


async def test_known_health_is_confirmed_by_one_probe(
    prober: Prober, application: Application
) -> None:
    lease = Lease(prober, request(application.port, number_of_probes=4, known=Health.HEALTHY))
    await eventually(lambda: lease.reports)
    assert len(application.asked) == 1


async def test_a_lease_ends_when_its_time_is_over_and_probes_stop(
    prober: Prober, application: Application
) -> None:
    lease = Lease(prober, request(application.port, seconds=0.4, interval=0.05))
    await lease.ends()
    assert lease.verdicts == ["Healthy"]
    asked = len(application.asked)
    await asyncio.sleep(0.25)  # five intervals in which nothing may happen
    assert len(application.asked) == asked


async def test_a_lease_that_is_over_on_arrival_ends_at_once(
    prober: Prober, application: Application
) -> None:
    lease = Lease(prober, request(application.port, seconds=-1))
    await lease.ends(within=1)
    assert application.asked == []


async def test_a_newer_lease_takes_over_and_the_older_message_ends_early(
    prober: Prober, application: Application
) -> None:
    first = Lease(prober, request(application.port, lease=1))
    await eventually(lambda: first.reports)
    second = Lease(prober, request(application.port, lease=2))
    await first.ends()
    await eventually(lambda: second.reports)
    application.status = 503
    await eventually(lambda: second.verdicts == ["Healthy", "Unhealthy"])
    assert first.verdicts == ["Healthy"]


async def test_a_message_is_held_while_one_of_its_targets_is_not_taken_over(
    prober: Prober, application: Application
) -> None:
    port = application.port
    both = Lease(prober, request(port, port, ids=("a", "b"), lease=1))
    await eventually(lambda: len(both.reports) == 2)
    only_a = Lease(prober, request(port, ids=("a",), lease=2))
    await eventually(lambda: only_a.reports)
    assert not both.task.done()
    Lease(prober, request(port, ids=("b",), lease=2))
    await both.ends()


async def test_an_older_lease_that_comes_late_changes_nothing(
    prober: Prober, application: Application
) -> None:
    newer = Lease(prober, request(application.port, lease=5))
    await eventually(lambda: newer.reports)
    older = Lease(prober, request(application.port, lease=4))
    await older.ends(within=1)
    assert older.reports == []
    assert not newer.task.done()


async def test_the_same_lease_again_joins_the_probes_that_run(
    prober: Prober, application: Application
) -> None:
    asked = request(application.port, lease=1, seconds=1.0)
    first = Lease(prober, asked)
    await eventually(lambda: first.reports)
    again = Lease(prober, asked)
    await asyncio.gather(first.ends(), again.ends())
    assert again.reports == []
    assert application.most_under_way == 1


async def test_a_batch_is_asked_fast_until_it_is_healthy(prober: Prober) -> None:
    application = Application()
    async with running(application):
        port = application.port  # then closed: the instance boots
    lease = Lease(prober, request(port, fast=True, interval=30))
    await eventually(lambda: lease.verdicts == ["Unhealthy"])
    assert lease.reports[0].reason == "Connection refused"
    async with running(application):
        opened = time.monotonic()
        await eventually(lambda: lease.verdicts == ["Unhealthy", "Healthy"])
        assert time.monotonic() - opened < 2  # at the probe's own rate it would be 30 s
        await asyncio.sleep(0.3)
        assert len(application.asked) == 1  # healthy: the probe's own interval from here on


async def test_at_most_one_probe_of_an_instance_is_under_way(
    prober: Prober, application: Application
) -> None:
    application.status = None
    lease = Lease(prober, request(application.port, interval=0.05, timeout=0.3))
    await eventually(lambda: len(application.asked) >= 3)
    assert application.most_under_way == 1
    assert lease.verdicts == ["Unhealthy"]


async def test_instances_that_hang_do_not_hold_up_the_others() -> None:
    hanging, answering = Application(), Application()
    hanging.status = None
    async with probing(probe_concurrency=4) as prober, running(hanging), running(answering):
        dead = Lease(prober, request(*[hanging.port] * 24, interval=0.1, timeout=0.3))
        # Each of them gets its first answer through the common lane, then never again.
        await eventually(lambda: len(dead.reports) >= 24, 30)
        alive = Lease(prober, request(answering.port, ids=("x",), interval=0.1))
        await eventually(lambda: len(answering.asked) >= 6, 3)
        assert alive.verdicts == ["Healthy"]


async def test_concurrency_is_bounded() -> None:
    application = Application()
    application.status = None
    async with probing(probe_concurrency=3) as prober, running(application):
        Lease(prober, request(*[application.port] * 12, interval=5, timeout=0.2, fast=True))
        await eventually(lambda: len(application.asked) >= 12)
    assert application.most_under_way <= 6  # three in each lane


async def test_the_first_probes_of_a_lease_are_spread_over_the_interval(
    prober: Prober, application: Application
) -> None:
    Lease(prober, request(*[application.port] * 40, interval=1))
    await eventually(lambda: len(application.asked) >= 40)
    times = sorted(application.asked)[:40]
    assert times[-1] - times[0] > 0.5  # forty draws from one second: below 0.5 once in 10^10
