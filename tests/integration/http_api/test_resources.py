"""What clients expect around scale sets: groups, networks, providers, etags, older shapes."""

from typing import Any

import pytest

SUB = "/subscriptions/s"
VNET = f"{SUB}/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/net"


async def test_a_group_is_made_read_listed_and_deleted_with_what_is_in_it(api: Any) -> None:
    group = f"{SUB}/resourceGroups/G"
    error = await api.error("GET", group, 404)
    assert error["code"] == "ResourceGroupNotFound"
    assert (await api.ask("HEAD", group)).status_code == 404
    assert (await api.error("PUT", group, 400, {}))["target"] == "location"
    made = await api.put(group.lower(), {"location": "local", "tags": {"a": "b"}}, 201)
    assert made["properties"]["provisioningState"] == "Succeeded"
    assert (await api.ask("HEAD", f"{SUB.upper()}/resourcegroups/g")).status_code == 204
    patched = (await api.ask("PATCH", group, {"tags": {"c": "d"}, "location": None})).json()
    assert (patched["tags"], patched["location"]) == ({"a": "b", "c": "d"}, "local")
    await api.put(api.set, api.scale_set_body(1), 201)
    await api.put(api.balancer, api.balancer_body("app"), 201)
    await api.put(VNET, {"properties": {}}, 201)
    await api.add_fleet()
    await api.add_instance("0")
    kinds = [item["type"] for item in (await api.get(f"{group}/resources"))["value"]]
    assert kinds == [
        "Microsoft.Compute/virtualMachineScaleSets",
        "Microsoft.Network/loadBalancers",
        "Microsoft.Network/virtualNetworks",
    ]
    only = {"$filter": "resourceType eq 'microsoft.network/loadbalancers'"}
    found = (await api.get(f"{SUB}/resources", params=only))["value"]
    assert [item["id"] for item in found] == [api.balancer]
    # What `az network lb create` and `az resource list -g` ask.
    named = "resourceGroup eq 'G' and name eq 'net' and resourceType eq '%s'"
    for kind, ids in (("Microsoft.Network/virtualNetworks", [VNET]), ("Microsoft.X/ys", [])):
        asked = {"$filter": named % kind}
        found = (await api.get(f"{SUB}/resources", params=asked))["value"]
        assert [item["id"] for item in found] == ids
    other = {"$filter": "resourceGroup eq 'other'"}
    assert (await api.get(f"{group}/resources", params=other))["value"] == []
    answer = await api.ask("DELETE", group)
    assert answer.status_code == 202
    assert (await api.ask("DELETE", group)).headers["location"] == answer.headers["location"]
    link = answer.headers["azure-asyncoperation"]
    assert (await api.http.get(link)).json()["status"] == "InProgress"
    for gone in (api.set, api.balancer, VNET, group):
        await api.get(gone, 404)
    await api.pool.execute("DELETE FROM instances")
    assert (await api.http.get(link)).json()["status"] == "Succeeded"
    assert (await api.error("DELETE", group, 404))["code"] == "ResourceGroupNotFound"


