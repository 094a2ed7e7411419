"""What a Prometheus server's answer means for a metric gate.

The format is that of Prometheus' HTTP API, section "Instant queries"; Thanos, Mimir and
VictoriaMetrics answer in the same. Success and failure are said only of one certain number.
"""

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rollcall_contracts.model import MetricGate, MetricOutcome

from health_prober.domain.json_text import read_json

BODY_LIMIT = 1024 * 1024  # bytes of an answer that are read; one number has some hundred
_TEXT = 300  # characters of the server's own words in a reason
_SERVER_STATE = (401, 403, 407, 408, 429)  # tell of the server or our access, not of the query
_INFO = "PromQL info:"  # from 2.48 to 2.53 notes stood among the warnings; later in `infos`
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricAnswer:
    """What one question came to."""

    outcome: MetricOutcome
    reason: str
    value: float | None = None  # never NaN or infinite: JSON has no such numbers


def unreachable(reason: str) -> MetricAnswer:
    """Return the answer of a server that gave none."""
    return MetricAnswer(outcome=MetricOutcome.UNREACHABLE, reason=reason)


def judge_metric(status: int, body: bytes, gate: MetricGate) -> MetricAnswer:
    """Return what a server's answer means for the gate.

    - one number, as a scalar or a vector of one: compared with the gate's conditions;
    - no number, several, NaN, a number with warnings, a query that the server refuses:
      Inconclusive;
    - a server that failed, denies access, redirects or says what no Prometheus says: Unreachable.
    """
    if len(body) > BODY_LIMIT:
        return unreachable(f"HTTP {status} with more than {BODY_LIMIT} bytes")
    document = read_json(body)
    says = document.get("status") if isinstance(document, dict) else None
    if says == "error":
        return _refused(status, document)
    if not 200 <= status < 300:
        return unreachable(f"HTTP {status}")
    data = document["data"] if says == "success" and "data" in document else None
    if not isinstance(data, dict) or "resultType" not in data:
        return unreachable(f"HTTP {status} with what is no answer of a Prometheus server")
    try:
        number = _number(data["resultType"], data.get("result"), document.get("warnings"))
    except _NoNumber as none:
        return _inconclusive(str(none))
    return _compared(number, gate)


class _NoNumber(Exception):
    """The answer does not have one certain number; the message says what it has."""


def _inconclusive(reason: str) -> MetricAnswer:
    return MetricAnswer(outcome=MetricOutcome.INCONCLUSIVE, reason=reason)


def _refused(status: int, document: dict[str, Any]) -> MetricAnswer:
    kind, error = _words(document.get("errorType")), _words(document.get("error"))
    reason = f"HTTP {status}: {kind or 'error'}: {error or 'it does not say which'}"
    if status >= 500 or status in _SERVER_STATE:
        return unreachable(reason)
    return _inconclusive(reason)


def _number(kind: Any, result: Any, warnings: Any) -> float:
    """Return the one number. Raises _NoNumber."""
    for warning in warnings if isinstance(warnings, list) else ():
        if not _words(warning).startswith(_INFO):  # such as of data that could not be read
            raise _NoNumber(f"the server warns: {_words(warning)}")
    if kind == "scalar":
        return _sample(result)
    if kind != "vector" or not isinstance(result, list):
        raise _NoNumber(
            f"the query gives a {_words(kind) or 'strange result'}; one number is needed"
        )
    if len(result) != 1:
        count = f"{len(result)} samples" if result else "no sample"
        raise _NoNumber(f"the query gives {count}; one is needed")
    return _sample(result[0].get("value") if isinstance(result[0], dict) else None)


def _sample(pair: Any) -> float:
    """Return the number of a `[time, "number"]`. Raises _NoNumber."""
    match pair:
        case [_, str() as text]:
            try:
                number = float(text)
            except ValueError:
                raise _NoNumber(f"the query gives {_words(text)!r}, no number") from None
        case _:
            raise _NoNumber("the query gives a sample without a number, such as a histogram")
    if math.isnan(number):
        raise _NoNumber("the query gives NaN, as a division of nothing by nothing does")
    return number


def _compared(number: float, gate: MetricGate) -> MetricAnswer:
    succeeds = _holds(number, gate.success_condition)
    success = f"{_shown(number)} {gate.success_condition}"
    if gate.failure_condition is None:
        fails, failure = not succeeds, f"{success} is not so"
    else:
        fails = _holds(number, gate.failure_condition)
        failure = f"{_shown(number)} {gate.failure_condition}"
    if fails:  # outweighs success, should both conditions hold
        outcome, reason = MetricOutcome.FAILURE, failure
    elif succeeds:
        outcome, reason = MetricOutcome.SUCCESS, success
    else:
        outcome, reason = MetricOutcome.INCONCLUSIVE, f"neither {success} nor {failure}"
    value = number if math.isfinite(number) else None
    return MetricAnswer(outcome=outcome, reason=reason, value=value)


def _holds(number: float, condition: str) -> bool:
    parts = re.fullmatch(r"([<>=!]+)\s*(.+)", condition)
    if parts is None:
        raise ValueError(f"{condition!r} is no condition")  # the model lets none in
    return _COMPARE[parts[1]](number, float(parts[2]))


def _shown(number: float) -> str:
    return repr(number).removesuffix(".0") if math.isfinite(number) else f"{number:+}".title()


def _words(text: Any) -> str:
    """Return the server's words on one line, and not too many."""
    # Unprintable ones too: no database stores NUL, and no UTF-8 has half a surrogate pair.
    shown = "".join(c if c.isprintable() else " " for c in text) if isinstance(text, str) else ""
    plain = " ".join(shown.split())
    return plain if len(plain) <= _TEXT else f"{plain[:_TEXT]}…"
