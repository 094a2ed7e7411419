"""Fleets in arbitrary states, not only those that can be reached: strategies for properties."""

from datetime import timedelta

from hypothesis import strategies as st
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
    PowerWish,
    RollingPolicy,
    StartedBy,
)
from rollcall_rollout import Fleet, InstancePhase, Member, MemberState, Upgrade
from rollcall_rollout.powering import ASKED
from rollcall_rollout.state import Hold, Hook, MetricCheck, OpenBatch

from rollcall_testing.fleets import SET, START, healthy, image, spec

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
            reimage=draw(st.booleans()),
            wish=draw(st.sampled_from(PowerWish)),
            power_due=draw(st.sampled_from([None, *ASKED])),
            booting=draw(st.booleans()),
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
            reimage=draw(st.booleans()),
            breach=draw(st.sampled_from([None, None, Failure(code="x", message="y")])),
            held=draw(st.sampled_from([None, "Paused"])),
            check=check,
        )
    hold = Hold(by_set=draw(st.sampled_from(["other", SET])), upgrade_id="u", error=FAULT)
    return Fleet(
        spec=spec(
            draw(st.integers(0, 8)),
            leaving=draw(st.sampled_from([(), ("0",), ("1", "9")])),
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
        start_reimage=draw(st.booleans()),
        rollback_requested=draw(st.booleans()),
        hook=draw(st.one_of(st.none(), hooks(upgrade.id if upgrade else None, list(instances)))),
        last_version=draw(st.sampled_from([None, "1.1", "1.2"])),
        last_image=draw(st.sampled_from([None, image("1.1"), image("1.2")])),
        batch_seconds=draw(st.sampled_from([(), (100.0, 900.0)])),
        holds=draw(st.dictionaries(st.sampled_from(["1.1", "1.2"]), st.just(hold))),
        room=draw(st.dictionaries(st.sampled_from(["host-1", "host-2"]), st.integers(0, 2))),
    )
