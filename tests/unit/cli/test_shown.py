"""What an operator sees of explanations, plans and replays, and what the commands say to slips."""

import json
import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType
from rollcall_cli import explain, plan, replay
from rollcall_cli.main import app
from rollcall_cli.moments import length, local
from rollcall_cli.session import Session
from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode, RollingPolicy
from rollcall_rollout import Fleet
from rollcall_rollout.state import Hold
from rollcall_simulator.engine import Answers, Behaviour, run
from rollcall_simulator.pace import pace
from rollcall_simulator.planning import Plan, Wish
from rollcall_simulator.planning import plan as planned
from rollcall_simulator.recording import LogEntry, Record, read_record
from rollcall_simulator.replaying import replay as replayed
from rollcall_simulator.snapshot import Snapshot
from rollcall_testing.fleets import SET, START, fleet, image, spec
from typer.testing import CliRunner

HOLDS = {"1.1": Hold(by_set="/sets/db", upgrade_id="u", error=Failure(code="F", message="bad"))}
NOW = datetime(2026, 5, 2, 20, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _utc(utc: None) -> None:
    """Read the clock of a machine in UTC."""


def text_of(shown: RenderableType) -> str:
    console = Console(width=200, record=True, file=StringIO())
    console.print(shown)
    return console.export_text()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (-5, "0 s"), (0.23, "0.2 s"), (9, "9 s"), (9.96, "10 s"), (59.6, "1 min"),
        (61, "1 min 1 s"), (3600, "1 h"), (3725, "1 h 2 min"), (3605, "1 h"), (90061, "1 d 1 h"),
    ],
)  # fmt: skip  # a table
def test_durations_are_read_at_a_glance(seconds: float, words: str) -> None:
    assert length(seconds) == words
    assert length(timedelta(seconds=seconds)) == words


def test_a_time_of_another_day_has_its_date() -> None:
    assert local(NOW + timedelta(hours=1), NOW) == "21:30:00"
    assert local(NOW + timedelta(hours=4), NOW) == "2026-05-03 00:30:00"


def explanation(**changes: Any) -> Mapping[str, Any]:
    upgrade: dict[str, Any] = {
        "id": "5b1f",
        "status": "RollingForward",
        "startedBy": "Platform",
        "startTime": (NOW - timedelta(minutes=5)).isoformat(),
        "endTime": None,
        "error": None,
        "targetImageReference": {"version": "2.0.0"},
        "progress": {
            "successfulInstanceCount": 1,
            "failedInstanceCount": 0,
            "inProgressInstanceCount": 1,
            "pendingInstanceCount": 3,
        },
        "batches": [{}],
    }
    decision = {"time": NOW.isoformat(), "type": "batch.held.v1", "reason": "[it] bakes"}
    parts: tuple[tuple[str | None, dict[str, Any]], ...] = (
        ("succeeded", {"health": "Healthy", "reason": "1 of 5"}),
        ("pending", {"health": "Healthy", "reason": "waits for its batch"}),
        ("upgrading", {"health": "Unknown", "reason": "1 of 5"}),
        (None, {"health": None, "reason": "was made after"}),
        ("failed", {"health": "Unhealthy", "reason": "no answer"}),
    )
    return {
        "sentence": "web is brought to 2.0.0: 1 of 5 instances are done.",
        "waitingFor": {"until": (NOW + timedelta(minutes=14)).isoformat()},
        "upgrade": upgrade,
        "decisions": [decision, {**decision, "type": "batch.started.v1", "batch": 1}],
        "instances": [
            {"id": str(id), "state": state, "batch": None, "version": "1.0.0", **rest}
            for id, (state, rest) in enumerate(parts)
        ],
        **changes,
    }


