"""The workflow from start to end, row by row of the mission, in a world in memory."""

from dataclasses import replace
from datetime import timedelta

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    FailureCode,
    Health,
    ImageReference,
    Power,
    Provisioning,
    RollingPolicy,
    StartedBy,
)
from rollcall_rollout import InstancePhase, MemberState, decide, evolve
from rollcall_rollout.state import UpgradeStatus
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

STEPS = ("upgrade.", "batch.")
HEALTHY_ROLLOUT = [
    "upgrade.started",
    *["batch.started", "batch.completed"] * 5,
    "upgrade.completed",
]


def test_m01_m02_m12_m14_a_published_version_rolls_out_in_batches_by_itself() -> None:
    world = World(fleet=fleet())
    assert world.tell() == []
    world.tell(e.ImagePublished(image=image("1.1")))
    world.run()
    assert world.types(*STEPS) == HEALTHY_ROLLOUT
    assert {i.version for i in world.fleet.instances.values()} == {"1.1"}
    assert world.fleet.upgrade is None
    assert all(not i.uncommitted for i in world.fleet.instances.values())


def test_m06_nothing_starts_before_every_host_holds_the_verified_image() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")))
    world.tell()
    assert world.types("upgrade.", "batch.", "image.") == [
        "upgrade.started",
        "image.fetch_requested",
        "image.fetch_requested",
    ]
    world.tell(world.waiting.pop(0))
    assert "batch.started" not in world.types()
    world.tell(world.waiting.pop(0))
    assert "batch.started" in world.types()


def test_m06_an_image_not_to_be_trusted_faults_the_upgrade_before_any_swap() -> None:
    bad = Failure(code=FailureCode.IMAGE_VERIFICATION, message="sha256 differs", target="1.1")
    world = World(fleet=fleet(versions=("1.0", "1.1")), fetch_fails=lambda host: bad)
    world.run()
    assert world.types(*STEPS) == ["upgrade.started", "upgrade.faulted"]
    assert world.swaps == {}
    assert world.fleet.ended[-1].error == bad


@pytest.mark.parametrize(("sick", "starts"), [(2, True), (3, False)])
def test_m10_m16_too_many_unhealthy_instances_hold_the_upgrade(sick: int, starts: bool) -> None:
    before = fleet(versions=("1.0", "1.1"))
    instances = dict(before.instances)
    for i in range(sick):
        instances[str(i)] = replace(instances[str(i)], health=Health.UNHEALTHY)
    world = World(fleet=replace(before, instances=instances))
    world.tell()
    assert ("upgrade.started" in world.types()) is starts
    assert ("upgrade.held" in world.types()) is not starts
    assert world.tell() == []  # held once, not at each tick


def test_m10_a_held_upgrade_starts_when_the_fleet_recovers() -> None:
    before = fleet(versions=("1.0", "1.1"))
    sick = {i: replace(x, health=Health.UNHEALTHY) for i, x in before.instances.items()}
    world = World(fleet=replace(before, instances=sick))
    world.tell()
    for id in sick:
        world.tell(e.InstanceHealthy(scale_set=SET, instance_id=id, attempt=1, lease=0))
    assert "upgrade.started" in world.types()


def test_m13_the_next_batch_starts_as_soon_as_the_last_is_healthy() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")))
    world.run()
    started = world.types().index("batch.completed")
    assert world.types()[started + 1 : started + 4] == [
        "instances.commit_requested",
        "instances.commit_requested",
        "batch.started",
    ]


def test_m13_an_instance_has_five_minutes_from_the_end_of_its_provisioning() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")), sick=lambda id, version: version == "1.1")
    world.tell()
    while world.waiting:
        world.tell(world.waiting.pop(0))
    assert world.types("instance.failed") == []
    world.now = START + timedelta(seconds=299.9)
    world.tell()
    assert world.types("instance.failed") == []
    world.now = START + timedelta(seconds=300)
    world.tell()
    assert world.types("instance.failed") == ["instance.failed"] * 2


def test_m42_m43_a_sick_version_stops_after_its_first_batch_and_is_put_back() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")), sick=lambda id, version: version == "1.1")
    world.run()
    assert world.types(*STEPS) == [
        "upgrade.started",
        "batch.started",
        "batch.completed",
        "upgrade.faulted",
    ]
    fault = world.last(e.UpgradeFaulted)
    assert isinstance(fault, e.UpgradeFaulted)
    assert fault.error.code == "MaxUnhealthyUpgradedInstancePercentExceededInRollingUpgrade"
    assert {i.version for i in world.fleet.instances.values()} == {"1.0"}
    assert world.down() == 0
    states = [m.state for m in world.fleet.ended[-1].members.values()]
    assert states.count(MemberState.RESTORED) == 2
    assert states.count(MemberState.PENDING) == 8


