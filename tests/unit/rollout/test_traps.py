"""Twenty traps seen in the code and the issues of other rollout systems: ours does not step in.

Each test names its trap; its docstring says whose it is, and how ours differs.
"""

import inspect
from datetime import timedelta
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest
import rollcall_rollout
from pydantic import ValidationError
from rollcall_contracts import events as e
from rollcall_contracts.model import (
    FailureCode,
    GateAnswer,
    MaintenanceWindow,
    MetricOutcome,
    Provisioning,
    RollingPolicy,
    ScaleSetSpec,
)
from rollcall_rollout import InstancePhase, WaitCode, decide, evolve
from rollcall_rollout.choosing import batch_size
from rollcall_rollout.state import UpgradeStatus
from rollcall_testing.fleets import GATE, SET, START, World, broken, fleet, healthy, image, spec

BOTH = ("1.0", "1.1")


def world(capacity: int = 10, **policy: Any) -> World:
    """Return a world in which version 1.1 is published."""
    return World(fleet=fleet(capacity, versions=BOTH, policy=RollingPolicy.model_validate(policy)))


def bad(id: str, version: str) -> bool:
    """Say that version 1.1 does not work."""
    return version == "1.1"


def test_trap_1_check_then_grant_without_a_lock_overshoots_the_cap() -> None:
    """Nebraska reads its counts and writes the grant in another statement, without a lock.

    Ours decides on one state: asked twice it says the same, with the same attempts, so that agents
    act once; and once the grant is folded, nothing is left to grant.
    """
    told = world()
    told.tell()
    waiting = told.waiting
    before = evolve(told.fleet, waiting, told.now)
    first, second = decide(before, told.now), decide(before, told.now)
    assert first == second
    assert any(isinstance(event, e.BatchStarted) for event in first)
    after = evolve(before, first, told.now)
    assert not any(isinstance(event, e.BatchStarted) for event in decide(after, told.now))
    assert len([i for i in after.instances.values() if i.is_busy]) == 2


@pytest.mark.parametrize(
    ("total", "percent", "size"), [(14, 20, 2), (19, 10, 1), (3, 50, 1), (3, 5, 1)]
)
def test_trap_2_a_percent_that_is_rounded_up(total: int, percent: int, size: int) -> None:
    """Karpenter rounds its disruption budget's percent up.

    Ours rounds down, and takes one where that makes none (M11).
    """
    told = world(total, max_batch_instance_percent=percent, max_unhealthy_instance_percent=50)
    told.tell()
    assert told.fleet.upgrade is not None
    assert batch_size(told.fleet.upgrade, total)[0] == size


def test_trap_3_a_batch_that_is_over_passes_for_a_batch_that_went_well() -> None:
    """hawkBit goes to the next group when one is completed *or* successful.

    Ours ends a batch whatever came of it, and asks all gates before the next.
    """
    told = world()
    told.sick = bad
    told.run()
    completed = told.last(e.BatchCompleted)
    assert (completed.succeeded, completed.failed) == (0, 2)
    assert told.batches() == ["0 1"]
    assert told.upgrade.status is UpgradeStatus.FAULTED


def test_trap_4_a_batch_of_nobody_is_a_full_success() -> None:
    """An empty group is 100 % of success for hawkBit and flightctl.

    Ours starts no batch of nobody; one whose instances went away meanwhile counts for nothing, and
    an upgrade of which all were left out says 0.
    """
    told = World(
        fleet=fleet(
            3,
            versions=BOTH,
            instances={
                str(i): healthy(str(i), protect_from_scale_set_actions=i < 2) for i in range(3)
            },
        )
    )
    told.until("batch.started")
    gone = [e.InstanceProtectionChanged(scale_set=SET, instance_id=id) for id in "01"]
    told.tell(*gone)  # too late for this upgrade
    told.sick = bad
    told.run()
    assert all(batch.instance_ids for batch in told.all(e.BatchStarted))
    assert "100% of instances" in told.last(e.UpgradeFaulted).error.message  # 1 of 1, not of 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_batch_instance_percent", "20 %"),
        ("max_unhealthy_instance_percent", "a few"),
        ("max_unhealthy_upgraded_instance_percent", 101),
        ("max_batch_instance_percent", 0),
        ("metric_gate", {"server": "http://p:9090", "query": "up", "success_condition": "about 1"}),
        ("metric_gate", {"server": "http://p:9090", "query": "up", "success_condition": ""}),
    ],
)
def test_trap_5_a_threshold_that_cannot_be_read_lets_all_pass(field: str, value: object) -> None:
    """hawkBit takes an error threshold that is no number for "no error".

    Ours refuses the policy, so that no upgrade ever runs with a limit that nobody can read.
    """
    with pytest.raises(ValidationError):
        RollingPolicy.model_validate({field: value})


