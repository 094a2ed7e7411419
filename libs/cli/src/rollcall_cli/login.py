"""`rollcall login` and `logout`: how the commands are let in, kept for the next ones."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from rollcall_cli.client import Api, ClientError, LoginError, context_file, told_in_words
from rollcall_cli.contexts import Context
from rollcall_cli.reaching import (
    Target,
    Wish,
    is_loopback,
    of_context,
    reach,
    read_secret,
)

STDIN = Path("-")


def login(
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            help="Where the API is.",
            metavar="URL",
            show_default="ROLLCALL_URL, the current context's, else http://127.0.0.1:8470",
        ),
    ] = None,
    client_id: Annotated[
        str | None,
        typer.Option(
            "--client-id", envvar="ROLLCALL_CLIENT_ID", help="The account's id.", metavar="ID"
        ),
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            "--client-secret-file",
            help="The file with the account's secret; `-` reads standard input.",
            show_default="ROLLCALL_CLIENT_SECRET, else it is asked for",
            metavar="FILE",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            help="A file with a token, instead of an account; `-` reads standard input.",
            metavar="FILE",
        ),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help="The tenant.", show_default="the server's own")
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            "--ca-file",
            help="The authority that signed the server's certificate, a PEM file.",
            show_default="those of this system",
            metavar="FILE",
            dir_okay=False,
            exists=True,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", help="The context's name.", show_default="the server's host"),
    ] = None,
    subscription: Annotated[
        str | None,
        typer.Option("--subscription", "-s", help="Where names are looked for unless told."),
    ] = None,
    resource_group: Annotated[
        str | None,
        typer.Option("--resource-group", "-g", help="Where names are looked for unless told."),
    ] = None,
) -> None:
    """Log in to a server.

    With an account's id and secret (`--client-id`), with a token, or with nothing where the server
    asks for nothing. What is needed for the next command is kept in a file that only you can read,
    and the context is the current one from then on.
    """
    with told_in_words():
        file = context_file()
        contexts = file.read()
        url = (server or reach(Wish(), os.environ, file).url).rstrip("/")
        chosen = name or urlsplit(url).netloc
        if not chosen:
            raise ClientError(f"{url} is no address: it begins with https:// or http://")
        given = Context(
            server=url,
            ca_file=None if ca_file is None else str(ca_file.absolute()),
            tenant=tenant,
            client_id=client_id,
            subscription=subscription,
            resource_group=resource_group,
        )
        made = _let_in(_with_credentials(given, secret_file, token_file), chosen)
        file.write(contexts.put(chosen, made, use=True))
    print(f"{url}: logged in with {made.login}; the context is {chosen}, kept in {file.path}")
    if made.client_id is not None and url.startswith("http:") and not is_loopback(url):
        print("rollcall: the secret went over plain http: use https", file=sys.stderr)


def _with_credentials(
    context: Context, secret_file: Path | None, token_file: Path | None
) -> Context:
    """Return the context with the secret or the token that was given. Raises ClientError."""
    if token_file is not None:
        return replace(context, token=_secret(token_file, "the token"))
    if context.client_id is not None:
        return replace(context, client_secret=_account_secret(secret_file))
    if secret_file is not None:
        raise ClientError("a secret is an account's: give its id with --client-id, too")
    return replace(context, token=os.environ.get("ROLLCALL_API_TOKEN") or None)


def _account_secret(file: Path | None) -> str:
    given = os.environ.get("ROLLCALL_CLIENT_SECRET", "")
    if file is not None:
        return _secret(file, "the account's secret")
    if given:
        return given
    if not sys.stdin.isatty():
        raise ClientError(
            "give the account's secret: --client-secret-file FILE (`-` is standard input), or "
            "ROLLCALL_CLIENT_SECRET"
        )
    asked: str = typer.prompt("Secret", hide_input=True, err=True)
    return asked


def _secret(file: Path, what: str) -> str:
    found = sys.stdin.read().strip() if file == STDIN else read_secret(file, what)
    if not found:
        raise ClientError(f"{what} is empty")
    return found


def _let_in(context: Context, name: str) -> Context:
    """Return the context with what the server gave. Raises ClientError when it lets nobody in."""
    issued: list[tuple[str, float]] = []
    target = of_context(context, name)
    with Api(target, keep=lambda token, expires: issued.append((token, expires))) as api:
        try:
            api.items("/subscriptions")
        except LoginError as error:
            own = _own(context, target)
            if own is not None:
                return own
            if context.client_id is None and context.token is None:
                raise ClientError(
                    f"{context.server} asks who you are: give --client-id with "
                    "--client-secret-file, or --token-file. The owner makes accounts with POST "
                    "/rollcall/accounts (docs/api.md)"
                ) from error
            raise
    if issued:
        token, expires = issued[-1]
        return replace(context, token=token, expires=expires)
    return context


def _own(context: Context, target: Target) -> Context | None:
    """Return the context with the token of `rollcall up`, where that is the server."""
    if context.client_id is not None or context.token is not None or not target.is_here:
        return None
    token = reach(Wish(url=context.server), {}, context_file()).token
    if token is None:
        return None
    with Api(replace(target, token=token)) as api:
        api.items("/subscriptions")
    return replace(context, token=token)


def logout(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="The context.", show_default="the current one"),
    ] = None,
) -> None:
    """Forget how to log in to a server.

    The context itself stays; `rollcall context delete` removes it.
    """
    with told_in_words():
        file = context_file()
        contexts = file.read()
        chosen = name or contexts.current
        if chosen is None or chosen not in contexts.by_name:
            known = ", ".join(contexts.by_name) or "none"
            raise ClientError(f"there is no context {chosen or 'in use'}. There are: {known}")
        kept = replace(
            contexts.by_name[chosen], client_id=None, client_secret=None, token=None, expires=None
        )
        file.write(contexts.put(chosen, kept))
    print(f"{chosen}: logged out")
