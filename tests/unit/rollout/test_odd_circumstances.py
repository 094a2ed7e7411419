"""What else happens to a fleet while it is upgraded: size, model, power, and repeated messages."""

from datetime import timedelta
from typing import Any

from rollcall_contracts import events as e
from rollcall_contracts.model import RollingPolicy
from rollcall_rollout import InstancePhase
from rollcall_testing.fleets import (
    SET,
    START,
    World,
    fleet,
    healthy,
    image,
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
    assert world.types("batch.") == ["batch.started", "batch.completed"]
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
