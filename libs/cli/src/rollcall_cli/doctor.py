"""`rollcall doctor`: what is wrong with an installation, and what mends it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rollcall_embedded.folder import default_state_dir

from rollcall_cli.diagnosis import Finding, State, diagnose, is_well
from rollcall_cli.exits import Exit
from rollcall_cli.inspecting import inspect
from rollcall_cli.moments import counted
from rollcall_cli.session import Session, on_server

MARKS = {
    State.OK: ("ok", "green"),
    State.WARNING: ("warning", "yellow"),
    State.FAULT: ("FAULT", "red"),
    State.UNKNOWN: ("unknown", "dim"),
}


@on_server
def doctor(
    session: Session,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            help="The state folder of `rollcall up`, where its servers are looked at.",
            show_default="that of this user",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Check the installation, and say what to mend.

    The server and the login, clocks, the certificate, database, broker, services, agents and feeds.
    Database and broker are looked at themselves, too, where ROLLCALL_DATABASE_URL and
    ROLLCALL_AMQP_URL or the folder of `rollcall up` say where they are. Exits with 1 when something
    is wrong.
    """
    facts = inspect(session.api, os.environ, state_dir or default_state_dir())
    findings = diagnose(facts)
    session.put(findings_json(findings), lambda: shown(findings))
    if not is_well(findings):
        raise typer.Exit(Exit.NO)


def findings_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return findings as a document."""
    return {
        "well": is_well(findings),
        "findings": [
            {
                "check": each.check,
                "state": each.state.value,
                "message": each.message,
                "fix": each.fix or None,
            }
            for each in findings
        ],
    }


def shown(findings: Sequence[Finding]) -> RenderableType:
    """Return findings for a terminal."""
    rows = Table.grid(padding=(0, 1))
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True, style="bold")
    rows.add_column(overflow="fold")
    for each in findings:
        word, colour = MARKS[each.state]
        message = Text(each.message)
        if each.fix:
            message.append(f"\nto do: {each.fix}", style="bold")
        rows.add_row(Text(word, style=colour), each.check, message)
    faults = sum(each.state is State.FAULT for each in findings)
    if faults:
        end = Text(f"{counted(faults, 'thing is', 'things are')} wrong.", style="bold red")
    elif any(each.state is State.UNKNOWN for each in findings):
        end = Text("Nothing is wrong, as far as could be seen.", style="bold yellow")
    else:
        end = Text("All is well.", style="bold green")
    return Group(rows, Text(), end)
