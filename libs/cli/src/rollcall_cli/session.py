"""What every command on a server is told, and how it answers; declared once for all of them."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from rollcall_cli.output import Output, put

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rollcall_cli.client import Api

P = ParamSpec("P")
PANEL = "Server"
COMPLETING = 1.0  # seconds that a completion may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A server, where names are looked for in it, and how answers are shown."""

    api: "Api"
    output: Output
    subscription: str | None
    resource_group: str | None

    def find(self, name: str) -> str:
        """Return the id of the set that is meant. Raises ClientError."""
        return self.api.find_set(name, self.subscription, self.resource_group)

    def put(self, document: Any, shown: Callable[[], "RenderableType"]) -> None:
        """Print a document as it was asked for."""
        put(document, self.output, shown)


def complete_set(incomplete: str) -> list[str]:
    """Return the names of sets that begin so; nothing where nobody answers at once."""
    # Imported here, as in all that runs before a command does.
    from rollcall_cli.client import Api, ClientError, context_file
    from rollcall_cli.contexts import ContextError
    from rollcall_cli.naming import InstallationNames
    from rollcall_cli.reaching import Wish, reach

    try:
        with Api(reach(Wish(), os.environ, context_file())) as api:
            names = InstallationNames(api.set_ids(timeout=COMPLETING)).names
    except (ClientError, ContextError):
        return []
    return [name for name in names if name.lower().startswith(incomplete.lower())]


def _complete_context(incomplete: str) -> list[str]:
    from rollcall_cli.client import context_file
    from rollcall_cli.contexts import ContextError

    try:
        return [name for name in context_file().read().by_name if name.startswith(incomplete)]
    except ContextError:
        return []


SetName = Annotated[
    str,
    typer.Argument(
        metavar="SET",
        help="The scale set: its name, or its whole id.",
        autocompletion=complete_set,
    ),
]
ContextName = Annotated[
    str, typer.Argument(metavar="NAME", help="The context.", autocompletion=_complete_context)
]
_SHARED: dict[str, Any] = {
    "context": Annotated[
        str | None,
        typer.Option(
            "--context",
            help="Which context of `rollcall login`.",
            show_default="ROLLCALL_CONTEXT, else the current one",
            autocompletion=_complete_context,
            rich_help_panel=PANEL,
        ),
    ],
    "url": Annotated[
        str | None,
        typer.Option(
            "--url",
            help="Where the API is.",
            metavar="URL",
            show_default="ROLLCALL_URL, the context's, else http://127.0.0.1:8470",
            rich_help_panel=PANEL,
        ),
    ],
    "token_file": Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            help="The file with the API's token.",
            show_default="ROLLCALL_API_TOKEN itself, the context's, else that of `rollcall up`",
            dir_okay=False,
            rich_help_panel=PANEL,
        ),
    ],
    "subscription": Annotated[
        str | None,
        typer.Option(
            "--subscription",
            "-s",
            help="Only sets of this subscription have the name.",
            rich_help_panel=PANEL,
        ),
    ],
    "resource_group": Annotated[
        str | None,
        typer.Option(
            "--resource-group",
            "-g",
            help="Only sets of this resource group have the name.",
            rich_help_panel=PANEL,
        ),
    ],
    "output": Annotated[
        Output,
        typer.Option("--output", "-o", help="A table for people; JSON or YAML for scripts."),
    ],
    "as_json": Annotated[
        bool, typer.Option("--json", help="The same as --output json.", hidden=True)
    ],
}
_DEFAULTS: dict[str, Any] = {"output": Output.TABLE, "as_json": False}


def on_server(command: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
    """Make a Typer command of a function whose first parameter is a session.

    The command has the function's other parameters, and those that choose a server.
    """
    own = list(inspect.signature(command).parameters.values())[1:]
    shared = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_DEFAULTS.get(name),
            annotation=annotation,
        )
        for name, annotation in _SHARED.items()
    ]

    function: Callable[..., None] = command

    @wraps(command)
    def run(**given: Any) -> None:
        from rollcall_cli.client import told_in_words

        chosen = {name: given.pop(name) for name in _SHARED}
        with told_in_words(), _opened(**chosen) as session:
            function(session, **given)

    # Typer reads both.
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *shared)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


class _opened:
    """The session of the options, with its connections closed at the end."""

    def __init__(
        self,
        *,
        context: str | None,
        url: str | None,
        token_file: Path | None,
        subscription: str | None,
        resource_group: str | None,
        output: Output,
        as_json: bool,
    ) -> None:
        from rollcall_cli.client import Api, context_file
        from rollcall_cli.reaching import Wish, reach

        file = context_file()
        wish = Wish(url=url, token_file=token_file, context=context)
        target = reach(wish, os.environ, file)
        self.session = Session(
            api=Api.of(target, file),
            output=Output.JSON if as_json else output,
            subscription=subscription or target.subscription,
            resource_group=resource_group or target.resource_group,
        )

    def __enter__(self) -> Session:
        return self.session

    def __exit__(self, *_: object) -> None:
        self.session.api.__exit__(None, None, None)
