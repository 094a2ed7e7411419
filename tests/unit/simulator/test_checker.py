"""The checker catches: each promise is broken on purpose, and the checker names that one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    FailureCode,
    LifecycleHook,
    LifecycleHookType,
    MaintenanceWindow,
    MetricGate,
    PowerAction,
    PowerWish,
    Provisioning,
)
from rollcall_rollout import Fleet, MemberState, evolve, fold, next_wake, settle
from rollcall_rollout.fleet import Unsaved
from rollcall_simulator import checker, invariants, simulation
from rollcall_simulator.checker import Checker, Peak
from rollcall_simulator.control import Rules
from rollcall_simulator.faults import TWIN, Fault
from rollcall_simulator.invariants import DECIDED, Violation, sentence_of
from rollcall_simulator.scenario import SET, Happening, Mood, Scenario, draw, image
from rollcall_simulator.simulation import Simulation
from rollcall_simulator.site import Disk, Machine
from rollcall_simulator.summary import Summary

Decided = tuple[Fleet, list[e.Event]]


# --- ways to break the rules ----------------------------------------------------------------------


def blind(see: Callable[[Fleet], Fleet]) -> Rules:
    """Return rules that decide on another state than the one that is there."""

    def honest(event: e.Event, fleet: Fleet) -> e.Event:
        if isinstance(event, e.UpgradeStarted):
            return event.model_copy(update={"policy": fleet.spec.policy})
        return event

    def settled(fleet: Fleet, now: datetime) -> Decided:
        _, decided = settle(see(fleet), now)
        decided = [honest(event, fleet) for event in decided]
        return evolve(fleet, decided, now), decided

    return Rules(settle=settled)


def of_policy(**fields: Any) -> Rules:
    """Return rules that read another policy, in the model and in the upgrade."""

    def see(fleet: Fleet) -> Fleet:
        spec = fleet.spec.model_copy(update={"policy": fleet.spec.policy.model_copy(update=fields)})
        upgrade = fleet.upgrade
        if upgrade is not None:
            upgrade = replace(upgrade, policy=upgrade.policy.model_copy(update=fields))
        return replace(fleet, spec=spec, upgrade=upgrade)

    return blind(see)


def of_model(**fields: Any) -> Rules:
    """Return rules that read another model."""
    return blind(lambda fleet: replace(fleet, spec=fleet.spec.model_copy(update=fields)))


def of_upgrade(**fields: Any) -> Rules:
    """Return rules that read another upgrade."""
    return blind(
        lambda fleet: replace(
            fleet, upgrade=replace(fleet.upgrade, **fields) if fleet.upgrade else None
        )
    )


def adding(more: Callable[[Fleet, list[e.Event]], Sequence[e.Event]]) -> Rules:
    """Return rules that decide something more."""

    def settled(fleet: Fleet, now: datetime) -> Decided:
        after, decided = settle(fleet, now)
        extra = list(more(after, decided))
        return evolve(after, extra, now), [*decided, *extra]

    return Rules(settle=settled)


def _members(fleet: Fleet, state: MemberState) -> list[str]:
    members = fleet.upgrade.members.values() if fleet.upgrade else ()
    return [member.id for member in members if member.state is state]


def _order(fleet: Fleet, id: str, *, next_attempt: bool = True) -> dict[str, Any]:
    instance = fleet.instances[id]
    order = e.InstanceOrder(instance_id=id, attempt=instance.attempt + next_attempt)
    return {"scale_set": SET, "host": instance.host, "instances": (order,)}


def swap_again(fleet: Fleet, decided: list[e.Event]) -> list[e.Event]:
    upgrade = fleet.upgrade
    if upgrade is None:
        return []
    return [
        e.InstancesUpgradeRequested(
            **_order(fleet, id),
            upgrade_id=upgrade.id,
            image=upgrade.image,
            provisioning=fleet.spec.provisioning,
        )
        for id in _members(fleet, MemberState.SUCCEEDED)[:1]
    ]


def grab_a_busy_one(fleet: Fleet, decided: list[e.Event]) -> list[e.Event]:
    busy = [i.id for i in fleet.instances.values() if i.is_busy]
    return [
        e.InstancesUpgradeRequested(
            **_order(fleet, id), image=image("1.1"), provisioning=fleet.spec.provisioning
        )
        for id in busy[:1]
    ]


def restore_a_healthy_one(fleet: Fleet, decided: list[e.Event]) -> list[e.Event]:
    return [
        e.InstancesRestoreRequested(**_order(fleet, id))
        for id in _members(fleet, MemberState.SUCCEEDED)[:1]
    ]


def commit_early(fleet: Fleet, decided: list[e.Event]) -> list[e.Event]:
    return [
        e.InstancesCommitRequested(**_order(fleet, id, next_attempt=False))
        for id in _members(fleet, MemberState.PROVISIONED)[:1]
        if fleet.instances[id].uncommitted
    ]


def make_anew(fleet: Fleet, decided: list[e.Event]) -> list[e.Event]:
    return [
        e.InstancesCreateRequested(
            **_order(fleet, id), image=image("1.1"), provisioning=fleet.spec.provisioning
        )
        for id in _members(fleet, MemberState.SUCCEEDED)[:1]
    ]


def complete_early(fleet: Fleet, decided: list[e.Event]) -> list[e.Event]:
    if fleet.upgrade is None or fleet.upgrade.batch != 1 or fleet.upgrade.batch_open:
        return []
    return [e.UpgradeCompleted(scale_set=SET, upgrade_id=fleet.upgrade.id)]


def time_out_early(fleet: Fleet, decided: list[e.Event]) -> list[e.Event]:
    if fleet.upgrade is None or fleet.upgrade.batch != 1 or fleet.upgrade.batch_open:
        return []
    error = Failure(code=FailureCode.UPGRADE_TIMEOUT, message="it took too long")
    return [e.UpgradeFaulted(scale_set=SET, upgrade_id=fleet.upgrade.id, error=error)]


def blame_the_good_version(fleet: Fleet, decided: list[e.Event]) -> list[e.Event]:
    error = Failure(code=FailureCode.UNHEALTHY_UPGRADED, message="some are sick")
    return [
        e.ImageHeld(image=ended.image, by_set=SET, upgrade_id=ended.id, error=error)
        for ended in fleet.ended
        if ended.is_forced
    ]


def let_nobody_boot(fleet: Fleet, now: datetime) -> Decided:
    """Decide as if nothing that a person asked for were on its way back."""

    def settled() -> Decided:
        instances = {id: replace(i, booting=False) for id, i in fleet.instances.items()}
        _, decided = settle(replace(fleet, instances=instances), now)
        return evolve(fleet, decided, now), decided

    return settled() if fleet.upgrade is not None else settle(fleet, now)


def end_batches_early(fleet: Fleet, decided: list[e.Event]) -> list[e.Event]:
    return [
        e.BatchCompleted(
            scale_set=SET, upgrade_id=ev.upgrade_id, batch=ev.batch, succeeded=0, failed=0
        )
        for ev in decided
        if isinstance(ev, e.BatchStarted)
    ]


def stop_somebody(fleet: Fleet, decided: list[e.Event]) -> list[e.Event]:
    started = any(isinstance(ev, e.UpgradeStarted) for ev in decided)
    return [
        e.InstancesPowerRequested(**_order(fleet, "0"), change=PowerAction.POWER_OFF)
        for _ in range(started)
    ]


def overlook_wishes(fleet: Fleet) -> Fleet:
    instances = {
        id: replace(instance, wish=PowerWish.RUNNING) for id, instance in fleet.instances.items()
    }
    return replace(fleet, instances=instances)


def say_nothing_new(fleet: Fleet, decided: list[e.Event]) -> list[e.Event]:
    return [e.BatchHeld(scale_set=SET, upgrade_id="another", code="x")] if decided else []


def leave_one_behind(fleet: Fleet, now: datetime) -> Decided:
    _, decided = settle(fleet, now)
    decided = [
        ev.model_copy(update={"instance_ids": ev.instance_ids[1:]})
        if isinstance(ev, e.UpgradeStarted) and ev.rollback_of is not None
        else ev
        for ev in decided
    ]
    return evolve(fleet, decided, now), decided


def forget_a_mark(fleet: Fleet, now: datetime) -> Decided:
    after, decided = settle(fleet, now)
    if after.unsaved is not None and after.unsaved.instances:
        after = replace(after)
        after.carry(unsaved=Unsaved())
    return after, decided


def miscount(fleet: Fleet, now: datetime) -> Decided:
    after, decided = settle(fleet, now)
    after.census.unhealthy += 1
    return after, decided


def drop_health(fleet: Fleet, events: Sequence[e.Event], now: datetime) -> Decided:
    dropped = [ev for ev in events if getattr(ev, "instance_id", "") != "0"]
    return fold(fleet, dropped, now)


def cancel_what_comes_twice(fleet: Fleet, events: Sequence[e.Event], now: datetime) -> Decided:
    known = {known.version for known in fleet.images}
    again = any(isinstance(ev, e.ImagePublished) and ev.image.version in known for ev in events)
    more = [e.UpgradeCancelRequested(scale_set=SET)] if again else []
    return fold(fleet, [*events, *more], now)


def fail(fleet: Fleet, now: datetime) -> Decided:
    raise RuntimeError("no such rule")


# --- the table: what is broken, where, and the promise that is named ------------------------------


@dataclass(frozen=True, kw_only=True)
class Case:
    """Broken rules, and a scenario in which they do harm."""

    promise: Callable[..., object]
    rules: Rules
    spec: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    ill: int = 0
    chances: dict[Fault, float] = field(default_factory=dict)
    happenings: tuple[Happening, ...] = ()
    room: dict[str, int] = field(default_factory=dict)


GATE = MetricGate(server="http://metrics:9090", query="errors", success_condition="<= 0")
NIGHT = MaintenanceWindow(
    start=datetime.fromisoformat("2026-01-01T02:00"), time_zone="UTC", duration=3600
)
HOOK = LifecycleHook(type=LifecycleHookType.BATCH_STARTING, wait_duration=600)


def at(seconds: float, fault: Fault, chance: float = 0.0) -> tuple[Happening, ...]:
    return (Happening(at=seconds, fault=fault, chance=chance),)


CASES = [
    Case(
        promise=invariants.never_more_down,
        rules=of_policy(max_unhealthy_instance_percent=100),
        policy={"max_batch_instance_percent": 50, "max_unhealthy_instance_percent": 50},
        happenings=at(5, Fault.MASS, 0.4),
    ),
    Case(
        promise=invariants.never_more_down,
        rules=Rules(settle=let_nobody_boot),
        happenings=at(25, Fault.REIMAGE, 0.1),
    ),
    Case(
        promise=invariants.never_a_larger_batch,
        rules=of_policy(max_batch_instance_percent=50),
        policy={"max_unhealthy_instance_percent": 100},
    ),
    Case(promise=invariants.one_batch_at_a_time, rules=of_upgrade(batch=7)),
    Case(
        promise=invariants.set_is_healthy_before_the_start,
        rules=of_policy(max_unhealthy_instance_percent=100),
        ill=5,
    ),
    Case(
        promise=invariants.set_is_healthy_before_each_batch,
        rules=of_policy(
            max_unhealthy_instance_percent=100, max_unhealthy_upgraded_instance_percent=100
        ),
        policy={"pause_time_between_batches": 300},
        happenings=at(120, Fault.MASS, 1.0),
    ),
    Case(
        promise=invariants.upgraded_are_healthy_after_each_batch,
        rules=of_policy(max_unhealthy_upgraded_instance_percent=100),
        chances={Fault.SICK: 1.0},
    ),
    Case(
        promise=invariants.metrics_allow_it,
        rules=of_policy(metric_gate=None),
        policy={"metric_gate": GATE},
    ),
    Case(
        promise=invariants.only_those_that_wait,
        rules=of_upgrade(deferred=False),
        spec={"os_rolling_upgrade_deferral": True},
        chances={Fault.APPROVAL: 1.0},
    ),
    Case(
        promise=invariants.protected_ones_are_not_touched,
        rules=blind(
            lambda fleet: replace(
                fleet,
                instances={
                    id: replace(i, protect_from_scale_set_actions=False)
                    for id, i in fleet.instances.items()
                },
            )
        ),
        happenings=at(1, Fault.PROTECT),
    ),
    Case(promise=invariants.no_instance_is_swapped_twice, rules=adding(swap_again)),
    Case(promise=invariants.never_two_hands, rules=adding(grab_a_busy_one)),
    Case(promise=invariants.power_changes_as_a_person_wants, rules=adding(stop_somebody)),
    Case(
        promise=invariants.what_a_person_stopped_is_left_alone,
        rules=blind(overlook_wishes),
        happenings=at(5, Fault.POWER, 0.56),
    ),
    Case(
        promise=invariants.reimages_keep_the_caps,
        rules=of_policy(max_batch_instance_percent=100, max_unhealthy_instance_percent=100),
        spec={"automatic_os_upgrade": False},
        happenings=at(5, Fault.REIMAGE, 0.1),
    ),
    Case(
        promise=invariants.no_instance_goes_without_a_reason,
        rules=of_model(leaving=("7",)),
        happenings=at(5, Fault.REMOVE, 0.1),
    ),
    Case(promise=invariants.healthy_ones_stay, rules=adding(restore_a_healthy_one)),
    Case(promise=invariants.previous_disks_are_kept_until_health, rules=adding(commit_early)),
    Case(promise=invariants.data_disks_are_never_replaced, rules=adding(make_anew)),
    Case(
        promise=invariants.data_disks_are_never_replaced,
        rules=Rules(),
        spec={"provisioning": Provisioning(generation=1, data_disks=(0,))},
        policy={"max_surge": True},
    ),
    Case(promise=invariants.no_instance_goes_without_a_reason, rules=of_model(capacity=8)),
    Case(
        promise=invariants.batches_start_inside_windows,
        rules=of_model(maintenance_windows=()),
        spec={"maintenance_windows": (NIGHT,)},
    ),
    Case(
        promise=invariants.hooks_are_asked_first,
        rules=of_model(lifecycle_hooks=()),
        spec={"lifecycle_hooks": (HOOK,)},
    ),
    Case(
        promise=invariants.groups_follow_one_another,
        rules=of_policy(enable_cross_zone_upgrade=True),
        spec={"zones": ("1", "2")},
    ),
    Case(
        promise=invariants.groups_follow_one_another,
        rules=of_model(update_domains=0),
        spec={"update_domains": 5},
    ),
    Case(
        promise=invariants.pauses_are_kept,
        rules=of_upgrade(pause_requested=False),
        happenings=at(90, Fault.PAUSE, 0.9),
    ),
    Case(
        promise=invariants.pauses_are_kept,
        rules=of_policy(pause_time_between_batches=0),
        policy={"pause_time_between_batches": 60},
    ),
    Case(
        promise=invariants.held_versions_wait,
        rules=blind(lambda fleet: replace(fleet, holds={})),
        happenings=at(90, Fault.HOLD, 0.9),
    ),
    Case(
        promise=invariants.held_versions_come_to_nobody,
        rules=blind(lambda fleet: replace(fleet, holds={})),
        spec={"automatic_os_upgrade": False},
        happenings=(*at(60, Fault.HOLD, 0.9), *at(90, Fault.REIMAGE, 0.1)),
    ),
    Case(
        promise=invariants.held_versions_come_to_nobody,
        rules=blind(lambda fleet: replace(fleet, holds={})),
        spec={"automatic_os_upgrade": False},
        happenings=(*at(60, Fault.HOLD, 0.9), *at(90, Fault.SCALE, 0.9)),
    ),
    Case(
        promise=invariants.a_rollback_leaves_nobody_behind,
        rules=Rules(settle=leave_one_behind),
        happenings=at(400, Fault.ROLLBACK),
    ),
    Case(
        promise=invariants.upgrades_start_by_the_model,
        rules=of_model(automatic_os_upgrade=True),
        spec={"automatic_os_upgrade": False},
    ),
    Case(
        promise=invariants.upgrades_end_between_batches,
        rules=adding(complete_early),
        policy={"pause_time_between_batches": 60},
    ),
    Case(
        promise=invariants.time_limits_stop_what_remains,
        rules=adding(time_out_early),
        policy={"pause_time_between_batches": 60},
    ),
    Case(
        promise=invariants.overrides_blame_no_version,
        rules=adding(blame_the_good_version),
        happenings=at(600, Fault.ROLLBACK),
    ),
    Case(promise=invariants.batches_end_when_all_are_done, rules=adding(end_batches_early)),
    Case(promise=checker.what_is_stored_is_what_was_decided, rules=Rules(settle=forget_a_mark)),
    Case(promise=checker.nothing_is_due_at_once, rules=Rules(next_wake=lambda fleet, now: now)),
    Case(
        promise=checker.hosts_are_not_overfilled,
        rules=blind(lambda fleet: replace(fleet, room={})),
        policy={"max_surge": True},
        room={"host-1": 5, "host-2": 5},
    ),
    Case(promise=checker.counts_are_right, rules=Rules(settle=miscount)),
    Case(promise=checker.the_set_believes_what_it_was_told, rules=Rules(fold=drop_health)),
    Case(promise=checker.every_decided_event_changes_the_state, rules=adding(say_nothing_new)),
    Case(
        promise=simulation.every_upgrade_ends,
        rules=Rules(next_wake=lambda fleet, now: now + timedelta(days=9)),
        chances={Fault.SICK: 1.0},
    ),
    Case(promise=simulation.no_error, rules=Rules(settle=fail)),
]


def scenario_of(case: Case) -> Scenario:
    """Return a plain scenario of ten instances on two hosts, with what the case adds."""
    plain = draw(1)
    policy = type(plain.spec.policy)(**case.policy)
    spec = type(plain.spec)(
        scale_set=SET,
        location="local",
        capacity=10,
        image=plain.spec.image,
        provisioning=Provisioning(generation=1, data_disks=()),
        policy=policy,
        probe=draw(5).spec.probe,
    ).model_copy(update={"automatic_os_upgrade": True, **case.spec})
    values = {name: getattr(plain, name) for name in Scenario.__slots__}
    return Scenario(
        **values
        | {
            "mood": Mood.MILD,
            "spec": spec,
            "from_nothing": False,
            "ill_at_start": case.ill,
            "hosts": ("host-1", "host-2"),
            "room": case.room,
            "chances": case.chances,
            "happenings": case.happenings,
            "work": 20.0,
            "boot": 5.0,
            "published_at": 30.0,
            "active": 900.0,
            "tidy": False,
        }
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.promise.__name__)
def test_a_broken_promise_is_named(case: Case) -> None:
    scenario = scenario_of(case)
    sound = Simulation(replace(scenario), Rules(), None).run()
    outcome = Simulation(scenario, case.rules, None).run()
    assert outcome.violation is not None, outcome
    assert outcome.violation[0] == sentence_of(case.promise), outcome.violation
    if case.rules != Rules():
        assert sound.violation is None


def test_each_promise_about_decisions_is_broken_once() -> None:
    promises = {invariant for checks in DECIDED.values() for invariant in checks}
    broken = {case.promise for case in CASES}
    assert promises <= broken
    assert all(sentence_of(promise).endswith(".") for promise in broken)


def test_messages_that_change_the_outcome_when_they_come_twice_are_found() -> None:
    found = [
        outcome.violation
        for outcome in (
            simulation.simulate(seed, rules=Rules(fold=cancel_what_comes_twice))
            for seed in [s for s in range(400) if draw(s).mood is Mood.TWIN][:12]
        )
        if outcome.violation is not None
    ]
    assert found
    assert {sentence for sentence, _ in found} == {sentence_of(simulation.twin)}
    assert Fault.DOUBLED in TWIN


# --- what physically happens ----------------------------------------------------------------------


def _checker() -> Checker:
    return Checker(draw(1).spec)


def test_two_disks_for_one_attempt_are_found() -> None:
    machine = Machine(id="0", host="host-1", data=1, attempt=2, swaps={2: 2})
    with pytest.raises(Violation, match="two OS disks for one attempt"):
        _checker().swapped(machine)


def test_a_previous_disk_that_goes_too_early_is_found() -> None:
    machine = Machine(id="0", host="host-1", data=1, down_for="upgrade")
    machine.previous = Disk(number=1, version="1.0", generation=1)
    with pytest.raises(Violation, match="until the instance was healthy"):
        _checker().dropped(machine)


def test_more_that_are_really_down_than_allowed_are_found() -> None:
    case = Case(promise=invariants.never_more_down, rules=Rules())
    run = Simulation(scenario_of(case), Rules(), None)
    run.run()
    for id in ("0", "1", "2"):
        run.site.machines[id].down_for = "upgrade"
    with pytest.raises(Violation, match="really down"):
        run.checker.about_to_stop(run.site.machines["3"], "upgrade")
    run.checker.about_to_stop(run.site.machines["3"], "deployment")


def test_those_that_a_reimage_has_down_are_ours_and_outages_raise_no_limit() -> None:
    case = Case(promise=invariants.never_more_down, rules=Rules())
    run = Simulation(scenario_of(case), Rules(), None)
    run.run()
    machines = run.site.machines
    for id in ("5", "6", "7", "8"):
        machines[id].down_for = "outage"
    machines["0"].down_for = "deployment"
    run.checker.about_to_stop(machines["3"], "upgrade")
    machines["1"].down_for = "deployment"
    with pytest.raises(Violation, match="3 of 10 are down: 2 may be"):
        run.checker.about_to_stop(machines["3"], "upgrade")


def test_m11_what_goes_alone_beyond_the_limit_is_counted_apart_from_the_peak() -> None:
    case = Case(promise=invariants.never_more_down, rules=Rules(), spec={"capacity": 3})
    alone = Simulation(scenario_of(case), Rules(), None).run()
    assert (alone.peak, alone.alone, alone.alone_ours) == (Peak(), 3, 0)
    within = Simulation(scenario_of(replace(case, spec={})), Rules(), None).run()
    assert (within.peak, within.alone) == (Peak(down=2, allowed=2, total=10), 0)
    found = Summary()
    for outcome in (alone, within):
        found.add(outcome)
    assert found.lines()[-2:] == [
        "The largest share of a set ever down because of us, under limits below 100 %: 2 (20 %) of "
        "10, where 2 (20 %) were allowed.",
        "Batches of one healthy instance beyond the limit, which M11 allows: 3; in 0 of them "
        "others were down because of us.",
    ]


@pytest.mark.parametrize("how", ["other disks", "another machine"])
def test_data_disks_that_are_not_those_of_before_are_found(how: str) -> None:
    run = Simulation(scenario_of(Case(promise=simulation.twin, rules=Rules())), Rules(), None)
    run.run()
    machine = run.site.machines["4"]
    if how == "other disks":
        machine.data += 1
    else:
        machine = Machine(id="4", host="host-2", data=999)
        run.site.machines["4"] = machine
    with pytest.raises(Violation, match="Instance 4 has"):
        run.checker.changed(machine)
    with pytest.raises(Violation, match="data disks of an instance are the same"):
        run.checker.at_the_end(run.store.load(), run.agenda.now)


def test_a_set_that_is_wrong_about_a_disk_is_found() -> None:
    run = Simulation(scenario_of(Case(promise=simulation.twin, rules=Rules())), Rules(), None)
    run.run()
    run.site.machines["4"].disk = Disk(number=99, version="0.9", generation=1)
    with pytest.raises(Violation, match=r"Instance 4 is on 0\.9"):
        run.checker.at_the_end(run.store.load(), run.agenda.now)


def test_what_runs_although_it_was_powered_off_is_found() -> None:
    case = Case(promise=simulation.twin, rules=Rules(), happenings=at(5, Fault.POWER, 0.56))
    run = Simulation(scenario_of(case), Rules(), None)
    run.run()
    kept = run.control.kept
    assert kept is not None
    (parked,) = [i.id for i in kept.instances.values() if i.is_parked]
    run.site.machines[parked].running = True
    with pytest.raises(Violation, match=f"Instance {parked} runs, and was powered off"):
        run.checker.at_the_end(run.store.load(), run.agenda.now)


def test_a_gap_in_what_is_published_is_found() -> None:
    found = _checker()
    found.published(0)
    found.published(1)
    found.published(0)
    with pytest.raises(Violation, match="without gaps"):
        found.published(3)


def test_the_real_rules_wake_in_time() -> None:
    assert Rules().next_wake is next_wake
