"""Commands that are imported when they are run, so that `rollcall --help` answers at once."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Entry:
    """A command in the table: where it is, and the line that `--help` shows."""

    name: str
    place: str  # module:attribute, a function or a Typer
    help: str  # the first sentence of the command's own help
    panel: str | None = None  # under which heading


class Later(TyperCommand):
    """Stands for a command in lists."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(name=entry.name, help=entry.help, rich_help_panel=entry.panel)
        self._place = entry.place

    def load(self) -> Any:
        """Import the command itself."""
        # httpx brings a command of its own, which takes longer than all the rest of it to import;
        # where that cannot be imported it goes without.
        sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # there is none
        module, _, attribute = self._place.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            command: Any = typer.main.get_group(found)
        else:
            alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            alone.command()(found)
            command = typer.main.get_command(alone)
        command.name = self.name
        return command


class LazyGroup(TyperGroup):
    """A group of the commands in its table."""

    table: ClassVar[Sequence[Entry]] = ()

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands.update({entry.name: Later(entry) for entry in self.table})

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that is run, imported now."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Later) else command, rest
