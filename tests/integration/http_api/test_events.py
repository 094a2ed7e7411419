"""The event log over HTTP: pages, the stream, and taking it up again."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from rollcall_contracts.chain import entry_hash
from rollcall_testing import eventually

STREAM = "/rollcall/events/stream"
EVENTS = "/rollcall/events"


async def frames(response: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """Yield the events of a stream as their fields."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            if "data" in fields:
                yield fields
            fields = {}


async def take(response: httpx.Response, count: int) -> list[dict[str, str]]:
    """Return the next events of a stream."""
    found: list[dict[str, str]] = []
    async with asyncio.timeout(10):
        async for frame in frames(response):
            found.append(frame)
            if len(found) == count:
                break
    return found


async def write(api: Any, *capacities: int) -> None:
    for capacity in capacities:
        response = await api.ask("PUT", api.set, api.scale_set_body(capacity))
        assert response.status_code in (200, 201)


def page_of(api: Any) -> dict[str, Any]:
    """Return what asks for one event of the set."""
    return {"scaleSet": api.set, "limit": 1}


async def test_a_page_holds_cloud_events_that_prove_themselves(api: Any) -> None:
    await write(api, 1, 2, 3)
    page = await api.get(EVENTS, params={"scaleSet": api.set.upper(), "limit": 2})
    rest = (await api.http.get(page["nextLink"])).json()
    assert "nextLink" not in rest
    proxy = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "example",
        "X-Forwarded-Prefix": "/a",
    }
    link = (await api.http.get(EVENTS, params=page_of(api), headers=proxy)).json()["nextLink"]
    assert link.startswith(f"https://example/a{EVENTS}?scaleSet={api.set}&")
    assert link.endswith("&after=1")
    events = page["value"] + rest["value"]
    assert [event["sequence"] for event in events] == ["1", "2", "3"]
    assert [event["data"]["spec"]["capacity"] for event in events] == [1, 2, 3]
    previous = "0" * 64
    for event in events:
        assert event["specversion"] == "1.0"
        assert event["subject"] == api.set
        assert event["previoushash"] == previous
        previous = event["hash"]
        body = json.dumps(event["data"], separators=(",", ":"), ensure_ascii=False)
        assert previous == entry_hash(
            stream=event["stream"],
            sequence=int(event["sequence"]),
            id=event["id"],
            type=event["type"],
            source=event["source"],
            time=datetime.fromisoformat(event["time"]),
            body=body,
            previous_hash=event["previoushash"],
        )
    after = await api.get(EVENTS, params={"scaleSet": api.set, "after": 2})
    assert after["value"] == events[2:]
    assert await api.get(EVENTS, params={"stream": "images"}) == {"value": []}


@pytest.mark.parametrize(
    "params", [{}, {"scaleSet": "/s", "after": -1}, {"scaleSet": "/s", "limit": 0}]
)
async def test_unclear_questions_are_refused(api: Any, params: dict[str, Any]) -> None:
    await api.get(EVENTS, 400, params=params)


async def test_a_stream_begins_now_and_goes_on_after_the_last_id(api: Any) -> None:
    await write(api, 1, 2)
    async with api.http.stream("GET", STREAM, params={"scaleSet": api.set}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        await write(api, 3, 4)
        live = await take(response, 2)
    assert [frame["id"] for frame in live] == ["3", "4"]
    assert {frame["event"] for frame in live} == {"scale_set.changed.v1"}
    await write(api, 5, 6)
    async with api.http.stream(
        "GET", STREAM, params={"scaleSet": api.set}, headers={"Last-Event-ID": "3"}
    ) as response:
        await write(api, 7)
        resumed = await take(response, 4)
    assert [json.loads(frame["data"])["data"]["spec"]["capacity"] for frame in resumed] == [
        *(4, 5, 6, 7)
    ]
    async with api.http.stream("GET", STREAM, params={"scaleSet": api.set, "after": 0}) as response:
        assert [frame["id"] for frame in await take(response, 7)] == [*"1234567"]


async def test_a_stream_misses_nothing_under_load(api: Any) -> None:
    async with api.http.stream("GET", STREAM, params={"scaleSet": api.set}) as response:
        writers = asyncio.gather(*(write(api, *range(10)) for _ in range(4)))
        found = await take(response, 40)
        await writers
    assert [int(frame["id"]) for frame in found] == list(range(1, 41))


async def test_a_bad_last_event_id_is_refused(api: Any) -> None:
    for bad in ("x", "-1", "1" * 30):
        response = await api.http.get(
            STREAM, params={"scaleSet": api.set}, headers={"Last-Event-ID": bad}
        )
        assert response.status_code == 400
        assert response.json()["error"]["target"] == "Last-Event-ID"


@pytest.mark.parametrize("options", [{"api_keepalive": 0.1}])
async def test_an_idle_stream_shows_that_it_lives_and_notices_who_leaves(api: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(
        f"GET {STREAM}?scaleSet=/x HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {api.http.headers['Authorization']}\r\n\r\n".encode()
    )
    async with asyncio.timeout(10):
        await reader.readuntil(b": still here")

    def is_served() -> bool:
        names = [repr(task.get_coro()) for task in asyncio.all_tasks()]
        return any("RequestResponseCycle.run_asgi" in name for name in names)

    assert is_served()
    writer.close()
    await eventually(lambda: not is_served())
    assert (await api.http.get("/healthz")).status_code == 200
