"""What an HTTP answer says of an application's health."""

from dataclasses import dataclass

from rollcall_contracts.model import Health

from health_prober.domain.custom_metrics import NO_WISH, Wish, wish_of
from health_prober.domain.json_text import find, read_json

BODY_LIMIT = 64 * 1024  # bytes of a body that are read; a health state is far shorter
_STATES = {health.value.lower(): health for health in Health}
_KEY = "applicationhealthstate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one probe found."""

    health: Health
    reason: str
    wish: Wish | None = None  # None: the application did not speak, so its last word stands


def read_answer(status: int, body: bytes) -> Answer:
    """Return what an HTTP answer means, with the reason in a few words.

    Azure has two kinds of applications, and a load balancer's probe does not say which one it asks
    (section 1.6 of the reference), so the answer tells:

    - 2xx with a JSON object that has `ApplicationHealthState` (in any case): *rich*. The state
      counts; a value that is none of Azure's is Unknown. Custom metrics are read beside it.
    - else *binary*: 200 is Healthy, all others, also 204 and redirects, are Unhealthy. Outside 2xx
      the body is not looked at: nothing it says makes the instance healthy.
    - a JSON object longer than BODY_LIMIT: Unknown, since its state cannot be read.
    """
    if not 200 <= status < 300:
        return Answer(health=Health.UNHEALTHY, reason=f"HTTP {status}")
    if body.lstrip()[:1] == b"{":
        if len(body) > BODY_LIMIT:
            reason = f"HTTP {status} with more than {BODY_LIMIT} bytes of JSON"
            return Answer(health=Health.UNKNOWN, reason=reason)
        rich = _read_rich(status, body)
        if rich is not None:
            return rich
    health = Health.HEALTHY if status == 200 else Health.UNHEALTHY
    return Answer(health=health, reason=f"HTTP {status}", wish=NO_WISH)


def _read_rich(status: int, body: bytes) -> Answer | None:
    """Return the answer of a JSON object with a state; None when it has none."""
    if _KEY.encode() not in body.lower():  # most applications: spare them the parser
        return None
    document = read_json(body)
    if not isinstance(document, dict) or not any(key.lower() == _KEY for key in document):
        return None
    state = find(document, _KEY)
    text = state.strip() if isinstance(state, str) else ""
    wish = wish_of(document)
    return Answer(
        health=_STATES.get(text.lower(), Health.UNKNOWN),
        reason=f"HTTP {status}, ApplicationHealthState {text[:40]!r}{wish}",
        wish=wish,
    )
