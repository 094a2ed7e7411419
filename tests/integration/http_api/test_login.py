"""Logging in: discovery, tokens, roles, and what is refused."""

import base64
import json
from typing import Any

import httpx
import jwt
import pytest
from structlog.testing import capture_logs

WHOLE_GROUP = "/subscriptions/s/resourceGroups/g"


async def make(api: Any, role: str = "reader", scope: str = WHOLE_GROUP) -> dict[str, Any]:
    """Make an account."""
    body = {"name": "robot", "roles": [{"role": role, "scope": scope}]}
    response = await api.http.post("/rollcall/accounts", json=body)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


async def login(api: Any, account: dict[str, Any], path: str = "", **form: str) -> httpx.Response:
    """Ask for a token as azure-identity does; no bearer token is sent."""
    data = {
        "client_id": account["clientId"],
        "client_secret": account["clientSecret"],
        "grant_type": "client_credentials",
        "scope": "https://rollcall.example/.default",
        **form,
    }
    async with httpx.AsyncClient(base_url=str(api.http.base_url)) as stranger:
        return await stranger.post(path or f"/{account['tenantId']}/oauth2/v2.0/token", data=data)


async def client(api: Any, account: dict[str, Any]) -> httpx.AsyncClient:
    """Return a client that has logged in."""
    token = (await login(api, account)).json()["access_token"]
    return httpx.AsyncClient(
        base_url=str(api.http.base_url),
        headers={"Authorization": f"Bearer {token}"},
        params={"api-version": "2024-11-01"},
    )


async def test_a_request_for_an_account_that_is_repeated_makes_one(api: Any) -> None:
    body = {"name": "robot", "roles": [{"role": "reader", "scope": WHOLE_GROUP}]}
    answers = []
    for id in ("first", "first", "second"):
        headers = {"x-ms-client-request-id": id}
        answer = await api.http.post("/rollcall/accounts", json=body, headers=headers)
        assert answer.status_code == 201
        answers.append(answer.json())
    once, again, other = answers
    assert once["clientId"] == again["clientId"] != other["clientId"]
    assert len((await api.get("/rollcall/accounts"))["value"]) == 2
    assert (await login(api, once)).status_code == 401, "nobody knows who got that secret"
    assert (await login(api, again)).status_code == 200


async def test_discovery_needs_no_token_and_names_absolute_addresses(api: Any) -> None:
    account = await make(api)
    async with httpx.AsyncClient(base_url=str(api.http.base_url)) as stranger:
        base = f"http://127.0.0.1:{api.port}"
        found = (await stranger.get("/metadata/endpoints?api-version=2022-09-01")).json()
        assert found["resourceManager"] == base
        assert "vmImageAliasDoc" not in found  # az takes its own list where none is named
        assert found["authentication"]["loginEndpoint"] == f"{base}/adfs"
        listed = (await stranger.get("/metadata/endpoints?api-version=2020-06-01")).json()
        assert listed == [found]
        oldest = (await stranger.get("/metadata/endpoints?api-version=2015-01-01")).json()
        assert oldest["galleryEndpoint"] == base
        for tenant, version in ((account["tenantId"], "/v2.0"), ("adfs", ""), ("common", "/v2.0")):
            path = f"/{tenant}{version}/.well-known/openid-configuration"
            document = (await stranger.get(path)).json()
            assert document["token_endpoint"] == f"{base}/{tenant}/oauth2{version}/token"
        other = await stranger.get("/nobody/v2.0/.well-known/openid-configuration")
        assert (other.status_code, other.json()["error"]["code"]) == (400, "invalid_tenant")


async def test_a_token_is_signed_with_a_published_key_and_names_its_bearer(api: Any) -> None:
    account = await make(api)
    answer = (await login(api, account)).json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
    keys = (await api.http.get(f"/{account['tenantId']}/discovery/v2.0/keys")).json()
    key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(answer["access_token"])["kid"]]
    claims = jwt.decode(
        answer["access_token"],
        key.key,
        algorithms=["RS256"],
        audience="https://rollcall.example",
    )
    assert claims["appid"] == claims["oid"] == account["clientId"]
    assert claims["tid"] == account["tenantId"]
    assert claims["exp"] - claims["iat"] == 3600
    older = (await login(api, account, "/adfs/oauth2/token", resource="https://x/")).json()
    assert (older["expires_in"], older["resource"]) == (3600, "https://x/")  # az adds it up
    assert jwt.decode(older["access_token"], options={"verify_signature": False})["aud"] == (
        "https://x/"
    )
    entra = await login(api, account, f"/{account['tenantId']}/oauth2/token", resource="https://x/")
    assert entra.json()["expires_in"] == "3600"


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "6a0ae8a5-0000-4000-8000-000000000000"}, 401, "invalid_client"),
        ({"client_id": "no uuid"}, 401, "invalid_client"),
        ({"client_secret": ""}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ],
)
async def test_who_cannot_log_in(api: Any, change: dict[str, str], status: int, error: str) -> None:
    account = await make(api)
    response = await login(api, account, **change)
    assert (response.status_code, response.json()["error"]) == (status, error)


