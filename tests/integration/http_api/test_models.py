"""Scale sets and load balancers over HTTP: what is kept, shown, refused and announced."""

import base64
import json
from typing import Any

import pytest
from rollcall_contracts.events import ScaleSetChanged, ScaleSetDeleted
from rollcall_kit.secrets import unseal

POLICY = "upgradePolicy"


def changed(events: list[Any]) -> list[ScaleSetChanged]:
    return [event for event in events if isinstance(event, ScaleSetChanged)]


async def test_put_creates_then_changes_and_tells(api: Any) -> None:
    created = await api.put(api.set, api.scale_set_body(3), 201)
    assert created["id"] == api.set
    assert created["name"] == "web"
    assert created["type"] == "Microsoft.Compute/virtualMachineScaleSets"
    assert created["properties"]["provisioningState"] == "Creating"
    await api.put(api.set, api.scale_set_body(4), 200)
    first, second = changed(await api.events())
    assert (first.spec.capacity, second.spec.capacity) == (3, 4)
    assert first.scale_set == api.set
    assert second.spec.revision > first.spec.revision
    # neither capacity nor policy is part of what instances are made from
    assert second.spec.provisioning.generation == first.spec.provisioning.generation


async def test_m51_put_keeps_what_it_leaves_out(api: Any) -> None:
    body = api.scale_set_body(3)
    body["plan"] = {"Odd": [1.0, {"x": None}]}
    body["properties"]["overprovision"] = False
    body["properties"]["zoneBalance"] = {"anything": "at all"}
    await api.put(api.set, body, 201)
    await api.put(api.set, {"location": "local", "sku": {"capacity": 5}})
    shown = await api.get(api.set)
    assert shown["sku"] == {"name": "Standard_D1", "capacity": 5}
    assert shown["plan"] == {"Odd": [1.0, {"x": None}]}
    assert shown["properties"]["zoneBalance"] == {"anything": "at all"}
    profile = body["properties"]["virtualMachineProfile"]
    assert shown["properties"]["virtualMachineProfile"] == profile


async def test_m51_what_was_read_can_be_put_back_changed(api: Any) -> None:
    """The seed's `az vmss update --set`: GET, change, PUT, without the image reference."""
    await api.put(api.set, api.scale_set_body(3), 201)
    shown = await api.get(api.set)
    assert shown["properties"][POLICY]["automaticOSUpgradePolicy"] == {
        "enableAutomaticOSUpgrade": False,
        "disableAutomaticRollback": False,
        "useRollingUpgradePolicy": True,
        "osRollingUpgradeDeferral": False,
        "minimumImageAge": "PT0S",
        "holdFaultedVersions": True,
    }
    shown["properties"][POLICY]["automaticOSUpgradePolicy"]["enableAutomaticOSUpgrade"] = True
    shown["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"] = None
    after = await api.put(api.set, shown)
    assert after["properties"][POLICY]["automaticOSUpgradePolicy"]["enableAutomaticOSUpgrade"]
    assert [warning["code"] for warning in after["properties"]["rollcall"]["warnings"]] == [
        "NoHealthSource"
    ]
    assert changed(await api.events())[-1].spec.automatic_os_upgrade


async def test_patch_is_a_merge_and_can_take_away(api: Any) -> None:
    await api.put(api.set, {**api.scale_set_body(3), "tags": {"a": "1", "b": "2"}}, 201)
    response = await api.ask("PATCH", api.set, {"tags": {"a": None, "c": "3"}})
    assert response.status_code == 200
    assert response.json()["tags"] == {"b": "2", "c": "3"}
    assert len(changed(await api.events())) == 2


async def test_a_changed_profile_makes_a_new_generation(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(3), 201)
    await api.put(api.set, api.scale_set_body(3, osProfile={"computerNamePrefix": "app"}))
    await api.put(api.set, {**api.scale_set_body(9, enable=True), "tags": {"a": "b"}})
    one, two, three = (e.spec.provisioning.generation for e in changed(await api.events()))
    assert one < two == three


