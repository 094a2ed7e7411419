"""`rollcall enable`, `disable`, `start`, `cancel`, `pause`, `resume`, `rollback`."""

from collections.abc import Callable
from typing import Annotated, Any

import httpx
import typer
from rich.text import Text

from rollcall_cli.exits import Exit
from rollcall_cli.output import Output, console
from rollcall_cli.session import Session, SetName, on_server
from rollcall_cli.tables import at
from rollcall_cli.views import LineView
from rollcall_cli.waiting import Timeout, Wait, Waiter, finish, is_running, newest, other_than

Reason = Annotated[
    str | None, typer.Option("--reason", help="Why; the event log keeps it.", metavar="TEXT")
]


@on_server
def enable(
    session: Session, scale_set: SetName, wait: Wait = False, timeout: Timeout = None
) -> None:
    """Let a set upgrade itself to each new image.

    With --wait also for the upgrade that begins now, if one does.
    """
    id = session.find(scale_set)
    before = newest(session.api, id)
    answer = _switch(session, id, on=True)
    if wait:
        operation = None if answer is None else session.api.operation(answer)
        end = _waiter(session, id, timeout).until_settled(before, operation)
        _tell(session, id, end, "automatic upgrade is on, and nothing is left to do")
        return
    words = "automatic upgrade is on: each new image is rolled out by itself"
    _said(session, session.api.get(id) if answer is None else answer.json(), words)


@on_server
def disable(
    session: Session, scale_set: SetName, wait: Wait = False, timeout: Timeout = None
) -> None:
    """Switch a set's automatic upgrades off.

    A running upgrade stops after its current batch.
    """
    id = session.find(scale_set)
    before = newest(session.api, id)
    answer = _switch(session, id, on=False)
    if wait and is_running(before):
        end = _waiter(session, id, timeout).until_ended(lambda _: True)
        _tell(session, id, _as_cancelled(end), "")
        return
    words = "automatic upgrade is off; a running one stops after its batch"
    _said(session, session.api.get(id) if answer is None else answer.json(), words)


def _switch(session: Session, id: str, *, on: bool) -> httpx.Response | None:
    """Switch automatic upgrades; None where they are so already.

    A model that is written anew, even the same, lets a version be tried again that did not succeed.
    """
    policy = at(session.api.get(id), "properties.upgradePolicy.automaticOSUpgradePolicy") or {}
    if policy.get("enableAutomaticOSUpgrade", False) is on:
        return None
    body = {"automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": on}}
    return session.api.send("PATCH", id, {"properties": {"upgradePolicy": body}})


@on_server
def start(
    session: Session,
    scale_set: SetName,
    wait: Wait = False,
    timeout: Timeout = None,
    override: Annotated[
        bool,
        typer.Option(
            "--override",
            help="Start in a set that is too sick for its limits; needs --reason.",
        ),
    ] = False,
    reason: Reason = None,
) -> None:
    """Start an upgrade by hand.

    To the newest version that the set's model allows.
    """
    id = session.find(scale_set)
    before = newest(session.api, id)
    body = {**({"override": True} if override else {}), **_because(reason)}
    answer = session.api.send("POST", f"{id}/osRollingUpgrade", body)
    operation = session.api.operation(answer)
    if not wait:
        document = session.api.follow(operation)
        _said(session, document, f"asked to start; `rollcall watch {scale_set}` shows it", id)
        return
    end = _waiter(session, id, timeout).until_ended(other_than(before), operation)
    _tell(session, id, end, "")


@on_server
def cancel(
    session: Session,
    scale_set: SetName,
    wait: Wait = False,
    timeout: Timeout = None,
    reason: Reason = None,
) -> None:
    """Stop the running upgrade after its current batch.

    With --wait the exit code is 0 when it ended Cancelled, and 6 when it was Completed before.
    """
    id = session.find(scale_set)
    answer = session.api.send("POST", f"{id}/rollingUpgrades/cancel", _because(reason))
    operation = session.api.operation(answer)
    if not wait:
        document = session.api.follow(operation)
        _said(session, document, "asked to stop after its current batch", id)
        return
    end = _waiter(session, id, timeout).until_ended(lambda _: True)
    _tell(session, id, _as_cancelled(end), "")


@on_server
def pause(session: Session, scale_set: SetName, reason: Reason = None) -> None:
    """Let no further batch start until the upgrade is resumed."""
    _ask(session, scale_set, "pause", reason, "asked to pause after its current batch")


@on_server
def resume(session: Session, scale_set: SetName, reason: Reason = None) -> None:
    """Let a paused upgrade go on."""
    _ask(session, scale_set, "resume", reason, "asked to go on")


@on_server
def rollback(
    session: Session,
    scale_set: SetName,
    wait: Wait = False,
    timeout: Timeout = None,
    reason: Reason = None,
) -> None:
    """Bring a set back to what its last upgrade found.

    A running upgrade stops after its current batch first. The version is held from then on.
    """
    id = session.find(scale_set)
    before = newest(session.api, id)
    is_new = other_than(before)
    _ask(session, scale_set, "rollback", reason, "asked to go back", quiet=wait)
    if wait:
        waiter = _waiter(session, id, timeout)
        end = waiter.until_ended(lambda each: is_new(each) and each["rollbackOf"] is not None)
        _tell(session, id, end, "")


def _ask(
    session: Session,
    scale_set: str,
    action: str,
    reason: str | None,
    words: str,
    *,
    quiet: bool = False,
) -> None:
    id = session.find(scale_set)
    session.api.send("POST", f"{id}/rollingUpgrades/{action}", _because(reason))
    if not quiet:
        document = session.api.exists(f"{id}/rollingUpgrades/latest") or {}
        _said(session, document, words, id)


def _because(reason: str | None) -> dict[str, Any]:
    return {} if reason is None else {"reason": reason}


def _as_cancelled(end: Exit) -> Exit:
    """Return the exit code where the upgrade was to be stopped."""
    return {Exit.CANCELLED: Exit.DONE, Exit.DONE: Exit.NOT_DONE}.get(end, end)


def _waiter(session: Session, id: str, timeout: float | None) -> Waiter:
    """Return who waits, and tells the course on standard error: the answer comes at the end."""
    return Waiter(session.api, id, LineView(console(stderr=True)), timeout=timeout)


def _said(session: Session, document: Any, words: str, id: str | None = None) -> None:
    name = (id or document["id"]).rpartition("/")[2]
    shown: Callable[[], Text] = lambda: Text(f"{name}: {words}")  # noqa: E731
    session.put(document, shown)


def _tell(session: Session, id: str, end: Exit, nothing: str) -> None:
    """Print the upgrade at its end, and leave with the code for it."""
    upgrade = newest(session.api, id)
    if session.output is not Output.TABLE:
        document = {} if upgrade is None else upgrade
        session.put(document, lambda: Text())
        finish(end, None)
    elif end is Exit.DONE and nothing:
        session.put(None, lambda: Text(f"{id.rpartition('/')[2]}: {nothing}"))
    else:
        finish(end, upgrade)
