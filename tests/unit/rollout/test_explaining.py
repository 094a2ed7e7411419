"""What a set says it waits for: the sentence of each code, as an operator reads it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    Health,
    HookAction,
    ImageReference,
    MaintenanceWindow,
    MetricOutcome,
    Probe,
    RollingPolicy,
)
from rollcall_rollout import InstancePhase, MemberState, WaitCode, waiting
from rollcall_rollout.state import Hold
from rollcall_testing.fleets import (
    BEFORE_BATCH,
    BEFORE_UPGRADE,
    GATE,
    SET,
    START,
    World,
    broken,
    fleet,
    healthy,
    image,
    spec,
)

BOTH = ("1.0", "1.1")
SICK = {str(i): healthy(str(i), health=Health.UNHEALTHY) for i in range(3)}
EVERYONE = {**{str(i): healthy(str(i)) for i in range(10)}, **SICK}


def world(capacity: int = 10, **fields: object) -> World:
    """Return a settled world in which version 1.1 is published."""
    told = World(fleet=fleet(capacity, versions=BOTH, **fields))
    told.tell()
    return told


def after_batch(**policy: object) -> World:
    """Return a world whose first batch has ended."""
    told = world(policy=RollingPolicy.model_validate(policy))
    told.until("batch.completed")
    return told


def paused() -> World:
    told = world()
    told.tell(e.UpgradePauseRequested(scale_set=SET))
    told.until("batch.held")
    return told


def held_elsewhere() -> World:
    fault = Failure(code="MetricGateFailed", message="too many errors")
    return world(holds={"1.1": Hold(by_set="/sets/other", upgrade_id="u", error=fault)})


def too_young() -> World:
    young = image("1.1", published_at=START - timedelta(hours=1))
    return World(fleet=fleet(images=(image("1.0"), young), minimum_image_age=7200))


def withdrawn() -> World:
    told = world(4)
    told.run()
    told.tell(e.ImageWithdrawn(image=image("1.1")))
    return told


def stuck_and_outside_windows() -> World:
    later = MaintenanceWindow.model_validate(
        {"start": "2026-01-01T10:00", "time_zone": "UTC", "duration": 3600}
    )
    stuck = {"4": healthy("4", phase=InstancePhase.DELETING, attempt=2)}
    everyone = {**{str(i): healthy(str(i)) for i in range(4)}, **stuck}
    return world(4, instances=everyone, maintenance_windows=(later,))


def sick_and_without_hosts() -> World:
    everyone = {**{str(i): healthy(str(i)) for i in range(4)}}
    everyone |= {id: SICK[id] for id in "01"}
    return world(5, instances=everyone, hosts=())


def baking() -> World:
    told = world(2, policy=RollingPolicy(bake_time=600))
    told.answer()
    return told


def booting() -> World:
    told = world()
    told.until("batch.started")
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(14, revision=1)))
    verdicts = told.answer(e.InstanceHealthy)
    old = [v for v in verdicts if getattr(v, "instance_id", "") in EVERYONE]
    told.tell(*old)
    return told


def closed() -> World:
    night = MaintenanceWindow.model_validate(
        {"start": "2026-01-01T02:00", "time_zone": "UTC", "duration": 3600}
    )
    return world(maintenance_windows=(night,))


def deferred() -> World:
    told = world(os_rolling_upgrade_deferral=True)
    told.until("batch.held")
    return told


def asked_before_batch() -> World:
    told = world(lifecycle_hooks=(BEFORE_BATCH,))
    told.until("lifecycle_hook.started")
    return told


def rejected() -> World:
    told = World(
        fleet=fleet(versions=BOTH, lifecycle_hooks=(BEFORE_UPGRADE,)),
        hook=lambda asked: {"*": HookAction.REJECT},
    )
    told.tell()
    told.answer()
    return told


def asked_metric() -> World:
    told = World(
        fleet=fleet(versions=BOTH, policy=RollingPolicy(metric_gate=GATE)),
        metric=lambda asked: None,
    )
    told.until("metric.query_requested")
    return told


def doubtful_metric() -> World:
    told = World(
        fleet=fleet(versions=BOTH, policy=RollingPolicy(metric_gate=GATE)),
        metric=lambda asked: MetricOutcome.INCONCLUSIVE,
    )
    told.tell()
    told.answer()
    return told


def forced_and_stuck() -> World:
    """The unhealthy ones are done and are as ill as before: no healthy one may go."""
    told = World(
        fleet=fleet(
            versions=BOTH,
            instances=EVERYONE,
            policy=RollingPolicy(max_unhealthy_upgraded_instance_percent=100),
        ),
        sick=lambda id, version: id in SICK,
    )
    told.tell(e.UpgradeStartRequested(scale_set=SET, override=True))
    told.run(until=timedelta(hours=2))
    return told


def in_batch() -> World:
    told = world()
    told.until("batch.started")
    told.tell(told.waiting.pop(0))
    return told


def booting_again() -> World:
    """An instance that was put back boots from its previous OS disk."""
    told = World(
        fleet=fleet(
            versions=BOTH, policy=RollingPolicy(max_unhealthy_upgraded_instance_percent=100)
        ),
        fails=lambda id, r: broken() if isinstance(r, e.InstancesUpgradeRequested) else None,
    )
    told.until("instances.restore_requested")
    restored = [r for r in told.answer(e.InstanceHealthy) if r]
    assert len(restored) == 2
    return told


def with_successor() -> World:
    told = world(policy=RollingPolicy(max_surge=True))
    told.until("batch.started")
    return told


def putting_back() -> World:
    policy = RollingPolicy(rollback_failed_instances_on_policy_breach=True)
    told = World(
        fleet=fleet(versions=BOTH, policy=policy, automatic_os_upgrade=False),
        fails=lambda id, r: broken() if isinstance(r, e.InstancesUpgradeRequested) else None,
    )
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    told.until("upgrade.breached")
    return told


def deleted() -> World:
    told = World(fleet=fleet())
    told.tell(e.ScaleSetDeleted(scale_set=SET, revision=1))
    return told


def scaled_in() -> World:
    told = World(fleet=fleet())
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(3, revision=1)))
    return told


def protected_from_scale_in() -> World:
    protected = {str(i): healthy(str(i), protect_from_scale_in=True) for i in range(4)}
    return World(fleet=fleet(2, instances=protected))


def no_host() -> World:
    told = World(fleet=fleet(3, instances={}, next_id=0, hosts=()))
    told.tell()
    return told


def deploying() -> World:
    told = World(fleet=fleet(3, automatic_os_upgrade=False))
    changed = spec(3, automatic_os_upgrade=False, provisioning={"generation": 2}, revision=1)
    told.tell(
        e.ScaleSetChanged(scale_set=SET, spec=changed),
        e.ModelDeployRequested(scale_set=SET, instance_ids=("0", "2")),
    )
    return told


def to_be_deployed() -> World:
    return World(fleet=fleet(1, versions=(), instances={"0": healthy("0", deploy=True)}))


def barred() -> World:
    told = World(fleet=fleet(versions=BOTH), sick=lambda id, version: version == "1.1")
    told.run()
    return told


def excluded() -> World:
    told = World(
        fleet=fleet(
            2,
            versions=BOTH,
            instances={
                "0": healthy("0", protect_from_scale_set_actions=True),
                "1": healthy("1", skip_upgrade=True),
            },
        )
    )
    told.tell()
    return told


SENTENCES: list[tuple[Callable[[], World], WaitCode, str]] = [
    (paused, WaitCode.PAUSED, "A person paused the upgrade; it goes on when it is resumed."),
    (
        held_elsewhere,
        WaitCode.VERSION_HELD,
        "Version 1.1 faulted in /sets/other (MetricGateFailed: too many errors) and is held here "
        "until a person releases it; a newer version goes on without that.",
    ),
    (
        too_young,
        WaitCode.IMAGE_TOO_YOUNG,
        "Version 1.1 was published less than the minimumImageAge of 7200 s ago: it is old enough "
        "at 2026-01-01 01:00:00Z.",
    ),
    (
        lambda: after_batch(pause_time_between_batches=600),
        WaitCode.PAUSE_BETWEEN_BATCHES,
        "The next batch waits for the pauseTimeBetweenBatches of 600 s, until "
        "2026-01-01 00:10:00Z.",
    ),
    (
        lambda: after_batch(canary_instance_count=1, canary_bake_time=900),
        WaitCode.CANARY_BAKING,
        "The next batch waits for the canaryBakeTime of 900 s after the first batch, until "
        "2026-01-01 00:15:00Z.",
    ),
    (
        baking,
        WaitCode.BAKING,
        "All instances are done; the bakeTime of 600 s ends at 2026-01-01 00:10:00Z.",
    ),
    (
        booting,
        WaitCode.INSTANCES_BOOTING,
        "New instances are not healthy yet: 4 of 14 unhealthy (29 %) > 20 %.",
    ),
    (
        closed,
        WaitCode.OUTSIDE_WINDOWS,
        "No maintenance window is open; the next one opens at 2026-01-01 02:00:00Z.",
    ),
    (
        deferred,
        WaitCode.APPROVAL,
        "The upgrade is deferred: 10 instances wait for their approval (approveRollingUpgrade).",
    ),
    (
        lambda: world(lifecycle_hooks=(BEFORE_UPGRADE,)),
        WaitCode.HOOK,
        "UpgradeAutoOSScheduling waits for an answer about an upgrade to 1.1 until "
        "2026-01-01 01:00:00Z; then its default action is taken: Reject.",
    ),
    (
        asked_before_batch,
        WaitCode.HOOK,
        "UpgradeAutoOSRollingBatchStarting waits for an answer about 2 instances until "
        "2026-01-01 01:00:00Z; then its default action is taken: Reject.",
    ),
    (
        rejected,
        WaitCode.HOOK_REJECTED,
        "The lifecycle hook UpgradeAutoOSScheduling rejected version 1.1: a newer version, any "
        "model update, or a start by hand tries again.",
    ),
    (
        lambda: world(
            probe=Probe(protocol="Tcp", port=80), blind_hosts=frozenset({"host-1", "host-2"})
        ),
        WaitCode.BLIND_PROBE,
        "The health probe is Tcp, and on host-1 and 1 more connections are taken for guests that "
        "have not booted, so it proves nothing: give the set an Http or Https probe, or put its "
        "machines on a bridge (ROLLCALL_QEMU_NETWORK); to go without, start it by hand with an "
        "override.",
    ),
    (
        asked_metric,
        WaitCode.METRIC_GATE,
        "The metric gate was asked at 2026-01-01 00:00:00Z whether sum(rate(errors[5m])) is "
        "<= 0.01, and has not answered yet.",
    ),
    (
        doubtful_metric,
        WaitCode.METRIC_GATE,
        "The metric gate's last answer was Inconclusive (the query gives no sample; one is "
        "needed); it is asked again every 60 s.",
    ),
    (
        forced_and_stuck,
        WaitCode.NO_CANDIDATE,
        "7 instances remain: 0 of 10: at most 2 (20 %) at a time, 3 unhealthy outside, 2 allowed.",
    ),
    (
        in_batch,
        WaitCode.BATCH,
        "Batch 1 to 1.1: 0 of 2 are done. Waiting for instance 0 on host-1: not healthy yet (no "
        "answer); instance 1 on host-2: its OS disk is replaced. 8 instances remain after that.",
    ),
    (
        booting_again,
        WaitCode.BATCH,
        "Batch 1 to 1.1: 2 of 2 are done. Waiting for instances that boot from the OS disks "
        "that were put back. 8 instances remain after that.",
    ),
    (
        with_successor,
        WaitCode.BATCH,
        "Batch 1 to 1.1: 0 of 2 are done. Waiting for instance 0 on host-1: its successor is "
        "made; instance 1 on host-2: its successor is made. 8 instances remain after that.",
    ),
    (
        world,
        WaitCode.IMAGE_FETCH,
        "Version 1.1 is fetched and verified by host-1, host-2 before any instance is touched.",
    ),
    (
        putting_back,
        WaitCode.RESTORING,
        "2 instances get their previous OS disks back.",
    ),
    (
        deleted,
        WaitCode.DELETING,
        "The scale set was deleted; 10 instances are still there.",
    ),
    (
        scaled_in,
        WaitCode.DELETING,
        "Instances are made, changed or deleted: 3, 4, 5, 6, 7 and 2 more.",
    ),
    (
        protected_from_scale_in,
        WaitCode.DELETING,
        "2 instances are more than the capacity of 2, and protected from scale-in: take the "
        "protection from those that may go.",
    ),
    (
        no_host,
        WaitCode.INSTANCES_MISSING,
        "3 of 3 instances are missing. No agent has reported lately: start one.",
    ),
    (
        deploying,
        WaitCode.DEPLOYING,
        "Instances are made, changed or deleted: 0, 2.",
    ),
    (to_be_deployed, WaitCode.DEPLOYING, "The model is to be deployed to 0."),
    (
        lambda: world(instances=EVERYONE),
        WaitCode.UNHEALTHY,
        "Rolling Upgrade failed due to exceeding the MaxUnhealthyInstancePercent value before any "
        "batch started: 30% of instances are in an unhealthy state - more than the threshold of "
        "20% (3 of 10 unhealthy (30 %) > 20 %). It starts when they are healthy; to bring a fix "
        "to them, start it by hand with an override.",
    ),
    (
        barred,
        WaitCode.VERSION_BARRED,
        "Version 1.1 did not succeed in this set and is not tried again by itself: a newer "
        "version, any model update, or a start by hand does.",
    ),
    (
        lambda: world(automatic_os_upgrade=False),
        WaitCode.SWITCHED_OFF,
        "10 instances are not at version 1.1, and automatic OS upgrade is switched off: switch it "
        "on, or start an upgrade by hand.",
    ),
    (
        excluded,
        WaitCode.EXCLUDED,
        "2 instances are not at version 1.1; all of them are protected, powered off, or ask to be "
        "skipped.",
    ),
    (lambda: World(fleet=fleet()), WaitCode.NOTHING, "Nothing: the set follows version 1.0."),
    (
        lambda: world(
            image=ImageReference(publisher="Contoso", offer="Web", sku="stable", version="1.0")
        ),
        WaitCode.NOTHING,
        "Nothing: the set follows version 1.0.",
    ),
    (
        lambda: world(
            4, image=ImageReference(publisher="Contoso", offer="Web", sku="stable", version="1.1")
        ),
        WaitCode.PINNED,
        "4 instances are not at version 1.1, which the model names: 0, 1, 2, 3. Only sets that "
        "follow 'latest' are upgraded by themselves; POST manualupgrade brings those that it names "
        "to the model.",
    ),
    (
        withdrawn,
        WaitCode.NOTHING,
        "Nothing: the set follows version 1.0. 4 instances run a higher one, which was withdrawn "
        "or does not count as the latest; they stay on it until there is one above it, or a person "
        "asks for a rollback.",
    ),
    (
        stuck_and_outside_windows,
        WaitCode.OUTSIDE_WINDOWS,
        "No maintenance window is open; the next one opens at 2026-01-01 10:00:00Z. Besides: "
        "Instances are made, changed or deleted: 4.",
    ),
    (
        sick_and_without_hosts,
        WaitCode.UNHEALTHY,
        "Rolling Upgrade failed due to exceeding the MaxUnhealthyInstancePercent value before any "
        "batch started: 50% of instances are in an unhealthy state - more than the threshold of "
        "20% (2 of 4 unhealthy (50 %) > 20 %). It starts when they are healthy; to bring a fix "
        "to them, start it by hand with an override. Besides: 1 of 5 instances are missing. No "
        "agent has reported lately: start one.",
    ),
    (
        lambda: World(fleet=fleet(versions=())),
        WaitCode.NOTHING,
        "No version is published for the set's image reference.",
    ),
]


@pytest.mark.parametrize(
    ("told", "code", "sentence"),
    SENTENCES,
    ids=[f"{code}-{i}" for i, (_, code, _) in enumerate(SENTENCES)],
)
def test_a_set_says_in_a_sentence_what_it_waits_for(
    told: Callable[[], World], code: WaitCode, sentence: str
) -> None:
    world = told()
    wait = waiting(world.fleet, world.now)
    assert (wait.code, wait.message) == (code, sentence)


def test_each_code_has_its_sentence() -> None:
    assert {code for _, code, _ in SENTENCES} == set(WaitCode)


def test_a_wait_says_until_when_where_that_is_known() -> None:
    assert waiting(in_batch().fleet, START).until == START + timedelta(seconds=2400)
    assert waiting(world().fleet, START).until == START + timedelta(seconds=2400)
    assert waiting(paused().fleet, START).until is None
    assert waiting(asked_metric().fleet, START).until == START + timedelta(seconds=70)
    assert waiting(doubtful_metric().fleet, START).until == START + timedelta(seconds=60)
    assert waiting(booting().fleet, START).until == START + timedelta(seconds=300)


def test_a_long_batch_names_a_few_instances() -> None:
    told = world(60)
    told.until("batch.started")
    sentence = waiting(told.fleet, START).message
    assert "instance 4 on host-1: its OS disk is replaced; and 7 more. 48 instances" in sentence
    assert "instance 5 " not in sentence


def test_a_sliding_canary_is_a_batch_that_is_under_way() -> None:
    policy = RollingPolicy(canary_instance_count=1, sliding_batches=True)
    told = world(policy=policy)
    told.until("batch.started")
    wait = waiting(told.fleet, START)
    assert wait.code is WaitCode.BATCH
    assert wait.message.startswith("Batch 1 to 1.1: 0 of 1 are done.")


def test_a_member_that_cannot_go_is_not_a_reason_to_be_silent() -> None:
    """All that remain are busy with something else: said, though it does not last."""
    told = world(2)
    told.until("batch.started")
    upgrade = told.fleet.upgrade
    assert upgrade is not None
    members = {"1": replace(upgrade.members["1"], state=MemberState.PENDING)}
    busy = {"1": healthy("1", phase=InstancePhase.UPGRADING)}
    policy = RollingPolicy(max_unhealthy_instance_percent=100)
    upgrade = replace(upgrade, members=members, open_batches={}, policy=policy)
    stuck = replace(told.fleet, instances=busy, upgrade=upgrade)
    wait = waiting(stuck, START)
    assert (wait.code, wait.message) == (
        WaitCode.NO_CANDIDATE,
        "1 instances remain: no instance can go now.",
    )