def test_m43_a_healthy_upgraded_instance_is_never_rolled_back() -> None:
    world = World(
        fleet=fleet(versions=("1.0", "1.1")), sick=lambda id, v: v == "1.1" and id in "01"
    )
    world.fleet = replace(
        world.fleet,
        spec=spec(policy=RollingPolicy(max_unhealthy_upgraded_instance_percent=100)),
    )
    world.run()
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.completed"]
    versions = {id: i.version for id, i in world.fleet.instances.items()}
    assert versions == {str(i): "1.0" if i < 2 else "1.1" for i in range(10)}
    restored = [ev for ev in world.log if isinstance(ev, e.InstancesRestoreRequested)]
    assert {o.instance_id for ev in restored for o in ev.instances} == {"0", "1"}


def test_m43_restore_can_be_switched_off() -> None:
    world = World(
        fleet=fleet(versions=("1.0", "1.1"), disable_automatic_rollback=True),
        sick=lambda id, version: version == "1.1",
    )
    world.run()
    assert world.types("instances.restore_requested") == []
    assert world.down() == 2


def test_m15_an_outage_during_a_batch_stops_the_upgrade_at_the_end_of_the_batch() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")))
    world.tell()
    while "batch.started" not in world.types():
        world.tell(world.waiting.pop(0))
    for id in ("7", "8", "9"):
        world.tell(powered(id, Power.STOPPED))
    world.run()
    assert world.types(*STEPS) == [
        "upgrade.started",
        "batch.started",
        "batch.completed",
        "batch.held",  # they are as young as the set, and may be booting
        "upgrade.faulted",
    ]
    fault = world.last(e.UpgradeFaulted)
    assert isinstance(fault, e.UpgradeFaulted)
    assert fault.error.code == "MaxUnhealthyInstancePercentExceededInRollingUpgrade"


def test_m40_refused_credentials_fault_the_upgrade_and_leave_the_batch_failed() -> None:
    world = World(
        fleet=fleet(versions=("1.0", "1.1")),
        fails=lambda id, r: (
            credentials_failure() if isinstance(r, e.InstancesUpgradeRequested) else None
        ),
    )
    world.run()
    fault = world.last(e.UpgradeFaulted)
    assert isinstance(fault, e.UpgradeFaulted)
    assert fault.error == credentials_failure()  # names the resource
    assert world.types("instances.restore_requested") == []
    phases = [i.phase for i in world.fleet.instances.values()]
    assert phases.count(InstancePhase.FAILED) == 2
    assert world.types("batch.started") == ["batch.started"]


def test_m41_a_deployed_model_brings_the_failed_instances_back_and_upgrades_go_on() -> None:
    world = World(
        fleet=fleet(versions=("1.0", "1.1")),
        fails=lambda id, r: (
            credentials_failure() if isinstance(r, e.InstancesUpgradeRequested) else None
        ),
    )
    world.run()
    world.fails = lambda id, r: None
    renewed = spec(provisioning=Provisioning(generation=2))
    world.tell(
        e.ScaleSetChanged(scale_set=SET, spec=renewed),
        e.ModelDeployRequested(scale_set=SET, instance_ids=("*",)),
    )
    world.run()
    assert world.down() == 0
    assert {i.version for i in world.fleet.instances.values()} == {"1.1"}
    world.tell(e.ImagePublished(image=image("1.2")))
    world.run()
    assert {i.version for i in world.fleet.instances.values()} == {"1.2"}


def test_m05_switching_off_stops_after_the_current_batch() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")))
    world.tell()
    while "batch.started" not in world.types():
        world.tell(world.waiting.pop(0))
    world.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(automatic_os_upgrade=False)))
    world.run()
    assert world.types(*STEPS) == [
        "upgrade.started",
        "batch.started",
        "batch.completed",
        "upgrade.cancelled",
    ]
    assert world.down() == 0


def test_m05_m52_a_manual_start_passes_the_same_gates_and_restores_nothing() -> None:
    world = World(
        fleet=fleet(versions=("1.0", "1.1"), automatic_os_upgrade=False),
        sick=lambda id, version: version == "1.1",
    )
    assert world.tell() == []
    world.tell(e.UpgradeStartRequested(scale_set=SET))
    world.run()
    started = world.last(e.UpgradeStarted)
    assert isinstance(started, e.UpgradeStarted)
    assert started.started_by is StartedBy.USER
    assert world.types("instances.restore_requested") == []
    assert world.fleet.ended[-1].status is UpgradeStatus.FAULTED


def test_m52_a_manual_start_with_nothing_to_do_says_so() -> None:
    world = World(fleet=fleet())
    (held,) = world.tell(e.UpgradeStartRequested(scale_set=SET))
    assert isinstance(held, e.UpgradeHeld)
    assert held.error.code == "OperationNotAllowed"
    assert "1.0" in held.error.message


