"""What an HTTP answer says of an application's health."""

import json
from typing import Any

from rollcall_contracts.model import Health

BODY_LIMIT = 64 * 1024  # bytes of a body that are read; a health state is far shorter
_STATES = {health.value.lower(): health for health in Health}
_KEY = "applicationhealthstate"


def health_of_answer(status: int, body: bytes) -> tuple[Health, str]:
    """Return the health that an HTTP answer means, and the reason in a few words.

    Azure has two kinds of applications, and a load balancer's probe does not say which one it asks
    (section 1.6 of the reference), so the answer tells:

    - 2xx with a JSON object that has `ApplicationHealthState` (in any case): *rich*. The state
      counts; a value that is none of Azure's is Unknown.
    - else *binary*: 200 is Healthy, all others, also 204 and redirects, are Unhealthy. Outside 2xx
      the body is not looked at: nothing it says makes the instance healthy.
    - a JSON object longer than BODY_LIMIT: Unknown, since its state cannot be read.
    """
    if not 200 <= status < 300:
        return Health.UNHEALTHY, f"HTTP {status}"
    if body.lstrip()[:1] == b"{":
        if len(body) > BODY_LIMIT:
            return Health.UNKNOWN, f"HTTP {status} with more than {BODY_LIMIT} bytes of JSON"
        state = _rich_state(body)
        if state is not None:
            health = _STATES.get(state.strip().lower(), Health.UNKNOWN)
            return health, f"HTTP {status}, ApplicationHealthState {state.strip()[:40]!r}"
    return (Health.HEALTHY if status == 200 else Health.UNHEALTHY), f"HTTP {status}"


def _rich_state(body: bytes) -> str | None:
    """Return the state in a JSON object, as it is written there; None when it has none."""
    if _KEY.encode() not in body.lower():  # most applications: spare them the parser
        return None
    try:
        document: dict[str, Any] = json.loads(body)
    except (ValueError, RecursionError):  # the second: thousands of nested brackets
        return None
    for key, value in document.items():
        if key.lower() == _KEY:
            return str(value)
    return None
