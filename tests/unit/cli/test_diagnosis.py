"""What doctor makes of facts: each fault by its name, and what mends it."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rollcall_cli.diagnosis import (
    FEED_FIXES,
    Direct,
    Facts,
    Finding,
    Queue,
    Reached,
    State,
    diagnose,
    is_well,
)
from rollcall_cli.doctor import findings_json

NOW = datetime(2026, 5, 2, 20, 30, tzinfo=UTC)
DOCS = Path(__file__).parents[3] / "docs"


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def feed(name: str = "own", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "url": "https://images",
        "checkedTime": ago(10),
        "error": None,
        **changes,
    }


def health(**changes: Any) -> dict[str, Any]:
    return {
        "version": "0.1.0",
        "time": NOW.isoformat(),
        "database": {"up": True, "time": NOW.isoformat()},
        "broker": {"up": True},
        "missingViews": [],
        "unpublished": 0,
        "hosts": [
            {"host": "host-1", "seenTime": ago(3), "instances": 5},
            {"host": "host-2", "seenTime": ago(4), "instances": 1},
        ],
        "feeds": [feed()],
        "configuredFeeds": [{"name": "own", "interval": 300}],
        **changes,
    }


WELL = Facts(
    url="https://server", reached=Reached.ANSWERS, seconds=0.012, here=NOW, there=NOW,
    health=health(),
)  # fmt: skip  # names and values
HERE = Direct(where="127.0.0.1:5432", source="ROLLCALL_DATABASE_URL", time=NOW)


def wrong(facts: Facts) -> list[Finding]:
    return [f for f in diagnose(facts) if f.state in (State.FAULT, State.WARNING)]


def test_nothing_is_wrong_with_a_sound_installation() -> None:
    findings = diagnose(WELL)
    assert {f.state for f in findings} == {State.OK}
    assert [f.check for f in findings] == [
        *("server", "login", "clock", "database", "broker", "services", "agents", "feeds"),
    ]
    assert findings[0].message == "https://server answers in 12 ms, version 0.1.0"
    assert findings_json(findings)["well"] is True


def with_health(**changes: Any) -> Facts:
    return replace(WELL, health=health(**changes))


@pytest.mark.parametrize(
    ("facts", "check", "message", "fix"),
    [
        (replace(WELL, reached=Reached.AWAY, message="refused", todo="start it", health=None),
         "server", "refused", "start it"),
        (replace(WELL, reached=Reached.UNTRUSTED, message="unknown authority", todo="--ca-file",
                 health=None),
         "tls", "unknown authority", "--ca-file"),
        (replace(WELL, reached=Reached.REFUSED, message="wrong token", todo="rollcall login",
                 health=None),
         "login", "wrong token", "rollcall login"),
        (replace(WELL, here=NOW + timedelta(minutes=10)),
         "clock", "this machine's clock is 10 min ahead of the server's", "time server"),
        (replace(WELL, here=NOW - timedelta(seconds=11)),
         "clock", "this machine's clock is 11 s behind the server's", "time server"),
        (with_health(database={"up": True, "time": ago(60)}),
         "clock", "the database's clock is 1 min behind http-api's", "time server"),
        (with_health(database={"up": False, "time": None, "message": "gone"}, hosts=None,
                     feeds=None, unpublished=None),
         "database", "http-api does not reach PostgreSQL (gone)", "start PostgreSQL"),
        (replace(WELL, health=None, ready=False,
                 missing=({"code": "DatabaseAway", "message": "gone", "target": "database"},)),
         "database", "http-api does not reach PostgreSQL (gone)", "start PostgreSQL"),
        (replace(WELL, database=replace(HERE, error="password authentication failed")),
         "database", "127.0.0.1:5432 (ROLLCALL_DATABASE_URL): password authentication failed",
         "start PostgreSQL"),
        (with_health(broker={"up": False}),
         "broker", "http-api does not reach RabbitMQ (no connection)", "start RabbitMQ"),
        (replace(WELL, broker=replace(HERE, error="refused")),
         "broker", "127.0.0.1:5432 (ROLLCALL_DATABASE_URL): refused", "start RabbitMQ"),
        (replace(WELL, queues=(Queue(name="orchestrator", messages=7, consumers=0, dead=0),)),
         "services", "nobody reads the queue orchestrator; 7 messages wait in it",
         "start orchestrator"),
        (with_health(missingViews=["image_view"]),
         "services", "missing in the database: image_view", "start orchestrator"),
        (with_health(hosts=[]), "agents", "no agent has ever reported", "ROLLCALL_HOST"),
        (with_health(hosts=[{"host": "host-1", "seenTime": ago(3), "instances": 5},
                            {"host": "host-2", "seenTime": ago(95), "instances": 1}]),
         "agents", "the agent of host-2 is silent for 1 min 35 s; 1 instance is on that host",
         "start instance-agent on host-2"),
        (with_health(hosts=[{"host": "host-1", "seenTime": ago(40), "instances": 5},
                            {"host": "host-2", "seenTime": ago(41), "instances": 1}]),
         "agents", "all 2 agents are silent, for 40 s", "orchestrator first"),
        (with_health(feeds=[feed(error={"code": "FeedSignatureInvalid",
                                        "message": "another key"})]),
         "feeds", "the feed own (https://images): FeedSignatureInvalid: another key", "attack"),
        (with_health(feeds=[feed(checkedTime=ago(1200))]),
         "feeds", "the feed own was last read 20 min ago, and should be every 5 min",
         "start image-publisher"),
        (with_health(feeds=[]), "feeds", "the feed own was never read", "start image-publisher"),
    ],
)  # fmt: skip  # a table
def test_a_fault_is_named_with_what_mends_it(
    facts: Facts, check: str, message: str, fix: str
) -> None:
    (finding,) = wrong(facts)
    assert (finding.check, finding.state) == (check, State.FAULT)
    assert message in finding.message
    assert fix in finding.fix
    assert not is_well(diagnose(facts))


@pytest.mark.parametrize(
    ("facts", "check", "message"),
    [
        (replace(WELL, here=NOW + timedelta(seconds=3)), "clock", "3 s ahead"),
        (replace(WELL, certificate_ends=NOW + timedelta(days=3)), "tls", "ends on 2026-05-05"),
        (with_health(configuredFeeds=[], feeds=[]), "feeds", "no image feed is configured"),
        (with_health(feeds=[feed(error={"code": "ImageTooLarge", "message": "1 TiB"})]), "feeds",
         "ImageTooLarge: 1 TiB"),
        (with_health(hosts=[{"host": "host-1", "seenTime": ago(3), "instances": 5,
                             "blindlyProbed": ["/subscriptions/s/sets/web"]}]),
         "agents", "the Tcp probe of web proves nothing on host-1"),
        (with_health(unpublished=5000), "services", "5000 entries of the event log wait"),
        (replace(WELL, queues=(Queue(name="orchestrator", messages=0, consumers=1, dead=2),)),
         "services", "orchestrator.dead holds 2 messages that nobody could handle"),
        (replace(WELL, reached=Reached.FORBIDDEN, message="needs reader", health=None, ready=True),
         "login", "needs reader"),
    ],
)  # fmt: skip  # a table
def test_what_is_only_unwise_is_a_warning(facts: Facts, check: str, message: str) -> None:
    (finding,) = wrong(facts)
    assert (finding.check, finding.state) == (check, State.WARNING)
    assert message in finding.message
    assert finding.fix
    assert is_well(diagnose(facts))


def test_what_could_not_be_looked_at_is_said() -> None:
    away = replace(WELL, reached=Reached.AWAY, message="refused", health=None, there=None)
    unknown = {f.check for f in diagnose(away) if f.state is State.UNKNOWN}
    assert unknown == {"database", "broker", "services", "agents", "feeds"}
    seen = diagnose(replace(away, database=HERE, broker=replace(HERE, error="refused")))
    states = {f.check: f.state for f in seen}
    assert states["database"] is State.OK
    assert states["broker"] is State.FAULT


def test_a_database_that_answers_here_and_not_there_is_told_so() -> None:
    facts = with_health(database={"up": False, "time": None, "message": ""}, hosts=None, feeds=None)
    (finding,) = wrong(replace(facts, database=HERE))
    assert finding.message == (
        "http-api does not reach PostgreSQL; from here 127.0.0.1:5432 answers"
    )


def test_every_error_of_a_feed_has_its_remedy() -> None:
    text = (DOCS / "feeds.md").read_text()
    section = text.split("**Of the whole feed:**")[1].split("**Of one version:**")[0]
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == set(FEED_FIXES)
