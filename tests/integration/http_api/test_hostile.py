"""What attackers and broken programs send: refused with a reason, while all others are served."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from http_api.store import lock_models
from rollcall_testing import eventually
from structlog.testing import capture_logs

TOKEN = "token-of-the-test"
VERSION = "api-version=2024-11-01"
PATIENCE = 60  # seconds: the machine may be busy

TABLE = Path("/proc/net/tcp")  # the system's connections


class Answer:
    """An answer as it came; status 0: the connection was closed without one."""

    def __init__(self, raw: bytes) -> None:
        head, _, body = raw.partition(b"\r\n\r\n")
        self.status = int(head.split()[1]) if head.startswith(b"HTTP/1.") else 0
        self.head, self.body = head, body

    @property
    def error(self) -> Mapping[str, str]:
        error: Mapping[str, str] = json.loads(self.body)["error"]
        return error


def request(
    method: str, target: str, body: bytes = b"", *, token: str = TOKEN, **headers: str
) -> bytes:
    """Return a request that ends its connection."""
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Authorization: Bearer {token}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def send(api: Any, raw: bytes) -> Answer:
    """Send bytes as they are, and return what comes until the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    received = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):  # the server has seen enough before the end
                writer.write(raw)
                await writer.drain()
            with suppress(ConnectionError):
                while chunk := await reader.read(65536):
                    received += chunk
    finally:
        writer.close()
    return Answer(bytes(received))


@asynccontextmanager
async def unharmed(api: Any) -> AsyncIterator[list[str]]:
    """Give a list for what is wrong; at the end it must be empty, and the server well."""
    wrong: list[str] = []
    with capture_logs() as logs:
        yield wrong
        assert not wrong, "\n".join(wrong)
        assert (await api.http.get("/healthz")).status_code == 200
        created = await api.ask("PUT", f"{api.group}-after{api.set[len(api.group) :]}", BODY)
        assert created.status_code == 201, created.text
    assert [line for line in logs if line["event"] == "request_failed"] == []