NOT_OF_THE_RULES = {"location"}  # of the resource; the images that a fleet knows are of it


def test_trap_6_an_option_that_only_the_tests_set_or_read() -> None:
    """Nebraska's switch that stops a failed rollout is set in its tests alone.

    Ours reads every field of the policy and of the model in its rules.
    """
    names = [module.name for module in iter_modules(rollcall_rollout.__path__)]
    rules = "".join(inspect.getsource(import_module(f"rollcall_rollout.{n}")) for n in names)
    for model in (RollingPolicy, ScaleSetSpec):
        unread = {name for name in model.model_fields if f".{name}" not in rules}
        assert unread <= NOT_OF_THE_RULES, model.__name__


def test_trap_7_a_change_of_the_policy_never_arrives() -> None:
    """airlock keeps its semaphore as it was first written; a new limit is not taken over.

    Ours keeps a snapshot for the upgrade that runs, says so in its start, and takes the new policy
    with the next one.
    """
    told = world(10)
    told.until("batch.started")
    one = RollingPolicy(max_batch_instance_count=1)
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(10, policy=one, revision=1)))
    told.run()
    assert told.batches() == ["0 1", "2 3", "4 5", "6 7", "8 9"]
    told.tell(e.ImagePublished(image=image("1.2")))
    told.run()
    assert told.batches()[5:] == [str(i) for i in range(10)]
    assert [started.policy.max_batch_instance_count for started in told.all(e.UpgradeStarted)] == [
        None,
        1,
    ]


def test_trap_8_any_answer_passes_for_a_version() -> None:
    """The system-upgrade-controller takes the last element of any URL that answers 200 for one.

    Ours goes only to versions that were published, whatever an agent says that it runs.
    """
    told = World(fleet=fleet(3, automatic_os_upgrade=True))
    disguised = healthy("0", version="login.html", phase=InstancePhase.UPGRADING)
    told.fleet = fleet(3, instances={**told.fleet.instances, "0": disguised})
    told.tell(
        e.InstanceUpgraded(
            scale_set=SET,
            instance_id="0",
            attempt=1,
            version="99.login.html",
            generation=1,
            address="127.0.0.1",
            port=1,
        )
    )
    told.run()
    assert told.all(e.UpgradeStarted) == []
    told.tell(e.ImagePublished(image=image("100.1")))
    told.run()
    assert {started.image.version for started in told.all(e.UpgradeStarted)} == {"100.1"}
    assert set(told.versions_now().values()) == {"100.1"}


def test_trap_9_the_oldest_failure_is_tried_again_first_and_starves_the_others() -> None:
    """Karpenter's RFC tells of oldest-first retries that never reach the rest.

    Ours tries an instance once in an upgrade; and one that cannot be made is tried again after a
    minute, beside all others.
    """
    told = world(10, max_unhealthy_upgraded_instance_percent=100)
    told.fails = lambda id, r: (
        broken(id) if id == "0" and isinstance(r, e.InstancesUpgradeRequested) else None
    )
    told.run()
    assert set("123456789") == {id for id, v in told.versions_now().items() if v == "1.1"}
    tries = [o.instance_id for r in told.all(e.InstancesUpgradeRequested) for o in r.instances]
    assert tries.count("0") == 1

    new = World(fleet=fleet(3, instances={}, next_id=0))
    new.fails = lambda id, r: broken(id) if id == "0" else None
    new.tell()
    new.answer()
    assert {i.id for i in new.fleet.instances.values() if i.is_healthy} == {"1", "2"}
    new.later(60)
    retried = new.last(e.InstancesCreateRequested)
    assert [(o.instance_id, o.attempt) for o in retried.instances] == [("0", 2)]


