"""What is told of URLs, and when a shared access signature is past its time."""

from datetime import UTC, datetime

import pytest
from instance_agent.download import expired, public_url

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/x/y.sh?sv=1&sig=secret", "https://a.example/x/y.sh"),
        ("https://user:secret@a.example:8443/x", "https://a.example:8443/x"),
        ("http://a.example/x#secret", "http://a.example/x"),
        ("file:///srv/image.tar.gz", "file:///srv/image.tar.gz"),
    ],
)
def test_secrets_of_a_url_are_not_shown(url: str, shown: str) -> None:
    assert public_url(url) == shown


@pytest.mark.parametrize(
    ("query", "over"),
    [
        ("sv=2018&se=2025-12-31T23:59:59Z&sig=x", True),
        ("sv=2018&se=2026-01-01T00:00:00Z&sig=x", True),
        ("sv=2018&se=2026-01-01T00:00:01Z&sig=x", False),
        ("sv=2018&se=2025-12-31&sig=x", True),
        ("sv=2018&se=2025-12-31T23%3A59%3A59%2B00%3A00&sig=x", True),
        ("sv=2018&se=whenever&sig=x", False),
        ("sv=2018&sig=x", False),
        ("se=2018-01-01", False),  # no signature: the parameter means something else
        ("", False),
    ],
)
def test_an_expiry_is_compared_with_now(query: str, over: bool) -> None:
    assert expired(f"https://a.example/file.sh?{query}", NOW) is over
