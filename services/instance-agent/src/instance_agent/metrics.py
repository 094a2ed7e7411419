"""What the agent counts, beside what every service does."""

from prometheus_client import Counter, Gauge

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
evictions = Counter(
    "rollcall_image_evictions_total",
    "Images that the cache dropped to stay within its limit, or to make room on the disk",
)
cache_bytes = Gauge(
    "rollcall_image_cache_bytes",
    "Bytes of all images in the cache, as of the last fetch",
)
drains = Counter(
    "rollcall_instance_drains_total",
    "Instances that were asked to empty themselves, by how that ended",
    ["outcome"],
)
