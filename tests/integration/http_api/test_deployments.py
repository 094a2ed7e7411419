"""Deployments over HTTP, on a real database, with the deployer beside the API (M53)."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from http_api import deployments
from http_api.deploying import FAULTS, Deployer
from http_api.domain.deployments import DEPLOYABLE
from http_api.inside import Inside
from http_api.web import ROUTERS
from rollcall_testing import eventually

EXAMPLES = Path(__file__).parents[3] / "examples" / "templates"
NET = "Microsoft.Network"
SETS = "Microsoft.Compute/virtualMachineScaleSets"
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
        return dict(found)

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


async def test_a_failure_names_the_resource_and_stops_only_what_needs_it(
    templates: Templates,
) -> None:
    sets = "Microsoft.Compute/virtualMachineScaleSets"
    body = template(
        kept("broken", sets, sku={"capacity": "many"}),
        kept("after", dependsOn=["broken"]),
        kept("apart"),
    )
    shown = await templates.deploy(body)
    error = shown["properties"]["error"]
    assert error["code"] == "DeploymentFailed"
    assert "details" in error["details"][0] or error["details"][0]["message"]
    assert shown["properties"]["provisioningState"] == "Failed"
    operations = (await templates.api.get(templates.path() + "/operations"))["value"]
    found = {
        each["properties"]["targetResource"]["resourceName"]: each["properties"]
        for each in operations
    }
    assert set(found) == {"broken", "apart"}
    assert found["broken"]["statusCode"] == "BadRequest"
    assert found["broken"]["statusMessage"]["error"]["message"]
    assert found["apart"]["provisioningState"] == "Succeeded"
    one = operations[0]
    assert await templates.api.get(one["id"]) == one
    short = f"{templates.api.group}/deployments/main/operations/{one['operationId']}"
    assert await templates.api.get(short) == one


async def test_a_template_error_has_code_line_column_and_path(templates: Templates) -> None:
    body = json.dumps(template(kept("[concta('a')]")), indent=1)
    raw = '{"properties": {"mode": "incremental", template:' + body + "}}  // as az sends it"
    answer = await templates.api.http.put(
        templates.path(), content=raw, params={"api-version": "2024-11-01"}
    )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "InvalidTemplate"
    assert "did you mean concat?" in error["message"]
    assert error["target"] == "resources[0].name"
    (info,) = error["additionalInfo"]
    assert info["type"] == "TemplateViolation"
    assert info["info"]["path"] == "properties.template.resources[0].name"
    line = raw.splitlines()[info["info"]["lineNumber"] - 1]
    assert line[info["info"]["linePosition"] - 1 :].startswith('"[concta')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "Complete"}, "the mode Complete is not possible here"),
        ({"mode": "Other"}, "mode must be Incremental"),
        ({"templateLink": {"uri": "https://x"}}, "'templateLink' is not fetched here"),
        ({"parametersLink": {"uri": "https://x"}}, "'parametersLink' is not fetched here"),
        ({"onErrorDeployment": {"type": "x"}}, "'onErrorDeployment' is not possible here"),
        ({"template": None}, "properties.template must be an object"),
        ({"parameters": {"p": {"value": 1}}}, "do not correspond to any parameters"),
        (
            {"template": template(kept("a", "Microsoft.Storage/storageAccounts"))},
            "The resource type 'Microsoft.Storage/storageAccounts' cannot be deployed here",
        ),
        (
            {"template": template(kept("main", "Microsoft.Resources/deployments"))},
            "The template deploys itself",
        ),
    ],
)
async def test_what_cannot_be_deployed_is_refused_before_anything_is_written(
    templates: Templates, change: dict[str, Any], message: str
) -> None:
    properties = {"mode": "Incremental", "template": template(kept("net")), **change}
    for method, path in (("PUT", ""), ("POST", "/validate"), ("POST", "/whatIf")):
        answer = await templates.api.ask(
            method, templates.path() + path, {"properties": properties}
        )
        assert answer.status_code == 400, answer.text
        assert message in answer.json()["error"]["message"]
    assert (await templates.api.ask("HEAD", templates.path())).status_code == 404


async def test_values_written_as_texts_become_what_the_model_has(templates: Templates) -> None:
    seed = json.loads((EXAMPLES / "autoupdate.json").read_text())
    seed["variables"] |= {"imagePublisher": "Contoso", "imageOffer": "Web"}
    given = {
        "vmssNamePrefix": "web",
        "instanceCount": 0,
        "adminUsername": "me",
        "adminPassword": "Pa55-word",
    }
    answer = await templates.put(
        seed, parameters={name: {"value": value} for name, value in given.items()}
    )
    assert answer.status_code == 201, answer.text

    async def look() -> dict[str, Any] | None:
        found = await templates.api.ask("GET", templates.api.set)
        return found.json()["properties"] if found.status_code == 200 else None

    shown = await eventually(look, timeout=60)
    assert shown is not None
    profile = shown["virtualMachineProfile"]
    assert shown["singlePlacementGroup"] is False
    assert shown["overprovision"] is True
    policy = shown["upgradePolicy"]
    assert policy["automaticOSUpgradePolicy"]["enableAutomaticOSUpgrade"] is True
    assert policy["rollingUpgradePolicy"]["maxUnhealthyUpgradedInstancePercent"] == 0
    assert profile["storageProfile"]["dataDisks"][0]["diskSizeGB"] == 1023
    (nic,) = profile["networkProfile"]["networkInterfaceConfigurations"]
    assert nic["properties"]["primary"] is True
    codes = [each["code"] for each in shown["rollcall"]["warnings"]]
    assert codes == ["NoHealthSource"]  # several placement groups without a probe (M32, M34)


SECRET = "hunter2-hunter2"


async def test_no_secret_is_kept_in_the_clear_or_given_back(templates: Templates) -> None:
    body = template(
        kept("net", tags={"hidden": "[parameters('p')]"}),
        parameters={
            "p": {"type": "securestring"},
            "o": {"type": "secureObject", "defaultValue": {"key": SECRET}},
        },
        outputs={
            "o": {"type": "string", "value": "[parameters('p')]"},
            "q": {"type": "object", "value": "[parameters('o')]"},
        },
    )
    given = {"p": {"value": SECRET}}
    preview = await templates.api.ask(
        "POST",
        templates.path() + "/whatIf",
        {"properties": {"mode": "Incremental", "template": body, "parameters": given}},
    )
    shown = await templates.deploy(body, parameters=given)
    assert shown["properties"]["parameters"] == {
        "p": {"type": "SecureString"},
        "o": {"type": "SecureObject"},
    }
    assert shown["properties"]["outputs"] == {
        "o": {"type": "SecureString"},
        "q": {"type": "SecureObject"},
    }
    exported = await templates.api.ask("POST", templates.path() + "/exportTemplate")
    assert exported.json()["template"]["parameters"]["o"] == {"type": "secureObject"}
    listed = await templates.api.get(templates.path() + "/operations")
    rows = await templates.api.pool.fetch("SELECT * FROM deployments")
    steps = await templates.api.pool.fetch("SELECT * FROM deployment_operations")
    for text in (preview.text, json.dumps(shown), exported.text, json.dumps(listed), rows, steps):
        assert SECRET not in str(text)


def nested(name: str, inner: Any, **properties: Any) -> dict[str, Any]:
    """Return a resource that deploys a template."""
    inside = {"mode": "Incremental", "template": inner, **properties}
    made = kept(name, "Microsoft.Resources/deployments", properties=inside)
    del made["location"]
    return made


async def test_a_secret_of_an_outer_template_is_one_in_the_inner_ones(
    templates: Templates,
) -> None:
    secure = {"p": {"type": "securestring"}}
    shows = {"o": {"type": "string", "value": "[parameters('p')]"}}
    scope = {"expressionEvaluationOptions": {"scope": "inner"}}
    given = {"p": {"value": "[parameters('p')]"}}
    body = template(
        nested("outer-scope", template(kept("net"), outputs=shows)),
        nested(
            "inner-scope",
            template(parameters={"p": {"type": "string"}}, outputs=shows),
            parameters=given,
            **scope,
        ),
        nested(
            "literal",
            template(parameters={"p": {**secure["p"], "defaultValue": f"{SECRET}!"}}),
            parameters={"p": {"value": SECRET}},
            **scope,
        ),
        parameters=secure,
        outputs={
            "through": {"type": "object", "value": "[reference('outer-scope').outputs]"},
            "also": {"type": "object", "value": "[reference('inner-scope')]"},
            "own": {"type": "object", "value": "[deployment()]"},
        },
    )
    given_here = {"p": {"value": SECRET}}
    document = {"properties": {"mode": "Incremental", "template": body, "parameters": given_here}}
    seen = {"ended": json.dumps(await templates.deploy(body, parameters=given_here))}
    assert '"provisioningState": "Succeeded"' in seen["ended"], seen["ended"]
    for action in ("whatIf", "validate"):
        answer = await templates.api.ask("POST", f"{templates.path()}/{action}", document)
        assert answer.status_code == 200, answer.text
        seen[action] = answer.text
    for name in ("main", "outer-scope", "inner-scope", "literal"):
        seen[name] = json.dumps(await templates.api.get(templates.path(name)))
        operations = await templates.api.get(templates.path(name) + "/operations")
        seen[f"{name} operations"] = json.dumps(operations)
        exported = await templates.api.ask("POST", templates.path(name) + "/exportTemplate")
        seen[f"{name} exported"] = exported.text
    seen["rows"] = str(await templates.api.pool.fetch("SELECT * FROM deployments"))
    assert [where for where, text in seen.items() if SECRET in text] == []
    outputs = (await templates.api.get(templates.path("inner-scope")))["properties"]["outputs"]
    assert outputs == {"o": {"type": "SecureString"}}


@pytest.mark.parametrize(
    "body",
    [
        template(outputs={"o": {"type": "object", "value": {"a": "[json('1e999')]"}}}),
        template(outputs={"o": {"type": "string", "value": "[uriComponentToString('%00')]"}}),
        template(outputs={"o": {"type": "int", "value": "[int(json('1e999'))]"}}),
        template(kept("net", properties={"a": "[json('1e999')]"})),
        template(kept("net", properties={"a": "[json('\"\\ud800\"')]"})),
        template(kept("[concat('a', uriComponentToString('%00'))]")),
        template(kept("[uniqueString(json('\"\\ud800\"'))]")),
        template(parameters={"p": {"type": "object", "defaultValue": {"a": "[json('1e999')]"}}}),
        template(parameters={"pw": {"type": "securestring"}, "PW": {"type": "string"}}),
    ],
)
async def test_a_template_whose_values_cannot_be_kept_is_refused(
    templates: Templates, body: dict[str, Any]
) -> None:
    properties = {"mode": "Incremental", "template": body}
    for method, path in (("PUT", ""), ("POST", "/validate"), ("POST", "/whatIf")):
        answer = await templates.api.ask(
            method, templates.path() + path, {"properties": properties}
        )
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] == "InvalidTemplate"


async def test_a_deployment_that_cannot_be_saved_fails_and_holds_up_no_other(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates = Templates(api)
    save, find = deployments.save, deployments.find

    async def refuses(connection: Any, deployment: Any) -> None:
        if deployment.name == "bad" and deployment.outputs is not None:
            deployment = replace(deployment, outputs={"o": {"value": float("inf")}})
        await save(connection, deployment)

    async def cannot_read(connection: Any, key: str) -> Any:
        if key.endswith("unreadable"):
            raise ValueError("what is kept of it is no JSON")
        return await find(connection, key)

    outputs = {"o": {"type": "int", "value": 1}}
    for name in ("unreadable", "bad", "good"):
        assert (await templates.put(template(outputs=outputs), name)).status_code == 201
    monkeypatch.setattr(deployments, "save", refuses)
    deployer = Deployer(api.server, Inside(api.server, ROUTERS))
    with monkeypatch.context() as reading:
        reading.setattr(deployments, "find", cannot_read)
        for _ in range(FAULTS):
            await deployer.round()
    shown = {
        name: (await api.get(templates.path(name)))["properties"]
        for name in ("unreadable", "bad", "good")
    }
    states = {name: each["provisioningState"] for name, each in shown.items()}
    assert states == {"unreadable": "Accepted", "bad": "Failed", "good": "Succeeded"}
    assert shown["bad"]["error"]["code"] == "InternalServerError"
    await deployer.round()
    assert (await api.get(templates.path("unreadable")))["properties"]["outputs"]


async def logged_in(api: Any, role: str) -> tuple[str, dict[str, str]]:
    """Return a new account's id and the headers of its requests."""
    roles = [{"role": role, "scope": api.group.lower()}]
    made = await api.http.post("/rollcall/accounts", json={"name": "x", "roles": roles})
    account = made.json()
    token = await api.http.post(
        f"/{account['tenantId']}/oauth2/v2.0/token",
        data={
            "grant_type": "client_credentials",
            "client_id": account["clientId"],
            "client_secret": account["clientSecret"],
            "scope": "x/.default",
        },
    )
    headers = {"Authorization": f"Bearer {token.json()['access_token']}"}
    return str(account["clientId"]), headers


