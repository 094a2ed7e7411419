"""What clients expect around scale sets: groups, networks, providers, etags, older shapes."""

import asyncio
import json
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
        assert etag == first.json()["etag"] == first.headers["etag"]
        match = {"If-Match": etag}
        changed = await api.ask("PATCH", path, {"tags": {"a": "b"}}, headers=match)
        assert changed.status_code == 200
        assert changed.json()["etag"] != etag
        late = await api.ask("PATCH", path, {"tags": {"a": "c"}}, headers=match)
        assert late.status_code == 412
        assert changed.json()["etag"] in late.json()["error"]["message"]
        assert (await api.get(path))["tags"] == {"a": "b"}


async def test_every_write_heeds_what_it_is_told_of_the_etag(api: Any) -> None:
    autoscale = f"{api.group}/providers/Microsoft.Insights/autoscaleSettings/a"
    extension = {"properties": {"publisher": "p", "type": "CustomScript", "settings": {}}}
    protection = {"properties": {"protectionPolicy": {"protectFromScaleIn": True}}}
    await api.put(api.set, api.scale_set_body(1), 201)
    await api.put(api.balancer, api.balancer_body("app"), 201)
    await api.put(VNET, {"location": "local"}, 201)
    await api.put(autoscale, {"location": "local"}, 201)
    await api.add_fleet()
    await api.add_instance("0")
    instance = f"{api.set}/virtualMachines/0"
    paths: dict[str, Any] = {  # with the body of a PUT; those that are in another before it
        f"{api.balancer}/inboundNatRules/r": {"properties": {}},
        f"{VNET}/subnets/a": {"properties": {"x": 1}},
        f"{api.set}/extensions/e": extension,
        api.balancer: api.balancer_body("app"),
        VNET: {"location": "local", "properties": {"subnets": [{"name": "a"}]}},
        autoscale: {"location": "local"},
        api.set: api.scale_set_body(1),
        api.group: {"location": "local"},
    }
    for path, body in paths.items():
        written = await api.ask("PUT", path, body)
        assert written.is_success, written.text
        assert written.json().get("etag", written.headers.get("etag")), path
    wrong, new = {"If-Match": '"x"'}, {"If-None-Match": "*"}
    for path, body in {**paths, instance: protection}.items():
        for method, headers in (("PUT", wrong), ("PUT", new), ("DELETE", wrong)):
            answer = await api.ask(method, path, body if method == "PUT" else None, headers=headers)
            assert answer.status_code == 412, (method, path, answer.text)
    for path in (api.set, f"{api.set}/extensions/e", api.balancer, VNET, autoscale, api.group):
        answer = await api.ask("PATCH", path, {}, headers=wrong)
        assert answer.status_code == 412, path
    for path in (f"{api.set}/extensions/no", f"{VNET}/subnets/no"):
        answer = await api.ask("DELETE", path, headers={"If-Match": "*"})
        assert answer.status_code == 412, path
        assert (await api.ask("DELETE", path)).status_code == 204
    for path in paths:
        shown = (await api.ask("GET", path)).json()
        etag = shown.get("etag") or (await api.ask("GET", path)).headers["etag"]
        answer = await api.ask("DELETE", path, headers={"If-Match": etag})
        assert answer.status_code == 202, (path, answer.text)


