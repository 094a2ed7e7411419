"""`rollcall watch`: a set's upgrade as it goes, on a terminal or as lines."""

from typing import Annotated

import typer

from rollcall_cli.output import Output, console, text_of
from rollcall_cli.picture import ENDS
from rollcall_cli.session import Session, SetName, on_server
from rollcall_cli.views import LineView, view_for
from rollcall_cli.waiting import INTERVAL, Timeout, Waiter, finish, is_running, newest, other_than


@on_server
def watch(
    session: Session,
    scale_set: SetName,
    timeout: Timeout = None,
    interval: Annotated[
        float, typer.Option(help="Seconds between looks.", min=0.1, max=3600)
    ] = INTERVAL,
    once: Annotated[
        bool, typer.Option("--once", help="Show the set as it is now, and leave.")
    ] = False,
    as_lines: Annotated[
        bool, typer.Option("--lines", help="Print lines on a terminal, too.")
    ] = False,
) -> None:
    """Watch a set's upgrade until it ends.

    Without one it waits for the next. On a terminal the instances are a live grid; elsewhere each
    change is a line. The exit code says how the upgrade ended: 0 Completed, 3 Faulted, 4 Cancelled,
    5 --timeout passed first. With --output json or yaml the lines go to standard error, and the
    upgrade's document is printed at its end.
    """
    api, id = session.api, session.find(scale_set)
    before = newest(api, id)
    document = session.output is not Output.TABLE
    terminal = console(stderr=document)
    view = LineView(terminal) if as_lines or document else view_for(terminal)
    waiter = Waiter(api, id, view, timeout=timeout, interval=interval)
    try:
        if once:
            waiter.look()
            end = None
        else:
            running = is_running(before)
            end = waiter.until_ended((lambda _: True) if running else other_than(before))
    finally:
        view.close()
    upgrade = newest(api, id)
    if document and upgrade is not None:
        print(text_of(api.get(f"{id}/rollcall/upgrades/{upgrade['id']}"), session.output))
    if end is not None:
        finish(end, upgrade, as_words=not document)
    elif upgrade is not None and upgrade["status"] in ENDS:
        finish(ENDS[upgrade["status"]], None)
