"""What else happens to a fleet while it is upgraded: size, model, power, and repeated messages."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import Power, Probe, RollingPolicy
from rollcall_rollout import InstancePhase, evolve
from rollcall_testing.fleets import (
    SET,
    START,
    World,
    credentials_failure,
    fleet,
    healthy,
    image,
    powered,
    spec,
)


def in_first_batch(**fields: Any) -> World:
    """Return a world of ten whose first batch of two runs."""
    world = World(fleet=fleet(versions=("1.0", "1.1"), **fields))
    world.tell()
    while "batch.started" not in world.types():
        world.tell(world.waiting.pop(0))
    return world


def let_answer(world: World, but: type[e.EventBase]) -> list[e.Event]:
    """Let all that wait answer, except for one kind; return those of that kind."""
    kept = []
    while world.waiting:
        answer = world.waiting.pop(0)
        if isinstance(answer, but):
            kept.append(answer)
        else:
            world.tell(answer)
    return kept


# --- the set's size changes -----------------------------------------------------------------------


def test_doubling_a_set_during_an_upgrade_does_not_fault_it_and_keeps_its_batches_small() -> None:
    world = in_first_batch()
    world.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(20, revision=1)))
    assert len(let_answer(world, but=e.InstanceCreated)) == 10
    sizes = [len(ev.instance_ids) for ev in world.log if isinstance(ev, e.BatchStarted)]
    assert sizes == [2] * 5  # of the ten that serve, not of twenty
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.completed"]


def test_the_next_batch_waits_for_new_instances_that_boot_but_not_for_ever() -> None:
    world = in_first_batch()
    world.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(20, revision=1)))
    created = let_answer(world, but=e.InstanceCreated | e.InstanceUpgraded)  # type: ignore[arg-type]  # a union is as good for isinstance
    for report in created:
        world.tell(report)
    new = {str(number) for number in range(10, 20)}
    old = [a for a in world.waiting if getattr(a, "instance_id", "") not in new]
    world.waiting.clear()
    for answer in old:
        world.tell(answer)
    assert world.types("batch.") == ["batch.started", "batch.completed", "batch.held"]
    assert world.types("upgrade.faulted") == []
    world.now = START + timedelta(seconds=299)
    world.tell()
    assert world.types("upgrade.faulted") == []
    world.now = START + timedelta(seconds=301)
    world.tell()
    assert world.types("upgrade.faulted") == ["upgrade.faulted"]  # M15: half of them never booted


def test_halving_a_set_during_an_upgrade_does_not_fault_it_while_hosts_delete() -> None:
    world = in_first_batch()
    world.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(5, revision=1)))
    assert len(let_answer(world, but=e.InstanceDeleted)) == 5
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.completed"]


def test_a_creation_that_is_tried_again_counts_as_unhealthy() -> None:
    before = fleet(versions=("1.0", "1.1"))
    broken = {
        str(i): healthy(str(i), version=None, phase=InstancePhase.CREATING, attempt=2)
        for i in range(3)
    }
    world = World(fleet=fleet(versions=("1.0", "1.1"), instances={**before.instances, **broken}))
    world.tell()
    assert world.types("upgrade.") == ["upgrade.held"]


def test_a_silent_host_whose_instances_are_gone_is_not_waited_for() -> None:
    policy = RollingPolicy(max_unhealthy_instance_percent=100)
    world = World(fleet=fleet(4, versions=("1.0", "1.1"), policy=policy))
    world.tell()
    world.waiting = [a for a in world.waiting if getattr(a, "host", "") != "host-2"]
    gone = [e.InstanceUnhealthy(scale_set=SET, instance_id=i, attempt=1, lease=0) for i in "13"]
    world.tell(*gone)
    world.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(2, revision=1, policy=policy)))
    world.run(until=timedelta(minutes=5))
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.completed"]


def test_no_new_instance_is_made_from_a_withdrawn_target() -> None:
    world = in_first_batch()
    world.tell(e.ImageWithdrawn(image=image("1.1")))
    world.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(11, revision=1)))
    created = world.last(e.InstancesCreateRequested)
    assert isinstance(created, e.InstancesCreateRequested)
    assert created.image.version == "1.0"


# --- instances stop and come back -----------------------------------------------------------------


def test_m43_an_instance_that_came_back_before_its_agent_said_so_is_not_rolled_back() -> None:
    world = in_first_batch()
    verdicts = let_answer(world, but=e.InstanceHealthy)
    said = verdicts[0]
    assert isinstance(said, e.InstanceHealthy)
    world.tell(powered(said.instance_id, Power.STOPPED, attempt=said.attempt))
    world.tell(*verdicts)
    world.tell(powered(said.instance_id, Power.RUNNING, attempt=said.attempt))
    world.run()
    assert world.types("instances.restore_requested") == []
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.completed"]


def test_m30_without_a_probe_an_instance_that_stopped_too_long_is_healthy_once_it_runs() -> None:
    world = in_first_batch(probe=None, disable_automatic_rollback=True)
    (first, *rest) = let_answer(world, but=e.InstanceUpgraded)
    assert isinstance(first, e.InstanceUpgraded)
    stopped = powered(first.instance_id, Power.STOPPED, attempt=first.attempt)
    world.fleet = evolve(world.fleet, [first, stopped], world.now)
    world.tell(*rest)
    world.run()
    assert world.types("instance.failed") == ["instance.failed"]
    world.tell(powered(first.instance_id, Power.RUNNING, attempt=first.attempt))
    assert world.fleet.instances[first.instance_id].is_healthy


@pytest.mark.parametrize("probe", [None, Probe(protocol="Tcp", port=80)])
def test_another_probe_judges_anew_what_did_not_answer_the_last_one(probe: Probe | None) -> None:
    world = World(
        fleet=fleet(versions=("1.0", "1.1"), disable_automatic_rollback=True),
        sick=lambda id, version: version == "1.1",
    )
    world.run()
    assert world.down() == 2
    world.sick = lambda id, version: False
    world.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(revision=1, probe=probe)))
    let_answer(world, but=e.UpgradeHeld)
    assert world.down() == 0
    assert all(i.error is None for i in world.fleet.instances.values())


# --- deployments that wait for an upgrade ---------------------------------------------------------


def test_a_deployment_that_waited_does_not_bring_everyone_to_a_version_that_faulted() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")), sick=lambda id, v: v == "1.1")
    world.tell()
    world.tell(e.ModelDeployRequested(scale_set=SET, instance_ids=("*",)))
    world.run()
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.faulted"]
    assert {i.version for i in world.fleet.instances.values()} == {"1.0"}
    assert world.down() == 0


def test_m41_a_deployment_that_waited_cures_an_upgrade_that_credentials_ended() -> None:
    world = in_first_batch()
    world.fails = lambda id, r: credentials_failure()
    orders = [
        (i.id, i.attempt)
        for i in world.fleet.instances.values()
        if i.phase is InstancePhase.UPGRADING
    ]
    world.waiting.clear()
    world.tell(e.ModelDeployRequested(scale_set=SET, instance_ids=("*",)))
    world.fails = lambda id, r: None
    for id, attempt in orders:
        world.tell(
            e.InstanceFailed(
                scale_set=SET, instance_id=id, attempt=attempt, error=credentials_failure()
            )
        )
    world.run()
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.faulted"]
    assert {i.version for i in world.fleet.instances.values()} == {"1.1"}


# --- messages that come again ---------------------------------------------------------------------


def test_a_model_that_is_delivered_again_does_not_try_a_faulted_version_again() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")), sick=lambda id, v: v == "1.1")
    changed = e.ScaleSetChanged(scale_set=SET, spec=spec(revision=3))
    world.tell(changed)
    world.run()
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.faulted"]
    assert world.tell(changed) == []


def test_a_model_that_is_delivered_again_does_not_bring_a_deleted_set_back() -> None:
    before = fleet(revision=3)
    deleted = evolve(before, [e.ScaleSetDeleted(scale_set=SET, revision=4)], START)
    again = e.ScaleSetChanged(scale_set=SET, spec=before.spec)
    assert evolve(deleted, [again], START) is deleted
    created = e.ScaleSetChanged(scale_set=SET, spec=spec(revision=5))
    assert not evolve(deleted, [created], START).deleted


def test_a_host_that_holds_the_image_does_not_fault_the_upgrade_by_a_late_report() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")))
    world.tell()
    fetched = world.waiting[0]
    assert isinstance(fetched, e.ImageFetched)
    world.tell(*world.waiting)
    late = e.ImageFetchFailed(
        scale_set=SET,
        host=fetched.host,
        upgrade_id=fetched.upgrade_id,
        error=credentials_failure(),
    )
    assert evolve(world.fleet, [late], world.now) is world.fleet


def test_an_instance_that_has_come_to_the_target_by_a_late_success_is_not_swapped_again() -> None:
    before = fleet(3, versions=("1.0", "1.1"))
    failed = replace(before.instances["1"], phase=InstancePhase.FAILED, attempt=2)
    world = World(fleet=replace(before, instances={**before.instances, "1": failed}))
    world.fleet = world.fleet.amended(images=(image("1.0"), image("1.1")))
    world.tell(e.UpgradeStartRequested(scale_set=SET, override=True))
    late = e.InstanceUpgraded(
        scale_set=SET,
        instance_id="1",
        attempt=2,
        version="1.1",
        generation=1,
        address="127.0.0.1",
        port=20001,
    )
    world.tell(late)
    world.versions["1"] = ["1.0", "1.1"]
    world.run()
    skipped = world.last(e.InstancesSkipped)
    assert isinstance(skipped, e.InstancesSkipped)
    assert (skipped.instance_ids, skipped.reason) == (("1",), "runs version 1.1 already")
    assert ("1", 3) not in world.swaps
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.completed"]
    assert world.fleet.barred_version is None


@pytest.mark.parametrize(("generation", "barred"), [(1, "1.1"), (2, None)])
def test_secrets_sealed_with_another_key_are_no_reason_to_try_a_barred_version_again(
    generation: int, barred: str | None
) -> None:
    known = fleet(6, versions=("1.0", "1.1"), barred_version="1.1")
    before = known.spec
    update = {"sealed_custom_data": "another text", "generation": generation}
    provisioning = before.provisioning.model_copy(update=update)
    after = before.model_copy(update={"provisioning": provisioning, "revision": 9})
    told = evolve(known, [e.ScaleSetChanged(scale_set=SET, spec=after)], START)
    assert (told.spec.provisioning, told.barred_version) == (provisioning, barred)