async def test_an_instance_is_protected_as_it_was_read_and_no_otherwise(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    await api.add_fleet()
    await api.add_instance("0")
    path = f"{api.set}/virtualMachines/0"
    read = await api.ask("GET", path)
    match = {"If-Match": read.headers["etag"]}
    assert read.json()["etag"] == read.headers["etag"]
    wanted = {"properties": {"protectionPolicy": {"protectFromScaleIn": True}}}
    first = await api.ask("PUT", path, wanted, headers=match)
    assert first.status_code == 200
    # The orchestrator may not have taken it over yet.
    second = await api.ask("PUT", path, wanted, headers=match)
    assert second.status_code == 412
    third = await api.ask("PUT", path, wanted, headers={"If-Match": first.json()["etag"]})
    assert third.status_code == 200


async def test_of_many_changes_of_a_groups_tags_at_once_none_is_lost(api: Any) -> None:
    await api.put(api.group, {"location": "local", "tags": {}}, 201)
    names = [f"t{number}" for number in range(12)]
    answers = await asyncio.gather(
        *(api.ask("PATCH", api.group, {"tags": {name: "x"}}) for name in names)
    )
    assert {answer.status_code for answer in answers} == {200}
    assert (await api.get(api.group))["tags"] == dict.fromkeys(names, "x")


async def test_groups_are_listed_by_a_tag(api: Any) -> None:
    other = f"{SUB}/resourceGroups/other"
    await api.put(api.group, {"Location": "local", "TAGS": {"Env": "it's"}}, 201)
    await api.put(other, {"location": "local", "tags": {"env": "b"}}, 201)
    for text, ids in {
        "": [api.group, other],
        "tagName eq 'env'": [api.group, other],
        "tagname eq 'ENV' and tagvalue eq 'it''s'": [api.group],
        "tagName eq 'env' and tagValue eq 'c'": [],
        "tagName eq 'no'": [],
    }.items():
        page = await api.get(f"{SUB}/resourceGroups", params={"$filter": text})
        assert [item["id"] for item in page["value"]] == ids, text
    compute, network = "providers/Microsoft.Compute", "providers/Microsoft.Network"
    for path in (
        f"{SUB}/resourceGroups",
        f"{api.group}/{compute}/virtualMachineScaleSets",
        f"{SUB}/{compute}/virtualMachineScaleSets",
        f"{SUB}/{compute}/locations/local/virtualMachineScaleSets",
        f"{SUB}/{network}/loadBalancers",
        f"{SUB}/{network}/virtualNetworks",
        f"{api.group}/providers/Microsoft.Insights/autoscaleSettings",
    ):
        answer = await api.ask("GET", path, params={"$filter": "nonsense"})
        assert answer.status_code == 400, path
        assert answer.json()["error"]["target"] == "$filter"


async def test_known_names_of_kept_resources_match_in_any_case(api: Any) -> None:
    subnet = {"Name": "a", "PROPERTIES": {"addressPrefix": "10.0.0.0/24"}}
    body = {"Location": "x", "Tags": {"A": "b"}, "Properties": {"Subnets": [subnet], "Odd": 1}}
    made = await api.put(VNET, body, 201)
    assert (made["location"], made["tags"]) == ("x", {"A": "b"})
    assert made["properties"]["Odd"] == 1
    assert [item["name"] for item in made["properties"]["subnets"]] == ["a"]
    assert {"Location", "Tags", "Properties"}.isdisjoint(made)
    patched = await api.ask("PATCH", VNET, {"PROPERTIES": {"Odd": None}})
    assert "Odd" not in patched.json()["properties"]
    rules = {"properties": {"INBOUNDNATRULES": [{"Name": "r"}]}}
    made = await api.put(api.balancer, rules, 201)
    assert [item["name"] for item in made["properties"]["inboundNatRules"]] == ["r"]


async def test_parts_that_are_no_list_are_refused_and_do_no_harm_where_they_are(api: Any) -> None:
    rule = f"{api.balancer}/inboundNatRules/r"
    wrong = {"location": "l", "properties": {"inboundNatRules": 5}}
    error = await api.error("PUT", api.balancer, 400, wrong)
    assert error["target"] == "properties.inboundNatRules"
    await api.put(api.balancer, api.balancer_body("app"), 201)
    await api.error("PATCH", api.balancer, 400, {"properties": {"backendAddressPools": {}}})
    await api.error("PUT", VNET, 400, {"properties": {"subnets": "a"}})
    await api.pool.execute("UPDATE load_balancers SET model = $1", json.dumps(wrong))
    assert (await api.get(api.balancer))["properties"]["inboundNatRules"] == []
    assert (await api.get(f"{api.balancer}/inboundNatRules"))["value"] == []
    await api.error("GET", rule, 404)
    assert (await api.ask("DELETE", rule)).status_code == 204
    await api.put(rule, {"properties": {}}, 201)


async def test_whether_a_resource_is_there_is_asked_by_head(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    await api.put(api.balancer, api.balancer_body("app"), 201)
    await api.put(VNET, {"location": "local"}, 201)
    for path, missing in (
        (api.group, f"{api.group}2"),
        (api.set, f"{api.set}2"),
        (api.balancer, f"{api.balancer}2"),
        (f"{api.balancer}/probes/app", f"{api.balancer}/probes/no"),
        (VNET, f"{VNET}2"),
    ):
        for asked, status in ((path, 204), (missing, 404)):
            answer = await api.ask("HEAD", asked)
            assert (answer.status_code, answer.content) == (status, b""), asked


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
