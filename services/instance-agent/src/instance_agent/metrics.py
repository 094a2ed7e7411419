"""What the agent counts, beside what every service does."""

from prometheus_client import Counter

operations = Counter(
    "rollcall_instance_operations_total",
    "Operations on instances that ended, by outcome",
    ["operation", "outcome"],
)
