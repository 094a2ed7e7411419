"""The live grid: always within the terminal, every instance once, and true."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollcall_cli.exits import Exit
from rollcall_cli.grid import lines
from rollcall_cli.picture import ENDS, Cell, Mark, Picture, changes, picture

NOW = datetime(2026, 5, 2, 20, 30, tzinfo=UTC)
STATES = (None, "pending", "skipped", "upgrading", "provisioned", "succeeded", "failed", "restored")
PHASES = ("ready", "creating", "upgrading", "restoring", "deleting", "failed")
HEALTHS = ("Healthy", "Unhealthy", "Unknown", "Initializing")


def cell(id: int, **changes: Any) -> Cell:
    values: dict[str, Any] = {
        "id": str(id),
        "name": f"web{id}",
        "version": "1.0.0",
        "phase": "ready",
        "health": "Healthy",
        "result": "pending",
        "batch": None,
    }
    return Cell(**{**values, **changes})


def upgrade(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": "5b1f",
        "status": "RollingForward",
        "startedBy": "Platform",
        "startTime": (NOW - timedelta(minutes=2)).isoformat(),
        "endTime": None,
        "rollbackOf": None,
        "targetImageReference": {"version": "2.0.0"},
        "progress": {
            "successfulInstanceCount": 2,
            "failedInstanceCount": 1,
            "inProgressInstanceCount": 2,
            "pendingInstanceCount": 5,
        },
        "batches": [batch(1, end=True), batch(2)],
    }
    return {**values, **changes}


def batch(number: int, *, end: bool = False) -> dict[str, Any]:
    return {
        "number": number,
        "size": 2,
        "startTime": (NOW - timedelta(seconds=12)).isoformat(),
        "endTime": NOW.isoformat() if end else None,
        "succeeded": 2 if end else None,
        "failed": 0 if end else None,
    }


def shown(picture: Picture, width: int = 80, height: int = 24, **more: Any) -> list[str]:
    return [line.plain for line in lines(picture, NOW, width=width, height=height, **more)]


RUNNING = Picture(
    name="web",
    cells=(
        *(cell(i, version="2.0.0", result="succeeded", batch=1) for i in (0, 1)),
        cell(2, version="2.0.0", health="Unhealthy", result="provisioned", batch=2),
        cell(3, version="1.0.0", phase="upgrading", result="upgrading", batch=2),
        cell(4, version="1.0.0", health="Unhealthy"),
        *(cell(i) for i in range(5, 10)),
    ),
    upgrade=upgrade(),
    waiting_code="BatchInProgress",
    waiting="Batch 2 to 2.0.0: 0 of 2 are done. Waiting for instance 2 on host-1: not healthy yet "
    "(Unhealthy); instance 3 on host-2: its OS disk is being replaced. 5 instances remain.",
)


def test_it_says_what_goes_on() -> None:
    assert shown(RUNNING) == [
        "web: upgrade to 2.0.0 RollingForward, by Platform                          2 min",
        "████████▓▓▓▒▒▒▒▒▒▒▒░░░░░░░░░░░░░░░░░░░ 2 of 10 done, 1 failed, 2 at work, 5 wait",
        "batch 2: web2, web3 (2), since 12 s",
        "Batch 2 to 2.0.0: 0 of 2 are done. Waiting for instance 2 on host-1: not healthy",
        "yet (Unhealthy); instance 3 on host-2: its OS disk is being replaced. 5 …",
        "",
        "● web0 2.0.0 healthy    ● web1 2.0.0 healthy    ◌ web2 2.0.0 booting",
        "◌ web3 1.0.0 upgrading  ✗ web4 1.0.0 unhealthy  ○ web5 1.0.0 healthy",
        "○ web6 1.0.0 healthy    ○ web7 1.0.0 healthy    ○ web8 1.0.0 healthy",
        "○ web9 1.0.0 healthy",
        "",
        "● done   ○ waits   ◌ at work   ✗ failed",
    ]


def test_a_terminal_with_ascii_alone_gets_ascii() -> None:
    text = "\n".join(shown(RUNNING, ascii_only=True)).replace("…", "")  # of the server's sentence
    assert text.isascii()
    assert "~ web3 1.0.0 upgrading" in text
    assert "########xxx~~~~~~~~..................." in text


def test_without_an_upgrade_it_shows_the_set() -> None:
    idle = Picture(
        name="web",
        cells=(cell(0, result=None),),
        upgrade=None,
        waiting_code="UpToDate",
        waiting="Nothing: the set follows version 1.0.0.",
    )
    assert shown(idle)[:2] == ["web: no upgrade yet", "Nothing: the set follows version 1.0.0."]
    assert shown(idle)[3].startswith("● web0 1.0.0 healthy")


def test_trouble_has_a_line_of_its_own() -> None:
    assert "the API cannot be reached" in shown(RUNNING, note="the API cannot be reached")


def test_a_thousand_instances_are_signs_in_tens() -> None:
    many = Picture(
        name="web",
        cells=tuple(cell(i, result="succeeded" if i < 500 else "pending") for i in range(1000)),
        upgrade=upgrade(),
        waiting_code="",
        waiting="",
    )
    rows = [line for line in shown(many, height=30) if line.startswith("web") and ":" not in line]
    assert sum(row.count("●") + row.count("○") for row in rows) == 1000
    assert rows[0].startswith("web0   ●●●●●●●●●● ●●●●●●●●●●")
    assert rows[1].startswith("web60 ")
    few = shown(many, height=12)
    assert len(few) <= 12
    (more,) = [line for line in few if "more that do not fit" in line]
    signs = sum(line.count("●") + line.count("○") for line in few if line.startswith("web"))
    assert more == f"and {1000 - signs} more that do not fit"


cells = st.lists(
    st.builds(
        lambda version, phase, health, result: cell(
            0, version=version, phase=phase, health=health, result=result
        ),
        st.sampled_from(["1.0.0", "20240501.10", "-"]),
        st.sampled_from(PHASES),
        st.sampled_from(HEALTHS),
        st.sampled_from(STATES),
    ),
    max_size=150,
)


@given(cells=cells, width=st.integers(20, 200), height=st.integers(8, 60), ended=st.booleans())
def test_it_always_fits_and_shows_each_instance_once(
    cells: list[Cell], width: int, height: int, ended: bool
) -> None:
    numbered = tuple(
        Cell(**{**{n: getattr(c, n) for n in Cell.__slots__}, "id": str(i), "name": f"vm{i}"})
        for i, c in enumerate(cells)
    )
    found = Picture(
        name="web",
        cells=numbered,
        upgrade=upgrade(status="Faulted", endTime=NOW.isoformat()) if ended else upgrade(),
        waiting_code="X",
        waiting="word " * 60,
    )
    drawn = lines(found, NOW, width=width, height=height)
    assert len(drawn) <= height
    assert all(line.cell_len <= width for line in drawn)
    text = "\n".join(line.plain for line in drawn)
    if "do not fit" in text or len(drawn) == height:
        return  # some are hidden, and that is said or seen
    body = text.split("\n\n")[-2] if numbered else ""
    signs = sum(body.count(mark.sign(ascii_only=False)) for mark in Mark)
    assert signs == len(numbered)


@pytest.mark.parametrize(
    ("changed", "mark", "word"),
    [
        ({}, Mark.WAITS, "healthy"),
        ({"result": None}, Mark.DONE, "healthy"),
        ({"result": "succeeded"}, Mark.DONE, "healthy"),
        ({"result": "restored"}, Mark.WAITS, "put back"),
        ({"result": "failed"}, Mark.DONE, "failed"),
        ({"result": "failed", "health": "Unhealthy"}, Mark.SICK, "unhealthy"),
        ({"phase": "failed"}, Mark.SICK, "failed"),
        ({"phase": "creating", "result": None}, Mark.BUSY, "creating"),
        ({"phase": "restoring", "health": "Unhealthy", "result": "restoring"}, Mark.BUSY,
         "restoring"),
        ({"health": "Unknown", "result": None}, Mark.BUSY, "starting"),
        ({"health": "Unhealthy", "result": "provisioned"}, Mark.BUSY, "booting"),
    ],
)  # fmt: skip  # a table
def test_how_an_instance_is_at_a_glance(changed: dict[str, Any], mark: Mark, word: str) -> None:
    found = cell(0, **changed)
    assert (found.mark, found.word) == (mark, word)
    assert len(word) <= 9


def test_a_picture_is_made_of_the_apis_documents() -> None:
    explanation = {
        "waitingFor": {"code": "UpToDate", "message": "Nothing."},
        "upgrade": None,
        "instances": [{"id": "3", "state": "succeeded", "batch": 2}],
    }
    item = {
        "instanceId": "3",
        "name": "web_3",
        "properties": {
            "osProfile": {"computerName": "web3"},
            "storageProfile": {"imageReference": {"exactVersion": "2.0.0"}},
            "rollcall": {"phase": "ready", "health": "Healthy"},
        },
    }
    found = picture("web", explanation, [item])
    assert found.cells == (cell(3, version="2.0.0", result="succeeded", batch=2),)
    assert not found.is_running


# --- as lines -------------------------------------------------------------------------------------


def test_a_first_picture_tells_all_that_runs() -> None:
    assert list(changes(None, RUNNING)) == [
        "web: upgrade to 2.0.0, started by Platform, 10 instances",
        "batch 1: 2 instances (web0, web1)",
        "batch 1 done: 2 healthy, 0 failed",
        "batch 2: 2 instances (web2, web3)",
        RUNNING.waiting,
    ]


def test_later_ones_tell_what_is_new() -> None:
    later = Picture(
        name="web",
        cells=(
            *RUNNING.cells[:2],
            cell(2, version="2.0.0", result="succeeded", batch=2),
            *RUNNING.cells[3:9],
        ),
        upgrade=upgrade(batches=[batch(1, end=True), batch(2, end=True)]),
        waiting_code="Paused",
        waiting="It is paused.",
    )
    assert list(changes(RUNNING, later)) == [
        "batch 2 done: 2 healthy, 0 failed",
        "web2 2.0.0 healthy",
        "web9 is gone",
        "It is paused.",
    ]
    assert list(changes(later, later)) == []


def test_an_ended_upgrade_is_no_news() -> None:
    ended = Picture(
        name="web",
        cells=RUNNING.cells,
        upgrade=upgrade(status="Completed", endTime=NOW.isoformat()),
        waiting_code="UpToDate",
        waiting="Nothing: it follows 2.0.0.",
    )
    assert list(changes(None, ended)) == [
        "web: 10 instances; no upgrade runs. Nothing: it follows 2.0.0."
    ]


def test_an_upgrade_that_nobody_saw_run_is_told_whole() -> None:
    idle = Picture(
        name="web", cells=RUNNING.cells, upgrade=None, waiting_code="UpToDate", waiting="Nothing."
    )
    batches = [batch(1, end=True), batch(2, end=True)]
    ended = Picture(
        name="web",
        cells=RUNNING.cells,
        upgrade=upgrade(status="Completed", endTime=NOW.isoformat(), batches=batches),
        waiting_code="UpToDate",
        waiting="Nothing.",
    )
    assert list(changes(idle, ended)) == [
        "web: upgrade to 2.0.0, started by Platform, 10 instances",
        "batch 1: 2 instances (web0, web1)",
        "batch 1 done: 2 healthy, 0 failed",
        "batch 2: 2 instances (web2, web3)",
        "batch 2 done: 2 healthy, 0 failed",
    ]


def test_each_end_has_its_code() -> None:
    assert ENDS == {
        "Completed": Exit.DONE, "Faulted": Exit.FAULTED, "Cancelled": Exit.CANCELLED
    }  # fmt: skip  # a table
