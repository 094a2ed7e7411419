"""`rollcall up`: the whole stack on this machine, until Ctrl-C."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rollcall_embedded.folder import default_state_dir
from rollcall_embedded.process import EmbeddedError
from rollcall_embedded.stack import Stack, StackOptions

DEFAULT_API_PORT = 8470


def up(
    config: Annotated[
        Path | None,
        typer.Option(help="The configuration file: image feeds, catalogue.", exists=True),
    ] = None,
    api_port: Annotated[
        int, typer.Option(help="The API's port on 127.0.0.1; 0 takes a free one.", max=65535)
    ] = DEFAULT_API_PORT,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where all state is kept.",
            show_default="/var/lib/rollcall as root, else ~/.local/state/rollcall",
            file_okay=False,
        ),
    ] = None,
    agents: Annotated[int, typer.Option(help="How many hosts to play.", min=1, max=50)] = 2,
) -> None:
    """Run Rollcall on this machine, in the foreground: servers, services and agents.

    Ctrl-C stops it cleanly; the state folder keeps everything for the next start.
    """
    options = StackOptions(
        state_dir=state_dir or default_state_dir(),
        config=config,
        api_port=api_port,
        agents=agents,
        report=_say,
    )
    try:
        asyncio.run(_run(options))
    except EmbeddedError as error:
        print(f"rollcall: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


async def _run(options: StackOptions) -> None:
    """Keep the stack up until SIGINT or SIGTERM; a second signal changes nothing."""
    asked = asyncio.Event()

    def stop() -> None:
        _say("already stopping …" if asked.is_set() else "stopping …")
        asked.set()

    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(name, stop)
    stack = Stack(options)
    starting = asyncio.create_task(stack.start())
    waiting = asyncio.create_task(asked.wait())
    await asyncio.wait((starting, waiting), return_when=asyncio.FIRST_COMPLETED)
    if not asked.is_set():
        try:
            starting.result()
            print(_welcome(stack), flush=True)
            await waiting
        finally:
            waiting.cancel()
            await stack.stop()
    else:
        starting.cancel()  # which stops what runs already
        await asyncio.gather(starting, return_exceptions=True)
        await stack.stop()
    _say("stopped; nothing is left running")


def _welcome(stack: Stack) -> str:
    return f"""
Rollcall is up.
  API      {stack.api_url}
  token    {stack.token_file}
  logs     {stack.logs}

Try, in another terminal:
  curl -s -H "Authorization: Bearer $(cat {stack.token_file})" {stack.api_url}/readyz
  rollcall --help

Ctrl-C stops it.
"""


def _say(line: str) -> None:
    print(f"  {line}", flush=True)