def test_trap_10_one_dead_member_keeps_a_rollout_open_for_ever() -> None:
    """Nebraska's rollout is finished when *all* have succeeded; flightctl stalls for a day.

    Ours gives an agent its time, then counts the instance as failed and goes on or stops; and one
    that was deleted is no member any more.
    """
    told = world(10, max_unhealthy_upgraded_instance_percent=100, provisioning_timeout=600)
    told.fails = lambda id, request: None
    told.until("batch.started")
    silent = {"0"}
    while told.fleet.upgrade is not None and told.now < START + timedelta(hours=2):
        told.waiting = [a for a in told.waiting if getattr(a, "instance_id", "") not in silent]
        if told.waiting:
            told.tell(told.waiting.pop(0))
        else:
            told.later(30)
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert told.last(e.UpgradeCompleted).reason == "no instance remains; 9 of 10 succeeded"


def test_trap_11_a_delay_after_a_step_keeps_what_is_done_out_of_service() -> None:
    """kured slept its release delay before it let the node take work again (PR #1409).

    Ours holds nothing in a pause between batches: all serve, and their old disks are let go.
    """
    told = world(10, pause_time_between_batches=3600)
    told.tell()
    told.answer()
    assert told.last(e.BatchHeld).code == WaitCode.PAUSE_BETWEEN_BATCHES
    assert told.down() == 0
    assert not any(instance.uncommitted for instance in told.fleet.instances.values())


@pytest.mark.parametrize("flag", ["protect_from_scale_in", "protect_from_scale_set_actions"])
def test_trap_12_what_a_person_set_is_unset_by_the_controller(flag: str) -> None:
    """The system-upgrade-controller un-cordons what a human cordoned (#341).

    Ours never touches a protection: over upgrades, model changes, deployments and repeated
    creations it stays as the person left it.
    """
    told = world(5)
    changed = e.InstanceProtectionChanged.model_validate(
        {"scale_set": SET, "instance_id": "2", flag: True}
    )
    told.tell(changed)
    told.run()
    model = spec(5, provisioning=Provisioning(generation=2), revision=1)
    told.tell(
        e.ScaleSetChanged(scale_set=SET, spec=model),
        e.ModelDeployRequested(scale_set=SET, instance_ids=("*",)),
    )
    told.run()
    assert getattr(told.fleet.instances["2"], flag)

    new = World(fleet=fleet(1, instances={}, next_id=0), fails=lambda id, request: broken(id))
    new.tell()
    new.tell(changed.model_copy(update={"instance_id": "0"}))
    new.answer()
    new.later(60)
    assert new.fleet.instances["0"].attempt == 2
    assert getattr(new.fleet.instances["0"], flag)


def test_trap_13_a_window_is_only_looked_at_when_the_rollout_starts() -> None:
    """The Bottlerocket operator lets what has started run on past its window.

    Ours asks before each batch, ends the batch that runs, and goes on in the next window.
    """
    night = MaintenanceWindow.model_validate(
        {"start": "2026-01-01T00:00", "time_zone": "UTC", "duration": 1800}
    )
    told = World(fleet=fleet(versions=BOTH, maintenance_windows=(night,)))
    told.until("batch.started")
    told.later(1800)
    told.answer()
    assert told.batches() == ["0 1"]
    assert told.last(e.BatchHeld).code == WaitCode.OUTSIDE_WINDOWS
    told.now = START + timedelta(days=1)
    told.tell()
    assert told.batches() == ["0 1", "2 3"]


def test_trap_14_a_rollback_goes_through_the_canary_or_ignores_the_cap() -> None:
    """Nomad's revert waits in a canary phase (#10882), or takes all at once (#14200).

    Ours goes back in batches under the same cap, and asks for no canary of what has run there.
    """
    told = world(10, canary_instance_count=1, canary_bake_time=86400)
    told.run()
    told.most_down = 0
    begun = told.now
    told.tell(e.UpgradeRollbackRequested(scale_set=SET))
    told.run()
    assert told.batches()[6:] == ["0 1", "2 3", "4 5", "6 7", "8 9"]
    assert told.most_down == 2
    assert told.now - begun < timedelta(minutes=5)


def test_trap_15_two_opposite_defaults_when_the_metrics_cannot_be_had() -> None:
    """kured fails closed when its Prometheus does not answer; others go on.

    Ours has a field for each case, waits by default for both, and never takes silence for a yes.
    """
    assert (GATE.on_inconclusive, GATE.on_unreachable) == (GateAnswer.WAIT, GateAnswer.WAIT)
    for outcome in (MetricOutcome.INCONCLUSIVE, MetricOutcome.UNREACHABLE, None):
        told = world(metric_gate=GATE)
        told.metric = lambda question, outcome=outcome: outcome  # type: ignore[misc]  # mypy infers no lambda with a default
        told.tell()
        for _ in range(20):
            told.answer()
            told.later(60)
        assert told.batches() == []
        assert told.fleet.upgrade is not None


