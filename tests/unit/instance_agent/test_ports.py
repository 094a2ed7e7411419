"""Ports that another program may get at any time are no good for instances."""

from pathlib import Path

import pytest
import structlog
from instance_agent.app import warn_of_ports
from instance_agent.domain.ports import ephemeral
from instance_agent.settings import Settings

LINUX = "32768\t60999\n"


@pytest.mark.parametrize(
    ("ports", "reserved", "found"),
    [
        (range(20000, 30000), "\n", None),  # the default
        (range(61000, 65536), "\n", None),
        (range(32767, 32768), "\n", None),
        (range(30000, 32769), "\n", range(32768, 32769)),
        (range(60999, 62000), "\n", range(60999, 61000)),
        (range(40000, 40010), "\n", range(40000, 40010)),
        (range(40000, 40010), "40000-40009\n", None),  # kept out of the range by the operator
        (range(40000, 40010), "8080,40000-40004,40006\n", range(40005, 40010)),
    ],
)
def test_ports_of_the_ephemeral_range_are_found(
    ports: range, reserved: str, found: range | None
) -> None:
    assert ephemeral(ports, LINUX, reserved) == found


@pytest.mark.parametrize(("ports", "warned"), [("20000-29999", False), ("45000-45100", True)])
def test_an_agent_warns_of_ports_that_others_may_get(
    tmp_path: Path, ports: str, warned: bool
) -> None:
    (tmp_path / "ip_local_port_range").write_text(LINUX)
    (tmp_path / "ip_local_reserved_ports").write_text("\n")
    with structlog.testing.capture_logs() as logs:
        warn_of_ports(Settings.model_validate({"port_range": ports}), tmp_path)
    assert [entry["event"] for entry in logs] == (["ports_are_ephemeral"] if warned else [])
    assert all("ROLLCALL_PORT_RANGE" in entry["todo"] for entry in logs)


def test_a_system_that_does_not_say_is_no_reason_to_stop(tmp_path: Path) -> None:
    warn_of_ports(Settings(), tmp_path)