async def test_ids_keep_their_first_case_and_match_any(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(3), 201)
    await api.put(api.set.upper(), api.scale_set_body(4), 200)
    assert (await api.get(api.set.lower()))["id"] == api.set
    assert {event.scale_set for event in await api.events()} == {api.set}
    assert len((await api.get(api.set.rpartition("/")[0].upper()))["value"]) == 1


async def test_delete_and_make_again(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(3), 201)
    assert (await api.ask("DELETE", api.set.upper())).status_code == 202
    assert (await api.ask("DELETE", api.set)).status_code == 204
    assert (await api.error("GET", api.set, 404))["code"] == "ResourceNotFound"
    await api.add_fleet(deleted=True)
    await api.put(api.set.replace("web", "WEB"), api.scale_set_body(3), 201)
    created, deleted, again = await api.events()
    assert isinstance(deleted, ScaleSetDeleted)
    assert isinstance(created, ScaleSetChanged)
    assert isinstance(again, ScaleSetChanged)
    assert again.scale_set == api.set, "the orchestrator knows it under its former id"
    assert created.spec.revision < deleted.revision < again.spec.revision
    assert created.spec.provisioning.generation < again.spec.provisioning.generation


async def test_what_is_refused_writes_nothing(api: Any) -> None:
    error = await api.error("PUT", api.set, 400, api.scale_set_body(-1))
    assert (error["code"], error["target"]) == ("InvalidParameter", "sku.capacity")
    body = api.scale_set_body(-1)
    body["zones"] = 5
    error = await api.error("PUT", api.set, 400, body)
    assert error["code"] == "MultipleErrorsOccurred"
    assert {detail["target"] for detail in error["details"]} == {"sku.capacity", "zones"}
    assert (await api.error("PATCH", api.set, 404, {}))["code"] == "ResourceNotFound"
    assert await api.events() == []


async def test_secrets_are_sealed_kept_and_never_shown(api: Any) -> None:
    script = base64.b64encode(b"#!/bin/sh\necho hello\n").decode()
    secret: dict[str, Any] = {
        "type": "CustomScript",
        "settings": {"a": 1},
        "protectedSettings": {"key": "s3cret"},
    }
    body = api.scale_set_body(
        3,
        osProfile={"adminPassword": "p4ssword", "customData": script},
        extensionProfile={"extensions": [{"name": "Ext", "properties": secret}]},
    )
    answer = await api.put(api.set, body, 201)
    shown = await api.get(api.set)
    # what a client reads has no secrets, and putting it back must not lose them
    await api.put(api.set, shown)
    first, second = changed(await api.events())
    assert first.spec.provisioning == second.spec.provisioning
    provisioning = second.spec.provisioning
    key = api.server.settings.secrets_key
    assert unseal(key, provisioning.sealed_custom_data or "") == script
    sealed = provisioning.extensions[0].sealed_protected_settings or ""
    assert json.loads(unseal(key, sealed)) == {"key": "s3cret"}
    rows = await api.pool.fetch("SELECT s::text AS t FROM scale_sets s")
    log = await api.pool.fetch("SELECT body AS t FROM event_log")
    text = json.dumps([answer, shown]) + "".join(row["t"] for row in (*rows, *log))
    for plain in ("p4ssword", "s3cret", script):
        assert plain not in text
    for hidden in ("adminPassword", "protectedSettings"):
        assert hidden not in text

    secret["protectedSettings"] = {"key": "other"}
    await api.put(api.set, body)
    third = changed(await api.events())[-1].spec.provisioning
    assert third.generation > provisioning.generation
    assert third.sealed_custom_data == provisioning.sealed_custom_data
    response = await api.ask(
        "PATCH",
        api.set,
        {"properties": {"virtualMachineProfile": {"osProfile": {"customData": ""}}}},
    )
    assert response.status_code == 200
    assert changed(await api.events())[-1].spec.provisioning.sealed_custom_data is None