def test_an_explanation_begins_with_the_sentence_and_the_time() -> None:
    shown = text_of(explain.shown(explanation(), NOW, limit=40))
    lines = shown.splitlines()
    assert lines[0].startswith("web is brought to 2.0.0: 1 of 5 instances are done.")
    assert lines[1].startswith("Until 20:44:00 UTC (in 14 min).")
    assert "Upgrade to 2.0.0: RollingForward; started by Platform 20:25:00 UTC (5 min ago)" in shown
    assert "1 batch so far" in shown
    assert "batch started 1" in shown
    assert "[it] bakes" in shown  # no markup


def test_who_needs_a_look_comes_first_and_the_rest_is_counted() -> None:
    shown = text_of(explain.shown(explanation(), NOW, limit=3))
    rows = shown.split("Instances")[1].splitlines()[2:5]
    assert [row.split()[:2] for row in rows] == [
        ["4", "failed"],
        ["2", "upgrading"],
        ["0", "succeeded"],
    ]
    assert "… and 2 more: --all shows them." in shown


def test_a_set_without_an_upgrade_is_explained_too() -> None:
    bare = explanation(upgrade=None, decisions=[], instances=[], waitingFor={"until": None})
    shown = text_of(explain.shown(bare, NOW, limit=40))
    assert shown.strip() == "web is brought to 2.0.0: 1 of 5 instances are done."


def plan_of(value: Fleet, wish: Wish) -> Plan:
    snapshot = Snapshot(at=START, fleet=value, provisioning=(30, 40, 60), healthy=(5, 5, 5))
    return planned(snapshot, pace(snapshot.provisioning, snapshot.healthy), wish)


def test_a_plan_has_batches_times_and_what_stops_them() -> None:
    shown = text_of(plan.shown(plan_of(fleet(10, zones=("1", "2")), Wish(version="2.0"))))
    assert "web: to 2.0 takes 3 min 50 s from now, in 5 batches: Completed at 00:03:50" in shown
    assert "between 00:03:00 and 00:05:30" in shown
    assert "40 s (measured 3 times, mostly 30 s to 1 min)" in shown
    assert "1  0, 1" in shown
    assert "1 of 2 fail" in shown
    assert "In batch 1 it takes 1 of 2 instances" in shown
    assert "2.0 is not published" in shown


def test_a_plan_of_nothing_says_so() -> None:
    shown = text_of(plan.shown(plan_of(fleet(3), Wish())))
    assert shown.startswith("web: there is nothing to do. Nothing: the set follows version 1.0.")
    off = plan_of(fleet(3, versions=("1.0", "1.1"), automatic_os_upgrade=False), Wish())
    assert "automatic OS upgrade is switched off" in text_of(plan.shown(off))


def test_a_plan_that_does_not_end_says_what_it_waits_for() -> None:
    policy = RollingPolicy(upgrade_timeout=60, pause_time_between_batches=600)
    found = plan_of(fleet(10, policy=policy), Wish(version="2.0"))
    shown = text_of(plan.shown(found))
    assert "Faulted at 00:01:00" in shown
    assert "upgradeTimeout of 60 s" in shown
    assert not found.succeeds
    document = json.loads(json.dumps(plan.plan_json(found)))
    assert document["succeeds"] is False
    assert document["upgrades"][0]["error"]["code"] == FailureCode.UPGRADE_TIMEOUT


def test_a_plan_as_json_has_the_same() -> None:
    found = plan_of(fleet(10), Wish(version="2.0"))
    document = json.loads(json.dumps(plan.plan_json(found)))
    (upgrade,) = document["upgrades"]
    assert [batch["failuresToStop"] for batch in upgrade["batches"]] == [1, 1, 2, 2, None]
    assert document["end"] == upgrade["end"] == "2026-01-01T00:03:50+00:00"
    assert document["assumed"]["provisioning"]["samples"] == 3


