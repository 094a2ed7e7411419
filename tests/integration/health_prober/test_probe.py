"""Single probes against real listeners on loopback."""

import asyncio
import gzip
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from health_prober.domain.answer import BODY_LIMIT
from health_prober.probe import open_session, probe_once
from rollcall_contracts.events import ProbeTarget
from rollcall_contracts.model import Health, Probe

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[int]:
    """Listen on loopback; each connection is handed to `serve`, then closed."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            return  # the prober hung up, as some of the tests want
        finally:
            writer.close()

    server = await asyncio.start_server(accept, host, 0, **options)
    async with server:
        yield server.sockets[0].getsockname()[1]


def answering(raw: bytes) -> Serve:
    """Return a server that reads a request and sends `raw`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    return serve


def response(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Some", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def ask(
    port: int,
    *,
    protocol: Literal["Http", "Https", "Tcp"] = "Http",
    address: str = "127.0.0.1",
    timeout: float = 5,  # noqa: ASYNC109 (the probe's own setting)
) -> tuple[Health, str]:
    probe = Probe(
        protocol=protocol,
        port=80,
        request_path=None if protocol == "Tcp" else "/health",
        timeout=timeout,
    )
    target = ProbeTarget(instance_id="0", attempt=1, lease=1, address=address, port=port)
    async with open_session() as session:
        answer = await probe_once(session, probe, target)
    return answer.health, answer.reason


@pytest.mark.parametrize(
    ("raw", "health", "reason"),
    [
        (response(200, b"OK"), Health.HEALTHY, "HTTP 200"),
        (response(503), Health.UNHEALTHY, "HTTP 503"),
        (response(302, b"", "Location: /elsewhere"), Health.UNHEALTHY, "HTTP 302"),
        (
            response(200, b'{"ApplicationHealthState": "Initializing"}'),
            Health.INITIALIZING,
            "HTTP 200, ApplicationHealthState 'Initializing'",
        ),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Health.UNHEALTHY, None),
        (b"", Health.UNHEALTHY, "Server disconnected"),
    ],
)
async def test_answers(raw: bytes, health: Health, reason: str | None) -> None:
    async with listening(answering(raw)) as port:
        answer = await ask(port)
    assert answer[0] is health
    assert "\n" not in answer[1]
    if reason is not None:
        assert answer[1] == reason


@pytest.mark.parametrize("address", ["bad..name", "a" * 64 + ".example", ".example", "a" * 300])
@pytest.mark.parametrize("protocol", ["Http", "Https", "Tcp"])
async def test_a_name_that_no_host_can_have_is_unhealthy(
    address: str, protocol: Literal["Http", "Https", "Tcp"]
) -> None:
    health, reason = await ask(80, protocol=protocol, address=address)
    assert health is Health.UNHEALTHY
    assert reason
    assert len(reason) < 250


async def test_each_probe_asks_the_path_on_a_connection_of_its_own() -> None:
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):  # would serve a kept connection too
            requests.append(head)
            writer.write(response(200))
            if await reader.read(1) == b"":
                return
            requests.append(b"a second request on one connection")

    probe = Probe(protocol="Http", port=80, request_path="/health?deep=1")
    async with listening(serve) as port, open_session() as session:
        target = ProbeTarget(instance_id="0", attempt=1, lease=1, address="127.0.0.1", port=port)
        for _ in range(3):
            assert (await probe_once(session, probe, target)).health is Health.HEALTHY
    assert len(requests) == 3
    assert all(head.startswith(b"GET /health?deep=1 HTTP/1.1\r\n") for head in requests)


async def test_a_refused_connection_is_unhealthy_with_the_systems_words() -> None:
    assert await ask(free_port()) == (Health.UNHEALTHY, "Connection refused")
    assert await ask(free_port(), protocol="Tcp") == (Health.UNHEALTHY, "Connection refused")


async def test_a_listener_that_hangs_costs_no_more_than_the_timeout() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:  # a byte at a time: each single read succeeds
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    for serve in (hang, drip):
        async with listening(serve) as port:
            started = time.monotonic()
            answer = await ask(port, timeout=0.3)
            took = time.monotonic() - started
        assert answer == (Health.UNHEALTHY, "no answer in 0.3 s")
        assert 0.25 < took < 2


async def test_of_an_endless_body_no_more_than_the_limit_is_read() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with listening(flood) as port:
        assert await ask(port) == (Health.HEALTHY, "HTTP 200")
        seen = sent
    # What the kernel's buffers hold on top of the limit differs; an endless body would never end.
    assert seen < BODY_LIMIT + 32 * 1024 * 1024


async def test_a_compressed_body_is_not_unpacked() -> None:
    bomb = gzip.compress(b'{"ApplicationHealthState": "Unhealthy"}' + b" " * 10_000_000)
    async with listening(answering(response(200, bomb, "Content-Encoding: gzip"))) as port:
        assert await ask(port) == (Health.HEALTHY, "HTTP 200")


async def test_ipv6() -> None:
    async with listening(answering(response(200)), host="::1") as port:
        assert (await ask(port, address="::1"))[0] is Health.HEALTHY
        assert (await ask(port, address="::1", protocol="Tcp"))[0] is Health.HEALTHY


async def test_https_with_a_certificate_that_nobody_signed(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    await asyncio.to_thread(
        subprocess.run,
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "1"),
            *(
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-subj",
                "/CN=not-this-host",
                "-keyout",
                str(key),
                "-out",
                str(certificate),
            ),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with listening(answering(response(200)), ssl=context) as port:
        assert await ask(port, protocol="Https") == (Health.HEALTHY, "HTTP 200")
    async with listening(answering(response(200))) as port:  # no TLS there
        assert (await ask(port, protocol="Https", timeout=0.5))[0] is Health.UNHEALTHY


async def test_tcp_connects_and_closes() -> None:
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        closed.set()

    async with listening(serve) as port:
        assert await ask(port, protocol="Tcp") == (Health.HEALTHY, "TCP connected")
        async with asyncio.timeout(5):
            await closed.wait()


async def test_an_address_that_is_none_is_unhealthy() -> None:
    for protocol in ("Http", "Tcp"):
        health, reason = await ask(80, address="not a host", protocol=protocol)
        assert health is Health.UNHEALTHY
        assert reason
