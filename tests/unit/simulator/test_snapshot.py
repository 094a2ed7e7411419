"""A fleet goes through the server's rows and comes back so that the rules decide the same."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from orchestrator import rows
from rollcall_contracts import events as e
from rollcall_contracts.model import Health, LifecycleHook, LifecycleHookType, RollingPolicy
from rollcall_rollout import Fleet
from rollcall_simulator.agenda import START
from rollcall_simulator.engine import Answers, Behaviour, run
from rollcall_simulator.snapshot import SnapshotError, read_snapshot
from rollcall_testing.fleets import fleet, healthy

# What the views leave out of the orchestrator's tables.
NOT_IN_VIEW = ("lease", "probed_until")


def state_of(value: Fleet, seconds: float = 0) -> dict[str, Any]:
    """Return the document that the server would give of a fleet, through JSON."""
    scale_set, upgrade = value.spec.scale_set, value.upgrade
    shown: dict[str, Any] | None = None
    if upgrade is not None:
        row = rows.upgrade_row(scale_set, upgrade)
        members = [rows.member_row(upgrade.id, member) for member in upgrade.members.values()]
        shown = {**row, "puts_back": row["restore_failed"], "restore_failed": 0, "members": members}
    hook = rows.hook_column(value.hook)
    document = {
        "time": (START + timedelta(seconds=seconds)).isoformat(),
        "spec": value.spec.model_dump(mode="json"),
        "instances": [
            {k: v for k, v in rows.instance_row(scale_set, i).items() if k not in NOT_IN_VIEW}
            for i in value.instances.values()
        ],
        "images": [image.model_dump(mode="json") for image in value.images],
        "upgrade": shown,
        "barredVersion": value.barred_version,
        "lastVersion": value.last_version,
        "batchSeconds": list(value.batch_seconds),
        "held": {"version": value.held[0], **value.held[1].model_dump()} if value.held else None,
        "hook": json.loads(hook) if hook else None,
        "startRequested": value.start_requested,
        "rollbackRequested": value.rollback_requested,
        "holds": [],
        "durations": {"provisioning": [30.5, 40], "healthy": []},
    }
    result: dict[str, Any] = json.loads(json.dumps(document))
    return result


def host(name: str, *, silent: float = 0, **fields: object) -> Mapping[str, Any]:
    seen = (START - timedelta(seconds=silent)).isoformat()
    return {"host": name, "seenTime": seen, "capacity": None, "instances": 5, **fields}


@pytest.mark.parametrize("cut", [3, 6, 20, 36, 70, 95, 130, 200])
@pytest.mark.parametrize(
    "policy",
    [RollingPolicy(), RollingPolicy(sliding_batches=True), RollingPolicy(max_surge=True)],
    ids=("plain", "sliding", "surge"),
)
def test_what_is_read_back_goes_on_as_it_would_have(cut: float, policy: RollingPolicy) -> None:
    def slow(id: str, request: e.HostRequest) -> Behaviour:
        return Behaviour(work=30 + int(id), healthy=None if id == "4" else 5)

    hook = LifecycleHook(type=LifecycleHookType.BATCH_STARTING, wait_duration=600)
    begun = fleet(10, versions=("1.0", "1.1"), policy=policy, lifecycle_hooks=(hook,))
    whole = run(begun, Answers(instance=slow))
    half = run(begun, Answers(instance=slow), until=timedelta(seconds=cut)).fleet
    snapshot = read_snapshot(state_of(half, cut), [host("host-1"), host("host-2")])
    rest = run(snapshot.fleet, Answers(instance=slow), start=snapshot.at)
    assert [(u.id, u.status, u.ended_at) for u in rest.ended] == [
        (u.id, u.status, u.ended_at) for u in whole.ended
    ]
    assert {id: i.version for id, i in rest.fleet.instances.items()} == {
        id: i.version for id, i in whole.fleet.instances.items()
    }


def test_health_and_durations_are_taken_over() -> None:
    begun = fleet(3)
    sick = healthy("2", health=Health.UNHEALTHY)
    begun = Fleet(spec=begun.spec, instances={**begun.instances, "2": sick}, images=begun.images)
    snapshot = read_snapshot(state_of(begun))
    assert [i.is_healthy for i in snapshot.fleet.instances.values()] == [True, True, False]
    assert snapshot.fleet.next_id == 3
    assert (snapshot.provisioning, snapshot.healthy) == ((30.5, 40.0), ())
    assert snapshot.at == START


def test_silent_hosts_have_no_room() -> None:
    hosts = [host("host-1", capacity=9), host("host-2", silent=31), host("host-3")]
    snapshot = read_snapshot(state_of(fleet(2)), hosts)
    assert snapshot.fleet.hosts == ("host-1", "host-3")
    assert snapshot.fleet.room == {"host-1": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": {"scale_set": "x"}}, "location"),
        ({"instances": [{"id": "0"}]}, "host"),
        ({"time": "yesterday"}, "datetime"),
    ],
)
def test_what_is_no_state_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        read_snapshot({**state_of(fleet(2)), **change})


def test_an_older_server_is_named() -> None:
    document = state_of(fleet(2))
    del document["batchSeconds"]
    with pytest.raises(SnapshotError, match="batchSeconds"):
        read_snapshot(document)