def test_m52_cancel_stops_after_the_current_batch() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")))
    world.tell()
    while "batch.started" not in world.types():
        world.tell(world.waiting.pop(0))
    world.tell(e.UpgradeCancelRequested(scale_set=SET))
    world.run()
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.cancelled"]
    assert [i.version for i in world.fleet.instances.values()].count("1.1") == 2


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_m21_a_pinned_version_never_upgrades(version: str) -> None:
    pinned = ImageReference(publisher="Contoso", offer="Web", sku="stable", version=version)
    world = World(fleet=fleet(versions=("1.0", "1.1"), image=pinned))
    world.run()
    assert world.types() == []


def test_m21_latest_is_the_highest_number_and_neither_excluded_nor_withdrawn() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.9", "1.10")))
    world.tell(
        e.ImagePublished(image=image("2.0", exclude_from_latest=True)),
        e.ImagePublished(image=image("1.11")),
        e.ImageWithdrawn(image=image("1.11")),
    )
    started = world.last(e.UpgradeStarted)
    assert isinstance(started, e.UpgradeStarted)
    assert started.image.version == "1.10"


def test_a_faulted_version_is_not_tried_again_by_itself_but_a_newer_one_is() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")), sick=lambda id, v: v == "1.1")
    world.run()
    assert world.tell() == []
    world.tell(e.ImagePublished(image=image("1.2")))
    world.run()
    assert world.types("upgrade.") == [
        "upgrade.started",
        "upgrade.faulted",
        "upgrade.started",
        "upgrade.completed",
    ]


@pytest.mark.parametrize("again", ["model", "hand"])
def test_a_faulted_version_is_tried_again_after_a_model_update_or_by_hand(again: str) -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")), sick=lambda id, v: v == "1.1")
    world.run()
    world.sick = lambda id, version: False
    if again == "model":
        world.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(revision=1)))
    else:
        world.tell(e.UpgradeStartRequested(scale_set=SET))
    world.run()
    assert {i.version for i in world.fleet.instances.values()} == {"1.1"}


def test_a_newer_version_waits_for_the_running_upgrade_to_end() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")))
    world.tell()
    world.tell(e.ImagePublished(image=image("1.2")))
    world.run()
    targets = [ev.image.version for ev in world.log if isinstance(ev, e.UpgradeStarted)]
    assert targets == ["1.1", "1.2"]
    assert {i.version for i in world.fleet.instances.values()} == {"1.2"}


def test_a_withdrawn_target_faults_the_upgrade_after_its_batch() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")))
    world.tell()
    while "batch.started" not in world.types():
        world.tell(world.waiting.pop(0))
    world.tell(e.ImageWithdrawn(image=image("1.1")))
    world.run()
    assert world.types(*STEPS)[-2:] == ["batch.completed", "upgrade.faulted"]
    assert world.fleet.ended[-1].error is not None
    assert world.fleet.ended[-1].error.code == "ImageWithdrawn"


def test_scale_out_during_an_upgrade_uses_its_target_and_is_no_part_of_it() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")))
    world.tell()
    members = set(world.fleet.upgrade.members) if world.fleet.upgrade else set()
    world.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(12)))
    created = world.last(e.InstancesCreateRequested)
    assert isinstance(created, e.InstancesCreateRequested)
    assert created.image.version == "1.1"
    world.run()
    assert len(world.fleet.instances) == 12
    assert set(world.fleet.ended[-1].members) == members


def test_scale_in_and_deletion_leave_nothing() -> None:
    world = World(fleet=fleet())
    world.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(3)))
    world.run()
    assert sorted(world.fleet.instances) == ["0", "1", "2"]
    world.tell(e.ScaleSetDeleted(scale_set=SET, revision=1))
    world.run()
    assert world.fleet.instances == {}


def test_a_new_set_is_made_of_the_latest_version_and_spread_over_the_hosts() -> None:
    empty = replace(fleet(versions=("1.0", "1.1")), instances={}, next_id=0)
    world = World(fleet=empty)
    world.run()
    assert {i.version for i in world.fleet.instances.values()} == {"1.1"}
    assert sorted(i.host for i in world.fleet.instances.values()) == ["host-1"] * 5 + ["host-2"] * 5
    assert world.down() == 0
    assert world.types("upgrade.") == []


def test_m30_without_a_probe_running_with_extensions_provisioned_is_healthy() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1"), probe=None))
    world.run()
    assert world.types("probe.") == []
    assert world.types(*STEPS) == HEALTHY_ROLLOUT
    world.tell(powered("0", Power.STOPPED, attempt=2))
    assert not world.fleet.instances["0"].is_healthy


