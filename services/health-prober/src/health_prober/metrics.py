"""What the prober counts."""

from prometheus_client import Counter, Gauge

probes_made = Counter("rollcall_probes_total", "Probes made, by outcome", ["outcome"])
targets_watched = Gauge("rollcall_probe_targets", "Instances under a lease of this prober")
metric_queries = Counter(
    "rollcall_metric_queries_total", "Questions of metric gates, by outcome", ["outcome"]
)
