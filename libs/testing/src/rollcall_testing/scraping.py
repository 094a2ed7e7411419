"""Metrics and logs as a test looks at them."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rollcall_embedded.stack import Stack


def samples(text: str) -> Counter[str]:
    """Return the product's own samples of Prometheus' text that are whole numbers.

    Each under its name and the values of its labels, in the order of the labels' names.
    """
    return Counter(
        {
            " ".join((sample.name, *(value for _, value in sorted(sample.labels.items())))): int(
                sample.value
            )
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("rollcall_") and float(sample.value).is_integer()
        }
    )


def log_lines(file: Path, event: str) -> list[dict[str, Any]]:
    """Return the JSON lines of that event in a service's log; the last may be half written."""
    whole = file.read_text().rpartition("\n")[0].splitlines()
    lines = [json.loads(line) for line in whole if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackView:
    """A running stack as those see it who operate it."""

    stack: Stack

    def metrics(self, *services: str) -> Callable[[], Counter[str]]:
        """Return a look at services' own metrics, summed."""
        return lambda: sum(
            (samples(httpx.get(self.stack.metrics_url(name)).text) for name in services),
            Counter(),
        )

    def api(self, path: str) -> httpx.Response:
        """Return the API's answer to a GET."""
        headers = {"Authorization": f"Bearer {self.stack.token}"}
        answer = httpx.get(self.stack.api_url + path, headers=headers)
        answer.raise_for_status()
        return answer

    def agents(self) -> list[str]:
        """Return the agents' names as services."""
        return [f"instance-agent-{host}" for host in self.stack.hosts]

    def has_logged(self, services: list[str], event: str, **fields: str) -> bool:
        """Say whether one of the services' log files has a line of that event with these fields."""
        return any(
            fields.items() <= line.items()
            for name in services
            for line in log_lines(self.stack.logs / f"{name}.log", event)
        )