def test_a_pause_between_batches_is_kept() -> None:
    policy = RollingPolicy(pause_time_between_batches=600)
    world = World(fleet=fleet(versions=("1.0", "1.1"), policy=policy))
    world.run()
    assert [t for t in world.types(*STEPS) if t != "batch.held"] == HEALTHY_ROLLOUT
    assert world.types("batch.held") == ["batch.held"] * 4
    assert world.now - START > timedelta(seconds=4 * 600)


def test_a_silent_agent_ends_in_a_failure_that_names_it() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")))
    world.tell()
    while "batch.started" not in world.types():
        world.tell(world.waiting.pop(0))
    world.waiting.clear()
    world.now += timedelta(seconds=2400)
    world.tell()
    failed = world.last(e.InstanceFailed)
    assert isinstance(failed, e.InstanceFailed)
    assert failed.error.code == FailureCode.PROVISIONING_TIMEOUT
    assert "host-" in failed.error.message


def test_reports_of_another_attempt_or_lease_change_nothing() -> None:
    before = fleet()
    foreign: list[e.Event] = [
        e.InstanceUnhealthy(scale_set=SET, instance_id="0", attempt=2, lease=0),
        e.InstanceUnhealthy(scale_set=SET, instance_id="0", attempt=1, lease=7),
        e.InstanceUnhealthy(scale_set=SET, instance_id="99", attempt=1, lease=0),
        e.InstanceUpgraded(
            scale_set=SET,
            instance_id="0",
            attempt=1,
            version="9",
            generation=1,
            address="a",
            port=1,
        ),
    ]
    assert evolve(before, foreign, START) is before


def test_an_older_model_that_arrives_late_is_ignored() -> None:
    before = fleet(revision=5)
    late = e.ScaleSetChanged(scale_set=SET, spec=spec(3, revision=4))
    assert evolve(before, [late], START) is before


def test_every_decision_gives_its_numbers() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")))
    world.run()
    assert all(event.reason for event in world.log)
    started = world.last(e.BatchStarted)
    assert isinstance(started, e.BatchStarted)
    assert started.reason == "2 of 10: at most 2 (20 %) at a time, 0 unhealthy outside, 2 allowed"


def test_decide_reads_only_the_state() -> None:
    before = fleet(versions=("1.0", "1.1"))
    assert decide(before, START) == decide(before, START)
    assert healthy("0").is_healthy


def test_the_next_batch_waits_for_restored_instances_to_be_healthy_again() -> None:
    tolerant = RollingPolicy(max_unhealthy_upgraded_instance_percent=100)
    world = World(
        fleet=fleet(versions=("1.0", "1.1"), policy=tolerant),
        sick=lambda id, version: version == "1.1" and id == "0",
    )
    world.tell()
    while not any(isinstance(answer, e.InstanceRestored) for answer in world.waiting):
        if not world.waiting:
            world.now += timedelta(seconds=300)
            world.tell()
            continue
        world.tell(world.waiting.pop(0))
    (restored,) = world.waiting
    world.waiting.clear()
    world.tell(restored)
    assert world.types("batch.completed") == []  # it boots: down because of us
    world.tell(*world.waiting)
    assert world.types("batch.completed") == ["batch.completed"]


def test_a_change_of_size_does_not_try_a_faulted_version_again_nor_make_instances_of_it() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")), sick=lambda id, v: v == "1.1")
    world.run()
    started = len(world.types("upgrade.started"))
    world.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(12, revision=1)))
    world.run()
    assert len(world.types("upgrade.started")) == started
    assert {i.version for i in world.fleet.instances.values()} == {"1.0"}
    assert world.down() == 0


def test_a_set_without_image_or_host_says_so_once_and_goes_on_when_they_are_there() -> None:
    world = World(fleet=replace(fleet(3, versions=()), instances={}, next_id=0, hosts=()))
    (held,) = world.tell()
    assert isinstance(held, e.ScaleSetHeld)
    assert held.error.code == "ImageNotFound"
    assert "Contoso/Web/stable" in held.error.message
    assert world.tell() == []
    (held,) = world.tell(e.ImagePublished(image=image("1.0")))
    assert isinstance(held, e.ScaleSetHeld)
    assert held.error.code == "NoHostAvailable"
    world.fleet = replace(world.fleet, hosts=("host-1",))
    world.run()
    assert world.down() == 0
    assert world.fleet.held is None


def test_a_set_that_is_deleted_during_its_upgrade_ends_the_upgrade_first() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1")))
    world.tell()
    while "batch.started" not in world.types():
        world.tell(world.waiting.pop(0))
    world.tell(e.ScaleSetDeleted(scale_set=SET, revision=1))
    world.run()
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.cancelled"]
    assert world.fleet.instances == {}