async def test_a_group_is_there_as_soon_as_something_is_in_it(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    shown = await api.get(f"{SUB}/resourceGroups/g")
    assert (shown["name"], shown["location"]) == ("g", "local")
    assert [item["id"] for item in (await api.get(f"{SUB}/resourcegroups"))["value"]] == [
        shown["id"]
    ]
    assert (await api.put(shown["id"], {"location": "x"}))["location"] == "x"


async def test_a_group_stays_while_another_group_uses_its_load_balancer(api: Any) -> None:
    await api.put(api.balancer, api.balancer_body("app"), 201)
    probe = {"healthProbe": {"id": f"{api.balancer}/probes/app"}}
    other = api.set.replace("/g/", "/h/")
    await api.put(other, api.scale_set_body(1, networkProfile=probe), 201)
    error = await api.error("DELETE", f"{SUB}/resourceGroups/g", 400)
    assert error["target"] == other
    await api.get(api.balancer)


async def test_networks_are_kept_and_given_back(api: Any) -> None:
    subnet = {"name": "default", "properties": {"addressPrefix": "10.0.0.0/24"}}
    body = {
        "location": "local",
        "properties": {
            "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
            "subnets": [subnet],
            "odd": {"x": [1.0, None]},
        },
    }
    made = await api.put(VNET.replace("Networks", "networks"), body, 201)
    assert made["id"] == VNET
    assert made["properties"]["odd"] == {"x": [1.0, None]}
    (shown,) = made["properties"]["subnets"]
    assert shown["id"] == f"{VNET}/subnets/default"
    assert shown["properties"]["addressPrefix"] == "10.0.0.0/24"
    assert (await api.get(f"{VNET}/subnets/Default"))["id"] == f"{VNET}/subnets/default"
    second = {"properties": {"addressPrefix": "10.0.1.0/24"}}
    await api.put(f"{VNET}/subnets/two", second, 201)
    await api.put(f"{VNET}/subnets/two", second, 200)
    names = [item["name"] for item in (await api.get(f"{VNET}/subnets"))["value"]]
    assert names == ["default", "two"]
    assert (await api.ask("DELETE", f"{VNET}/subnets/two")).status_code == 202
    assert (await api.ask("DELETE", f"{VNET}/subnets/two")).status_code == 204
    # az sends two slashes
    page = await api.get(f"{SUB}/resourceGroups/g/providers/Microsoft.Network//virtualnetworks")
    assert [item["id"] for item in page["value"]] == [VNET]
    patched = await api.ask("PATCH", VNET, {"tags": {"a": "b"}})
    assert patched.json()["tags"] == {"a": "b"}
    assert (await api.ask("DELETE", VNET)).status_code == 202
    assert (await api.ask("DELETE", VNET)).status_code == 204
    assert (await api.error("GET", VNET, 404))["code"] == "ResourceNotFound"
    await api.error("GET", VNET.replace("virtualNetworks", "expressRoutes"), 404)
    await api.error("PUT", f"{VNET}/nonsense/x", 404, {})
    await api.error("PUT", f"{VNET}/subnets/x", 404, {})


async def test_a_load_balancer_gives_everything_back_and_its_parts_alone(api: Any) -> None:
    body = api.balancer_body("app")
    body["properties"] |= {
        "frontendIPConfigurations": [{"name": "front", "properties": {"x": 1}}],
        "backendAddressPools": [{"name": "pool"}],
        "unknown": [{"name": "kept"}],
    }
    made = await api.put(api.balancer, body, 201)
    front = made["properties"]["frontendIPConfigurations"][0]
    assert front["id"] == f"{api.balancer}/frontendIPConfigurations/front"
    assert front["properties"] == {"x": 1, "provisioningState": "Succeeded"}
    assert made["properties"]["unknown"] == [{"name": "kept"}]
    probes = await api.get(f"{api.balancer}/probes")
    assert [item["name"] for item in probes["value"]] == ["app"]
    assert (await api.get(f"{api.balancer}/PROBES/APP"))["properties"]["port"] == 8000
    assert (await api.error("GET", f"{api.balancer}/probes/no", 404))["code"] == "ResourceNotFound"
    await api.error("GET", f"{api.balancer}/nonsense", 404)


async def test_what_clients_ask_first(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    own, used = (await api.get("/subscriptions"))["value"]
    assert (used["id"], used["state"]) == (SUB, "Enabled")
    (tenant,) = (await api.get("/tenants"))["value"]
    assert own["tenantId"] == used["tenantId"] == tenant["tenantId"]
    assert (await api.get(SUB))["subscriptionId"] == "s"
    (location,) = (await api.get(f"{SUB}/locations"))["value"]
    assert location["name"] == "local"
    providers = (await api.get(f"{SUB}/providers"))["value"]
    assert {each["registrationState"] for each in providers} == {"Registered"}
    compute = await api.get(f"{SUB}/providers/microsoft.compute")
    kinds = {each["resourceType"] for each in compute["resourceTypes"]}
    assert "virtualMachineScaleSets" in kinds
    registered = await api.ask("POST", f"{SUB}/providers/Microsoft.Compute/register")
    assert registered.json()["registrationState"] == "Registered"
    error = await api.error("GET", f"{SUB}/providers/Microsoft.Sql", 404)
    assert error["code"] == "InvalidResourceNamespace"
    operations = (await api.get("/providers/Microsoft.Compute/operations"))["value"]
    assert "Microsoft.Compute/virtualMachineScaleSets/write" in {o["name"] for o in operations}
    path = f"{SUB}/providers/Microsoft.Compute/locations/LOCAL/virtualMachineScaleSets"
    assert [item["id"] for item in (await api.get(path))["value"]] == [api.set]
    assert (await api.get(path.replace("LOCAL", "other")))["value"] == []


async def test_etags_guard_against_lost_changes(api: Any) -> None:
    for path, body in (
        (api.set, api.scale_set_body(1)),
        (api.balancer, api.balancer_body("app")),
        (VNET, {"location": "local", "properties": {}}),
    ):
        new = {"If-None-Match": "*"}
        first = await api.ask("PUT", path, body, headers=new)
        assert first.status_code == 201
        again = await api.ask("PUT", path, body, headers=new)
        assert (again.status_code, again.json()["error"]["code"]) == (412, "PreconditionFailed")
        etag = (await api.ask("GET", path)).headers["etag"]
        assert etag == first.json()["etag"]
        match = {"If-Match": etag}
        changed = await api.ask("PATCH", path, {"tags": {"a": "b"}}, headers=match)
        assert changed.status_code == 200
        assert changed.json()["etag"] != etag
        late = await api.ask("PATCH", path, {"tags": {"a": "c"}}, headers=match)
        assert late.status_code == 412
        assert changed.json()["etag"] in late.json()["error"]["message"]
        assert (await api.get(path))["tags"] == {"a": "b"}
    assert (await api.ask("DELETE", api.set, headers={"If-Match": '"x"'})).status_code == 412
    assert (await api.ask("DELETE", api.set)).status_code == 202


async def test_2017_enables_with_one_boolean(api: Any) -> None:
    old = {"api-version": "2017-03-30"}
    body = api.scale_set_body(1)
    body["properties"]["upgradePolicy"] = {"mode": "Rolling", "automaticOSUpgrade": True}
    answer = await api.ask("PUT", api.set, body, params=old)
    assert answer.status_code == 201, answer.text
    assert answer.json()["properties"]["upgradePolicy"]["automaticOSUpgrade"] is True
    assert (await api.events())[-1].spec.automatic_os_upgrade
    shown = await api.get(api.set)
    assert "automaticOSUpgrade" not in shown["properties"]["upgradePolicy"]
    assert shown["properties"]["upgradePolicy"]["automaticOSUpgradePolicy"][
        "enableAutomaticOSUpgrade"
    ]
    await api.add_fleet()
    await api.add_upgrade({"succeeded": 1})
    (entry,) = (await api.get(f"{api.set}/osUpgradeHistory", params=old))["value"]
    assert entry["properties"]["progress"]["inprogressInstanceCount"] == 0
    too_old = await api.ask("GET", api.set, params={"api-version": "2016-03-30"})
    assert too_old.json()["error"]["code"] == "NoRegisteredProviderFound"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "performMaintenance", 409),
        ("POST", "virtualMachines/0/RunCommand", 409),
        ("POST", "nonsense", 404),
        ("POST", "osUpgradeHistory", 405),
    ],
)
async def test_what_cannot_be_done_is_refused_with_a_reason(
    api: Any, method: str, path: str, status: int
) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    await api.add_fleet()
    await api.add_instance("0")
    separator = "&" if "?" in path else "?"
    answer = await api.http.request(method, f"{api.set}/{path}{separator}api-version=2024-11-01")
    assert answer.status_code == status, answer.text
    if status in (409, 400):
        assert answer.json()["error"]["code"] == "OperationNotAllowed"


