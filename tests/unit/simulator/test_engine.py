"""The plain engine: a fleet runs to its end, and its timeline tells how."""

from datetime import timedelta
from itertools import pairwise

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode, RollingPolicy
from rollcall_simulator.agenda import START
from rollcall_simulator.engine import Answers, Behaviour, Timeline, run
from rollcall_testing.fleets import fleet, image


def _of(timeline: Timeline, cls: type[e.EventBase]) -> list[float]:
    """Return when events of a class were decided, in seconds."""
    return [
        (entry.at - START).total_seconds()
        for entry in timeline.entries
        if isinstance(entry.event, cls)
    ]


def test_a_rollout_takes_as_long_as_its_batches() -> None:
    timeline = run(
        fleet(10, versions=("1.0", "1.1")),
        Answers(instance=lambda id, request: Behaviour(work=30, healthy=10)),
    )
    assert timeline.is_over
    assert [upgrade.status.value for upgrade in timeline.ended] == ["Completed"]
    assert {i.version for i in timeline.fleet.instances.values()} == {"1.1"}
    batches = _of(timeline, e.BatchStarted)
    assert len(batches) == 5
    lengths = [later - earlier for earlier, later in pairwise(batches)]
    assert all(40 <= length < 41 for length in lengths), lengths


def test_an_instance_that_never_gets_healthy_is_put_back() -> None:
    def behave(id: str, request: e.HostRequest) -> Behaviour:
        sick = id == "0" and isinstance(request, e.InstancesUpgradeRequested)
        return Behaviour(healthy=None if sick else 10)

    timeline = run(fleet(20, versions=("1.0", "1.1")), Answers(instance=behave))
    assert timeline.is_over
    assert timeline.fleet.instances["0"].version == "1.0"
    assert len(_of(timeline, e.InstancesRestoreRequested)) == 1


def test_a_failed_fetch_faults_the_upgrade() -> None:
    failure = Failure(code=FailureCode.IMAGE_VERIFICATION, message="the digest is another one")
    timeline = run(fleet(5, versions=("1.0", "1.1")), Answers(fetch=lambda host: failure))
    assert [upgrade.status.value for upgrade in timeline.ended] == ["Faulted"]
    assert not _of(timeline, e.BatchStarted)


def test_what_happens_from_outside_comes_at_its_time() -> None:
    timeline = run(
        fleet(4, policy=RollingPolicy(pause_time_between_batches=600)),
        happenings=[(START + timedelta(hours=1), e.ImagePublished(image=image("1.1")))],
    )
    assert timeline.is_over
    assert _of(timeline, e.UpgradeStarted) == [3600.0]
    assert [upgrade.status.value for upgrade in timeline.ended] == ["Completed"]


def test_a_run_that_does_not_end_says_so() -> None:
    timeline = run(
        fleet(10, versions=("1.0", "1.1"), policy=RollingPolicy(pause_time_between_batches=3600)),
        until=timedelta(hours=2),
    )
    assert not timeline.is_over
    assert timeline.at == START + timedelta(hours=2)
