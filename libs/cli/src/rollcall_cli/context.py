"""`rollcall context`: the servers that somebody is logged in to."""

from typing import Annotated, Any

import typer
from rich.text import Text

from rollcall_cli.client import ClientError, context_file, told_in_words
from rollcall_cli.contexts import Contexts
from rollcall_cli.naming import near
from rollcall_cli.output import Output, put
from rollcall_cli.session import ContextName
from rollcall_cli.tables import NOBODY, table

app = typer.Typer(no_args_is_help=True, help="The servers that you are logged in to.")


@app.command("list")
def list_all(
    output: Annotated[
        Output,
        typer.Option("--output", "-o", help="A table for people; JSON or YAML for scripts."),
    ] = Output.TABLE,
) -> None:
    """List the contexts; the current one has a star."""
    with told_in_words():
        contexts = context_file().read()
    document = contexts_json(contexts)
    put(
        document,
        output,
        lambda: table(
            ("", "name", "server", "logs in with", "subscription", "group"),
            (
                (
                    Text("*" if item["current"] else " ", style="green"),
                    item["name"],
                    item["server"],
                    item["login"],
                    item["subscription"] or NOBODY,
                    item["resourceGroup"] or NOBODY,
                )
                for item in document["value"]
            ),
            "There is no context: `rollcall login --server URL` makes one.",
        ),
    )


def contexts_json(contexts: Contexts) -> dict[str, Any]:
    """Return the contexts as a document, without secrets."""
    return {
        "value": [
            {
                "name": name,
                "current": name == contexts.current,
                "server": each.server,
                "login": each.login,
                "subscription": each.subscription,
                "resourceGroup": each.resource_group,
            }
            for name, each in contexts.by_name.items()
        ]
    }


@app.command()
def use(name: ContextName) -> None:
    """Make a context the current one."""
    with told_in_words():
        file = context_file()
        contexts = file.read()
        _check(contexts, name)
        file.write(contexts.use(name))
    print(f"{name}: is the current context")


@app.command()
def delete(name: ContextName) -> None:
    """Forget a context, and how to log in there."""
    with told_in_words():
        file = context_file()
        contexts = file.read()
        _check(contexts, name)
        file.write(contexts.without(name))
    print(f"{name}: deleted")


def _check(contexts: Contexts, name: str) -> None:
    if name not in contexts.by_name:
        known = ", ".join(contexts.by_name) or "none: `rollcall login` makes one"
        raise ClientError(
            f"there is no context {name}.{near(name, contexts.by_name)} There are: {known}"
        )