BODY = {
    "location": "local",
    "sku": {"capacity": 1},
    "properties": {
        "virtualMachineProfile": {
            "storageProfile": {"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}}
        }
    },
}


def with_tag(text: str) -> bytes:
    """Return the body of a scale set with a tag whose value is given as JSON."""
    return json.dumps({**BODY, "tags": {"x": "HERE"}}).replace('"HERE"', text).encode()


def with_capacity(text: str) -> bytes:
    return json.dumps({**BODY, "sku": {"capacity": "HERE"}}).replace('"HERE"', text).encode()


UNUSABLE = {  # the body of a PUT, and what its error names
    "a name twice": (b'{"location": "a", "location": "b"}', "'location' is there twice"),
    "a name twice, deep down": (b'{"properties": {"a": [{"b": 1, "b": 2}]}}', "'b' is there twice"),
    "NaN": (with_tag("NaN"), "NaN is not a JSON number"),
    "infinity": (with_tag("-Infinity"), "-Infinity is not a JSON number"),
    "a float out of range": (with_tag("1e999"), "out of range"),
    "an int of too many digits": (with_tag("9" * 5000), "4300 digits"),
    "a capacity of 4000 digits": (with_capacity("9" * 4000), "sku.capacity must be a whole number"),
    "a capacity beyond 64 bits": (with_capacity(str(2**63)), "sku.capacity must be a whole number"),
    "a negative capacity": (with_capacity("-1"), "sku.capacity must be a whole number"),
    "a capacity that is true": (with_capacity("true"), "sku.capacity must be a whole number"),
    "lists in lists": (b"[" * 100_000, "recursion"),
    "objects in objects": (b'{"a":' * 100_000, "recursion"),
    "rather deep": (with_tag("[" * 70 + "]" * 70), "64 levels"),
    "half a surrogate pair": (with_tag(r'"\ud800"'), "half of a surrogate pair"),
    "half a surrogate pair in a name": (with_tag(r'{"\udfff": 1}'), "half of a surrogate pair"),
    "NUL": (with_tag(r'"a\u0000b"'), "NUL"),
    "NUL in a name": (with_tag(r'{"a\u0000": 1}'), "NUL"),
    "a raw NUL": (with_tag('"a\0b"'), "control character"),
    "no UTF-8": (b'{"location": "\xff\xfe"}', "utf-8"),
    "an overlong UTF-8": (b'{"location": "\xc0\xaf"}', "utf-8"),
    "nothing": (b" ", "Expecting value"),
    "half of it": (b'{"location": ', "Expecting value"),
    "something behind it": (b"{} {}", "Extra data"),
    "a list": (b"[]", "must be a JSON object"),
    "null": (b"null", "must be a JSON object"),
    "a text": (b'"x"', "must be a JSON object"),
    "XML": (b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "JSON"),
    "properties that are a list": (b'{"properties": []}', "properties must be an object"),
    "a profile that is a text": (
        b'{"properties": {"virtualMachineProfile": "x"}}',
        "virtualMachineProfile must be an object",
    ),
}


async def test_bodies_that_cannot_be_used(api: Any) -> None:
    target = f"{api.set}?{VERSION}"
    async with unharmed(api) as wrong:
        for name, (body, named) in UNUSABLE.items():
            answer = await send(api, request("PUT", target, body, Content_Type="application/json"))
            told = answer.body.decode()
            if answer.status != 400 or named not in json.dumps(answer.error, ensure_ascii=False):
                wrong.append(f"{name}: {answer.status} {told[:300]}")
        packed = request("PUT", target, gzip.compress(b"{}"), Content_Encoding="gzip")
        answer = await send(api, packed)
        assert (answer.status, "gzip" in answer.error["message"]) == (415, True)
        # What is odd, but means one thing only, is taken as it is.
        for text in ("1" * 4000, '"\\ud83d\\ude00"', "[" * 50 + "]" * 50, "1e-999", '"\u202e"'):
            stored = await send(api, request("PUT", target, with_tag(text)))
            assert stored.status in (200, 201), stored.body
        for kind in ("text/xml", "multipart/form-data; boundary=x", "a/b; charset=utf-7", "x"):
            same = await send(api, request("PUT", target, with_tag('"y"'), Content_Type=kind))
            assert same.status == 200, "JSON is JSON, whatever it is called"


SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets"
BAD_TARGETS = {  # and a word of the error
    f"{SET}/a%00b?{VERSION}": "NUL",
    f"{SET}/a%0d%0aX-Evil:1?{VERSION}": "control character",
    f"{SET}/%ff%fe?{VERSION}": "UTF-8",
    f"{SET}/%c0%ae%c0%ae?{VERSION}": "UTF-8",
    f"{SET}/a%2fb?{VERSION}": "encoded slash",
    f"{SET}/a%5Cb?{VERSION}": "encoded slash",
    f"{SET}/../../../../../../rollcall/accounts?{VERSION}": "'..'",
    f"{SET}/%2e%2e/x?{VERSION}": "'..'",
    f"{SET}/./web?{VERSION}": "'.'",
    f"{SET}/{'a' * 200}?{VERSION}": "not a name that a resource may have",
    f"{SET}/%E6%97%A5?{VERSION}": "not a name that a resource may have",
    f"{SET}/a'b?{VERSION}": "not a name that a resource may have",
    f"{SET}/%253c?{VERSION}": "not a name that a resource may have",
    f"/subscriptions/a%20b/resourceGroups/g?{VERSION}": "not a name that a subscription may have",
    f"{SET}/web?api-version=%00": "NUL",
    f"{SET}/web?api-version=2024-11-01%27": "api-version",
    f"{SET}/web?api-version=9999-99-99": "api-version",
    f"{SET}/web?api-version=%ff": "UTF-8",
    f"{SET}/web/virtualMachines?{VERSION}&$top=0": "$top",
    f"{SET}/web/virtualMachines?{VERSION}&$top=-1": "$top",
    f"{SET}/web/virtualMachines?{VERSION}&$top=1001": "$top",
    f"{SET}/web/virtualMachines?{VERSION}&$top={'9' * 30}": "$top",
    f"{SET}/web/virtualMachines?{VERSION}&$top={'9' * 5000}": "$top",
    f"{SET}/web/virtualMachines?{VERSION}&$top=1e3": "$top",
    f"{SET}/web/virtualMachines?{VERSION}&$top=ten": "$top",
    f"{SET}/web/virtualMachines?{VERSION}&$skiptoken={'x' * 501}": "$skiptoken",
    f"{SET}/web/virtualMachines?{VERSION}&$skiptoken=%00": "NUL",
    f"{SET}/web/virtualMachines?{VERSION}&$filter=1%20eq%201": "$filter",
    f"{SET}/web/virtualMachines?{VERSION}&$filter={'(' * 5000}": "$filter",
    f"{SET}/web/rollcall/upgrades?{VERSION}&$skiptoken=-1": "$skiptoken",
    f"{SET}/web/rollcall/upgrades?{VERSION}&$skiptoken={2**31 + 1}": "$skiptoken",
    f"{SET}/web/rollcall/upgrades?{VERSION}&$skiptoken=0;DROP": "$skiptoken",
    f"/rollcall/events?scaleSet={SET}/web&after=-1": "after",
    f"/rollcall/events?scaleSet={SET}/web&after={2**63}": "after",
    f"/rollcall/events?scaleSet={SET}/web&limit=0": "limit",
    f"/rollcall/events?scaleSet={SET}/web&limit=1001": "limit",
    f"/rollcall/events?scaleSet={'x' * 1001}": "scaleSet",
    "/rollcall/events": "scaleSet",
}
ODD_TARGETS = (  # answered somehow, but never with a fault of ours
    f"{SET}?{VERSION}&$skiptoken=%F0%9F%98%80",
    f"{SET}?{VERSION}&$skiptoken=' OR 1=1 --",
    f"{SET}/web/virtualMachines?{VERSION}&$skiptoken=%25",
    f"{SET}/web/virtualMachines/-1?{VERSION}",
    f"{SET}/web/virtualMachines/{'9' * 300}?{VERSION}",
    f"{SET}/web/virtualMachines/%F0%9F%98%80/instanceView?{VERSION}",
    f"{SET}/web/osRollingUpgrade/{'x/' * 300}?{VERSION}",
    f"{SET}/web/rollcall/upgrades/not-a-uuid?{VERSION}",
    f"{SET}/web?{VERSION}&" + "&".join(f"a{n}=b" for n in range(2000)),
    f"{SET}/web?{VERSION}&{VERSION}&api-version=1",
    f"/subscriptions/s/providers/Microsoft.Compute/locations/%20/operations/x?{VERSION}",
    f"/subscriptions/s/providers/Microsoft.Compute/locations/l/publishers/%F0/x?{VERSION}",
    f"/subscriptions/s/providers/Microsoft.Compute/locations/l/publishers/'/artifacttypes/vmimage"
    f"/offers/%3B/skus/--/versions?{VERSION}&$top=1&$orderby=name",
    f"/subscriptions/s/resources?{VERSION}&$filter=name%20eq%20'''",
    "/rollcall/keys/../accounts",
    "//evil.example/rollcall/accounts",
    "/rollcall/accounts/%E2%80%AE",
    "/%EF%BF%BF/v2.0/.well-known/openid-configuration",
    "/rollcall/holds?x=%E2%80%AE",
    "*",
    "http://evil.example/healthz",
    "evil.example:443",
)


async def test_addresses_that_no_client_means(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(2), 201)
    async with unharmed(api) as wrong:
        for target, named in BAD_TARGETS.items():
            answer = await send(api, request("GET", target.replace(" ", "%20")))
            if answer.status != 400 or named not in answer.body.decode():
                wrong.append(f"{target[:150]}: {answer.status} {answer.body[:200]!r}")
        for target in ODD_TARGETS:
            for method in ("GET", "PUT", "PATCH", "POST", "DELETE", "HEAD", "OPTIONS", "TRACE"):
                raw = request(method, target.replace(" ", "%20"), b"{}")
                answer = await send(api, raw)
                if not 200 <= answer.status < 500 or b"evil" in answer.head.lower():
                    wrong.append(f"{method} {target[:150]}: {answer.status} {answer.body[:200]!r}")


HEAD = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
PUT = f"PUT {SET}/web?{VERSION} HTTP/1.1\r\n{HEAD}"
GET = f"GET {SET}/web?{VERSION} HTTP/1.1\r\n"
BROKEN = {  # bytes on the wire, and a word of the error
    "two ends of a body": (
        f"{PUT}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil",
        "not both",
    ),
    "the same the other way round": (
        f"{PUT}Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\nGET /evil",
        "not both",
    ),
    "two lengths": (f"{PUT}Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "Content-Length"),
    "a negative length": (f"{PUT}Content-Length: -1\r\n\r\n", "Content-Length"),
    "a length with a sign": (f"{PUT}Content-Length: +1\r\n\r\n1", "Content-Length"),
    "a length in hex": (f"{PUT}Content-Length: 0x10\r\n\r\n", "Content-Length"),
    "a length of 40 digits": (f"{PUT}Content-Length: {'9' * 40}\r\n\r\n", "Content-Length"),
    "an unknown coding": (f"{PUT}Transfer-Encoding: gzip\r\n\r\n", "Transfer-Encoding"),
    "two codings": (f"{PUT}Transfer-Encoding: chunked, gzip\r\n\r\n", "Transfer-Encoding"),
    "a chunk without size": (f"{PUT}Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "illegal chunk"),
    "a chunk of 40 digits": (
        f"{PUT}Transfer-Encoding: chunked\r\n\r\n{'f' * 40}\r\n",
        "illegal chunk",
    ),
    "a chunk longer than it says": (
        f"{PUT}Transfer-Encoding: chunked\r\n\r\n1\r\n{{}}\r\n0\r\n\r\n",
        "chunk",
    ),
    "no host": (f"{GET}Authorization: Bearer {TOKEN}\r\n\r\n", "Host"),
    "two hosts": (f"{GET}{HEAD}Host: other\r\n\r\n", "Host"),
    "half an address as host": (f"{GET}Host: [::1\r\n\r\n", "Host"),
    "a host that is a script": (f"{GET}Host: <script>\r\n\r\n", "Host"),
    "a host with a path": (f"{GET}Host: a/b?c\r\n\r\n", "Host"),
    "no colon": (f"{GET}{HEAD}what is this\r\n\r\n", "illegal header line"),
    "a blank before the colon": (f"{GET}{HEAD}Content-Length : 3\r\n\r\n", "illegal header line"),
    "NUL in a header": (f"{GET}{HEAD}X: a\0b\r\n\r\n", "illegal header line"),
    "no HTTP": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\r\n\r\n", "no HTTP request"),
    "HTTP 2 unasked": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"),
    "HTTP 0.9": ("GET /healthz\r\n\r\n", "no HTTP request"),
    "a version of the future": (f"GET /healthz HTTP/9.9\r\n{HEAD}\r\n", "HTTP"),
    "a target with raw bytes": (f"GET /\xff HTTP/1.1\r\n{HEAD}\r\n", "no HTTP request"),
    "a method with a blank": (f"GE T / HTTP/1.1\r\n{HEAD}\r\n", "no HTTP request"),
    "many bytes that mean nothing": ("\x00" * 200_000, "no HTTP request"),
}
LARGE = {
    "a long header": f"{GET}{HEAD}X: {'a' * 600_000}\r\n\r\n",
    "many headers": f"{GET}{HEAD}{''.join(f'X-{n}: y' + chr(13) + chr(10) for n in range(90_000))}",
    "a long address": f"GET /{'a' * 600_000} HTTP/1.1\r\n{HEAD}\r\n",
}


async def test_what_is_no_http(api: Any) -> None:
    async with unharmed(api) as wrong:
        for name, (raw, named) in BROKEN.items():
            answer = await send(api, raw.encode("latin-1"))
            if answer.status != 400 or named not in answer.error["message"]:
                wrong.append(f"{name}: {answer.status} {answer.body[:200]!r}")
            if b"}HTTP/1.1 " in answer.body:
                wrong.append(f"{name}: there is a second answer")
        for name, raw in LARGE.items():
            answer = await send(api, raw.encode())
            if answer.status not in (0, 431):  # 0: it was cut off while still sending
                wrong.append(f"{name}: {answer.status} {answer.body[:200]!r}")


async def test_bodies_that_are_too_large_or_break_off(api: Any) -> None:
    limit = api.server.settings.api_max_body
    async with unharmed(api):
        told = f"{PUT}Connection: close\r\nContent-Length: {limit + 1}\r\n\r\n"
        answer = await send(api, told.encode())
        assert (answer.status, answer.error["code"]) == (413, "RequestEntityTooLarge")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        head = f"{PUT}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        answer = await send(api, head + chunk * (limit // 0x10000 + 1) + b"0\r\n\r\n")
        assert answer.status in (0, 413)
        with capture_logs() as logs:
            _, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(f"{PUT}Content-Length: 100\r\n\r\n{{".encode())
            await writer.drain()
            writer.close()
            handled = await eventually(
                lambda: [line for line in logs if line["event"] == "request_handled"], PATIENCE
            )
        assert [line["status"] for line in handled] == [499], "nobody is there to be answered"
        assert await api.events() == []


@pytest.mark.parametrize("options", [{"api_receive": 0.5, "api_max_connections": 16}])
async def test_the_slow_do_not_keep_the_others_out(api: Any) -> None:
    beginnings = (
        b"",
        b"GET /healthz HTT",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"POST /common/oauth2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nx",
        f"{PUT}Content-Length: 99\r\n\r\n{{".encode(),
        # refused before its body is here
        f"PUT {SET}/web HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{{".encode(),
    )
    expected = {b"", b"HTTP/1.1 401", b"HTTP/1.1 408"}

    async def crawl(beginning: bytes) -> bytes:
        """Send a beginning, then a byte now and then; return what is answered."""
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        received = b""
        with suppress(ConnectionError):
            writer.write(beginning)
            await writer.drain()
            trickle = asyncio.create_task(drip(writer))
            try:
                async with asyncio.timeout(PATIENCE):
                    received = await reader.read()
            finally:
                trickle.cancel()
                writer.close()
        return received

    async def drip(writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.1)

    async with unharmed(api):
        served = 0
        answers: set[bytes] = set()

        async def crawl_on(beginning: bytes) -> None:
            while served < 3:
                answers.add((await crawl(beginning))[:12])
                await asyncio.sleep(0.3)  # an attacker's own pace

        crawling = [asyncio.create_task(crawl_on(each)) for each in beginnings * 6]
        async with asyncio.timeout(PATIENCE):
            while served < 3:
                async with httpx.AsyncClient(base_url=str(api.http.base_url)) as other:
                    with suppress(httpx.TransportError):  # too late among so many: asked again
                        assert (await other.get("/healthz", timeout=5)).status_code == 200
                        served += 1
        await asyncio.gather(*crawling)
        assert answers <= expected, answers
        # By itself each is told what was missing; among too many it just goes.
        alone = [await crawl(each) for each in beginnings]
        texts = [b"", b"head", b"head", b"body", b"body", b"Authentication"]
        assert all(text in answer for text, answer in zip(texts, alone, strict=True)), alone
        assert [Answer(each).status for each in alone[1:]] == [408, 408, 408, 408, 401]


@pytest.mark.parametrize("options", [{"api_receive": 0.5}])
async def test_a_client_that_does_not_read_is_given_up(api: Any) -> None:
    def connections() -> int:
        rows = [line.split() for line in TABLE.read_text().splitlines()[1:]]
        return sum(
            row[1].endswith(f":{api.port:04X}") and row[2] == mine and row[3] == "01"
            for row in rows
        )

    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", api.port))
        host, port = client.getsockname()
        mine = f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}"
        asked = request("GET", "/rollcall/openapi.json").replace(b"Connection: close", b"A: b")
        client.sendall(asked * 400)  # answers of tens of megabytes: more than the system buffers
        await eventually(lambda: connections() == 1, PATIENCE)
        await eventually(lambda: connections() == 0, PATIENCE)
    assert (await api.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize("options", [{"api_max_requests": 2}])
async def test_one_bearer_does_not_keep_the_others_out(api: Any, database_url: str) -> None:
    roles = [{"role": "reader", "scope": "/"}]
    made = await api.http.post("/rollcall/accounts", json={"name": "other", "roles": roles})
    account = made.json()
    form = {
        "grant_type": "client_credentials",
        "client_id": account["clientId"],
        "client_secret": account["clientSecret"],
    }
    login = await api.http.post("/common/oauth2/v2.0/token", data=form)
    other = {"Authorization": f"Bearer {login.json()['access_token']}"}
    async with AsyncExitStack() as stack:
        blocker = await asyncpg.connect(database_url)
        stack.push_async_callback(blocker.close)
        async with blocker.transaction():
            await lock_models(blocker)
            waiting = [asyncio.create_task(api.ask("PUT", api.set, BODY)) for _ in range(2)]

            async def are_waiting() -> bool:
                query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                return bool(await blocker.fetchval(query) == 2)

            await eventually(are_waiting, PATIENCE)
            refused = await api.ask("GET", api.set)
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["code"] == "TooManyRequests"
            assert (await api.http.get("/healthz")).status_code == 200
            assert (await api.ask("GET", api.set, headers=other)).status_code == 404
        assert sorted([(await each).status_code for each in waiting]) == [200, 201]
    assert (await api.ask("GET", api.set)).status_code == 200


@pytest.mark.parametrize("options", [{"api_page_size": 2}])
async def test_a_token_of_another_page_shows_nothing_of_others(api: Any) -> None:
    for group in ("a", "b", "c"):
        for name in ("x", "y", "z"):
            place = api.set.replace("Groups/g", f"Groups/{group}").replace("web", name)
            await api.put(place, BODY, 201)
    roles = [{"role": "reader", "scope": "/subscriptions/s/resourceGroups/b"}]
    made = (await api.http.post("/rollcall/accounts", json={"name": "b", "roles": roles})).json()
    form = {
        "grant_type": "client_credentials",
        "client_id": made["clientId"],
        "client_secret": made["clientSecret"],
    }
    login = await api.http.post("/common/oauth2/v2.0/token", data=form)
    headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
    path = "/subscriptions/s/providers/Microsoft.Compute/virtualMachineScaleSets"
    first = await api.get(path, headers=headers)
    assert len(first["value"]) == 2
    rest = (await api.http.get(first["nextLink"], headers=headers)).json()
    assert [each["name"] for each in rest["value"]] == ["z"]
    for token in ("", "/", "/subscriptions/s/resourcegroups/a", "~", "%", "\u00e9", "'--"):
        page = await api.get(path, headers=headers, params={"$skiptoken": token})
        groups = {each["id"].split("/")[4] for each in page["value"]}
        assert groups <= {"b"}, token
    for link in (first["nextLink"].replace("Compute", "Evil"), first["nextLink"] + "%00"):
        answer = await api.http.get(link, headers=headers)
        assert 400 <= answer.status_code < 500
