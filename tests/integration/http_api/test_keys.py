"""The keys that sign tokens: changed by age and by command, the same for every copy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
from http_api import tokens
from http_api.app import rotate_keys
from http_api.web import create_app
from rollcall_kit.secrets import new_key
from rollcall_testing import eventually

PATH = "/subscriptions?api-version=2024-11-01"


async def account(api: Any) -> dict[str, Any]:
    body = {"name": "robot", "roles": [{"role": "reader", "scope": "/"}]}
    made: dict[str, Any] = (await api.http.post("/rollcall/accounts", json=body)).json()
    return made


async def log_in(http: httpx.AsyncClient, made: dict[str, Any]) -> str:
    answer = await http.post(
        f"/{made['tenantId']}/oauth2/v2.0/token",
        data={
            "client_id": made["clientId"],
            "client_secret": made["clientSecret"],
            "grant_type": "client_credentials",
        },
    )
    token: str = answer.json()["access_token"]
    return token


def kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


async def status(http: httpx.AsyncClient, token: str) -> int:
    answer = await http.get(PATH, headers={"Authorization": f"Bearer {token}"})
    return answer.status_code


async def published(http: httpx.AsyncClient) -> list[str]:
    found = (await http.get("/common/discovery/v2.0/keys")).json()["keys"]
    return [each["kid"] for each in found]


@asynccontextmanager
async def another_copy(api: Any, secrets_key: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """A second copy of the service over the same database, with nothing else in common."""
    server = api.server
    if secrets_key:
        settings = server.settings.model_copy(update={"secrets_key": secrets_key})
        server = replace(server, settings=settings)
    transport = httpx.ASGITransport(app=create_app(server))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://copy", headers=api.http.headers
    ) as http:
        yield http


async def test_a_command_changes_the_key_for_every_copy_and_the_old_one_still_counts(
    api: Any,
) -> None:
    made = await account(api)
    async with another_copy(api) as copy:
        before = await log_in(api.http, made)
        assert kid(await log_in(copy, made)) == kid(before)
        shown = (await copy.post("/rollcall/keys/rotate")).json()["value"]
        assert [key["signs"] for key in shown] == [True, False]
        assert [key["kid"] for key in shown] == await published(api.http)
        after = await log_in(api.http, made)
        assert kid(after) == shown[0]["kid"] != kid(before) == shown[1]["kid"]
        for http in (api.http, copy):
            assert [await status(http, token) for token in (before, after)] == [200, 200]
        # Once the last token that it signed has ended, the key is worth nothing.
        await api.pool.execute(
            "UPDATE signing_keys SET retired_at = retired_at - $1::interval", tokens.KEPT
        )
        assert await published(copy) == [kid(after)]
        assert await status(api.http, before) == 401
        listed = (await api.http.get("/rollcall/keys")).json()["value"]
        assert [key["kid"] for key in listed] == [kid(after)]


async def test_a_stolen_key_can_be_revoked_at_once_everywhere(api: Any) -> None:
    made = await account(api)
    async with another_copy(api) as copy:
        before = await log_in(api.http, made)
        assert await status(copy, before) == 200
        await api.http.post("/rollcall/keys/rotate", json={"revoke": True})
        assert [await status(http, before) for http in (api.http, copy)] == [401, 401]
        after = await log_in(copy, made)
        assert await status(api.http, after) == 200
        assert await published(copy) == [kid(after)]


async def test_of_many_copies_that_look_at_once_one_changes_an_old_key(api: Any) -> None:
    made = await account(api)
    before = await log_in(api.http, made)
    await api.pool.execute("UPDATE signing_keys SET created_at = created_at - interval '31 days'")
    settings, context = api.server.settings, api.server.context

    async def look() -> bool:
        async with api.pool.acquire() as connection, connection.transaction():
            return await tokens.rotate(
                connection,
                settings.secrets_key,
                datetime.now(UTC),
                older_than=timedelta(days=30),
            )

    assert sorted(await asyncio.gather(*(look() for _ in range(5)))) == [False] * 4 + [True]
    assert len(await published(api.http)) == 2
    # The service itself looks from time to time.
    await api.pool.execute("UPDATE signing_keys SET created_at = created_at - interval '31 days'")
    looking = asyncio.create_task(rotate_keys(context, settings))

    async def are_three() -> bool:
        return len(await published(api.http)) == 3

    await eventually(are_three, timeout=30)
    context.stopping.set()
    await looking
    assert kid(await log_in(api.http, made)) != kid(before)
    assert await status(api.http, before) == 200


async def test_a_key_that_is_sealed_otherwise_is_replaced_and_its_tokens_still_count(
    api: Any,
) -> None:
    made = await account(api)
    before = await log_in(api.http, made)
    async with another_copy(api, new_key()) as copy:
        after = await log_in(copy, made)
        assert kid(after) != kid(before)
        for http in (api.http, copy):
            assert [await status(http, token) for token in (before, after)] == [200, 200]


async def test_only_the_owner_may_change_keys(api: Any) -> None:
    made = await account(api)
    headers = {"Authorization": f"Bearer {await log_in(api.http, made)}"}
    assert (await api.http.post("/rollcall/keys/rotate", headers=headers)).status_code == 403
    assert (await api.http.get("/rollcall/keys", headers=headers)).status_code == 403
    wrong = await api.http.post("/rollcall/keys/rotate", json={"revoke": "perhaps"})
    assert (wrong.status_code, wrong.json()["error"]["target"]) == (400, "revoke")
