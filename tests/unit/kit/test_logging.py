"""All that a service writes into its log has one form, whoever wrote it."""

import json
import subprocess
import sys

SERVICE = """
import logging

import structlog
from rollcall_kit.logging import configure_logging

configure_logging("http-api", form="json")
structlog.get_logger().info("ready", port=1)
logging.getLogger("aiormq.channel").warning("Closing %s", "a channel")
logging.getLogger("aiormq.channel").info("of no interest")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("asyncio").exception("two\\nlines")
"""


def test_lines_of_libraries_are_json_as_a_services_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVICE], capture_output=True, text=True, check=True
    )
    own, warning, error = (json.loads(line) for line in done.stderr.splitlines())
    assert (own["event"], own["port"], own["level"]) == ("ready", 1, "info")
    assert (warning["event"], warning["level"]) == ("Closing a channel", "warning")
    assert (warning["logger"], warning["service"]) == ("aiormq.channel", "http-api")
    assert error["event"] == "two\nlines"
    assert "ZeroDivisionError" in error["exception"]