async def test_all_instances_can_be_deleted(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(2), 201)
    await api.add_fleet()
    await api.add_instance("0")
    await api.add_instance("1")
    answer = await api.ask("POST", f"{api.set}/delete", {"instanceIds": ["*"]})
    assert answer.status_code == 202
    assert (await api.get(api.set))["sku"]["capacity"] == 0


async def test_inbound_nat_rules_are_written_on_their_own(api: Any) -> None:
    rule = f"{api.balancer}/inboundnatrules/ssh"
    body = {"properties": {"backendPort": 22, "protocol": "tcp"}}
    assert (await api.error("PUT", rule, 404, body))["code"] == "ResourceNotFound"
    await api.put(api.balancer, api.balancer_body("app"), 201)
    made = await api.put(rule, body, 201)
    assert made["id"] == f"{api.balancer}/inboundNatRules/ssh"
    assert made["properties"]["backendPort"] == 22
    await api.put(rule, body, 200)
    shown = (await api.get(api.balancer))["properties"]
    assert [each["name"] for each in shown["inboundNatRules"]] == ["ssh"]
    assert [each["name"] for each in shown["probes"]] == ["app"]
    assert shown["inboundNatPools"] == []  # az vmss create --load-balancer reads it
    assert (await api.get(f"{api.balancer}/InboundNatRules/SSH"))["id"] == made["id"]
    assert (await api.ask("DELETE", rule)).status_code == 202
    assert (await api.ask("DELETE", rule)).status_code == 204
    assert (await api.get(f"{api.balancer}/inboundNatRules"))["value"] == []
    assert (await api.ask("PUT", f"{api.balancer}/probes/app", body)).status_code in (404, 405)


