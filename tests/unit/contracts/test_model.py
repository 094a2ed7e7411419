"""What the model's types refuse."""

from typing import Any

import pytest
from pydantic import ValidationError
from rollcall_contracts.model import Probe, RollingPolicy


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"max_batch_instance_percent": 4}, "greater than or equal to 5"),
        ({"max_unhealthy_instance_percent": 101}, "less than or equal to 100"),
        ({"max_unhealthy_upgraded_instance_percent": -1}, "greater than or equal to 0"),
        ({"pause_time_between_batches": 30 * 86400 + 1}, "less than or equal to 2592000"),
        ({"max_batch_instance_percent": 30}, r"maxBatchInstancePercent \(30\) must not be above"),
    ],
)
def test_a_policy_out_of_range(policy: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RollingPolicy(**policy)


def test_the_defaults_of_a_policy_are_azures() -> None:
    policy = RollingPolicy()
    assert (
        policy.max_batch_instance_percent,
        policy.max_unhealthy_instance_percent,
        policy.max_unhealthy_upgraded_instance_percent,
        policy.pause_time_between_batches,
        policy.health_timeout,
    ) == (20, 20, 20, 0, 300)


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ({"protocol": "Http", "port": 80}, "an Http probe needs a requestPath"),
        ({"protocol": "Tcp", "port": 80, "request_path": "/"}, "a Tcp probe has no requestPath"),
        ({"protocol": "Tcp", "port": 0}, "greater than or equal to 1"),
        ({"protocol": "Tcp", "port": 80, "number_of_probes": 25}, "less than or equal to 24"),
        ({"protocol": "Icmp", "port": 80}, "'Http', 'Https' or 'Tcp'"),
    ],
)
def test_a_probe_that_cannot_be_made(probe: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Probe(**probe)
