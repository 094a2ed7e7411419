"""The `rollcall` command. Each command is imported when it is run: `--help` answers at once."""

from typing import Annotated

import typer

from rollcall_cli.lazy import Entry, LazyGroup

LOOK = "Look"
STEER = "Steer"
SERVERS = "Servers and accounts"
ASK = "Ask the rules"
MACHINE = "On this machine"


class Commands(LazyGroup):
    """All commands, in the order of `--help`."""

    table = (
        Entry("sets", "rollcall_cli.looking:sets", "List the scale sets.", LOOK),
        Entry("show", "rollcall_cli.looking:show", "Show a scale set.", LOOK),
        Entry("instances", "rollcall_cli.looking:instances", "List a set's instances.", LOOK),
        Entry("images", "rollcall_cli.looking:images", "List the published images.", LOOK),
        Entry("history", "rollcall_cli.looking:history", "List a set's upgrades.", LOOK),
        Entry(
            "watch",
            "rollcall_cli.watch:watch",
            "Watch a set's upgrade until it ends.",
            LOOK,
        ),
        Entry("events", "rollcall_cli.events:events", "Show the event log, or follow it.", LOOK),
        Entry(
            "explain",
            "rollcall_cli.explain:explain",
            "Say what a scale set waits for and why, and until when.",
            LOOK,
        ),
        Entry(
            "doctor",
            "rollcall_cli.doctor:doctor",
            "Check the installation, and say what to mend.",
            LOOK,
        ),
        Entry(
            "enable",
            "rollcall_cli.steering:enable",
            "Let a set upgrade itself to each new image.",
            STEER,
        ),
        Entry(
            "disable",
            "rollcall_cli.steering:disable",
            "Switch a set's automatic upgrades off.",
            STEER,
        ),
        Entry("start", "rollcall_cli.steering:start", "Start an upgrade by hand.", STEER),
        Entry(
            "cancel",
            "rollcall_cli.steering:cancel",
            "Stop the running upgrade after its current batch.",
            STEER,
        ),
        Entry(
            "pause",
            "rollcall_cli.steering:pause",
            "Let no further batch start until the upgrade is resumed.",
            STEER,
        ),
        Entry("resume", "rollcall_cli.steering:resume", "Let a paused upgrade go on.", STEER),
        Entry(
            "rollback",
            "rollcall_cli.steering:rollback",
            "Bring a set back to what its last upgrade found.",
            STEER,
        ),
        Entry(
            "apply",
            "rollcall_cli.apply:apply",
            "Make load balancers and scale sets as files say.",
            STEER,
        ),
        Entry(
            "plan",
            "rollcall_cli.plan:plan",
            "Say what an upgrade would do, batch by batch, when it ends, and what would stop it.",
            ASK,
        ),
        Entry(
            "replay",
            "rollcall_cli.replay:replay",
            "Say how a past upgrade would have gone under another policy, side by side with what "
            "was.",
            ASK,
        ),
        Entry(
            "simulate",
            "rollcall_cli.simulate:run",
            "Prove the safety of the rules on rollouts in virtual time, with everything going "
            "wrong.",
            ASK,
        ),
        Entry("login", "rollcall_cli.login:login", "Log in to a server.", SERVERS),
        Entry("logout", "rollcall_cli.login:logout", "Forget how to log in to a server.", SERVERS),
        Entry(
            "context", "rollcall_cli.context:app", "The servers that you are logged in to.", SERVERS
        ),
        Entry(
            "up",
            "rollcall_cli.up:up",
            "Run Rollcall on this machine, in the foreground: servers, services and agents.",
            MACHINE,
        ),
        Entry(
            "demo",
            "rollcall_cli.demo:demo",
            "Roll a good image through ten instances, then a bad one, and check every promise.",
            MACHINE,
        ),
        Entry(
            "demo-vm",
            "rollcall_cli.demo_vm:demo_vm",
            "Roll four disk images through five virtual machines of QEMU, and check every promise.",
            MACHINE,
        ),
        Entry(
            "demo-libvirt",
            "rollcall_cli.demo_libvirt:demo_libvirt",
            "Roll four disk images through five domains of libvirt, and check every promise.",
            MACHINE,
        ),
        Entry(
            "demo-docker",
            "rollcall_cli.demo_docker:demo_docker",
            "Roll four container images through ten containers, and check every promise.",
            MACHINE,
        ),
        Entry(
            "feed",
            "rollcall_cli.feed:app",
            "Author a feed of your own images in a folder.",
            MACHINE,
        ),
    )


app = typer.Typer(
    name="rollcall",
    cls=Commands,
    help="Automatic OS image upgrades for fleets of instances on your own hosts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

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
