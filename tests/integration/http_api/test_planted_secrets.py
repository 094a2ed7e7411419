"""A marked secret in every place that may have one, looked for in all that leaves the service."""

import asyncio
import base64
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from rollcall_contracts.events import ScaleSetChanged
from rollcall_kit.secrets import unseal
from rollcall_testing import eventually
from rollcall_testing.listening import listen

GROUP = "/subscriptions/s/resourceGroups/g"
SET = f"{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/web"
NETWORK = f"{GROUP}/providers/Microsoft.Network"
DEPLOYMENT = f"{GROUP}/providers/Microsoft.Resources/deployments/d"
VERSION = {"api-version": "2024-11-01", "$expand": "userData"}
SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
OPEN = "planted-for-everybody"  # no secret: it must be found, or nothing was looked for


class Marks:
    """Makes marked secrets, and looks for them."""

    def __init__(self) -> None:
        self.made: dict[str, list[str]] = {}

    def __call__(self, place: str) -> str:
        """Return a secret for a place."""
        text = f"planted-{len(self.made)}-0b7c"
        self.made[place] = [text]
        return text

    def base64(self, place: str) -> str:
        """Return a secret in base64."""
        text = self(place)
        coded = base64.b64encode(f"#!/bin/sh\n# {text}".encode()).decode()
        self.made[place].append(coded)
        return coded

    def found_in(self, text: str) -> list[str]:
        """Return the places whose secret is in a text."""
        return [place for place, forms in self.made.items() if any(form in text for form in forms)]


def model(marks: Marks, name: str = "") -> dict[str, Any]:
    """Return a set's body with a secret wherever Azure has one, and where people put them."""
    return {
        "location": "local",
        "tags": {"open": OPEN},
        "sku": {"name": "Standard_D1", "capacity": 1},
        "properties": {
            "upgradePolicy": {"mode": "Manual"},
            "adminPassword": marks(f"{name} misplaced adminPassword"),
            "virtualMachineProfile": {
                "userData": marks.base64(f"{name} userData"),
                "customData": marks(f"{name} misplaced customData"),
                "storageProfile": {
                    "imageReference": {
                        "publisher": "p",
                        "offer": "o",
                        "sku": "s",
                        "version": "latest",
                    }
                },
                "osProfile": {
                    "computerNamePrefix": "web",
                    "adminUsername": "me",
                    "AdminPassword": marks(f"{name} adminPassword"),
                    "customData": marks.base64(f"{name} customData"),
                    "windowsConfiguration": {
                        "AdditionalUnattendContent": [
                            {"settingName": "AutoLogon", "Content": marks(f"{name} unattend")}
                        ]
                    },
                },
                "extensionProfile": {
                    "extensions": [
                        {
                            "name": "init",
                            "properties": {
                                "publisher": "p",
                                "type": "CustomScript",
                                "settings": {"commandToExecute": "true"},
                                "PROTECTEDSETTINGS": {"token": marks(f"{name} extension")},
                            },
                        }
                    ]
                },
            },
        },
    }


