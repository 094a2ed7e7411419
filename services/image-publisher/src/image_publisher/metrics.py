"""This service's metrics, in Prometheus' form."""

from prometheus_client import Counter, Gauge

feed_errors = Counter(
    "rollcall_feed_errors_total", "Polls that found this error in a feed", ["feed", "code"]
)
feed_up = Gauge(
    "rollcall_feed_up", "1 when the last poll could read and trust the feed, else 0", ["feed"]
)
feed_polls = Counter("rollcall_feed_polls_total", "Polls of a feed that were recorded", ["feed"])
images_published = Counter("rollcall_images_published_total", "Versions published", ["feed"])
images_withdrawn = Counter("rollcall_images_withdrawn_total", "Versions withdrawn", ["feed"])
