"""What http-api is made of: an HTTP server as the background task of a service with a database."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

import structlog
import uvicorn
from rollcall_kit.config import load_config
from rollcall_kit.database import migrations_of
from rollcall_kit.secrets import seal
from rollcall_kit.service import Context, Service

from http_api.deploying import Deployer
from http_api.settings import Settings
from http_api.web import create_app
from http_api.writes import Server

log = structlog.get_logger()

GRACE = 5  # seconds that requests in flight have at the end


class SettingsError(ValueError):
    """A setting is missing or cannot be used; the message names it."""


class _Uvicorn(uvicorn.Server):
    """A server that leaves SIGTERM to the service around it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def build(settings: Settings) -> Service:
    """Return the service. Raises SettingsError, and ConfigError for the configuration file."""
    if not settings.api_token.get_secret_value():
        raise SettingsError("set ROLLCALL_API_TOKEN: nobody is let in without a token")
    try:
        seal(settings.secrets_key, "")
    except ValueError as error:
        raise SettingsError(
            "set ROLLCALL_SECRETS_KEY to a Fernet key (32 bytes in URL-safe base64), the same one "
            "as the agents': custom data and protected settings are sealed with it"
        ) from error
    check_tls(settings)
    config = load_config(settings.config)

    async def serve_http(context: Context) -> None:
        server = Server(context=context, settings=settings, config=config)
        app = create_app(server)
        deploying = asyncio.create_task(Deployer(server, app.state.inside).run())
        try:
            await serve_app(app, listening_socket(settings), context, settings)
        finally:
            deploying.cancel()

    return Service(
        name="http-api",
        database=True,
        migrations=[migrations_of("http_api")],
        background=[serve_http],
    )


def check_tls(settings: Settings) -> None:
    """Raise SettingsError where the certificate cannot be used, which is better told at once."""
    if not settings.api_tls_certificate:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.api_tls_certificate, settings.api_tls_key or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            "ROLLCALL_API_TLS_CERTIFICATE and ROLLCALL_API_TLS_KEY must name a certificate and its "
            f"private key in PEM files: {error}"
        ) from error


def listening_socket(settings: Settings) -> socket.socket:
    """Return a socket that listens. Raises SettingsError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    try:
        return socket.create_server(
            (settings.api_host, settings.api_port), family=family, backlog=2048
        )
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.api_host} port {settings.api_port}: {error.strerror}; "
            "change ROLLCALL_API_HOST or ROLLCALL_API_PORT"
        ) from error


async def serve_app(
    app: object, listener: socket.socket, context: Context, settings: Settings
) -> None:
    """Serve until cancelled; then let requests in flight end, streams at once."""
    server = _Uvicorn(
        uvicorn.Config(
            app,  # type: ignore[arg-type]  # uvicorn's own ASGI types and Starlette's differ
            log_config=None,
            access_log=False,  # the gate writes a better one
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=GRACE,
            ssl_certfile=settings.api_tls_certificate or None,
            ssl_keyfile=settings.api_tls_key or None,
        )
    )
    address, port = listener.getsockname()[:2]
    log.info("api_listening", address=address, port=port)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    finally:
        context.stopping.set()  # streams end by themselves when they see it
        server.should_exit = True
        await serving
