"""What http-api is made of: an HTTP server as the background task of a service with a database."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from datetime import timedelta

import structlog
import uvicorn
from rollcall_kit.config import load_config
from rollcall_kit.database import DATABASE_AWAY, migrations_of
from rollcall_kit.secrets import seal
from rollcall_kit.service import Context, Service

from http_api import tokens
from http_api.certificate import Certificate, CertificateError
from http_api.connections import MAX_HEAD, Limits, give_up_on_silent_readers, limited
from http_api.deploying import Deployer
from http_api.domain.documents import ModelError
from http_api.external import read_mapping
from http_api.resealing import reseal
from http_api.settings import Settings
from http_api.web import create_app
from http_api.writes import Server

log = structlog.get_logger()

LOOK = 600  # seconds between looks at the age of the key that signs
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
    certificate = certificate_of(settings)
    check_openid(settings)
    config = load_config(settings.config)

    async def keep_keys(context: Context) -> None:
        await rotate_keys(context, settings)

    async def serve_http(context: Context) -> None:
        server = Server(context=context, settings=settings, config=config)
        app = create_app(server)
        deploying = asyncio.create_task(Deployer(server, app.state.inside).run())
        resealing = asyncio.create_task(reseal(server))
        try:
            await serve_app(app, listening_socket(settings), context, settings, certificate)
        finally:
            deploying.cancel()
            resealing.cancel()

    return Service(
        name="http-api",
        database=True,
        migrations=[migrations_of("http_api")],
        background=[serve_http, keep_keys],
    )


def check_openid(settings: Settings) -> None:
    """Raise SettingsError where the external provider cannot be used as it is described."""
    if not settings.openid_issuer:
        return
    if not settings.openid_issuer.startswith("https://"):
        raise SettingsError("ROLLCALL_OPENID_ISSUER must begin with https://")
    if not settings.openid_audience:
        raise SettingsError(
            "set ROLLCALL_OPENID_AUDIENCE: without it, every token of the provider would be let in"
        )
    try:
        read_mapping(settings.openid_roles)
        ssl.create_default_context(cafile=settings.openid_ca or None)
    except ModelError as error:
        raise SettingsError(f"ROLLCALL_OPENID_ROLES: {error}") from error
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"ROLLCALL_OPENID_CA must name a PEM file: {error}") from error


async def rotate_keys(context: Context, settings: Settings) -> None:
    """Make another key sign tokens when the present one is old enough, until the service stops.

    Every copy of the service looks; the lock in the database makes one of them do it.
    """
    older_than = timedelta(days=settings.api_key_days)
    while not context.stopping.is_set():
        try:
            async with context.database.acquire() as connection, connection.transaction():
                now = context.now()
                await tokens.rotate(connection, settings.secrets_key, now, older_than=older_than)
        except DATABASE_AWAY as error:
            log.warning("database_unavailable", error=str(error) or type(error).__name__)
        with contextlib.suppress(TimeoutError):  # then it is time to look again
            async with asyncio.timeout(min(older_than.total_seconds() / 10, LOOK)):
                await context.stopping.wait()


def certificate_of(settings: Settings) -> Certificate | None:
    """Return the server's certificate; None where it speaks plain HTTP.

    Raises SettingsError where it cannot be used, which is better told at once.
    """
    if not settings.api_tls_certificate:
        if settings.api_tls_key:
            raise SettingsError("ROLLCALL_API_TLS_KEY is set, but not ROLLCALL_API_TLS_CERTIFICATE")
        return None
    try:
        return Certificate(settings.api_tls_certificate, settings.api_tls_key)
    except CertificateError as error:
        raise SettingsError(
            f"ROLLCALL_API_TLS_CERTIFICATE, ROLLCALL_API_TLS_KEY: {error}"
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
    app: object,
    listener: socket.socket,
    context: Context,
    settings: Settings,
    certificate: Certificate | None = None,
) -> None:
    """Serve until cancelled; then let requests in flight end, streams at once."""
    limits = Limits(seconds=settings.api_receive, connections=settings.api_max_connections)
    give_up_on_silent_readers(listener, settings.api_receive)
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]  # uvicorn's own ASGI types and Starlette's differ
        log_config=None,
        access_log=False,  # the gate writes a better one
        lifespan="off",
        http=limited(limits),
        h11_max_incomplete_event_size=MAX_HEAD,
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    config.load()
    keeping: asyncio.Task[None] | None = None
    if certificate is not None:
        config.ssl = certificate.context
        keeping = asyncio.create_task(certificate.keep(settings.api_tls_look))
    server = _Uvicorn(config)
    address, port = listener.getsockname()[:2]
    log.info("api_listening", address=address, port=port, tls=certificate is not None)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    finally:
        if keeping is not None:
            keeping.cancel()
        context.stopping.set()  # streams end by themselves when they see it
        server.should_exit = True
        await serving