@pytest.mark.parametrize("change", ["removed", "reader"])
async def test_a_deployment_has_the_rights_that_its_deployer_has_at_each_step(
    api: Any, change: str
) -> None:
    templates = Templates(api)
    account, headers = await logged_in(api, "owner")
    body = template(kept("one"), kept("two", dependsOn=["one"]))
    document = {"properties": {"mode": "Incremental", "template": body}}
    begun = await api.ask("PUT", templates.path(), document, headers=headers)
    assert begun.status_code == 201, begun.text
    deployer = Deployer(api.server, Inside(api.server, ROUTERS))
    await deployer.round()
    net = f"{api.group}/providers/{NET}/virtualNetworks"
    assert (await api.ask("GET", f"{net}/one")).status_code == 200
    if change == "removed":
        assert (await api.http.delete(f"/rollcall/accounts/{account}")).status_code in (200, 204)
    else:
        roles = [{"role": "reader", "scope": api.group.lower()}]
        path = f"/rollcall/accounts/{account}/roles"
        changed = await api.http.put(path, json={"roles": roles})
        assert changed.status_code == 200, changed.text
    for _ in range(3):
        await deployer.round()
    shown = (await api.get(templates.path()))["properties"]
    assert shown["provisioningState"] == "Failed"
    expected = "The account that began" if change == "removed" else "AuthorizationFailed"
    assert expected in json.dumps(shown["error"])
    assert (await api.ask("GET", f"{net}/two")).status_code == 404