async def test_extensions_and_sizes_are_listed(api: Any) -> None:
    extension = {"name": "Ext", "properties": {"type": "CustomScript", "settings": {"a": 1}}}
    profile = {"extensionProfile": {"extensions": [extension]}}
    await api.put(api.set, api.scale_set_body(2, **profile), 201)
    (found,) = (await api.get(f"{api.set}/extensions"))["value"]
    assert found["id"] == f"{api.set}/extensions/Ext"
    assert (await api.get(f"{api.set}/extensions/ext")) == found
    await api.error("GET", f"{api.set}/extensions/no", 404)
    (size,) = (await api.get(f"{api.set}/skus"))["value"]
    assert size["sku"]["name"] == "Standard_D1"


@pytest.mark.parametrize("odd", ["text", 5, [], [1], True])
async def test_odd_shapes_are_kept_or_refused_and_never_a_fault_of_ours(api: Any, odd: Any) -> None:
    part = {"name": "one", "properties": odd}
    extension = {"extensionProfile": {"extensions": [{"name": "Ext", "properties": odd}]}}
    await api.ask("PUT", api.set, api.scale_set_body(1, **extension))
    for method, path, body in (
        ("PUT", VNET, {"properties": odd}),
        ("PUT", VNET, {"properties": {"subnets": odd}, "location": odd, "tags": odd}),
        ("PUT", VNET, {"properties": {"subnets": [part, odd]}, "tags": odd}),
        ("GET", f"{VNET}/subnets", None),
        ("GET", f"{VNET}/subnets/one", None),
        ("PUT", f"{VNET}/subnets/one", {"properties": odd}),
        ("PATCH", VNET, {"properties": odd}),
        ("GET", VNET, None),
        ("PUT", api.balancer, {"properties": {"backendAddressPools": [part, odd]}}),
        ("GET", f"{api.balancer}/backendAddressPools", None),
        ("GET", f"{api.balancer}/backendAddressPools/one", None),
        ("GET", f"{api.set}/extensions", None),
        ("PUT", f"{SUB}/resourceGroups/g", {"location": odd, "tags": odd}),
        ("GET", f"{SUB}/resources", None),
        ("GET", "/subscriptions", None),
        ("POST", f"{api.set}/delete", {"instanceIds": odd}),
        ("POST", "/rollcall/accounts", {"name": odd, "roles": odd}),
        ("POST", "/rollcall/accounts", {"name": "x", "roles": [{"role": odd, "scope": odd}]}),
    ):
        answer = await api.ask(method, path, body)
        assert answer.status_code < 500, (method, path, answer.text)