@asynccontextmanager
async def running(api: Any, database: str, broker: str, log: Path) -> AsyncIterator[str]:
    """Run the service as a process with its log, every line of it, in a file."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "http_api"),
            env={
                **os.environ,
                "ROLLCALL_DATABASE_URL": database,
                "ROLLCALL_AMQP_URL": broker,
                "ROLLCALL_API_TOKEN": "t",
                "ROLLCALL_API_PORT": str(port),
                "ROLLCALL_SECRETS_KEY": api.server.settings.secrets_key,
                "ROLLCALL_LOG_LEVEL": "DEBUG",
                "ROLLCALL_LOG_FORMAT": "json",
            },
            stderr=file,
            stdout=file,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            await process.wait()


def nested_templates(marks: Marks) -> list[dict[str, Any]]:
    """Return nested deployments that get secrets in each way that there is."""
    head: dict[str, Any] = {"$schema": SCHEMA, "contentVersion": "1.0.0.0", "resources": []}
    written = {"p": {"type": "securestring", "defaultValue": marks("default in a nested template")}}
    plain = {"p": {"type": "string"}}
    shows = {"o": {"type": "string", "value": "[parameters('p')]"}}
    inner = {"expressionEvaluationOptions": {"scope": "inner"}}
    given = {"p": {"value": marks("value for a nested template")}}
    outer = {"o": {"type": "string", "value": "[concat('a', parameters('password'))]"}}
    passed = {"p": {"value": "[parameters('password')]"}}
    deployed: dict[str, dict[str, Any]] = {
        "outer": {"template": {**head, "outputs": outer}},
        "plain": {
            "template": {**head, "parameters": plain, "outputs": shows},
            "parameters": passed,
            **inner,
        },
        "literal": {
            "template": {**head, "parameters": written, "outputs": shows},
            "parameters": given,
            **inner,
        },
    }
    return [
        {
            "type": "Microsoft.Resources/deployments",
            "apiVersion": "2022-09-01",
            "name": name,
            "properties": {"mode": "Incremental", **properties},
        }
        for name, properties in deployed.items()
    ]


def writes(marks: Marks) -> Iterator[tuple[str, str, Any]]:
    """Yield requests that carry secrets: taken, refused, and broken ones."""
    yield "PUT", SET, model(marks, "put")
    profile = {"userData": marks.base64("patch userData")}
    yield "PATCH", SET, {"properties": {"virtualMachineProfile": profile}}
    protected = {"protectedSettings": {"k": marks("extension resource")}}
    extension = {"publisher": "p", "type": "CustomScript", **protected}
    yield "PUT", f"{SET}/extensions/more", {"properties": extension}
    yield (
        "PUT",
        f"{NETWORK}/virtualNetworks/net",
        {"properties": {"a": {"adminPassword": marks("net")}}},
    )
    subnet = {"properties": {"adminPassword": marks("subnet")}}
    yield "PUT", f"{NETWORK}/virtualNetworks/net/subnets/in", subnet
    yield "PUT", f"{NETWORK}/loadBalancers/lb", {"properties": {"adminPassword": marks("balancer")}}
    yield "PUT", GROUP, {"location": "local", "adminPassword": marks("group")}
    os_profile = {"adminPassword": marks("reimage"), "customData": marks.base64("reimage data")}
    yield "POST", f"{SET}/reimage", {"osProfile": os_profile}
    # What is refused must not be shown either.
    yield (
        "PUT",
        SET,
        {"properties": {"virtualMachineProfile": {"userData": marks("bad base64") + "!"}}},
    )
    bad = {"name": "x", "properties": {"protectedSettings": marks("no object")}}
    bad_profile = {"extensionProfile": {"extensions": [bad]}}
    yield "PUT", SET, {"properties": {"virtualMachineProfile": bad_profile}}
    yield "PUT", SET, {"sku": {"capacity": "many"}, "adminPassword": marks("with a fault")}
    yield "PUT", SET, f'{{"adminPassword": "{marks("broken JSON")}"'
    yield "PUT", SET, f'{{"adminPassword": "{marks("bad escape")}\\q"}}'
    yield "PUT", SET, f'["{marks("a list")}"]'
    yield "POST", "/rollcall/accounts", {"name": "r", "roles": [], "secret": marks("account")}
    template: dict[str, Any] = {
        "$schema": SCHEMA,
        "contentVersion": "1.0.0.0",
        "parameters": {"password": {"type": "secureString"}, "more": {"type": "secureObject"}},
        "resources": [
            {
                "type": "Microsoft.Network/virtualNetworks",
                "apiVersion": "2022-01-01",
                "name": "deployed",
                "location": "local",
                "properties": {"adminPassword": "[parameters('password')]"},
            }
        ],
    }
    template["resources"].extend(nested_templates(marks))
    template["outputs"] = {
        "own": {"type": "object", "value": "[deployment()]"},
        "outer": {"type": "object", "value": "[reference('outer').outputs]"},
    }
    values = {"password": marks("secureString"), "more": {"a": marks("secureObject")}}
    properties = {"mode": "Incremental", "template": template}
    properties["parameters"] = {name: {"value": value} for name, value in values.items()}
    for action in ("validate", "whatIf"):
        yield "POST", f"{DEPLOYMENT}/{action}", {"properties": properties}
    yield "PUT", DEPLOYMENT, {"properties": properties}


READS = (
    *(SET, SET.rpartition("/")[0], f"{SET}/instanceView", f"{SET}/virtualMachines"),
    *(f"{SET}/virtualMachines/0", f"{SET}/virtualMachines/0/instanceView", f"{SET}/extensions"),
    *(f"{SET}/extensions/init", f"{SET}/extensions/more", f"{SET}/explain", f"{SET}/state"),
    *(f"{SET}/osUpgradeHistory", f"{SET}/rollcall/upgrades", f"{GROUP}/resources", GROUP),
    *(f"{NETWORK}/virtualNetworks/net", f"{NETWORK}/virtualNetworks/net/subnets"),
    *(f"{NETWORK}/loadBalancers/lb", f"{NETWORK}/virtualNetworks", DEPLOYMENT),
    *(DEPLOYMENT.rpartition("/")[0], f"{DEPLOYMENT}/operations", "/rollcall/scaleSets"),
    *(f"/rollcall/events?scaleSet={SET}", "/metrics", "/rollcall/accounts", "/rollcall/keys"),
)


async def answers(
    api: Any, http: httpx.AsyncClient, marks: Marks
) -> AsyncIterator[tuple[str, str]]:
    """Send everything; yield what was asked and all that came back."""
    for method, path, body in writes(marks):
        how: dict[str, Any] = {"content": body} if isinstance(body, str) else {"json": body}
        answer = await http.request(method, path, params=VERSION, **how)
        assert answer.status_code < 500, answer.text
        yield f"{method} {path}", f"{answer.headers} {answer.text}"
    changed = [event for event in await api.events() if isinstance(event, ScaleSetChanged)]
    await api.add_fleet(spec=json.loads(changed[-1].spec.model_dump_json()))
    await api.add_instance("0")
    form = {"grant_type": "client_credentials", "client_id": marks("client id")[:5]}
    form["client_secret"] = marks("client secret")
    answer = await http.post("/common/oauth2/v2.0/token", data=form)
    assert answer.status_code == 401
    yield "token", answer.text
    answer = await http.get(SET, headers={"Authorization": f"Bearer {marks('token')}"})
    assert answer.status_code == 401
    yield "unknown token", answer.text
    for path in READS:
        answer = await http.get(path, params=VERSION if "?" not in path else None)
        assert answer.status_code < 500, (path, answer.text)
        yield f"GET {path}", f"{answer.headers} {answer.text}"
    shown = (await http.get(SET, params=VERSION)).json()
    # What was read is written back, as clients do.
    for method in ("PUT", "PATCH"):
        answer = await http.request(method, SET, params=VERSION, json=shown)
        assert answer.status_code == 200, answer.text
        yield f"{method} back", answer.text
    async for asked, text in deployed_answers(http):
        yield asked, text


async def deployed_answers(http: httpx.AsyncClient) -> AsyncIterator[tuple[str, str]]:
    """Yield all that is shown of the deployments when they have ended."""

    async def has_ended() -> bool:
        found = (await http.get(DEPLOYMENT, params=VERSION)).json()
        return bool(found["properties"]["provisioningState"] == "Succeeded")

    await eventually(has_ended, timeout=60)
    base = DEPLOYMENT.rpartition("/")[0]
    for name in ("d", "outer", "plain", "literal"):
        for method, path in (("GET", ""), ("GET", "/operations"), ("POST", "/exportTemplate")):
            answer = await http.request(method, f"{base}/{name}{path}", params=VERSION)
            assert answer.status_code == 200, answer.text
            yield f"{method} {base}/{name}{path} at the end", answer.text


async def rows_of(pool: Any) -> dict[str, str]:
    """Return every row of every table as text."""
    tables = await pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {
        table: "\n".join(
            row["t"] for row in await pool.fetch(f'SELECT x::text AS t FROM "{table}" AS x')
        )
        for (table,) in tables
    }


async def test_no_secret_leaves_the_service_but_sealed(
    api: Any, database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    marks, log = Marks(), tmp_path / "log"
    seen: dict[str, str] = {}
    messages: list[str] = []
    async with (
        running(api, database_url, amqp_url, log) as base,
        httpx.AsyncClient(base_url=base, headers={"Authorization": "Bearer t"}, timeout=60) as http,
    ):

        async def is_up() -> bool:
            with contextlib.suppress(httpx.TransportError):  # it does not listen yet
                return (await http.get("/readyz")).status_code == 200
            return False

        await eventually(is_up, timeout=60)
        async with listen(amqp_url, ["#"]) as events:

            async def hear() -> None:
                async for received in events:
                    messages.append(f"{received.attributes} {received.body}")

            hearing = asyncio.create_task(hear())
            async for asked, text in answers(api, http, marks):
                seen[asked] = text
            logged = await api.events()
            await eventually(lambda: len(messages) >= len(logged), timeout=30)
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
    seen |= await rows_of(api.pool)
    seen |= {f"message {number}": text for number, text in enumerate(messages)}
    seen["log"] = log.read_text()
    assert len(marks.made) > 20
    leaks = {where: found for where, text in seen.items() if (found := marks.found_in(text))}
    assert leaks == {}
    # It was looked for in the right places: what is no secret is there.
    for where in (f"GET {SET}", "PUT back", "scale_sets"):
        assert OPEN in seen[where], where
    assert "request_handled" in seen["log"]
    assert any("scale_set.changed" in text for text in messages)
    _stored_sealed(api, marks, logged, json.loads(await api.pool.fetchval(SECRETS)))


SECRETS = "SELECT secrets FROM scale_sets"


def _stored_sealed(api: Any, marks: Marks, logged: list[Any], secrets: dict[str, Any]) -> None:
    """Check that agents can open what they need, after it was read and written back, too."""
    key = api.server.settings.secrets_key
    last = [event for event in logged if isinstance(event, ScaleSetChanged)][-1]
    wanted = last.spec.provisioning
    assert wanted.sealed_custom_data is not None
    assert unseal(key, wanted.sealed_custom_data) == marks.made["put customData"][1]
    opened = {
        extension.name: json.loads(unseal(key, extension.sealed_protected_settings or ""))
        for extension in wanted.extensions
    }
    assert opened["init"] == {"token": marks.made["put extension"][0]}
    assert opened["more"] == {"k": marks.made["extension resource"][0]}
    assert unseal(key, secrets["userData"]) == marks.made["patch userData"][1]