def record(sick: tuple[str, ...] = ()) -> Record:
    """Return a recorded upgrade in which these instances did not become healthy."""

    def behave(id: str, request: e.HostRequest) -> Behaviour:
        bad = id in sick and isinstance(request, e.InstancesUpgradeRequested)
        return Behaviour(work=20, healthy=None if bad else 5)

    published = START + timedelta(hours=1)
    begun = Fleet(spec=spec(10), hosts=("host-1", "host-2"), images=(image("1.0"),))
    happening = (published, e.ImagePublished(image=image("1.1")))
    timeline = run(begun, Answers(instance=behave), start=START, happenings=[happening])
    model = e.ScaleSetChanged(scale_set=SET, spec=spec(10))
    entries = [LogEntry(time=START, event=model)]
    entries += [LogEntry(time=entry.at, event=entry.event) for entry in timeline.log]
    first = LogEntry(time=START, event=e.ImagePublished(image=image("1.0")))
    return read_record(entries, [first], timeline.ended[0].id, timeline.at)


def test_a_replay_shows_both_side_by_side() -> None:
    faulted = record(sick=("0",))
    same = text_of(replay.shown(replayed(faulted, faulted.started.policy)))
    assert "would have come to the same: Faulted after 1 batch and 5 min 50 s." in same
    lax = RollingPolicy(max_unhealthy_upgraded_instance_percent=100)
    other = replayed(faulted, lax)
    shown = text_of(replay.shown(other))
    assert "under this policy it would have been Completed after 5 batches" in shown
    assert "1 healthy, 1 not (0, 1)" in shown
    assert "8 instances were not reached" in shown
    document = json.loads(json.dumps(replay.replay_json(other)))
    assert (document["same"], document["succeeds"]) == (False, True)
    assert document["recorded"]["error"]["code"] == FailureCode.UNHEALTHY_UPGRADED
    assert document["unreached"] == ["2", "3", "4", "5", "6", "7", "8", "9"]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (fleet(5, versions=("1.0", "1.1")), 0),
        (fleet(5), 0),  # there is nothing to do
        (fleet(5, versions=("1.0", "1.1"), automatic_os_upgrade=False), 0),  # by hand it would
        (fleet(5, versions=("1.0", "1.1"), automatic_os_upgrade=False, holds=HOLDS), 1),
    ],
)
def test_the_exit_code_of_a_plan_says_whether_it_comes_to_a_good_end(
    monkeypatch: pytest.MonkeyPatch, value: Fleet, code: int
) -> None:
    snapshot = Snapshot(at=START, fleet=value, provisioning=(), healthy=())
    monkeypatch.setattr(plan, "_snapshot", lambda api, id: snapshot)
    monkeypatch.setattr(Session, "find", lambda session, name: SET)
    environment = {"ROLLCALL_API_TOKEN": "t", "ROLLCALL_URL": "http://127.0.0.1:9"}
    done = CliRunner().invoke(app, ["plan", "web", "--json"], env=environment)
    assert done.exit_code == code, done.output
    assert json.loads(done.stdout)["succeeds"] is (code == 0)


# --- slips ----------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def failed(*arguments: str, **environment: str) -> str:
    """Return what the command says when it cannot answer."""
    done = CliRunner().invoke(app, list(arguments), env=environment)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("command", [["explain", "web"], ["plan", "web"], ["replay", "5b1f"]])
def test_a_server_that_is_away_is_named(command: list[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    said = failed(*command, "--url", url, ROLLCALL_API_TOKEN="t")
    assert said.startswith(f"rollcall: the API at {url} cannot be reached")
    assert "ROLLCALL_URL" in said


def test_a_token_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    said = failed("explain", "web", "--token-file", str(tmp_path / "none"))
    assert str(tmp_path / "none") in said
    assert "ROLLCALL_API_TOKEN" in said


def test_an_address_that_is_none_is_named() -> None:
    assert "no address of an API" in failed(
        "explain", "web", "--url", "ftp://there", ROLLCALL_API_TOKEN="t"
    )


def test_a_policy_file_is_read_before_anybody_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("maxBatchPercent: 10\n")
    said = failed("plan", "web", "--policy", str(path), ROLLCALL_API_TOKEN="t")
    assert f"{path}: maxBatchPercent: is not known" in said
    assert "--set" in failed("replay", "latest", ROLLCALL_API_TOKEN="t")
