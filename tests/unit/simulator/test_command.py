"""`rollcall simulate`: what it prints, and that the printed command shows the failure again."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
import typer
from rollcall_cli.simulate import simulate_with
from rollcall_contracts import events as e
from rollcall_rollout import Fleet, MemberState, evolve, fold, settle
from rollcall_simulator import checker, invariants
from rollcall_simulator.control import RULES, Rules
from rollcall_simulator.invariants import sentence_of
from typer.testing import CliRunner, Result

Decided = tuple[Fleet, list[e.Event]]


def _run(arguments: Sequence[str], rules: Rules = RULES) -> Result:
    app = typer.Typer()
    app.command()(simulate_with(rules))
    return CliRunner().invoke(app, list(arguments))


def _with_policy(fleet: Fleet, **fields: Any) -> Fleet:
    if fleet.upgrade is None:
        return fleet
    policy = fleet.upgrade.policy.model_copy(update=fields)
    return replace(fleet, upgrade=replace(fleet.upgrade, policy=policy))


def too_large_batches(fleet: Fleet, now: datetime) -> Decided:
    _, decided = settle(_with_policy(fleet, max_batch_instance_percent=100), now)
    return evolve(fleet, decided, now), decided


def skipped_gate(fleet: Fleet, now: datetime) -> Decided:
    blind = _with_policy(fleet, max_unhealthy_upgraded_instance_percent=100)
    _, decided = settle(blind, now)
    return evolve(fleet, decided, now), decided


def swapped_twice(fleet: Fleet, now: datetime) -> Decided:
    after, decided = settle(fleet, now)
    upgrade = after.upgrade
    done = [
        after.instances[member.id]
        for member in (upgrade.members.values() if upgrade is not None else ())
        if member.state is MemberState.SUCCEEDED and member.id in after.instances
    ]
    if upgrade is None or not done:
        return after, decided
    again = e.InstancesUpgradeRequested(
        scale_set=after.spec.scale_set,
        host=done[0].host,
        instances=(e.InstanceOrder(instance_id=done[0].id, attempt=done[0].attempt + 1),),
        upgrade_id=upgrade.id,
        image=upgrade.image,
        provisioning=after.spec.provisioning,
    )
    return evolve(after, [again], now), [*decided, again]


def dropped_event(fleet: Fleet, events: Sequence[e.Event], now: datetime) -> Decided:
    return fold(fleet, [ev for ev in events if not isinstance(ev, e.InstanceFailed)], now)


BROKEN = [
    (Rules(settle=too_large_batches), invariants.never_a_larger_batch),
    (Rules(settle=skipped_gate), invariants.upgraded_are_healthy_after_each_batch),
    (Rules(settle=swapped_twice), invariants.no_instance_is_swapped_twice),
    (Rules(fold=dropped_event), checker.the_set_believes_what_it_was_told),
]


@pytest.mark.parametrize(
    ("rules", "promise"), BROKEN, ids=["larger batch", "skipped gate", "twice", "dropped"]
)
def test_broken_rules_are_found_and_the_printed_command_shows_them_again(
    rules: Rules, promise: Any
) -> None:
    found = _run(["--start", "0", "--seeds", "25", "--jobs", "1", "--instances", "5"], rules)
    assert found.exit_code == 1, found.output
    sentence = sentence_of(promise)
    assert f": {sentence}" in found.output
    after = found.output.split(f": {sentence}", 1)[1]
    command = re.search(r"See it with: +rollcall simulate (.*)", after)
    assert command is not None, after
    again = _run(shlex.split(command[1]), rules)
    assert again.exit_code == 1, again.output
    assert f"BROKEN in 1 of 1: {sentence}" in again.output
    sound = _run(shlex.split(command[1]))
    assert sound.exit_code == 0, sound.output


def test_a_run_reports_what_it_did() -> None:
    result = _run(["--start", "100", "--seeds", "8", "--instances", "5"])
    assert result.exit_code == 0, result.output
    assert "8 scenarios" in result.output
    assert "Seeds 100 to 107." in result.output
    assert "a minute and core" in result.output
    assert "Every promise was kept." in result.output


def test_many_processes_report_the_same_as_one() -> None:
    outputs = [
        _run(["--start", "200", "--seeds", "15", "--instances", "4", "--jobs", jobs]).output
        for jobs in ("1", "2")
    ]
    without_times = [re.sub(r"^.*a minute and core\.$", "", o, flags=re.M) for o in outputs]
    assert without_times[0] == without_times[1]


def test_fresh_seeds_are_printed() -> None:
    result = _run(["--seeds", "1", "--instances", "2", "--only-faults", "none"])
    assert result.exit_code == 0, result.output
    assert re.search(r"^Seeds \d+ to \d+\.$", result.output, flags=re.M)


def test_a_story_is_told_with_times() -> None:
    result = _run(
        ["--start", "3", "--seeds", "1", "--instances", "3", "--only-faults", "none", "--story"]
    )
    assert re.search(r"^ 0:00:\d\d\.\d  ImagePublished 1\.1$", result.output, flags=re.M)
    assert "In the end: " in result.output


def test_an_unknown_fault_is_refused_with_the_known_ones() -> None:
    result = _run(["--without", "gremlins"])
    assert result.exit_code == 2
    assert "gremlins" in result.output
    assert "reordered" in result.output
