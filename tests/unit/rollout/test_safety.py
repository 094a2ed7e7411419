"""What must hold in every state and every order of answers: properties and random walks."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Drain,
    Failure,
    FailureCode,
    Health,
    HookAction,
    LifecycleHook,
    LifecycleHookType,
    MaintenanceWindow,
    MetricGate,
    MetricOutcome,
    Power,
    RollingPolicy,
    StartedBy,
)
from rollcall_rollout import (
    Fleet,
    InstancePhase,
    Member,
    MemberState,
    Upgrade,
    decide,
    evolve,
    next_wake,
    settle,
    waiting,
)
from rollcall_rollout.census import Census
from rollcall_rollout.decide import STEPS
from rollcall_rollout.state import Hold, Hook, MetricCheck, OpenBatch
from rollcall_testing.fleets import SET, START, World, fleet, healthy, image, spec

# --- arbitrary states, not only those that can be reached ---------------------------------------

ERRORS = st.sampled_from(
    [None]
    + [
        Failure(code=code, message="it failed", target="x")
        for code in (FailureCode.CREDENTIALS, FailureCode.HEALTH_TIMEOUT, FailureCode.START)
    ]
)


FAULT = Failure(code="x", message="it faulted")
GATE = MetricGate(server="http://127.0.0.1:9090", query="up", success_condition="> 0")


@st.composite
def policies(draw: st.DrawFn) -> RollingPolicy:
    """Draw a policy with any of its rules."""
    sliding = draw(st.booleans())
    return RollingPolicy(
        pause_time_between_batches=draw(st.sampled_from([0, 60])),
        enable_cross_zone_upgrade=draw(st.booleans()),
        prioritize_unhealthy_instances=draw(st.booleans()),
        rollback_failed_instances_on_policy_breach=draw(st.booleans()),
        max_surge=not sliding and draw(st.booleans()),
        sliding_batches=sliding,
        upgrade_timeout=draw(st.sampled_from([None, 1000])),
        max_batch_instance_count=draw(st.sampled_from([None, 1, 2])),
        max_unhealthy_instance_count=draw(st.integers(0, 2)),
        max_unhealthy_upgraded_instance_count=draw(st.integers(0, 2)),
        canary_instance_count=draw(st.integers(0, 1)),
        canary_bake_time=draw(st.sampled_from([0, 90])),
        bake_time=draw(st.sampled_from([0, 120])),
        drain=draw(st.sampled_from([None, Drain(request_path="/drain", deadline=30)])),
        metric_gate=draw(st.sampled_from([None, GATE])),
    )


MOMENTS = st.integers(-4000, 4000).map(lambda seconds: START + timedelta(seconds=seconds))


@st.composite
def hooks(draw: st.DrawFn, upgrade_id: str | None, ids: list[str]) -> Hook:
    """Draw a hook, asked or answered."""
    actions = st.sampled_from([None, *HookAction])
    targets = {id: draw(actions) for id in (ids if upgrade_id else ["*"])}
    until = draw(MOMENTS)
    return Hook(
        id="h",
        type=LifecycleHookType.BATCH_STARTING if upgrade_id else LifecycleHookType.SCHEDULING,
        version=draw(st.sampled_from(["1.1", "1.2"])),
        created_at=START - timedelta(hours=2),
        wait_until=until,
        max_wait_until=until + timedelta(hours=1),
        default_action=draw(st.sampled_from(HookAction)),
        targets=targets,
        upgrade_id=upgrade_id,
        completed=None not in targets.values() and draw(st.booleans()),
    )


HOOKS = st.lists(
    st.builds(
        LifecycleHook,
        type=st.sampled_from(LifecycleHookType),
        wait_duration=st.just(600),
        default_action=st.sampled_from(HookAction),
    ),
    max_size=2,
).map(tuple)
WINDOWS = st.sampled_from(
    [
        (),
        (MaintenanceWindow(start=START.replace(tzinfo=None), time_zone="UTC", duration=3600),),
        (
            MaintenanceWindow(
                start=START.replace(tzinfo=None) + timedelta(hours=1),
                time_zone="Europe/Berlin",
                duration=600,
                recur_every="Week",
            ),
        ),
    ]
)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """Draw a fleet in any combination of phases, with or without an upgrade."""
    size = draw(st.integers(0, 8))
    probe = draw(st.booleans())
    instances = {}
    for i in range(size):
        instances[str(i)] = healthy(
            str(i),
            version=draw(st.sampled_from([None, "1.0", "1.1", "1.2"])),
            phase=draw(st.sampled_from(InstancePhase)),
            power=draw(st.sampled_from(Power)),
            health=draw(st.sampled_from(Health)),
            since=START - timedelta(seconds=draw(st.integers(0, 4000))),
            probed_until=draw(st.sampled_from([None, START, START + timedelta(hours=1)])),
            uncommitted=draw(st.booleans()),
            deploy=draw(st.booleans()),
            error=draw(ERRORS),
            zone=draw(st.sampled_from([None, "1", "2"])),
            previous_version=draw(st.sampled_from([None, "1.0", "1.1"])),
            replaces=draw(st.sampled_from([None, None, None, "0"])) if i else None,
            protect_from_scale_in=draw(st.booleans()),
            protect_from_scale_set_actions=draw(st.booleans()),
            phase_order=draw(st.sampled_from([None, 0, 1])),
            skip_upgrade=draw(st.booleans()),
        )
    upgrade, check = None, None
    if draw(st.booleans()):
        batch = draw(st.integers(0, 2))
        members = {}
        for id in instances:
            if draw(st.booleans()):
                members[id] = Member(
                    id=id,
                    state=draw(st.sampled_from(MemberState)),
                    since=START - timedelta(seconds=draw(st.integers(0, 4000))),
                    batch=draw(st.one_of(st.none(), st.integers(1, 2))),
                    error=draw(ERRORS),
                    approved=draw(st.booleans()),
                    phase=draw(st.sampled_from([None, 0, 1])),
                    replacement=draw(st.sampled_from([None, str(size - 1)])),
                )
        if draw(st.booleans()):
            check = MetricCheck(
                number=3,
                asked_at=START - timedelta(seconds=draw(st.integers(0, 200))),
                outcome=draw(st.sampled_from([None, *MetricOutcome])),
            )
        upgrade = Upgrade(
            id="11111111-1111-1111-1111-111111111111",
            image=image("1.1"),
            policy=draw(policies()),
            started_by=draw(st.sampled_from(StartedBy)),
            restore_failed=draw(st.booleans()),
            started_at=START - timedelta(seconds=draw(st.integers(0, 4000))),
            reason="",
            members=members,
            fetches=draw(st.dictionaries(st.sampled_from(["host-1", "host-2"]), st.booleans())),
            fetch_error=draw(st.sampled_from([None, None, Failure(code="x", message="y")])),
            batch=batch,
            open_batches=draw(
                st.dictionaries(
                    st.integers(1, 2),
                    st.just(OpenBatch(started_at=START, instance_ids=tuple(members))),
                    max_size=1,
                )
            ),
            paused_since=draw(st.sampled_from([None, START])),
            cancel_requested=draw(st.booleans()),
            pause_requested=draw(st.booleans()),
            deferred=draw(st.booleans()),
            override=draw(st.booleans()),
            rollback_of=draw(st.sampled_from([None, None, "1.2"])),
            breach=draw(st.sampled_from([None, None, Failure(code="x", message="y")])),
            held=draw(st.sampled_from([None, "Paused"])),
            check=check,
        )
    hold = Hold(by_set=draw(st.sampled_from(["other", SET])), upgrade_id="u", error=FAULT)
    return Fleet(
        spec=spec(
            draw(st.integers(0, 8)),
            probe=spec().probe if probe else None,
            automatic_os_upgrade=draw(st.booleans()),
            os_rolling_upgrade_deferral=draw(st.booleans()),
            minimum_image_age=draw(st.sampled_from([0, 3600])),
            hold_faulted_versions=draw(st.booleans()),
            policy=draw(policies()),
            lifecycle_hooks=draw(HOOKS),
            maintenance_windows=draw(WINDOWS),
            update_domains=draw(st.sampled_from([0, 2])),
        ),
        instances=instances,
        upgrade=upgrade,
        images=tuple(
            image(v, published_at=draw(st.sampled_from([None, START - timedelta(minutes=5)])))
            for v in draw(st.sets(st.sampled_from(["1.0", "1.1", "1.2"])))
        ),
        hosts=draw(st.sampled_from([(), ("host-1",), ("host-1", "host-2")])),
        next_id=size,
        deleted=draw(st.booleans()),
        barred_version=draw(st.sampled_from([None, "1.1", "1.2"])),
        start_requested=draw(st.booleans()),
        start_override=draw(st.booleans()),
        rollback_requested=draw(st.booleans()),
        hook=draw(st.one_of(st.none(), hooks(upgrade.id if upgrade else None, list(instances)))),
        last_version=draw(st.sampled_from([None, "1.1", "1.2"])),
        batch_seconds=draw(st.sampled_from([(), (100.0, 900.0)])),
        holds=draw(st.dictionaries(st.sampled_from(["1.1", "1.2"]), st.just(hold))),
        room=draw(st.dictionaries(st.sampled_from(["host-1", "host-2"]), st.integers(0, 2))),
    )


@given(fleets())
@settings(max_examples=800, deadline=None)
def test_every_decided_event_changes_the_state_and_decisions_come_to_an_end(before: Fleet) -> None:
    state = before
    for _ in range(STEPS):
        step = decide(state, START)
        if not step:
            return
        for event in step:
            after = evolve(state, [event], START)
            assert after is not state, event
            state = after
    pytest.fail(f"still deciding: {[event.type for event in step]}")


@given(fleets())
@settings(max_examples=200, deadline=None)
def test_a_settled_set_says_what_it_waits_for(before: Fleet) -> None:
    settled, _ = settle(before, START)
    wait = waiting(settled, START)
    assert wait.message.endswith(".")
    assert wait.until is None or wait.until >= START


@given(fleets(), st.integers(1, 100_000))
@settings(max_examples=300, deadline=None)
def test_nothing_becomes_due_before_the_next_wake(before: Fleet, later: int) -> None:
    settled, _ = settle(before, START)
    at = START + timedelta(seconds=later)
    if decide(settled, at):
        assert next_wake(settled, START) <= at


@given(fleets())
@settings(max_examples=300, deadline=None)
def test_a_busy_instance_is_never_asked_for_something_else(before: Fleet) -> None:
    """No instance is in two hands: new work is only asked of one whose agent has answered."""
    state = before
    while step := decide(state, START):
        for event in step:
            if isinstance(event, e.InstancesUpgradeRequested | e.InstancesRestoreRequested):
                assert all(not state.instances[o.instance_id].is_busy for o in event.instances)
            state = evolve(state, [event], START)


# --- random walks through whole rollouts ----------------------------------------------------------


def _counts(world: World) -> None:
    """The carried counts are those that a fresh look gives."""
    carried, fresh = world.fleet.census, replace(world.fleet).census
    for name in Census.__slots__:
        assert getattr(carried, name) == getattr(fresh, name), name


def test_what_changed_since_saving_is_noted() -> None:
    world = World(fleet=fleet(12, versions=("1.0", "1.1")).saved(), seed=3)
    saved = world.fleet
    steps = 0

    def observe(world: World) -> None:
        nonlocal saved, steps
        now, steps = world.fleet, steps + 1
        assert now.unsaved is not None
        changed = {id for id, i in now.instances.items() if saved.instances.get(id) is not i}
        assert changed <= now.unsaved.instances
        if saved.upgrade and now.upgrade and saved.upgrade.id == now.upgrade.id:
            old = saved.upgrade.members
            moved = {id for id, m in now.upgrade.members.items() if old.get(id) is not m}
            assert moved <= now.unsaved.members
        if steps % 3 == 0:
            saved = world.fleet = now.saved()

    world.observe = observe
    world.run()
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.completed"]


def _limits(limit: int) -> Callable[[World], None]:
    def observe(world: World) -> None:
        _counts(world)
        assert world.down() <= limit, f"{world.down()} down, {limit} allowed"

    return observe


@given(seed=st.integers(0, 10**9), capacity=st.integers(1, 40), doubled=st.sampled_from([0.0, 0.3]))
@settings(max_examples=60, deadline=None)
def test_never_more_down_than_the_policy_allows_and_no_instance_swapped_twice(
    seed: int, capacity: int, doubled: float
) -> None:
    world = World(
        fleet=fleet(capacity, versions=("1.0", "1.1")),
        seed=seed,
        doubled=doubled,
        observe=_limits(max(1, capacity * 20 // 100)),
    )
    world.run()
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.completed"]
    assert {i.version for i in world.fleet.instances.values()} == {"1.1"}
    assert set(world.swaps.values()) == {1}
    assert len(world.swaps) == capacity


@given(seed=st.integers(0, 10**9), capacity=st.integers(5, 40), share=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_a_partly_sick_version_keeps_the_limit_and_touches_no_healthy_instance_again(
    seed: int, capacity: int, share: int
) -> None:
    sick = {str(i) for i in range(capacity) if (i * 37 + seed) % 100 < share}
    world = World(
        fleet=fleet(capacity, versions=("1.0", "1.1")),
        seed=seed,
        doubled=0.2,
        sick=lambda id, version: version == "1.1" and id in sick,
        observe=_limits(max(1, capacity * 20 // 100)),
    )
    world.run()
    assert world.fleet.upgrade is None
    assert world.down() == 0
    for id, instance in world.fleet.instances.items():
        assert instance.version == "1.0" if id in sick else instance.version in ("1.0", "1.1")
        assert world.swaps.get((id, 2), 0) <= 1


@given(seed=st.integers(0, 10**9))
@settings(max_examples=40, deadline=None)
def test_failing_agents_never_leave_an_upgrade_without_an_end(seed: int) -> None:
    calls = 0

    def fails(id: str, request: e.HostRequest) -> Failure | None:
        nonlocal calls
        calls += 1
        if (calls * 31 + seed) % 7 == 0 and not isinstance(request, e.InstancesCreateRequested):
            return Failure(code=FailureCode.START, message="init exited with 1", target=id)
        return None

    world = World(fleet=fleet(20, versions=("1.0", "1.1")), seed=seed, fails=fails, doubled=0.2)
    world.run()
    assert world.fleet.upgrade is None
    assert not any(i.is_busy for i in world.fleet.instances.values())


@given(seed=st.integers(0, 10**9))
@settings(max_examples=30, deadline=None)
def test_the_order_of_answers_does_not_change_the_outcome(seed: int) -> None:
    worlds = [
        World(fleet=fleet(12, versions=("1.0", "1.1")), seed=s, doubled=0.5, observe=_counts)
        for s in (seed, seed + 1)
    ]
    for world in worlds:
        world.run()
    ends = [
        {
            id: replace(i, since=START, probed_until=None, lease=0)
            for id, i in w.fleet.instances.items()
        }
        for w in worlds
    ]
    assert ends[0] == ends[1]
