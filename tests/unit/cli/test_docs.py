"""docs/cli.md says what is so."""

import re
from pathlib import Path

from rollcall_cli.exits import Exit
from rollcall_cli.main import Commands

TEXT = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
# Those that other pages are about.
ELSEWHERE = {"simulate", "up", "demo", "demo-vm", "demo-libvirt", "demo-docker", "feed"}


def test_every_exit_code_is_explained() -> None:
    section = TEXT.split("## Exit codes")[1].split("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)] == [*Exit]


def test_every_command_is_told_of() -> None:
    told = set(re.findall(r"rollcall ([a-z-]+)", TEXT)) | {"disable", "resume"}
    assert {entry.name for entry in Commands.table} - ELSEWHERE <= told


def test_captures_are_of_eighty_columns() -> None:
    watch = TEXT.split("```text\n")[1].split("```")[0]
    assert "RollingForward" in watch
    assert all(len(line) <= 80 for line in watch.splitlines())
    assert "code 0" not in watch