@pytest.mark.parametrize("options", [{"api_page_size": 2}])
async def test_lists_go_by_group_and_subscription_in_pages(api: Any) -> None:
    base = "/subscriptions/S/resourceGroups/{}/providers/Microsoft.Compute/virtualMachineScaleSets"
    for group, name in (("G1", "a"), ("G1", "b"), ("G1", "c"), ("g2", "d")):
        await api.put(f"{base.format(group)}/{name}", api.scale_set_body(0), 201)
    for path, expected in (
        (base.format("g1"), ["a", "b", "c"]),
        (base.format("G2"), ["d"]),
        (base.format("none"), []),
        (base.replace("/resourceGroups/{}", ""), ["a", "b", "c", "d"]),
    ):
        names: list[str] = []
        link = path + "?api-version=2018-10-01"
        while link:
            page = (await api.http.get(link)).json()
            assert len(page["value"]) <= 2
            names += [item["name"] for item in page["value"]]
            link = page.get("nextLink")
            assert link is None or link.startswith(f"http://127.0.0.1:{api.port}/")
        assert names == expected
    everything = (await api.get("/rollcall/scaleSets"))["value"]
    assert [item["name"] for item in everything] == ["a", "b", "c", "d"]
    assert everything[3]["id"] == f"{base.format('g2')}/d"


@pytest.mark.parametrize(
    ("phases", "state"),
    [
        ([], "Creating"),
        (["creating", "creating", "creating"], "Creating"),
        (["ready", "creating"], "Updating"),
        (["ready", "ready", "creating"], "Updating"),
        (["ready", "ready", "ready"], "Succeeded"),
        (["ready", "failed", "upgrading"], "Succeeded"),
        (["ready", "ready", "ready", "deleting"], "Updating"),
    ],
)
async def test_provisioning_state_says_whether_the_instances_are_there(
    api: Any, phases: list[str], state: str
) -> None:
    await api.put(api.set, api.scale_set_body(3), 201)
    held = {"code": "MaxUnhealthy", "message": "no", "target": None, "version": "2.0.0"}
    await api.add_fleet(held=held, barred_version="1.9.0")
    for number, phase in enumerate(phases):
        await api.add_instance(str(number), phase=phase)
    properties = (await api.get(api.set))["properties"]
    assert properties["provisioningState"] == state
    assert properties["rollcall"]["held"] == held
    assert properties["rollcall"]["barredVersion"] == "1.9.0"
    summary = await api.get(f"{api.set}/instanceView")
    assert summary["statuses"][0]["code"] == f"ProvisioningState/{state.lower()}"


async def test_m31_a_set_is_probed_as_its_load_balancer_says(api: Any) -> None:
    probe = {"healthProbe": {"id": f"{api.balancer}/probes/App"}}
    body = api.scale_set_body(3, enable=True, networkProfile=probe)
    error = await api.error("PUT", api.set, 400, body)
    assert f"{api.balancer}/probes/App" in error["message"]
    shown = await api.put(api.balancer, api.balancer_body("app", "other"), 201)
    assert shown["properties"]["probes"][0]["id"] == f"{api.balancer}/probes/app"
    await api.put(api.set, body, 201)
    # a slower probe: the set hears of it, and shows the warning
    await api.put(api.balancer.upper(), api.balancer_body("app", interval=120), 200)
    first, second = changed(await api.events())
    assert first.spec.probe is not None
    assert second.spec.probe is not None
    assert (first.spec.probe.interval, second.spec.probe.interval) == (5, 120)
    assert second.spec.revision > first.spec.revision
    warnings = (await api.get(api.set))["properties"]["rollcall"]["warnings"]
    assert [warning["code"] for warning in warnings] == ["SlowProbe"]


