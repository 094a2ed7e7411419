"""What an application says of its part in upgrades (section 1.3: custom metrics)."""

import json
from typing import Any

import pytest
from health_prober.domain.answer import BODY_LIMIT, read_answer
from health_prober.domain.custom_metrics import NO_WISH, Wish, wish_of
from hypothesis import given
from hypothesis import strategies as st
from rollcall_contracts.model import Health

DEEP = "[" * 20_000


def metrics(upgrade: Any) -> dict[str, Any]:
    return {"customMetrics": json.dumps({"rollingUpgrade": upgrade})}


@pytest.mark.parametrize(
    ("document", "phase", "skip"),
    [
        # as Azure's page has it
        (metrics({"PhaseOrderingNumber": 0, "SkipUpgrade": False}), 0, False),
        (metrics({"PhaseOrderingNumber": 3, "SkipUpgrade": True}), 3, True),
        # the page's other spellings
        ({"CustomMetrics": '{"RollingUpgrade":{"SkipUpgrade":"true"}}'}, None, True),
        ({"custommetrics": '{"rollingupgrade":{"phaseorderingnumber":"7"}}'}, 7, False),
        (metrics({"PhaseOrderingNumber": " 12 ", "SkipUpgrade": "FALSE"}), 12, False),
        (metrics({"PhaseOrderingNumber": 2.0, "SkipUpgrade": 1}), 2, True),
        (metrics({"PhaseOrderingNumber": -1, "SkipUpgrade": 0}), -1, False),
        ({"customMetrics": {"rollingUpgrade": {"PhaseOrderingNumber": 4}}}, 4, False),
        # one of the two makes no sense: the other still counts
        (metrics({"PhaseOrderingNumber": "first", "SkipUpgrade": True}), None, True),
        (metrics({"PhaseOrderingNumber": 5, "SkipUpgrade": "maybe"}), 5, False),
        (metrics({"PhaseOrderingNumber": 1.5}), None, False),
        (metrics({"PhaseOrderingNumber": True}), None, False),
        (metrics({"PhaseOrderingNumber": "true"}), None, False),
        (metrics({"PhaseOrderingNumber": None, "SkipUpgrade": None}), None, False),
        (metrics({"PhaseOrderingNumber": [1], "SkipUpgrade": [True]}), None, False),
        (metrics({"SkipUpgrade": 2}), None, False),
        # beyond what a number of phases can be
        (metrics({"PhaseOrderingNumber": 2**31 - 1}), 2**31 - 1, False),
        (metrics({"PhaseOrderingNumber": 2**31}), None, False),
        (metrics({"PhaseOrderingNumber": 1e300}), None, False),
        (
            {"customMetrics": '{"rollingUpgrade":{"PhaseOrderingNumber":' + "9" * 6000 + "}}"},
            None,
            False,
        ),
        (metrics({"PhaseOrderingNumber": "9" * 6000, "SkipUpgrade": True}), None, True),
        ({"customMetrics": '{"rollingUpgrade":{"PhaseOrderingNumber":NaN}}'}, None, False),
        ({"customMetrics": '{"rollingUpgrade":{"PhaseOrderingNumber":1e999}}'}, None, False),
        ({"customMetrics": '{"rollingUpgrade":{"PhaseOrderingNumber":-Infinity}}'}, None, False),
        # not JSON, or another shape
        ({"customMetrics": "rollingUpgrade"}, None, False),
        ({"customMetrics": '["rollingUpgrade"]'}, None, False),
        ({"customMetrics": '{"rollingUpgrade":"yes"}'}, None, False),
        ({"customMetrics": 7}, None, False),
        ({"customMetrics": None}, None, False),
        ({"customMetrics": DEEP[:8000]}, None, False),
        ({"customMetrics": '{"rollingUpgrade":{"SkipUpgrade":true}}' + " " * 9000}, None, False),
        ({}, None, False),
        (None, None, False),
        ([], None, False),
    ],
)
def test_table(document: Any, phase: int | None, skip: bool) -> None:
    assert wish_of(document) == Wish(phase_ordering_number=phase, skip_upgrade=skip)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["RollingUpgrade", "SkipUpgrade", "x"]), inner)
    ),
    max_leaves=10,
)


@given(json_values, json_values)
def test_anything_else_is_no_wish_and_no_error(outer: Any, inner: Any) -> None:
    for document in (outer, {"customMetrics": json.dumps(inner)}, metrics(inner)):
        wish = wish_of(document)
        number = wish.phase_ordering_number
        assert number is None or -(2**31) <= number < 2**31
        assert isinstance(wish.skip_upgrade, bool)


def test_a_rich_answer_carries_the_wish_and_tells_it() -> None:
    body = json.dumps(
        {"ApplicationHealthState": "Healthy"} | metrics({"PhaseOrderingNumber": 2})
    ).encode()
    answer = read_answer(200, body)
    assert (answer.health, answer.wish) == (Health.HEALTHY, Wish(phase_ordering_number=2))
    assert answer.reason == "HTTP 200, ApplicationHealthState 'Healthy', PhaseOrderingNumber 2"
    sick = read_answer(200, body.replace(b"Healthy", b"Unhealthy"))
    assert (sick.health, sick.wish) == (Health.UNHEALTHY, Wish(phase_ordering_number=2))


@pytest.mark.parametrize(
    ("status", "body", "wish"),
    [
        (200, b"OK", NO_WISH),  # it speaks, and says nothing
        (200, b'{"ApplicationHealthState": "Healthy"}', NO_WISH),
        (204, b"", NO_WISH),
        (503, b'{"ApplicationHealthState": "Healthy"}', None),  # its last word stands
        (302, b"", None),
        (200, b"{" + b" " * BODY_LIMIT, None),
    ],
)
def test_who_did_not_speak_has_not_changed_its_mind(
    status: int, body: bytes, wish: Wish | None
) -> None:
    assert read_answer(status, body).wish == wish


@pytest.mark.parametrize(
    "beside",
    ['"x": ' + "9" * 6000, '"x": NaN', '"x": 1e999', '"customMetrics": "' + "[" * 6000 + '"'],
)
def test_nonsense_beside_the_state_does_not_hide_it(beside: str) -> None:
    body = '{"ApplicationHealthState": "Unhealthy", ' + beside + "}"
    answer = read_answer(200, body.encode())
    assert (answer.health, answer.wish) == (Health.UNHEALTHY, NO_WISH)
