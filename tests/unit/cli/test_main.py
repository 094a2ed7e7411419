"""The command's table: what `--help` says is what the commands say, and it is quick."""

import inspect
import subprocess
import sys
from importlib import import_module

import pytest
import typer
from rollcall_cli.lazy import Entry
from rollcall_cli.main import Commands, app
from typer.testing import CliRunner

# What takes long to import, and no list of commands needs.
HEAVY = ("httpx", "pydantic", "asyncpg", "aio_pika", "yaml", "asyncio", "rollcall_contracts")


def _found(entry: Entry) -> object:
    module, _, attribute = entry.place.partition(":")
    return getattr(import_module(module), attribute)


@pytest.mark.parametrize("entry", Commands.table, ids=lambda entry: entry.name)
def test_the_table_says_what_the_command_says(entry: Entry) -> None:
    found = _found(entry)
    text = found.info.help if isinstance(found, typer.Typer) else inspect.getdoc(found)
    assert isinstance(text, str)
    first = " ".join(text.split("\n\n")[0].split())
    assert first == entry.help


@pytest.mark.parametrize("entry", Commands.table, ids=lambda entry: entry.name)
def test_every_command_has_help(entry: Entry) -> None:
    done = CliRunner().invoke(app, [entry.name, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert entry.help.split()[0] in done.output
    assert f"rollcall {entry.name}" in done.output


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from rollcall_cli.main import app; from typer.testing import CliRunner\n"
        "done = CliRunner().invoke(app, ['--help']); assert 'watch' in done.output\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_a_slip_is_answered_with_what_may_be_meant() -> None:
    done = CliRunner().invoke(app, ["histroy", "web"])
    assert done.exit_code == 2
    assert "Did you mean 'history'?" in done.output


def test_the_shells_complete_commands() -> None:
    environment = {"_ROLLCALL_COMPLETE": "complete_bash", "COMP_WORDS": "rollcall wa"}
    done = CliRunner().invoke(app, [], env={**environment, "COMP_CWORD": "1"}, prog_name="rollcall")
    assert done.output.split() == ["watch"]
