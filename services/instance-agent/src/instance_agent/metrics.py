"""What the agent counts, beside what every service does."""

from prometheus_client import Counter

operations = Counter(
    "rollcall_instance_operations_total",
    "Operations on instances that ended, by outcome",
    ["operation", "outcome"],
)
image_failures = Counter(
    "rollcall_image_failures_total",
    "Requests for an image that this host could not meet, by the code of the failure",
    ["code"],
)
drains = Counter(
    "rollcall_instance_drains_total",
    "Instances that were asked to empty themselves, by how that ended",
    ["outcome"],
)
