"""Waiting for an upgrade to end, and saying by an exit code how it did."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from rich.text import Text

from rollcall_cli.client import Api, BusyError, NotDoneError, UnreachableError
from rollcall_cli.exits import Exit
from rollcall_cli.moments import parse_duration
from rollcall_cli.output import console
from rollcall_cli.picture import ENDS, RUNNING, Picture, picture
from rollcall_cli.tables import outcome
from rollcall_cli.views import View

INTERVAL = 1.0  # seconds between looks
SETTLES = 5.0  # seconds after which what a set waits for is not only on its way
# Waits that end by themselves in a moment, or that are told of a model of before.
PASSING = frozenset(
    {
        *("NotTakenOver", "AutomaticOSUpgradeOff", "InstancesBooting", "InstancesMissing"),
        *("ModelDeployment", "ImageFetch", "InstancesRestoring", "Deleting", "BatchInProgress"),
    }
)
Upgrade = Mapping[str, Any]
Wanted = Callable[[Upgrade], bool]


def _seconds(text: str) -> float:
    """Return the seconds of `90`, `90s`, `10m`, `2h` or PT10M. Raises BadParameter."""
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        if text[-1:] in units:
            return float(text[:-1]) * units[text[-1]]
        return parse_duration(text) if text.startswith("P") else float(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no time such as 90s, 10m, 2h or PT10M") from error


Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait until the upgrade has ended.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        parser=_seconds,
        metavar="TIME",
        help="Wait no longer than this, such as 10m.",
        show_default="as long as it takes",
    ),
]


class Waiter:
    """Looks at a set again and again, and shows it."""

    def __init__(
        self,
        api: Api,
        id: str,
        view: View,
        *,
        timeout: float | None = None,
        interval: float = INTERVAL,
    ) -> None:
        """Take whom to ask about which set; `timeout` and `interval` in seconds."""
        self._api = api
        self._id = id
        self._view = view
        self._interval = interval
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self.last: Picture | None = None

    def look(self) -> Picture | None:
        """Return the set as it is now, and show it; None while nobody answers."""
        try:
            # The upgrade first: where it has ended, the instances are seen as they were then.
            explanation = self._api.get(f"{self._id}/explain", {"$top": 1})
            instances = self._api.items(f"{self._id}/virtualMachines")
        except (UnreachableError, BusyError) as error:
            self._view.trouble(str(error))
            return None
        self._view.trouble("")
        self.last = picture(self._id.rpartition("/")[2], explanation, instances)
        self._view.show(self.last)
        return self.last

    def pause(self) -> bool:
        """Wait a moment; say no when the time is up."""
        left = None if self._deadline is None else self._deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        time.sleep(self._interval if left is None else min(self._interval, left))
        return True

    def until_ended(self, wanted: Wanted, operation: str | None = None) -> Exit:
        """Return how the wanted upgrade ended.

        `operation` is the status document of the request for it: where it fails, no upgrade was
        started. Raises NotDoneError then, with what the server said.
        """
        while True:
            seen = self.look()
            upgrade = seen.upgrade if seen is not None else None
            if upgrade is not None and wanted(upgrade):
                if upgrade["status"] in ENDS:
                    return ENDS[upgrade["status"]]
            elif operation is not None and seen is not None:
                self._check(operation)
            if not self.pause():
                return Exit.STILL_RUNNING

    def until_settled(
        self, before: Upgrade | None, operation: str | None = None, *, insist: bool = True
    ) -> Exit:
        """Return how what a changed model brings about ended.

        First the set has as many instances as it says; then the upgrade that begins by itself, if
        one does. `before` is the newest upgrade from before the change. Raises NotDoneError where
        something keeps the set from its size or, if that is insisted on, from an upgrade.
        """
        is_new = other_than(before)
        if operation is not None and not self.until_done(operation):
            return Exit.STILL_RUNNING
        same_since, code = time.monotonic(), ""
        while True:
            seen = self.look()
            if seen is not None:
                upgrade = seen.upgrade
                if upgrade is not None and (seen.is_running or is_new(upgrade)):
                    return self.until_ended(the_one(upgrade))
                if seen.waiting_code == "UpToDate":
                    return Exit.DONE
                if seen.waiting_code != code:
                    same_since, code = time.monotonic(), seen.waiting_code
                patient = SETTLES * (12 if code in PASSING else 1)
                if code not in PASSING and not insist:
                    return Exit.DONE
                if time.monotonic() - same_since > patient:
                    raise NotDoneError(f"no upgrade starts: {seen.waiting}")
            if not self.pause():
                return Exit.STILL_RUNNING

    def until_done(self, operation: str) -> bool:
        """Wait for an operation; say no when the time is up. Raises NotDoneError if it fails."""
        while True:
            try:
                if self._check(operation):
                    return True
                self._view.trouble("")
            except (UnreachableError, BusyError) as error:
                self._view.trouble(str(error))
            self.look()
            if not self.pause():
                return False

    def _check(self, operation: str) -> bool:
        """Say whether an operation has ended well. Raises NotDoneError if it has not."""
        document = self._api.follow(operation)
        error = document.get("error")
        if document["status"] in ("Failed", "Canceled") and error is not None:
            raise NotDoneError(f"{error['code']}: {error['message']}")
        return bool(document["status"] == "Succeeded")


def other_than(upgrade: Upgrade | None) -> Wanted:
    """Return what says of an upgrade that it is another one than that."""
    id = None if upgrade is None else upgrade["id"]
    return lambda each: each["id"] != id


def the_one(upgrade: Upgrade) -> Wanted:
    """Return what says of an upgrade that it is that one."""
    id = upgrade["id"]
    return lambda each: bool(each["id"] == id)


def newest(api: Api, id: str) -> Upgrade | None:
    """Return the upgrade that runs, or the last one."""
    known = api.get(f"{id}/rollcall/upgrades", {"$top": 1})["value"]
    return known[0] if known else None


def is_running(upgrade: Upgrade | None) -> bool:
    """Say whether there is an upgrade that has not ended."""
    return upgrade is not None and upgrade["status"] == RUNNING


def finish(end: Exit, upgrade: Upgrade | None, *, as_words: bool = True) -> None:
    """Say how it ended, where that is not the answer already; leave with the code for it."""
    if end is Exit.STILL_RUNNING:
        print("rollcall: it still runs, and the time to wait is up", file=sys.stderr)
    elif as_words and upgrade is not None:
        out = console()
        out.print(Text(outcome(upgrade)), soft_wrap=not out.is_terminal)
    if end is not Exit.DONE:
        raise typer.Exit(end)
