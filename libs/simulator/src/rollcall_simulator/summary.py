"""What many simulations came to, in a few lines."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from rollcall_simulator.checker import Peak
from rollcall_simulator.faults import MEANING, Fault
from rollcall_simulator.scenario import Mood
from rollcall_simulator.simulation import Outcome


@dataclass(slots=True)
class Summary:
    """Counts over outcomes; the order in which they come does not matter."""

    scenarios: int = 0
    rollouts: int = 0
    transactions: int = 0
    virtual: float = 0.0  # seconds
    moods: Counter[Mood] = field(default_factory=Counter)
    struck: Counter[Fault] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    alone: int = 0
    alone_ours: int = 0
    peak: Peak = field(default_factory=Peak)
    broken: dict[str, list[Outcome]] = field(default_factory=dict)  # by promise

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self.scenarios += 1
        self.rollouts += outcome.upgrades
        self.transactions += outcome.transactions
        self.virtual += outcome.took
        self.moods[outcome.mood] += 1
        self.struck.update(outcome.struck)
        self.endings.update(outcome.endings)
        self.alone += outcome.alone
        self.alone_ours += outcome.alone_ours
        self.peak = max(self.peak, outcome.peak)
        if outcome.violation is not None:
            self.broken.setdefault(outcome.violation[0], []).append(outcome)

    @property
    def failures(self) -> int:
        """Return how many scenarios broke a promise."""
        return sum(len(outcomes) for outcomes in self.broken.values())

    def lines(self) -> list[str]:
        """Return the report."""
        moods = ", ".join(f"{self.moods[mood]} {mood}" for mood in Mood if self.moods[mood])
        peak = self.peak
        down, allowed = (
            f"{n} ({100 * n // max(peak.total, 1)} %)" for n in (peak.down, peak.allowed)
        )
        return [
            f"{self.scenarios} scenarios ({moods}) with {self.rollouts} rollouts, "
            f"{self.transactions} decisions, {self.virtual / 86400:.0f} days of virtual time.",
            "",
            "How they ended:",
            *_table(self.endings.most_common()),
            "",
            "What happened to them:",
            *_table((f"{fault}: {MEANING[fault]}", n) for fault, n in self.struck.most_common()),
            "",
            "The largest share of a set ever down because of us, under limits below 100 %: "
            f"{down} of {peak.total}, where {allowed} were allowed.",
            f"Batches of one healthy instance beyond the limit, which M11 allows: {self.alone}; in "
            f"{self.alone_ours} of them others were down because of us.",
        ]


def _table(rows: Iterable[tuple[str, int]]) -> list[str]:
    return [f"  {count:>8}  {name}" for name, count in rows] or ["  nothing"]
