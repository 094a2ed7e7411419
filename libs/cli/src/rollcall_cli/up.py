"""`rollcall up`: the whole stack on this machine, until Ctrl-C."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rollcall_embedded.folder import default_state_dir
from rollcall_embedded.process import EmbeddedError
from rollcall_embedded.stack import Stack, StackOptions

DEFAULT_API_PORT = 8470


def up(
    config: Annotated[
        Path | None,
        typer.Option(
            help="The configuration file: image feeds, catalogue.", exists=True, dir_okay=False
        ),
    ] = None,
    api_port: Annotated[
        int, typer.Option(help="The API's port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)
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
    tls: Annotated[
        bool,
        typer.Option("--tls", help="Serve https, with a certificate of this machine's own."),
    ] = False,
) -> None:
    """Run Rollcall on this machine, in the foreground: servers, services and agents.

    Ctrl-C stops it cleanly; the state folder keeps everything for the next start.
    """
    options = StackOptions(
        state_dir=state_dir or default_state_dir(),
        config=config,
        api_port=api_port,
        agents=agents,
        tls=tls,
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
        again = asked.is_set()
        asked.set()
        _say("already stopping …" if again else "stopping …")

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
            _print(_welcome(stack))
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
{_auditor(stack)}{_trust(stack)}
Try, in another terminal:
  {_curl(stack)} {stack.api_url}/readyz
  rollcall --help

Ctrl-C stops it.
"""


def _trust(stack: Stack) -> str:
    """Return how clients come to trust the API's certificate."""
    if stack.certificates is None:
        return ""
    ca = stack.certificates.ca
    return f"""
The API's certificate is signed by an authority of this machine's own. To trust it:
  export REQUESTS_CA_BUNDLE={ca}   # az, the Azure SDKs for Python, requests
  export SSL_CERT_FILE={ca}        # httpx, Go programs, openssl
  sudo cp {ca} /usr/local/share/ca-certificates/rollcall.crt && sudo update-ca-certificates
"""


def _curl(stack: Stack) -> str:
    trusting = "" if stack.certificates is None else f" --cacert {stack.certificates.ca}"
    return f'curl -s{trusting} -H "Authorization: Bearer $(cat {stack.token_file})"'


def _auditor(stack: Stack) -> str:
    """Return how to reach the auditor's queue, for a shell; nothing where the broker was given."""
    if os.environ.get("ROLLCALL_AMQP_URL"):
        return ""
    url = urlsplit(stack.auditor_amqp_url)
    secret = f"$(cat {stack.folder / 'rabbitmq' / 'auditor-password'})"
    return (
        f"  auditor  {url.scheme}://{url.username}:{secret}@{url.hostname}:{url.port}{url.path}\n"
    )


def _say(line: str) -> None:
    _print(f"  {line}")


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:
        # The terminal was closed, or the reader of the pipe has gone: the stack goes on, and can
        # be stopped all the same.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
