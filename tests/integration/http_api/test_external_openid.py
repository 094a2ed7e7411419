"""Tokens of an external OpenID provider: a real one over https, with an authority of its own."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from http_api import external
from http_api.app import SettingsError, build
from http_api.settings import Settings
from rollcall_kit.secrets import new_key
from rollcall_testing.openid_provider import OpenIdProvider, ec_key, openid_provider, rsa_key
from structlog.testing import capture_logs

GROUP = "/subscriptions/s/resourceGroups/g"
SET = f"{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/web"
ROLES = {
    "fleet-admins": [{"role": "owner", "scope": "/"}],
    "web-team": [{"role": "reader", "scope": GROUP}, {"role": "operator", "scope": SET}],
}
RSA, EC, OTHER = rsa_key(), ec_key(), rsa_key()


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[OpenIdProvider]:
    """A provider with a key of each kind."""
    async with openid_provider(tmp_path) as running:
        running.publish({"rsa": RSA, "ec": EC})
        yield running


@pytest.fixture
def options(provider: OpenIdProvider) -> dict[str, Any]:
    """Settings that name the provider."""
    return {
        "openid_issuer": provider.issuer,
        "openid_audience": "rollcall",
        "openid_claim": "realm_access.roles",
        "openid_roles": ROLES,
        "openid_ca": str(provider.ca),
    }


def now() -> datetime:
    return datetime.now(UTC)


def groups(*names: str) -> dict[str, Any]:
    return {"realm_access": {"roles": list(names)}}


async def ask(api: Any, token: str, method: str = "GET", path: str = SET) -> httpx.Response:
    """Ask with a token, and with nothing else."""
    async with httpx.AsyncClient(base_url=str(api.http.base_url), timeout=60) as http:
        return await http.request(
            method,
            path,
            params={"api-version": "2024-11-01"},
            headers={"Authorization": f"Bearer {token}"},
        )


async def test_groups_of_the_provider_become_roles(api: Any, provider: OpenIdProvider) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    admin = provider.token(RSA, "rsa", now(), **groups("fleet-admins", "others"))
    web = provider.token(EC, "ec", now(), oid="o-1", name="Wendy", **groups("web-team"))
    nobody = provider.token(EC, "ec", now())
    assert (await ask(api, admin)).status_code == 200
    assert (await ask(api, admin, path="/rollcall/accounts")).status_code == 200
    assert (await ask(api, web)).status_code == 200
    assert (await ask(api, web, "POST", f"{SET}/osRollingUpgrade")).status_code == 409
    with capture_logs() as logs:
        refused = await ask(api, web, "DELETE")
    (line,) = [each for each in logs if each["event"] == "call_refused"]
    assert (line["who"], line["client_id"], line["needs"]) == ("Wendy", "o-1", "owner")
    assert refused.json()["error"]["code"] == "AuthorizationFailed"
    assert (await ask(api, nobody)).status_code == 403


def forged(token: str, **header: Any) -> str:
    """Return a token with another header, its signature kept."""
    _, payload, signature = token.split(".")
    raw = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    return f"{raw}.{payload}.{signature}"


async def test_what_is_not_the_providers_or_not_for_us_is_refused(
    api: Any, provider: OpenIdProvider
) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    seconds = int(now().timestamp())
    admin = groups("fleet-admins")
    good = provider.token(RSA, "rsa", now(), **admin)
    claims = jwt.decode(good, options={"verify_signature": False})
    # What a client could know of the key, as the secret of a keyed hash.
    public = json.loads((provider.folder / "keys.json").read_text())["keys"][0]["n"]
    bad = {
        "another issuer": provider.token(RSA, "rsa", now(), iss="https://evil.example", **admin),
        "another audience": provider.token(RSA, "rsa", now(), aud="billing", **admin),
        "no audience": provider.token(RSA, "rsa", now(), aud=None, **admin),
        "expired": provider.token(RSA, "rsa", now(), exp=seconds - 120, **admin),
        "no end": provider.token(RSA, "rsa", now(), exp=None, **admin),
        "not yet": provider.token(RSA, "rsa", now(), nbf=seconds + 120, **admin),
        "issued later": provider.token(RSA, "rsa", now(), iat=seconds + 120, **admin),
        "no subject": provider.token(RSA, "rsa", now(), sub=None, **admin),
        "another key": provider.token(OTHER, "rsa", now(), **admin),
        "unknown key": provider.token(OTHER, "other", now(), **admin),
        "not signed": forged(good, alg="none", kid="rsa"),
        "keyed hash": jwt.encode(claims, public, algorithm="HS256", headers={"kid": "rsa"}),
        "longer hash": jwt.encode(claims, RSA, algorithm="RS512", headers={"kid": "rsa"}),
        "other padding": jwt.encode(claims, RSA, algorithm="PS256", headers={"kid": "rsa"}),
        "key of the other kind": forged(good, alg="ES256", kid="ec"),
        "no key id": jwt.encode(claims, RSA, algorithm="RS256"),
        "key inside": jwt.encode(
            claims,
            OTHER,
            algorithm="RS256",
            headers={"kid": "own", "jwk": {"kty": "RSA", "n": public, "e": "AQAB"}},
        ),
        "unknown demand": jwt.encode(
            claims, RSA, algorithm="RS256", headers={"kid": "rsa", "crit": ["x"], "x": 1}
        ),
        "cut off": good[:-10],
    }
    answers = {name: await ask(api, token) for name, token in bad.items()}
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(bad, 401)
    assert (await ask(api, good)).status_code == 200
    late = provider.token(RSA, "rsa", now(), exp=seconds - 20, nbf=seconds + 20, **admin)
    assert (await ask(api, late)).status_code == 200, "clocks differ by a little"


async def test_an_unknown_key_is_fetched_once_and_strangers_cannot_ask_without_end(
    api: Any, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    admin = groups("fleet-admins")
    assert (await ask(api, provider.token(RSA, "rsa", now(), **admin))).status_code == 200
    assert provider.asked() == 1
    for number in range(20):
        stranger = provider.token(OTHER, f"unknown-{number}", now(), **admin)
        assert (await ask(api, stranger)).status_code == 401
    assert provider.asked() == 1, "it was just asked"
    provider.publish({"new": OTHER})
    monkeypatch.setattr(external, "PATIENCE", 0.0)
    assert (await ask(api, provider.token(OTHER, "new", now(), **admin))).status_code == 200
    assert (await ask(api, provider.token(OTHER, "new", now(), **admin))).status_code == 200
    assert provider.asked() == 2
    # The key before is withdrawn, and its tokens with it.
    assert (await ask(api, provider.token(RSA, "rsa", now(), **admin))).status_code == 401


async def test_a_provider_that_is_away_locks_nobody_else_out(
    api: Any, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    admin = provider.token(RSA, "rsa", now(), **groups("fleet-admins"))
    body = {"name": "local", "roles": [{"role": "reader", "scope": "/"}]}
    made = (await api.http.post("/rollcall/accounts", json=body)).json()
    form = {
        "client_id": made["clientId"],
        "client_secret": made["clientSecret"],
        "grant_type": "client_credentials",
    }
    await provider.stop()
    away = await ask(api, admin)
    assert (away.status_code, away.json()["error"]["code"]) == (503, "ServiceUnavailable")
    assert away.headers["retry-after"] == "10"
    assert (await ask(api, "token-of-the-test")).status_code == 200
    answer = await api.http.post(f"/{made['tenantId']}/oauth2/v2.0/token", data=form)
    assert (await ask(api, answer.json()["access_token"])).status_code == 200


async def test_known_keys_outlast_the_provider(
    api: Any, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    admin = provider.token(RSA, "rsa", now(), **groups("fleet-admins"))
    assert (await ask(api, admin)).status_code == 200
    await provider.stop()
    monkeypatch.setattr(external, "FRESH", 0.0)
    monkeypatch.setattr(external, "PATIENCE", 0.0)
    assert (await ask(api, admin)).status_code == 200


async def test_an_authority_that_nobody_named_is_not_trusted(provider: OpenIdProvider) -> None:
    config = external.ProviderConfig(
        issuer=provider.issuer, audience="rollcall", claim="roles", grants={}
    )
    alone = external.Provider(config)
    token = provider.token(RSA, "rsa", now())
    with pytest.raises(external.ProviderAwayError):
        await alone.principal(token)
    assert provider.asked() == 0


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"openid_issuer": "http://plain.example"}, "ROLLCALL_OPENID_ISSUER"),
        ({"openid_issuer": "https://x.example"}, "ROLLCALL_OPENID_AUDIENCE"),
        (
            {
                "openid_issuer": "https://x.example",
                "openid_audience": "a",
                "openid_roles": {"g": [{"role": "king"}]},
            },
            "ROLLCALL_OPENID_ROLES",
        ),
        (
            {
                "openid_issuer": "https://x.example",
                "openid_audience": "a",
                "openid_ca": "/nowhere.pem",
            },
            "ROLLCALL_OPENID_CA",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        build(Settings(api_token="t", secrets_key=new_key(), **settings))
