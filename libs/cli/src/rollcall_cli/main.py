"""The `rollcall` command."""

from importlib.metadata import version
from typing import Annotated

import typer

from rollcall_cli import feed
from rollcall_cli.demo import demo
from rollcall_cli.demo_vm import demo_vm
from rollcall_cli.explain import explain
from rollcall_cli.plan import plan
from rollcall_cli.replay import replay
from rollcall_cli.simulate import simulate_with
from rollcall_cli.up import up

app = typer.Typer(
    name="rollcall",
    help="Automatic OS image upgrades for fleets of instances on your own hosts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(up)
app.command("demo")(demo)
app.command("demo-vm")(demo_vm)
app.command("simulate")(simulate_with())
app.command("explain")(explain)
app.command("plan")(plan)
app.command("replay")(replay)
app.add_typer(feed.app, name="feed")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"rollcall {version('rollcall-cli')}")
        raise typer.Exit


@app.callback()
def rollcall(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Automatic OS image upgrades for fleets of instances on your own hosts."""


if __name__ == "__main__":
    app()
