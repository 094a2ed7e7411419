"""How a course of pictures is shown: a live grid on a terminal, lines elsewhere."""

import os
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from rollcall_cli.grid import lines
from rollcall_cli.moments import local
from rollcall_cli.picture import Picture, changes

PER_SECOND = 4  # repaints: a slow line carries them


class View(Protocol):
    """Where pictures go."""

    def show(self, picture: Picture) -> None:
        """Show what is now."""

    def trouble(self, text: str) -> None:
        """Say that nothing newer could be read; the empty text ends that."""

    def close(self) -> None:
        """Leave the last picture where a person can read it."""


def view_for(console: Console) -> View:
    """Return a live view where there is a terminal that can do it."""
    if console.is_terminal and not console.is_dumb_terminal and os.environ.get("TERM"):
        return GridView(console)
    return LineView(console)


class LineView:
    """A line for each thing that changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: Picture | None = None
        self._trouble = ""

    def show(self, picture: Picture) -> None:
        """Print what is new."""
        for line in changes(self._last, picture):
            self._say(line)
        self._last = picture

    def trouble(self, text: str) -> None:
        """Print a trouble when it begins."""
        if text and text != self._trouble:
            self._say(text)
        self._trouble = text

    def close(self) -> None:
        """Nothing is left to do: the lines stay."""

    def _say(self, line: str) -> None:
        now = datetime.now(UTC)
        self._console.print(Text(f"{local(now, now)} {line}"), soft_wrap=True)


class GridView:
    """The grid, on a screen of its own while it runs; its last state stays below the prompt."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._picture: Picture | None = None
        self._trouble = ""
        self._live: Live | None = None

    def show(self, picture: Picture) -> None:
        """Take a newer picture."""
        self._picture = picture
        if self._live is None:
            self._live = Live(
                self, console=self._console, screen=True, refresh_per_second=PER_SECOND
            )
            self._live.start(refresh=True)

    def trouble(self, text: str) -> None:
        """Show a trouble above the grid, as long as it lasts."""
        self._trouble = text

    def close(self) -> None:
        """Go back to the terminal's own screen, and print the last state there."""
        if self._live is None:
            return
        self._live.stop()
        self._live = None
        self._console.print(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._picture is None:
            return
        yield from lines(
            self._picture,
            datetime.now(UTC),
            width=options.max_width,
            height=options.height or console.size.height,
            ascii_only=options.ascii_only,
            note=self._trouble,
        )