async def test_the_secret_is_shown_once_and_kept_as_a_hash(api: Any) -> None:
    account = await make(api)
    secret = account["clientSecret"]
    shown = (await api.http.get("/rollcall/accounts")).json()
    assert secret not in json.dumps(shown)
    rows = await api.pool.fetch("SELECT a::text AS t FROM accounts a")
    private = await api.pool.fetch("SELECT k::text AS t FROM signing_keys k")
    await login(api, account)
    assert not any(secret in row["t"] or "PRIVATE KEY" in row["t"] for row in (*rows, *private))
    basic = base64.b64encode(f"{account['clientId']}:{secret}".encode()).decode()
    async with httpx.AsyncClient(base_url=str(api.http.base_url)) as stranger:
        answer = await stranger.post(
            "/common/oauth2/v2.0/token",
            data={"grant_type": "client_credentials"},
            headers={"Authorization": f"Basic {basic}"},
        )
    assert answer.status_code == 200
    renewed = await api.http.post(f"/rollcall/accounts/{account['clientId']}/secret")
    assert (await login(api, account)).status_code == 401
    assert (await login(api, {**account, **renewed.json()})).status_code == 200


async def test_another_secret_ends_what_was_issued_before(api: Any) -> None:
    account = await make(api)
    async with await client(api, account) as robot:
        assert (await robot.get("/subscriptions")).status_code == 200
        await api.pool.execute("UPDATE accounts SET secret_at = secret_at + interval '1 minute'")
        assert (await robot.get("/subscriptions")).status_code == 401


async def test_roles_hold_from_the_next_request_and_refusals_are_logged(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    account = await make(api, "reader")
    async with await client(api, account) as robot:
        assert (await robot.get(api.set)).status_code == 200
        with capture_logs() as logs:
            refused = await robot.post(f"{api.set}/osRollingUpgrade")
        assert refused.status_code == 403
        error = refused.json()["error"]
        assert error["code"] == "AuthorizationFailed"
        assert "operator" in error["message"]
        (line,) = [line for line in logs if line["event"] == "call_refused"]
        assert (line["who"], line["client_id"]) == ("robot", account["clientId"])
        assert (line["method"], line["needs"]) == ("POST", "operator")
        assert line["path"] == f"{api.set}/osRollingUpgrade"
        roles = {"roles": [{"role": "operator", "scope": api.set}]}
        changed = await api.http.put(f"/rollcall/accounts/{account['clientId']}/roles", json=roles)
        assert changed.json()["roles"] == [{"role": "operator", "scope": api.set.lower()}]
        # allowed now, and refused for another reason
        assert (await robot.post(f"{api.set}/osRollingUpgrade")).status_code == 409
        assert (await robot.put(api.set, json={})).status_code == 403
        assert (await robot.get(api.balancer)).status_code == 403
        assert (await robot.get("/rollcall/accounts")).status_code == 403
        (seen,) = (await robot.get("/subscriptions")).json()["value"]
        assert seen["subscriptionId"] == "s"
        removed = await api.http.delete(f"/rollcall/accounts/{account['clientId']}")
        assert removed.status_code == 204
        assert (await robot.get(api.set)).status_code == 401
    assert (await api.http.get(f"/rollcall/accounts/{account['clientId']}")).status_code == 404


async def test_tokens_of_others_and_old_ones_are_refused(api: Any) -> None:
    account = await make(api)
    async with await client(api, account) as robot:
        good = robot.headers["authorization"].removeprefix("Bearer ")
        header, payload, signature = good.split(".")
        claims = jwt.decode(good, options={"verify_signature": False})
        kid = jwt.get_unverified_header(good)["kid"]
        public = await api.pool.fetchval("SELECT public_key FROM signing_keys")
        confused = base64.urlsafe_b64encode(b'{"alg":"none","kid":"%s"}' % kid.encode()).decode()
        for bad in (
            f"{header}.{payload}.{signature[:-4]}AAAA",
            f"{confused.rstrip('=')}.{payload}.",
            jwt.encode(claims, "k" * 40, algorithm="HS256", headers={"kid": kid}),
            jwt.encode(claims, "k" * 40, algorithm="HS256", headers={"kid": "other"}),
            "a.b.c",
        ):
            answer = await robot.get(api.set, headers={"Authorization": f"Bearer {bad}"})
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "InvalidAuthenticationToken"
        assert public.startswith("-----BEGIN PUBLIC KEY")


@pytest.mark.parametrize(
    "body",
    [{}, {"name": "x"}, {"name": "", "roles": [{"role": "reader"}]}, {"name": "x", "roles": [{}]}],
)
async def test_accounts_that_cannot_be_made(api: Any, body: Any) -> None:
    response = await api.http.post("/rollcall/accounts", json=body)
    assert response.status_code == 400
