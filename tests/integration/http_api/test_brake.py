"""The brake on logins, over HTTP: who waits, and who does not."""

import asyncio
from typing import Any

import httpx
from rollcall_testing import eventually
from structlog.testing import capture_logs

PATH = "/common/oauth2/v2.0/token"
HERE, THERE = "192.0.2.1", "198.51.100.7"


async def account_of(api: Any, name: str) -> dict[str, str]:
    body = {"name": name, "roles": [{"role": "reader", "scope": "/"}]}
    made: dict[str, str] = (await api.http.post("/rollcall/accounts", json=body)).json()
    return made


async def attempt(api: Any, client_id: str, secret: str, address: str = HERE) -> httpx.Response:
    """Try to log in from an address, as a proxy on this machine says it."""
    form = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_secret": secret,
        "scope": "https://x/.default",
    }
    async with httpx.AsyncClient(base_url=str(api.http.base_url), timeout=60) as stranger:
        return await stranger.post(PATH, data=form, headers={"X-Forwarded-For": address})


async def test_wrong_secrets_are_held_and_the_right_ones_of_others_are_not(api: Any) -> None:
    victim, other = await account_of(api, "victim"), await account_of(api, "other")
    id, secret = victim["clientId"], victim["clientSecret"]
    with capture_logs() as logs:
        # All at once: what is not known to be right counts as wrong.
        tries = await asyncio.gather(*(attempt(api, id, f"wrong {n}") for n in range(12)))
    statuses = [each.status_code for each in tries]
    assert set(statuses) == {401, 429}
    assert 5 <= statuses.count(401) < 12, "five are free; on a slow machine some time goes by"
    held = next(each for each in tries if each.status_code == 429)
    assert held.json()["error"] == "temporarily_unavailable"
    assert "AADSTS50196" in held.json()["error_description"]
    assert 1 <= int(held.headers["retry-after"]) <= 60
    refused = [line for line in logs if line["event"] == "login_refused"]
    assert {(line["why"], line["address"]) for line in refused} == {("wrong", HERE), ("held", HERE)}
    assert not any("wrong 1" in str(line) for line in logs), "secrets are not logged"

    # At its usual address the account logs in, whatever somebody does at another one; and where
    # it has logged in since, its secret is known to be right.
    assert (await attempt(api, id, secret, THERE)).status_code == 200
    assert (await attempt(api, id, secret, HERE)).status_code == 200
    # Others at the attacker's address, for the first time.
    right = await attempt(api, other["clientId"], other["clientSecret"], HERE)
    assert right.status_code == 200

    async def is_held() -> bool:
        return (await attempt(api, id, "wrong again", HERE)).status_code == 429

    await eventually(is_held, timeout=60)


async def test_ids_that_are_no_accounts_are_held_by_address(api: Any) -> None:
    account = await account_of(api, "robot")
    strangers = [f"6a0ae8a5-0000-4000-8000-{n:012}" for n in range(30)] + ["no uuid"] * 10
    tries = await asyncio.gather(*(attempt(api, each, "x") for each in strangers))
    statuses = [each.status_code for each in tries]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) >= 20
    assert (await attempt(api, strangers[0], "x", THERE)).status_code == 401
    right = await attempt(api, account["clientId"], account["clientSecret"])
    assert right.status_code == 200


async def test_a_secret_that_was_right_once_is_looked_up_each_time(api: Any) -> None:
    account = await account_of(api, "robot")
    id, secret = account["clientId"], account["clientSecret"]
    assert (await attempt(api, id, secret)).status_code == 200
    assert (await attempt(api, id.upper(), secret)).status_code == 200
    renewed = (await api.http.post(f"/rollcall/accounts/{id}/secret")).json()["clientSecret"]
    assert (await attempt(api, id, secret)).status_code == 401
    assert (await attempt(api, id, renewed)).status_code == 200
    await api.http.delete(f"/rollcall/accounts/{id}")
    assert (await attempt(api, id, renewed)).status_code == 401
