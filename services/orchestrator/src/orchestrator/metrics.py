"""What the orchestrator counts."""

from prometheus_client import Counter

sets_postponed = Counter(
    "rollcall_sets_postponed_total", "Times that a set could not be read or decided"
)
