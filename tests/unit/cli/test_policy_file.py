"""A policy from a file: the API's words, and every slip named with the file and the key."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from http_api.domain.fields import to_json
from http_api.domain.policy import policy_from_json
from hypothesis import given
from hypothesis import strategies as st
from rollcall_cli.policy_file import PolicyFileError, read_policy_file
from rollcall_contracts.model import Drain, GateAnswer, MetricGate, RollingPolicy

EVERYTHING = {
    "maxBatchInstancePercent": 40,
    "maxUnhealthyInstancePercent": 50,
    "pauseTimeBetweenBatches": "PT5M",
    "healthTimeout": 90.5,
    "enableCrossZoneUpgrade": True,
    "upgradeTimeout": "P1DT2H",
    "canaryInstanceCount": 1,
    "drain": {"requestPath": "/drain", "deadline": "PT30S"},
    "metricGate": {
        "server": "http://prometheus:9090",
        "query": "errors",
        "successCondition": "< 1",
        "onInconclusive": "Fault",
        "interval": 30,
    },
}


def write(folder: Path, document: Any, name: str = "policy.json") -> Path:
    path = folder / name
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_text(text)
    return path


@pytest.mark.parametrize("form", ["json", "yaml", "whole"])
def test_json_and_yaml_say_the_same(tmp_path: Path, form: str) -> None:
    document: Any = EVERYTHING
    if form == "yaml":
        document = yaml.safe_dump(EVERYTHING)
    if form == "whole":
        document = {"rollingUpgradePolicy": EVERYTHING, "maintenanceWindows": []}
    file = read_policy_file(write(tmp_path, document, "any"))
    assert file.over(RollingPolicy()) == RollingPolicy(
        max_batch_instance_percent=40,
        max_unhealthy_instance_percent=50,
        pause_time_between_batches=300,
        health_timeout=90.5,
        enable_cross_zone_upgrade=True,
        upgrade_timeout=26 * 3600,
        canary_instance_count=1,
        drain=Drain(request_path="/drain", deadline=30),
        metric_gate=MetricGate(
            server="http://prometheus:9090",
            query="errors",
            success_condition="< 1",
            on_inconclusive=GateAnswer.FAULT,
            interval=30,
        ),
    )
    assert file.windows == (() if form == "whole" else None)


def test_what_is_left_out_stays_and_null_is_the_default(tmp_path: Path) -> None:
    own = RollingPolicy(max_batch_instance_percent=10, bake_time=60, canary_instance_count=2)
    file = read_policy_file(write(tmp_path, {"bakeTime": None, "canaryInstanceCount": 1}))
    assert file.over(own) == RollingPolicy(max_batch_instance_percent=10, canary_instance_count=1)


@given(
    batch=st.integers(5, 100),
    pause=st.floats(0, 30 * 86400).map(lambda value: round(value, 3)),
    drain=st.none() | st.just(Drain(request_path="/d", deadline=12.5)),
    timeout=st.none() | st.floats(1, 86400).map(lambda value: round(value, 3)),
)
def test_what_the_api_shows_is_read_as_the_api_reads_it(
    tmp_path_factory: pytest.TempPathFactory,
    batch: int,
    pause: float,
    drain: Drain | None,
    timeout: float | None,
) -> None:
    policy = RollingPolicy(
        max_batch_instance_percent=batch,
        max_unhealthy_instance_percent=100,
        pause_time_between_batches=pause,
        drain=drain,
        upgrade_timeout=timeout,
    )
    shown = to_json(policy)
    path = write(tmp_path_factory.getbasetemp(), shown)
    assert read_policy_file(path).over(RollingPolicy()) == policy_from_json(shown) == policy


def test_windows_are_in_the_apis_words(tmp_path: Path) -> None:
    window = {
        "startDateTime": "2026-05-01 22:00",
        "timeZone": "Europe/Berlin",
        "duration": "05:30",
        "recurEvery": "2Weeks Saturday,Sunday",
        "expirationDateTime": "2027-05-01 00:00",
    }
    file = read_policy_file(write(tmp_path, {"maintenanceWindows": [window]}))
    assert file.values == {}
    assert file.windows is not None
    (read,) = file.windows
    assert (read.duration, read.recur_every, read.interval) == (5.5 * 3600, "Week", 2)
    assert read.weekdays == (5, 6)
    assert read.expires is not None


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"maxBatchInstancePercnt": 20}, "did you mean maxBatchInstancePercent"),
        ({"nonsense": 1}, "nonsense: is not known; known are maxBatchInstancePercent"),
        ({"max_batch_instance_percent": 20}, "max_batch_instance_percent: is not known"),
        ({"rollingUpgradePolicy": {}, "bakeTime": 1}, "bakeTime: is not known"),
        ({"drain": {"requestPath": "/d", "dead": 1}}, "drain.dead: is not known"),
        ({"drain": {}}, "drain.requestPath: Field required"),
        ({"drain": "soon"}, "drain: must be an object, but is 'soon'"),
        ({"maxBatchInstancePercent": "20"}, "maxBatchInstancePercent: must be a whole number"),
        ({"maxBatchInstancePercent": True}, "must be a whole number, but is True"),
        ({"maxBatchInstancePercent": 3}, "maxBatchInstancePercent: Input should be greater"),
        ({"maxBatchInstancePercent": 60}, "must not be above maxUnhealthyInstancePercent"),
        ({"enableCrossZoneUpgrade": 1}, "enableCrossZoneUpgrade: must be true or false"),
        ({"bakeTime": "5 minutes"}, "bakeTime: '5 minutes' is no ISO 8601 duration"),
        ({"bakeTime": "PT"}, "is no ISO 8601 duration"),
        ({"metricGate": {"server": "x", "query": "q", "successCondition": "<1"}}, "metricGate"),
        ({"maintenanceWindows": {}}, "maintenanceWindows: must be a list"),
        ({"maintenanceWindows": [{}]}, r"maintenanceWindows\[0\].startDateTime: is required"),
        ("[1, 2]", "must be an object"),
        ("{", "no JSON at line 1"),
        ("a: b: c", "no YAML at line 1"),
        ("", "the file is empty"),
    ],
)
def test_slips_are_named_with_file_and_key(tmp_path: Path, document: Any, message: str) -> None:
    path = write(tmp_path, document)
    with pytest.raises(PolicyFileError, match=message) as caught:
        read_policy_file(path).over(RollingPolicy())
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration": 600}, r"\[0\].duration: must be a text: write 600 in quotes"),
        ({"duration": "long"}, "nor hours and minutes such as 05:00"),
        ({"duration": "PT1S"}, r"\[0\]: duration: Input should be greater"),
        ({"timeZone": "Berlin"}, "is no time zone of the IANA database"),
        ({"startDateTime": "tonight"}, r"startDateTime: must be a local time"),
        ({"recurEvery": "Month"}, "recurEvery: must be such as Day"),
        ({"recurEvery": "Day Monday"}, "recurEvery: must be such as Day"),
        ({"start": "x"}, "start: is not known; known are startDateTime"),
    ],
)
def test_slips_in_windows_are_named(tmp_path: Path, change: Any, message: str) -> None:
    window = {"startDateTime": "2026-05-01 22:00", "timeZone": "UTC", "duration": "05:00", **change}
    with pytest.raises(PolicyFileError, match=message):
        read_policy_file(write(tmp_path, {"maintenanceWindows": [window]}))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyFileError, match=r"none\.yaml.*cannot be read: No such file"):
        read_policy_file(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyFileError, match="it is no text"):
        read_policy_file(tmp_path / "binary")
