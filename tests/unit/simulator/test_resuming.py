"""A run that begins in the middle of things, meets outages, and leaps over what is still."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    FailureCode,
    Health,
    HookAction,
    LifecycleHook,
    LifecycleHookType,
    MaintenanceWindow,
    RollingPolicy,
)
from rollcall_rollout import Fleet, next_wake
from rollcall_simulator.agenda import START
from rollcall_simulator.engine import Answers, Behaviour, Outage, Timeline, _Run, run
from rollcall_testing.fleets import fleet, healthy

Seen = list[tuple[float, str, str]]
BATCH_HOOK = LifecycleHook(type=LifecycleHookType.BATCH_STARTING, wait_duration=600)
NIGHTLY = MaintenanceWindow(
    start=datetime.fromisoformat("2026-01-01T02:00"), time_zone="Europe/Berlin", duration=7200
)


def steps(timeline: Timeline) -> Seen:
    """Return what was decided about upgrades, and when, in seconds."""
    return [
        (round((entry.at - START).total_seconds(), 1), entry.event.type, entry.event.reason)
        for entry in timeline.entries
        if isinstance(entry.event, e.UpgradeEvent | e.LifecycleHookCompleted | e.InstanceFailed)
    ]


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def slow(id: str, request: e.HostRequest) -> Behaviour:
    return Behaviour(work=30 + int(id), healthy=5)


@pytest.mark.parametrize("cut", [3, 6, 20, 32, 36, 40, 45, 70, 95, 130])
@pytest.mark.parametrize(
    "policy",
    [
        RollingPolicy(),
        RollingPolicy(sliding_batches=True),
        RollingPolicy(max_surge=True),
        RollingPolicy(pause_time_between_batches=50),
    ],
    ids=("plain", "sliding", "surge", "pause"),
)
def test_a_run_that_is_cut_goes_on_as_if_it_had_not_been(cut: int, policy: RollingPolicy) -> None:
    begun = fleet(10, versions=("1.0", "1.1"), policy=policy, lifecycle_hooks=(BATCH_HOOK,))
    answers = Answers(
        instance=slow, fetch=lambda host: 4.0, hook=lambda asked: (2.0, HookAction.APPROVE)
    )
    whole = run(begun, answers)
    first = run(begun, answers, until=timedelta(seconds=cut))
    second = run(first.fleet, answers, start=after(cut))
    assert whole.is_over
    assert second.is_over
    assert [u.status.value for u in second.ended] == ["Completed"]
    assert steps(first) + steps(second) == steps(whole)


def test_a_failure_under_way_is_told_at_its_time() -> None:
    error = Failure(code=FailureCode.EXTENSION, message="the script exited with 3")
    begun = fleet(10, versions=("1.0", "1.1"))
    answers = Answers(instance=lambda id, request: Behaviour(work=60, failure=error))
    first = run(begun, answers, until=timedelta(seconds=20))
    second = run(first.fleet, answers, start=after(20))
    assert [u.status.value for u in second.ended] == ["Faulted"]
    assert steps(second) == steps(run(begun, answers))[2:]


def test_an_agent_that_never_answers_runs_into_the_time_limit() -> None:
    timeline = run(
        fleet(5, versions=("1.0", "1.1"), policy=RollingPolicy(provisioning_timeout=100)),
        Answers(instance=lambda id, request: Behaviour(work=None)),
    )
    failed = [step for step in steps(timeline) if step[1] == "instance.failed.v1"]
    assert failed[0] == (105.0, "instance.failed.v1", "100 s >= 100 s")


def test_an_instance_that_is_unhealthy_at_the_start_stays_so_until_its_disk_is_replaced() -> None:
    sick = healthy("9", health=Health.UNHEALTHY, probed_until=None)
    begun = fleet(10, versions=("1.0", "1.1"))
    begun = Fleet(
        spec=begun.spec,
        instances={**begun.instances, "9": sick},
        images=begun.images,
        hosts=begun.hosts,
        next_id=10,
    )
    timeline = run(begun)
    batches = (x.event for x in timeline.entries if isinstance(x.event, e.BatchStarted))
    sizes = [len(batch.instance_ids) for batch in batches]
    assert sizes == [1] * 8 + [2]  # one is allowed beside it; then it is upgraded itself
    assert all(i.is_healthy for i in timeline.fleet.instances.values())


@pytest.mark.parametrize("probed", [True, False], ids=("probe", "power"))
def test_an_outage_stops_an_upgrade_and_one_that_has_passed_does_not(probed: bool) -> None:
    fields = {} if probed else {"probe": None}
    begun = fleet(10, versions=("1.0", "1.1"), **fields)
    three = [Outage(instance_id=id, begin=after(30), end=None) for id in ("7", "8", "9")]
    ended = run(begun, outages=three).ended
    assert [u.error.code for u in ended if u.error] == [FailureCode.UNHEALTHY_DURING]
    passed = [Outage(instance_id=o.instance_id, begin=o.begin, end=after(40)) for o in three]
    timeline = run(begun, outages=passed)
    assert [u.status.value for u in timeline.ended] == ["Completed"]
    assert all(i.is_healthy for i in timeline.fleet.instances.values())


def test_an_application_that_fails_after_a_while_on_the_new_version() -> None:
    def behave(id: str, request: e.HostRequest) -> Behaviour:
        late = isinstance(request, e.InstancesUpgradeRequested)
        return Behaviour(work=30, healthy=5, outages=[(600, None)] if late else [])

    hasty = run(fleet(10, versions=("1.0", "1.1")), Answers(instance=behave))
    careful = run(
        fleet(10, versions=("1.0", "1.1"), policy=RollingPolicy(pause_time_between_batches=900)),
        Answers(instance=behave),
    )
    assert [u.status.value for u in hasty.ended] == ["Completed"]
    assert not any(i.is_healthy for i in hasty.fleet.instances.values())
    assert [u.error.code for u in careful.ended if u.error] == [FailureCode.UNHEALTHY_UPGRADED]


def test_a_hook_may_answer_for_each_instance() -> None:
    timeline = run(
        fleet(5, versions=("1.0", "1.1"), lifecycle_hooks=(BATCH_HOOK,)),
        Answers(
            hook=lambda asked: (
                1.0,
                {
                    id: HookAction.REJECT if id == "2" else HookAction.APPROVE
                    for id in asked.instance_ids
                },
            )
        ),
    )
    versions = {id: i.version for id, i in timeline.fleet.instances.items()}
    assert versions == {"0": "1.1", "1": "1.1", "2": "1.0", "3": "1.1", "4": "1.1"}


def test_a_run_that_nobody_will_move_ends_at_once() -> None:
    begun = fleet(10, versions=("1.0", "1.1"), os_rolling_upgrade_deferral=True)
    timeline = run(begun, Answers(approval=None))
    assert not timeline.is_over
    assert timeline.at < after(60)


def test_a_version_that_must_age_is_waited_for_only_as_long_as_asked() -> None:
    begun = fleet(4, minimum_image_age=86400.0)
    young = begun.images[0].model_copy(update={"version": "1.1", "published_at": START})
    begun = begun.amended(images=(*begun.images, young))
    assert not run(begun).ended
    assert not run(begun, quiet=timedelta(hours=23)).ended
    timeline = run(begun, quiet=timedelta(hours=25))
    assert [u.started_at for u in timeline.ended] == [after(86400)]


class _Patient(_Run):
    """A run that looks whenever the rules ask for it, as the orchestrator does."""

    def _next_wake(self) -> float:
        return self.agenda.at(next_wake(self.fleet, self.agenda.now))


@pytest.mark.parametrize(
    "policy",
    [
        RollingPolicy(pause_time_between_batches=7000),
        RollingPolicy(canary_instance_count=1, canary_bake_time=5000, bake_time=4000),
        RollingPolicy(pause_time_between_batches=7000, upgrade_timeout=20000),
        RollingPolicy(sliding_batches=True),
    ],
)
@pytest.mark.parametrize("windows", [(), (NIGHTLY,)], ids=("always", "nightly"))
def test_a_leap_misses_nothing(policy: RollingPolicy, windows: Sequence[MaintenanceWindow]) -> None:
    begun = fleet(10, versions=("1.0", "1.1"), policy=policy, maintenance_windows=tuple(windows))
    answers = Answers(instance=slow)
    quiet, until = timedelta(days=1), timedelta(days=6 if windows else 2)
    leaping = run(begun, answers, quiet=quiet, until=until)
    patient = _Patient(begun, answers, START).until(until, quiet)
    assert steps(leaping) == steps(patient)
    assert leaping.ended
    assert [u.status for u in leaping.ended] == [u.status for u in patient.ended]