def test_trap_16_a_group_that_shrinks_makes_one_phase_cover_everyone() -> None:
    """Mender fixes the size of a phase when it starts: of a smaller group it is everybody.

    Ours takes the percent of those that are there when a batch starts, every time.
    """
    told = world(50)
    told.until("batch.started")
    assert [len(ids.split()) for ids in told.batches()] == [10]
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(15, revision=1)))
    told.run()
    sizes = [len(ids.split()) for ids in told.batches()]
    assert sizes == [10, 3, 2]


def test_trap_17_a_late_success_is_shown_as_a_failure_for_ever() -> None:
    """Nebraska shows an instance as failed whose success came after the timeout (#371).

    Ours takes the late report for what the instance is now; its part in the upgrade stays failed,
    because the upgrade was stopped for it.
    """
    told = World(fleet=fleet(versions=BOTH, disable_automatic_rollback=True))
    told.until("batch.started")
    late, told.waiting = told.waiting, []
    told.later(2400)
    assert told.fleet.instances["0"].phase is InstancePhase.FAILED
    told.tell(*late)
    told.answer()
    instance = told.fleet.instances["0"]
    assert (instance.version, instance.error, instance.is_healthy) == ("1.1", None, True)
    error = told.upgrade.members["0"].error
    assert error is not None
    assert error.code == FailureCode.PROVISIONING_TIMEOUT


def test_trap_18_what_was_rolled_back_is_offered_again_at_once() -> None:
    """Fedora CoreOS boots the old deployment and is given the new one again (tracker #247).

    Ours quarantines the version in its set and holds it in the others, until a person releases it.
    """
    told = world(5)
    told.run()
    told.tell(e.UpgradeRollbackRequested(scale_set=SET))
    told.run()
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(5, revision=1)))
    told.later(30 * 86400)
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}
    assert told.last(e.ImageHeld).quarantine


@pytest.mark.parametrize(
    ("older", "newer"),
    [("20240101.9", "20240101.10"), ("1.9", "1.10"), ("9.0.0", "10.0.0"), ("1.0-rc", "1.0.1")],
)
def test_trap_19_serials_that_are_sorted_as_text(older: str, newer: str) -> None:
    """Simple streams' items are compared as strings by some readers: `.10` before `.9`.

    Ours compares numbers as numbers, and never goes back to what only looks newer.
    """
    told = World(fleet=fleet(1, (older, newer), instances={"0": healthy("0", version=older)}))
    told.run()
    assert told.versions_now() == {"0": newer}
    back = World(fleet=fleet(1, (older, newer), instances={"0": healthy("0", version=newer)}))
    back.run()
    assert back.types() == []


def test_trap_20_ids_that_are_left_out_mean_the_whole_set() -> None:
    """Azure's reimage without instanceIds takes the whole set, and its reimageAll the data too.

    Ours has no request without ids: nobody is nobody, all is `*`, and no request but a deletion
    touches a data disk.
    """
    for cls in (e.ModelDeployRequested, e.UpgradeApproveRequested):
        with pytest.raises(ValidationError):
            cls.model_validate({"scale_set": SET})
    told = World(fleet=fleet(3, automatic_os_upgrade=False))
    model = spec(3, automatic_os_upgrade=False, provisioning={"generation": 2}, revision=1)
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=model))
    told.tell(e.ModelDeployRequested(scale_set=SET, instance_ids=()))
    assert told.types("instances.") == []
    told.tell(e.ModelDeployRequested(scale_set=SET, instance_ids=("1",)))
    told.run()
    assert told.types("instances.")[0] == "instances.upgrade_requested"
    assert {o.instance_id for o in told.all(e.InstancesUpgradeRequested)[0].instances} == {"1"}
    kinds = {cls.__name__ for cls in e.EVENT_CLASSES if issubclass(cls, e.HostRequest)}
    assert kinds == {
        "InstancesCreateRequested",
        "InstancesUpgradeRequested",
        "InstancesRestoreRequested",
        "InstancesCommitRequested",
        "InstancesPowerRequested",
        "InstancesDeleteRequested",
    }
