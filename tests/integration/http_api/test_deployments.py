"""Deployments over HTTP, on a real database, with the deployer beside the API (M53)."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from http_api.deploying import Deployer
from http_api.inside import Inside
from http_api.web import ROUTERS
from rollcall_testing import eventually

EXAMPLES = Path(__file__).parents[3] / "examples" / "templates"
NET = "Microsoft.Network"
SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"


def template(*resources: Any, **sections: Any) -> dict[str, Any]:
    """Return a template of some resources."""
    return {
        "$schema": SCHEMA,
        "contentVersion": "1.0.0.0",
        "resources": list(resources),
        **sections,
    }


def kept(name: str, type: str = f"{NET}/virtualNetworks", **members: Any) -> dict[str, Any]:
    """Return a resource that is kept."""
    return {
        "type": type,
        "apiVersion": "2020-06-01",
        "name": name,
        "location": "[resourceGroup().location]",
        "properties": {},
        **members,
    }


class Templates:
    """Puts deployments, and waits for their ends."""

    def __init__(self, api: Any) -> None:
        self.api = api

    def path(self, name: str = "main") -> str:
        return f"{self.api.group}/providers/Microsoft.Resources/deployments/{name}"

    async def put(self, body: dict[str, Any], name: str = "main", **properties: Any) -> Any:
        document = {"properties": {"mode": "Incremental", "template": body, **properties}}
        return await self.api.ask("PUT", self.path(name), document)

    async def ended(self, name: str = "main") -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            shown: dict[str, Any] = await self.api.get(self.path(name))
            state = shown["properties"]["provisioningState"]
            return shown if state in ("Succeeded", "Failed", "Canceled") else None

        found = await eventually(look, timeout=60)
        assert found is not None
        return found

    async def deploy(self, body: dict[str, Any], name: str = "main", **properties: Any) -> Any:
        answer = await self.put(body, name, **properties)
        assert answer.status_code in (200, 201), answer.text
        return await self.ended(name)

    async def refused(self, body: dict[str, Any], **properties: Any) -> dict[str, Any]:
        answer = await self.put(body, **properties)
        assert answer.status_code == 400, answer.text
        error: dict[str, Any] = answer.json()["error"]
        return error


@pytest.fixture
async def templates(api: Any) -> AsyncIterator[Templates]:
    """The API with its deployer at work."""
    task = asyncio.create_task(Deployer(api.server, Inside(api.server, ROUTERS)).run())
    yield Templates(api)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_deployment_writes_its_resources_in_order_and_gives_outputs(
    templates: Templates,
) -> None:
    body = template(
        kept(
            "rules",
            f"{NET}/networkSecurityGroups",
            dependsOn=["[resourceId('Microsoft.Network/virtualNetworks', 'net')]"],
            tags={"net": "[reference('net').addressSpace.addressPrefixes[0]]"},
        ),
        kept("net", properties={"addressSpace": {"addressPrefixes": ["10.0.0.0/8"]}}),
        outputs={"id": {"type": "string", "value": f"[resourceId('{NET}/virtualNetworks','net')]"}},
    )
    answer = await templates.put(body)
    assert answer.status_code == 201
    assert answer.headers["retry-after"] == "1"
    shown = await templates.ended()
    properties = shown["properties"]
    assert properties["provisioningState"] == "Succeeded", properties
    net = f"{templates.api.group}/providers/{NET}/virtualNetworks/net"
    rules = f"{templates.api.group}/providers/{NET}/networkSecurityGroups/rules"
    assert properties["outputs"] == {"id": {"type": "String", "value": net}}
    assert [each["id"] for each in properties["outputResources"]] == [net, rules]
    assert [each["id"] for each in properties["dependencies"]] == [rules]
    assert (await templates.api.get(rules))["tags"] == {"net": "10.0.0.0/8"}
    url = answer.headers["azure-asyncoperation"]
    status = (await templates.api.http.get(url)).json()
    assert status["status"] == "Succeeded"
    operations = (await templates.api.get(templates.path() + "/operations"))["value"]
    assert [each["properties"]["targetResource"]["resourceName"] for each in operations] == [
        "net",
        "rules",
    ]
    assert json.dumps(shown)
