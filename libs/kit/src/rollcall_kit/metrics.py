"""Metrics that every service has, in Prometheus' form."""

from prometheus_client import Counter, Gauge, Histogram, start_http_server

messages_handled = Counter(
    "rollcall_messages_handled_total", "Messages handled, by outcome", ["queue", "outcome"]
)
batch_seconds = Histogram(
    "rollcall_batch_seconds",
    "Time from taking a batch of messages to its acknowledgement",
    ["queue"],
)
events_published = Counter("rollcall_events_published_total", "Event log entries published")
broker_connected = Gauge("rollcall_broker_connected", "1 while the broker connection is up")


def serve_metrics(port: int, address: str) -> None:
    """Serve this process's metrics for scraping."""
    start_http_server(port, address)
