"""What an HTTP answer says of an application's health (section 1.6: binary and rich)."""

import pytest
from health_prober.domain.answer import BODY_LIMIT, read_answer
from hypothesis import given
from hypothesis import strategies as st
from rollcall_contracts.model import Health


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        # binary
        (200, b"", Health.HEALTHY),
        (200, b"OK", Health.HEALTHY),
        (200, b'{"status": "down"}', Health.HEALTHY),
        (200, b"\xff\xfe not text", Health.HEALTHY),
        (201, b"", Health.UNHEALTHY),
        (204, b"", Health.UNHEALTHY),
        (302, b"", Health.UNHEALTHY),
        (404, b"", Health.UNHEALTHY),
        (503, b"", Health.UNHEALTHY),
        # rich
        (200, b'{"ApplicationHealthState": "Healthy"}', Health.HEALTHY),
        (200, b'{"ApplicationHealthState": "Unhealthy"}', Health.UNHEALTHY),
        (200, b'{"ApplicationHealthState": "Initializing"}', Health.INITIALIZING),
        (200, b'{"ApplicationHealthState": "Unknown"}', Health.UNKNOWN),
        (202, b'{"ApplicationHealthState": "Healthy"}', Health.HEALTHY),
        (200, b' \n{"applicationhealthstate": " hEALTHY "}', Health.HEALTHY),
        (200, b'{"ApplicationHealthState": "Busy"}', Health.UNKNOWN),
        (200, b'{"ApplicationHealthState": ""}', Health.UNKNOWN),
        (200, b'{"ApplicationHealthState": null}', Health.UNKNOWN),
        (200, b'{"ApplicationHealthState": ["Healthy"]}', Health.UNKNOWN),
        (200, b'{"a": {"ApplicationHealthState": "Unhealthy"}}', Health.HEALTHY),  # not the top
        (200, b'{"ApplicationHealthState": ' + b"[" * 400 + b"]" * 400 + b"}", Health.UNKNOWN),
        # what the body says does not outweigh the status
        (500, b'{"ApplicationHealthState": "Healthy"}', Health.UNHEALTHY),
        # not JSON after all
        (200, b'{"ApplicationHealthState": "Unhealthy"', Health.HEALTHY),
        (200, b'{"ApplicationHealthState": ' + b'{"a":' * 10_000, Health.HEALTHY),
        # too long to know
        (200, b"x" * (BODY_LIMIT + 1), Health.HEALTHY),
        (200, b'{"x": "' + b"x" * BODY_LIMIT, Health.UNKNOWN),
    ],
)
def test_table(status: int, body: bytes, expected: Health) -> None:
    assert read_answer(status, body).health is expected


@given(st.integers(100, 599), st.binary(max_size=200))
def test_any_answer_has_a_meaning_and_a_reason(status: int, body: bytes) -> None:
    answer = read_answer(status, body)
    assert str(status) in answer.reason
    assert answer.health is not Health.HEALTHY or 200 <= status < 300