async def test_a_deployment_goes_on_where_another_process_left_it(api: Any) -> None:
    """Each step may be the last of a process; the next one goes on (Postgres has all of it)."""
    templates = Templates(api)
    chain = [kept("n0"), *(kept(f"n{n}", dependsOn=[f"n{n - 1}"]) for n in range(1, 6))]
    body = template(*chain, outputs={"o": {"type": "int", "value": "[length('done')]"}})
    answer = await templates.put(body)
    assert answer.status_code == 201
    rounds = 0
    while (await api.get(templates.path()))["properties"]["provisioningState"] in (
        "Accepted",
        "Running",
    ):
        await Deployer(api.server, Inside(api.server, ROUTERS)).round()  # and forgets everything
        rounds += 1
        assert rounds < 30
    shown = (await api.get(templates.path()))["properties"]
    assert shown["provisioningState"] == "Succeeded"
    assert shown["outputs"] == {"o": {"type": "Int", "value": 4}}
    assert len(shown["outputResources"]) == 6
    assert rounds > 3


async def test_what_was_written_before_a_cut_is_not_written_and_told_twice(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between a write and the note of it: the same write has the same operation."""
    templates = Templates(api)
    image = {"publisher": "Contoso", "offer": "Web", "sku": "stable", "version": "latest"}
    profile = {"storageProfile": {"imageReference": image}}
    fleet = {
        **kept("fleet", SETS),
        "sku": {"name": "Standard_D1", "capacity": 0},
        "properties": {"upgradePolicy": {"mode": "Manual"}, "virtualMachineProfile": profile},
    }
    script = {"publisher": "Contoso", "type": "Script", "typeHandlerVersion": "1.0"}
    extension = {**kept("fleet/script", f"{SETS}/extensions"), "properties": script}

    async def cut(*_: Any) -> None:
        raise asyncio.CancelledError

    async def cut_round() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(deployments, "save_step", cut)
            with pytest.raises(asyncio.CancelledError):
                await Deployer(api.server, Inside(api.server, ROUTERS)).round()

    async def told() -> int:
        return int(await api.pool.fetchval("SELECT count(*) FROM event_log"))

    for number, resource in enumerate((fleet, extension), start=1):
        name = f"d{number}"
        assert (await templates.put(template(resource), name)).status_code == 201
        for _ in range(2):
            await cut_round()
            assert await told() == number
        await Deployer(api.server, Inside(api.server, ROUTERS)).round()
        assert await told() == number
        (step,) = (await api.get(f"{templates.path(name)}/operations"))["value"]
        assert step["properties"]["targetResource"]["resourceType"] == resource["type"]
        await templates.api.ask("POST", f"{templates.path(name)}/cancel")
        await Deployer(api.server, Inside(api.server, ROUTERS)).round()
    # A set that a person deletes meanwhile is not made again.
    assert (await templates.put(template(fleet), "d3")).status_code == 201
    await cut_round()
    assert (await api.ask("DELETE", f"{api.group}/providers/{SETS}/fleet")).status_code == 202
    for _ in range(2):
        await Deployer(api.server, Inside(api.server, ROUTERS)).round()
    shown = (await api.get(templates.path("d3")))["properties"]
    assert shown["provisioningState"] == "Failed"
    assert shown["error"]["details"][0]["code"] == "ResourceNotFound"


async def test_a_deployment_that_runs_is_not_begun_again_and_can_be_cancelled(api: Any) -> None:
    templates = Templates(api)
    first = await templates.put(template(kept("net")))
    assert first.status_code == 201
    again = await templates.put(template(kept("net")))  # a client that got no answer
    assert again.status_code == 200
    one, other = (each.json()["properties"]["correlationId"] for each in (first, again))
    assert one == other
    busy = await templates.put(template(kept("other")))
    assert busy.status_code == 409
    assert busy.json()["error"]["code"] == "DeploymentActive"
    assert (await api.ask("DELETE", templates.path())).status_code == 409
    assert (await api.ask("POST", templates.path() + "/cancel")).status_code == 204
    await Deployer(api.server, Inside(api.server, ROUTERS)).round()
    shown = (await api.get(templates.path()))["properties"]
    assert shown["provisioningState"] == "Canceled"
    status = (await api.http.get(first.headers["azure-asyncoperation"])).json()
    assert status["status"] == "Canceled"
    refused = await api.ask("POST", templates.path() + "/cancel")
    assert refused.status_code == 409
    net = f"{api.group}/providers/{NET}/virtualNetworks/net"
    assert (await api.ask("GET", net)).status_code == 404
    assert (await templates.put(template(kept("other")))).status_code == 200


async def test_lists_and_deletions(templates: Templates) -> None:
    api = templates.api
    await templates.deploy(template(kept("net")), "one")
    await templates.deploy(template(kept("x", properties="text")), "two")
    all_of_them = f"{api.group}/providers/Microsoft.Resources/deployments"
    assert [each["name"] for each in (await api.get(all_of_them))["value"]] == ["one", "two"]
    failed = {"$filter": "provisioningState eq 'Failed'"}
    found = (await api.get(all_of_them, params=failed))["value"]
    assert [each["name"] for each in found] == ["two"]
    top = await api.get(all_of_them, params={"$top": "1"})
    assert [each["name"] for each in top["value"]] == ["one"]
    assert "nextLink" in top
    assert (await api.ask("HEAD", templates.path("one"))).status_code == 204
    assert (await api.ask("DELETE", templates.path("one"))).status_code == 202
    assert (await api.ask("DELETE", templates.path("one"))).status_code == 204
    assert (await api.ask("HEAD", templates.path("one"))).status_code == 404
    # What it wrote stays; a resource group takes everything with it.
    await api.get(f"{api.group}/providers/{NET}/virtualNetworks/net")
    assert (await api.ask("DELETE", api.group)).status_code == 202
    assert (await api.get(all_of_them))["value"] == []


async def test_templates_within_templates(templates: Templates) -> None:
    inner = template(
        kept("inner"), outputs={"o": {"type": "string", "value": "[deployment().name]"}}
    )
    body = template(
        kept(
            "nested",
            "Microsoft.Resources/deployments",
            properties={
                "mode": "Incremental",
                "template": inner,
                "expressionEvaluationOptions": {"scope": "inner"},
            },
        ),
        outputs={"o": {"type": "string", "value": "[reference('nested').outputs.o.value]"}},
    )
    del body["resources"][0]["location"]
    shown = await templates.deploy(body)
    assert shown["properties"]["provisioningState"] == "Succeeded", shown
    assert shown["properties"]["outputs"]["o"]["value"] == "nested"
    nested = await templates.api.get(templates.path("nested"))
    assert nested["properties"]["provisioningState"] == "Succeeded"


async def test_a_template_writes_nothing_that_its_deployer_may_not_write(
    templates: Templates,
) -> None:
    api = templates.api
    scope = templates.path()  # an owner of this one deployment, and of nothing else
    made = await api.http.post(
        "/rollcall/accounts", json={"name": "x", "roles": [{"role": "owner", "scope": scope}]}
    )
    account = made.json()
    token = await api.http.post(
        f"/{account['tenantId']}/oauth2/v2.0/token",
        data={
            "grant_type": "client_credentials",
            "client_id": account["clientId"],
            "client_secret": account["clientSecret"],
            "scope": "x/.default",
        },
    )
    headers = {"Authorization": f"Bearer {token.json()['access_token']}"}
    document = {"properties": {"mode": "Incremental", "template": template(kept("net"))}}
    refused = await api.ask("PUT", scope, document, headers=headers)
    assert refused.status_code == 403, refused.text
    assert refused.json()["error"]["code"] == "AuthorizationFailed"
    # What is asked when its turn comes is refused then.
    net = f"{api.group}/providers/{NET}/virtualNetworks/net"
    await api.put(net, {"location": "local", "tags": {"a": "b"}}, 201)
    outputs = {"o": {"type": "object", "value": f"[reference('{net}', '2020-06-01', 'Full').tags]"}}
    document["properties"]["template"] = template(outputs=outputs)
    begun = await api.ask("PUT", scope, document, headers=headers)
    assert begun.status_code == 201, begun.text
    shown = await templates.ended()
    assert shown["properties"]["provisioningState"] == "Failed"
    assert "AuthorizationFailed" in json.dumps(shown["properties"]["error"])


async def test_what_if_says_what_would_change(templates: Templates) -> None:
    first = template(kept("net", tags={"a": "1", "b": "2"}, properties={"x": [1, 2], "y": True}))
    await templates.deploy(first)

    async def changes(body: Any, **settings: Any) -> Any:
        document = {"properties": {"mode": "Incremental", "template": body, **settings}}
        answer = await templates.api.ask("POST", templates.path() + "/whatIf", document)
        assert answer.status_code == 200, answer.text
        return answer.json()["properties"]["changes"]

    assert [each["changeType"] for each in await changes(first)] == ["NoChange"]
    second = template(
        kept("net", tags={"a": "2"}, properties={"x": [1, 3, 4], "y": "true", "z": "new"}),
        kept("more", tags={"later": "[reference('net').y]"}),
    )
    modified, created = await changes(second)
    assert created["changeType"] == "Create"
    assert created["after"]["tags"] == {"later": "[reference('net').y]"}
    assert modified["changeType"] == "Modify"
    assert {(each["path"], each["propertyChangeType"]) for each in modified["delta"]} == {
        ("tags.a", "Modify"),
        ("properties.x", "Array"),
        ("properties.z", "Create"),
    }
    brief = await changes(second, whatIfSettings={"resultFormat": "ResourceIdOnly"})
    assert {each["changeType"] for each in brief} == {"Deploy"}
    assert set(brief[0]) == {"resourceId", "changeType"}
    nets = await templates.api.get(f"{templates.api.group}/providers/{NET}/virtualNetworks")
    assert [each["name"] for each in nets["value"]] == ["net"]  # nothing was written


async def test_validate_and_the_hash_of_a_template(templates: Templates) -> None:
    body = template(kept("net"))
    document = {"properties": {"mode": "Incremental", "template": body}}
    answer = await templates.api.ask("POST", templates.path() + "/validate", document)
    assert answer.status_code == 200
    properties = answer.json()["properties"]
    assert properties["provisioningState"] == "Succeeded"
    net = f"{templates.api.group}/providers/{NET}/virtualNetworks/net"
    assert properties["validatedResources"] == [{"id": net}]
    path = "/providers/Microsoft.Resources/calculateTemplateHash"
    hashed = (await templates.api.ask("POST", path, body)).json()
    assert hashed["templateHash"] == properties["templateHash"]
    assert json.loads(hashed["minifiedTemplate"]) == body
    assert (await templates.api.ask("HEAD", templates.path())).status_code == 404


async def test_every_type_that_can_be_deployed_has_a_put_of_its_own(api: Any) -> None:
    for type in DEPLOYABLE:
        provider, *kinds = type.split("/")
        path = f"{api.group}/providers/{provider}/" + "/".join(f"{kind}/x" for kind in kinds)
        answer = await api.ask("PUT", path, {"location": "local"})
        assert answer.status_code in (200, 201, 400, 404), (type, answer.text)
        if answer.status_code == 404:  # of the resource that it would be a part of
            assert answer.json()["error"]["code"] == "ResourceNotFound", type


async def test_autoscale_settings_are_kept(templates: Templates) -> None:
    type = "Microsoft.Insights/autoscaleSettings"
    await templates.deploy(template(kept("scale", type, properties={"enabled": True})))
    path = f"{templates.api.group}/providers/{type}/scale"
    assert (await templates.api.get(path))["properties"]["enabled"] is True
    listed = await templates.api.get(f"/subscriptions/s/providers/{type}")
    assert [each["name"] for each in listed["value"]] == ["scale"]
    changed = await templates.api.ask("PATCH", path, {"tags": {"a": "b"}})
    assert changed.json()["tags"] == {"a": "b"}
    assert (await templates.api.ask("DELETE", path)).status_code == 202
    assert (await templates.api.ask("GET", path)).status_code == 404
