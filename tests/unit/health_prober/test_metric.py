"""What a Prometheus server's answer means for a metric gate.

`prometheus-2.42.json` holds answers of a real server; what it never answers is written here.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from health_prober.domain.metric import BODY_LIMIT, judge_metric
from hypothesis import given
from hypothesis import strategies as st
from rollcall_contracts.model import MetricGate, MetricOutcome

S, F, I, U = (  # noqa: E741 (a table of outcomes)
    MetricOutcome.SUCCESS,
    MetricOutcome.FAILURE,
    MetricOutcome.INCONCLUSIVE,
    MetricOutcome.UNREACHABLE,
)
RECORDED = {
    one["name"]: (one["status"], one["body"].encode())
    for one in json.loads(Path(__file__).with_name("prometheus-2.42.json").read_text())
}


def gate(success: str = "<= 0.01", failure: str | None = None) -> MetricGate:
    return MetricGate(
        server="http://127.0.0.1:9090",
        query="q",
        success_condition=success,
        failure_condition=failure,
    )


OF_RECORDED = [
    ("scalar", F, 1.0, "1 <= 0.01 is not so"),
    ("one", F, 1.0, "1 <= 0.01 is not so"),
    ("one_labels", F, 1.0, "1 <= 0.01 is not so"),
    ("small", S, 1.2345e-08, "1.2345e-08 <= 0.01"),
    ("big", F, 1e300, "1e+300 <= 0.01 is not so"),
    ("inf", F, None, "+Inf <= 0.01 is not so"),
    ("neginf", S, None, "-Inf <= 0.01"),
    ("nan", I, None, "the query gives NaN, as a division of nothing by nothing does"),
    ("empty", I, None, "the query gives no sample; one is needed"),
    ("several", I, None, "the query gives 2 samples; one is needed"),
    ("matrix", I, None, "the query gives a matrix; one number is needed"),
    ("string", I, None, "the query gives a string; one number is needed"),
    (
        "bad",
        I,
        None,
        'HTTP 400: bad_data: invalid parameter "query": 1:7: parse error: '
        "unclosed left parenthesis",
    ),
    ("missing", I, None, None),
    ("unexec", I, None, None),
    ("timeout", U, None, "HTTP 503: timeout: query timed out in query execution"),
]


@pytest.mark.parametrize(("name", "outcome", "value", "reason"), OF_RECORDED)
def test_recorded_answers(
    name: str, outcome: MetricOutcome, value: float | None, reason: str | None
) -> None:
    answer = judge_metric(*RECORDED[name], gate())
    assert (answer.outcome, answer.value) == (outcome, value)
    assert reason is None or answer.reason == reason


def test_every_recorded_answer_is_in_the_table() -> None:
    assert {row[0] for row in OF_RECORDED} == set(RECORDED)


def vector(*numbers: Any, **more: Any) -> bytes:
    samples = [{"metric": {"n": str(n)}, "value": [1.5, v]} for n, v in enumerate(numbers)]
    data = {"resultType": "vector", "result": samples}
    return json.dumps({"status": "success", "data": data, **more}).encode()


@pytest.mark.parametrize(
    ("number", "success", "failure", "outcome", "reason"),
    [
        # exactly at the condition's number
        ("0.01", "<= 0.01", None, S, "0.01 <= 0.01"),
        ("0.01", "< 0.01", None, F, "0.01 < 0.01 is not so"),
        ("0.010000001", "<= 0.01", None, F, "0.010000001 <= 0.01 is not so"),
        ("0", "== 0", None, S, "0 == 0"),
        ("-0", "== 0", None, S, "-0 == 0"),
        ("0", "!= 0", None, F, "0 != 0 is not so"),
        ("99.95", ">= 99.9", None, S, "99.95 >= 99.9"),
        ("99.8", "> 99.9", None, F, "99.8 > 99.9 is not so"),
        ("5", "<=-5e-1", None, F, "5 <=-5e-1 is not so"),
        # two conditions
        ("0.005", "<= 0.01", "> 0.05", S, "0.005 <= 0.01"),
        ("0.06", "<= 0.01", "> 0.05", F, "0.06 > 0.05"),
        ("0.03", "<= 0.01", "> 0.05", I, "neither 0.03 <= 0.01 nor 0.03 > 0.05"),
        ("0.03", "<= 0.1", "> 0.02", F, "0.03 > 0.02"),  # both hold: failure outweighs
        # NaN is never compared, not even as different
        ("NaN", "!= 0", None, I, None),
        ("nan", "<= 1", "> 1", I, None),
        ("+Inf", "> 3", None, S, "+Inf > 3"),
        ("Inf", "<= 3", "> 3", F, "+Inf > 3"),
    ],
)
def test_conditions(
    number: str, success: str, failure: str | None, outcome: MetricOutcome, reason: str | None
) -> None:
    answer = judge_metric(200, vector(number), gate(success, failure))
    assert answer.outcome is outcome
    assert reason is None or answer.reason == reason


ERROR = b'{"status":"error","errorType":"%s","error":"told why"}'


@pytest.mark.parametrize(
    ("status", "body", "outcome", "reason"),
    [
        # a number that may be wrong
        (200, vector("0", warnings=["store 2 did not answer"]), I, "did not answer"),
        (200, vector("0", warnings=["PromQL info: no counter", "and more"]), I, "and more"),
        (200, vector("0", warnings=["PromQL info: metric might not be a counter"]), S, "0 <="),
        (200, vector("0", infos=["metric might not be a counter"]), S, "0 <= 0.01"),
        (200, vector("0", warnings=[]), S, "0 <= 0.01"),
        (200, vector("0", warnings=None), S, "0 <= 0.01"),
        # no number
        (200, vector("five"), I, "'five', no number"),
        (200, vector(5), I, "without a number"),
        (200, vector(None), I, "without a number"),
        (200, vector([1]), I, "without a number"),
        (
            200,
            b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},'
            b'"histogram":[1.5,{"count":"1","sum":"2"}]}]}}',
            I,
            "histogram",
        ),
        (
            200,
            b'{"status":"success","data":{"resultType":"scalar","result":["0"]}}',
            I,
            "without a number",
        ),
        (200, b'{"status":"success","data":{"resultType":"vector"}}', I, "one number"),
        (200, b'{"status":"success","data":{"resultType":"vector","result":[0]}}', I, "without"),
        # refused
        (400, ERROR % b"bad_data", I, "HTTP 400: bad_data: told why"),
        (422, ERROR % b"execution", I, "HTTP 422: execution: told why"),
        (200, ERROR % b"execution", I, "HTTP 200: execution: told why"),
        (400, b'{"status":"error"}', I, "does not say"),
        # the server, or our access to it
        (401, ERROR % b"unauthorized", U, "HTTP 401"),
        (403, b"", U, "HTTP 403"),
        (429, ERROR % b"too_many_requests", U, "HTTP 429"),
        (500, ERROR % b"internal", U, "HTTP 500: internal: told why"),
        (502, b"<html>bad gateway</html>", U, "HTTP 502"),
        (404, b"404 page not found", U, "HTTP 404"),
        (302, b"", U, "HTTP 302"),
        (302, vector("0"), U, "HTTP 302"),
        (503, vector("0"), U, "HTTP 503"),
        # another program
        (200, b"", U, "no answer of a Prometheus server"),
        (200, b"OK", U, "no answer of a Prometheus server"),
        (200, b'{"status":"success"}', U, "no answer of a Prometheus server"),
        (200, b'{"status":"success","data":{"id":7}}', U, "no answer of a Prometheus server"),
        (200, b'{"status":"up"}', U, "no answer of a Prometheus server"),
        (200, b'{"status":["success"]}', U, "no answer of a Prometheus server"),
        (200, b'["success"]', U, "no answer of a Prometheus server"),
        # hostile
        (200, b'{"status":"success","data":' + b"[" * 100_000, U, "no answer"),
        (200, b" " * (BODY_LIMIT + 1), U, "more than"),
        (200, vector("9" * 100_000), F, "+Inf <= 0.01 is not so"),
        (400, b'{"status":"error","error":"' + b"x" * 9999 + b'"}', I, "xxx…"),
        (400, b'{"status":"error","error":"one\\ntwo\\u0000\\ud800."}', I, "one two ."),
        (400, b'{"status":"error","errorType":7,"error":{"a":1}}', I, "does not say"),
    ],
)
def test_documents(status: int, body: bytes, outcome: MetricOutcome, reason: str) -> None:
    answer = judge_metric(status, body, gate())
    assert answer.outcome is outcome, answer
    assert reason in answer.reason
    assert len(answer.reason) < 1000
    assert answer.reason.isprintable()


@given(st.floats(), st.floats(-1e6, 1e6).map(lambda x: round(x, 3)))
def test_one_condition_is_met_or_not_met_by_every_number(number: float, bound: float) -> None:
    answer = judge_metric(200, vector(repr(number)), gate(f"<= {bound:.3f}"))
    if math.isnan(number):
        assert answer.outcome is I
    else:
        assert answer.outcome is (S if number <= bound else F)
        assert answer.value == (number if math.isfinite(number) else None)


@given(st.integers(100, 599), st.binary(max_size=200))
def test_any_answer_has_an_outcome_and_a_reason(status: int, body: bytes) -> None:
    answer = judge_metric(status, body, gate())
    assert answer.outcome in (I, U)
    assert answer.reason
