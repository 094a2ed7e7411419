"""Questions of metric gates to real HTTP servers on loopback, with a real server's answers."""

import asyncio
import gzip
import json
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web
from health_prober.domain.metric import BODY_LIMIT, MetricAnswer
from health_prober.metric import ask_metric
from prometheus_client import REGISTRY
from rollcall_contracts.model import MetricGate, MetricOutcome

RECORDED = {
    one["name"]: one
    for one in json.loads(
        (Path(__file__).parents[2] / "unit" / "health_prober" / "prometheus-2.42.json").read_text()
    )
}
Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handle: Handle, **how: Any) -> AsyncIterator[int]:
    application = web.Application(client_max_size=10**6)
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, **how)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def answering(name: str, requests: list[web.Request] | None = None) -> Handle:
    """Return a server that gives one of the recorded answers, and notes who asked."""

    async def handle(request: web.Request) -> web.Response:
        if requests is not None:
            await request.post()
            requests.append(request)
        one = RECORDED[name]
        return web.Response(
            status=one["status"], body=one["body"].encode(), content_type="application/json"
        )

    return handle


async def ask(server: str | int, query: str = "sum(up)", **changes: Any) -> MetricAnswer:
    address = f"http://127.0.0.1:{server}" if isinstance(server, int) else server
    fields = {"success_condition": "<= 1", "timeout": 5, **changes}
    return await ask_metric(MetricGate(server=address, query=query, **fields))


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("one", MetricOutcome.SUCCESS),
        ("inf", MetricOutcome.FAILURE),
        ("several", MetricOutcome.INCONCLUSIVE),
        ("bad", MetricOutcome.INCONCLUSIVE),
        ("timeout", MetricOutcome.UNREACHABLE),
    ],
)
async def test_recorded_answers(name: str, outcome: MetricOutcome) -> None:
    labels = {"outcome": outcome.value}
    before = REGISTRY.get_sample_value("rollcall_metric_queries_total", labels) or 0
    async with serving(answering(name)) as port:
        answer = await ask(port)
    assert answer.outcome is outcome
    assert REGISTRY.get_sample_value("rollcall_metric_queries_total", labels) == before + 1


@pytest.mark.parametrize(
    ("server", "path"),
    [
        ("", "/api/v1/query"),
        ("/", "/api/v1/query"),
        ("/prometheus/", "/prometheus/api/v1/query"),
        ("/select/0/a%2Fb", "/select/0/a%2Fb/api/v1/query"),
    ],
)
async def test_the_query_is_asked_as_it_was_written(server: str, path: str) -> None:
    requests: list[web.Request] = []
    query = 'sum(rate(http_requests_total{code=~"5..",a="é & +%"}[5m])) / 2'
    async with serving(answering("one", requests)) as port:
        assert (await ask(f"http://127.0.0.1:{port}{server}", query)).value == 1
    (request,) = requests
    assert (request.method, request.rel_url.raw_path) == ("GET", path)
    assert dict(request.query) == {"query": query}


async def test_what_the_address_carries_goes_along() -> None:
    requests: list[web.Request] = []
    async with serving(answering("one", requests)) as port:
        await ask(f"http://127.0.0.1:{port}/x?tenant=a")
    (request,) = requests
    assert dict(request.query) == {"tenant": "a", "query": "sum(up)"}


async def test_a_long_query_is_posted_as_a_form() -> None:
    requests: list[web.Request] = []
    query = "sum(up)" + "+0" * 3000
    async with serving(answering("one", requests)) as port:
        assert (await ask(port, query)).outcome is MetricOutcome.SUCCESS
    (request,) = requests
    assert (request.method, request.rel_url.raw_path_qs) == ("POST", "/api/v1/query")
    assert request.content_type == "application/x-www-form-urlencoded"
    assert dict(await request.post()) == {"query": query}


async def test_a_redirect_is_not_followed() -> None:
    elsewhere: list[web.Request] = []
    async with serving(answering("one", elsewhere)) as other:

        async def redirect(request: web.Request) -> web.Response:
            where = f"http://127.0.0.1:{other}/api/v1/query?{urlencode(dict(request.query))}"
            return web.Response(status=302, headers={"Location": where})

        async with serving(redirect) as port:
            answer = await ask(port)
    assert (answer.outcome, answer.reason) == (MetricOutcome.UNREACHABLE, "HTTP 302")
    assert elsewhere == []


async def test_no_answer_takes_no_longer_than_the_timeout() -> None:
    hang = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"status":')
        await hang.wait()
        return response

    async with serving(handle) as port:
        started = time.monotonic()
        answer = await ask(port, timeout=0.3)
        took = time.monotonic() - started
        hang.set()
    assert (answer.outcome, answer.reason) == (MetricOutcome.UNREACHABLE, "no answer in 0.3 s")
    assert 0.25 < took < 2


async def test_of_an_endless_answer_no_more_than_the_limit_is_read() -> None:
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)
            sent += 65536

    async with serving(flood) as port:
        answer = await ask(port)
    assert answer.outcome is MetricOutcome.UNREACHABLE
    assert answer.reason == f"HTTP 200 with more than {BODY_LIMIT} bytes"
    assert sent < BODY_LIMIT + 32 * 1024 * 1024


async def test_a_compressed_answer_is_not_unpacked() -> None:
    async def handle(_: web.Request) -> web.Response:
        body = gzip.compress(RECORDED["one"]["body"].encode() + b" " * 10_000_000)
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async with serving(handle) as port:
        assert (await ask(port)).outcome is MetricOutcome.UNREACHABLE


async def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:  # bound, and never listening
        taken.bind(("127.0.0.1", 0))
        answer = await ask(taken.getsockname()[1])
    assert (answer.outcome, answer.reason) == (MetricOutcome.UNREACHABLE, "Connection refused")


@pytest.mark.parametrize("server", ["http://[", "http://127.0.0.1:99999", "http://:80/"])
async def test_an_address_that_is_none_is_not_repeated(server: str) -> None:
    answer = await ask(server)
    assert answer.outcome is MetricOutcome.UNREACHABLE
    assert answer.reason == "the gate's server is no address that can be asked"


async def test_a_certificate_that_nobody_signed_is_not_trusted(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey ec -nodes -days 1 -pkeyopt ec_paramgen_curve:prime256v1"
    await asyncio.to_thread(
        subprocess.run,
        [*make.split(), "-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    requests: list[web.Request] = []
    async with serving(answering("one", requests), ssl_context=context) as port:
        answer = await ask(f"https://127.0.0.1:{port}")
    assert answer.outcome is MetricOutcome.UNREACHABLE
    assert "certificate" in answer.reason
    assert requests == []
