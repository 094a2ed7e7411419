"""docs/azure-compatibility.md is true of az: each command there is run to the letter."""

import re
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(1800)

HAS = "works"
REFUSED = "refused"
# Only before the path of `--set` had to be spelled as the API spells it.
ONCE = "until 2.80.0"


def complaint(az: Any, command: str, status: str) -> str:
    """Run a command and return in what it is not as documented; empty where it is."""
    done = az.run(command)
    if status == HAS or (status == ONCE and az.version == "2.80.0"):
        return "" if done.returncode == 0 and not done.stderr else done.stderr or "failed silently"
    if done.returncode == 0:
        return "was not refused"
    # The server's errors have a code, which az puts in brackets; az's own have none.
    if "Traceback" in done.stderr or (
        status == REFUSED and not re.search(r"\(\w+\) ", done.stderr)
    ):
        return f"was not refused by an error that az can read:\n{done.stderr}"
    return ""


def test_each_command_does_what_the_page_says(az: Any, rows: Any) -> None:
    documented = rows("## az\n", "While a version rolls out")
    assert len(documented) > 70
    assert {status for _, status in documented} == {HAS, REFUSED, ONCE}
    complaints = {
        command: said for command, status in documented if (said := complaint(az, command, status))
    }
    assert not complaints