async def test_a_probe_in_use_stays(api: Any) -> None:
    await api.put(api.balancer, api.balancer_body("app"), 201)
    probe = {"healthProbe": {"id": f"{api.balancer}/probes/app"}}
    await api.put(api.set, api.scale_set_body(3, networkProfile=probe), 201)
    error = await api.error("DELETE", api.balancer, 400)
    assert error["code"] == "LoadBalancerInUseByVirtualMachineScaleSet"
    assert api.set in error["message"]
    error = await api.error("PUT", api.balancer, 400, api.balancer_body("other"))
    assert error["code"] == "LoadBalancerProbeInUseByVirtualMachineScaleSet"
    # M32: what the set could not go on with is refused too
    patch: dict[str, Any] = {"properties": {"singlePlacementGroup": False}}
    assert (await api.ask("PATCH", api.set, patch)).status_code == 200
    error = await api.error("PATCH", api.balancer, 400, {"sku": {"name": "Basic"}})
    assert error["target"] == api.set
    patch = {"properties": {"virtualMachineProfile": {"networkProfile": {"healthProbe": None}}}}
    assert (await api.ask("PATCH", api.set, patch)).status_code == 200
    assert (await api.ask("DELETE", api.balancer)).status_code == 202
    assert (await api.ask("DELETE", api.balancer)).status_code == 204
    assert (await api.error("GET", api.balancer, 404))["code"] == "ResourceNotFound"


async def test_load_balancers_are_listed(api: Any) -> None:
    await api.put(api.balancer, api.balancer_body("app"), 201)
    for path in (f"{api.group}/providers", "/subscriptions/s/providers"):
        page = await api.get(f"{path}/Microsoft.Network/LoadBalancers")
        assert [item["id"] for item in page["value"]] == [api.balancer]
        assert "nextLink" not in page
    assert (await api.get(api.balancer))["sku"] == {"name": "Standard"}
    error = await api.error("PATCH", api.balancer + "2", 404, {})
    assert error["code"] == "ResourceNotFound"


async def test_a_surge_never_takes_data_disks_along(api: Any) -> None:
    surge = {"rollingUpgradePolicy": {"maxSurge": True}}
    await api.put(api.set, api.scale_set_body(3), 201)
    change: dict[str, Any] = {"properties": {POLICY: surge}}
    error = await api.error("PATCH", api.set, 400, change)
    assert "dataDisks []" in error["message"]
    change["properties"]["virtualMachineProfile"] = {"storageProfile": {"dataDisks": []}}
    assert (await api.ask("PATCH", api.set, change)).status_code == 200
    spec = changed(await api.events())[-1].spec
    assert spec.policy.max_surge
    assert spec.provisioning.data_disks == ()
    fresh = api.scale_set_body(3)
    fresh["properties"][POLICY] = surge
    await api.put(f"{api.set}2", fresh, 201)
    await api.put(f"{api.set}2", fresh, 200)


async def test_the_whole_policy_is_kept_shown_and_told(api: Any) -> None:
    body = api.scale_set_body(3)
    window = {
        "startDateTime": "2026-05-02 22:00",
        "timeZone": "Europe/Berlin",
        "duration": "05:00",
        "recurEvery": "Week Saturday",
    }
    hooks = [{"type": "UpgradeAutoOSScheduling", "waitDuration": "PT8H"}]
    body["properties"][POLICY] |= {
        "rollingUpgradePolicy": {"bakeTime": 90, "drain": {"requestPath": "/drain"}},
        "maintenanceWindows": [window],
    }
    body["properties"]["lifecycleHooksProfile"] = {"lifecycleHooks": hooks}
    shown = (await api.put(api.set, body, 201))["properties"]
    assert shown[POLICY]["rollingUpgradePolicy"]["bakeTime"] == "PT1M30S"
    assert shown[POLICY]["rollingUpgradePolicy"]["drain"]["deadline"] == "PT5M"
    assert shown[POLICY]["maintenanceWindows"] == [window]
    assert shown["lifecycleHooksProfile"] == {"lifecycleHooks": hooks}
    first = changed(await api.events())[-1].spec
    assert first.policy.bake_time == 90
    assert first.policy.drain is not None
    assert first.maintenance_windows[0].weekdays == (5,)
    assert first.lifecycle_hooks[0].wait_duration == 8 * 3600
    # what was shown can be put back, and means the same
    await api.put(api.set, await api.get(api.set))
    second = changed(await api.events())[-1].spec
    assert second == first.model_copy(update={"revision": second.revision})
