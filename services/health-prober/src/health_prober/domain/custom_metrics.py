"""What an application says of its part in rolling upgrades (Azure's custom metrics)."""

from dataclasses import dataclass
from typing import Any

from health_prober.domain.json_text import find, read_json

_TEXT_LIMIT = 8 * 1024  # characters of customMetrics; Azure's own example has 70
_PHASES = range(-(2**31), 2**31)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """When an instance wants to be upgraded, and whether at all."""

    phase_ordering_number: int | None = None  # low ones first; None: after all that have one
    skip_upgrade: bool = False

    def __str__(self) -> str:
        """Return the wish in a report's words; nothing where there is none."""
        number = self.phase_ordering_number
        phase = "" if number is None else f", PhaseOrderingNumber {number}"
        return phase + (", SkipUpgrade" if self.skip_upgrade else "")


NO_WISH = Wish()


def wish_of(document: Any) -> Wish:
    """Return the wish in a rich health answer; what makes no sense counts as not said.

    `customMetrics` is a JSON text inside the JSON. Azure's own pages differ in the case of its
    names, and write values as texts too (reference, section 1.3), so all of that is understood.

    >>> wish_of({"customMetrics": '{"rollingUpgrade": {"PhaseOrderingNumber": "2"}}'})
    Wish(phase_ordering_number=2, skip_upgrade=False)
    """
    metrics = find(document, "custommetrics")
    if isinstance(metrics, str):
        metrics = read_json(metrics) if len(metrics) <= _TEXT_LIMIT else None
    upgrade = find(metrics, "rollingupgrade")
    return Wish(
        phase_ordering_number=_phase(find(upgrade, "phaseorderingnumber")),
        skip_upgrade=_yes(find(upgrade, "skipupgrade")),
    )


def _phase(value: Any) -> int | None:
    if isinstance(value, str):
        value = read_json(value) if len(value) <= _TEXT_LIMIT else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if value in _PHASES else None


def _yes(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("true", "1")
    return isinstance(value, bool | int | float) and value == 1
