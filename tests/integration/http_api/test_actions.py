"""What people do with single instances: what is asked of the orchestrator, and when it is done."""

from typing import Any

import pytest
from rollcall_contracts.events import ModelDeployRequested, PowerChangeRequested, ScaleSetChanged
from rollcall_contracts.model import PowerAction

FORCED = {"forceDeletion": "true"}


async def a_set(api: Any, *instances: dict[str, Any]) -> None:
    """Give a set with these instances, from 0 on."""
    await api.put(api.set, api.scale_set_body(len(instances)), 201)
    generation = (await api.events())[-1].spec.provisioning.generation
    await api.add_image("1.0.0")
    await api.add_fleet(spec={"revision": generation})
    for number, fields in enumerate(instances):
        await api.add_instance(str(number), **{"generation": generation, **fields})


async def ended(api: Any, answer: Any) -> dict[str, Any]:
    """Return the status document of an operation."""
    found = await api.http.get(answer.headers["azure-asyncoperation"])
    document: dict[str, Any] = found.json()
    return document


async def asked(api: Any, cls: type) -> list[Any]:
    return [event for event in await api.events() if isinstance(event, cls)]


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("reimage", None, ("0", "2")),  # 1 is protected from what is done to the set
        ("reimageAll", {"instanceIds": ["*"]}, ("0", "2")),
        ("reimage", {"instanceIds": ["1", "2"]}, ("1", "2")),
        ("virtualMachines/1/reimage", None, ("1",)),
        ("virtualmachines/2/reimageall", None, ("2",)),
    ],
)
async def test_a_reimage_is_done_when_each_instance_has_a_new_disk(
    api: Any, path: str, body: Any, named: tuple[str, ...]
) -> None:
    await a_set(api, {}, {"protect_from_scale_set_actions": True}, {}, {"wish": "stopped"})
    headers = {"x-ms-client-request-id": "once"}
    answer = await api.ask("POST", f"{api.set}/{path}", body, headers=headers)
    again = await api.ask("POST", f"{api.set}/{path}", body, headers=headers)
    assert (answer.status_code, again.status_code) == (202, 202)
    assert again.headers["location"] == answer.headers["location"]
    (event,) = await asked(api, ModelDeployRequested)
    assert (event.instance_ids, event.reimage) == (named, True)
    assert (await ended(api, answer))["status"] == "InProgress"
    marked = "UPDATE instances SET reimage = $1, reimage_number = $2 WHERE id = ANY($3)"
    await api.pool.execute(marked, True, event.number, list(named))
    assert (await ended(api, answer))["status"] == "InProgress", "their turn has not come"
    await api.pool.execute("UPDATE instances SET reimage = false, attempt = 2, phase = 'upgrading'")
    assert (await ended(api, answer))["status"] == "InProgress"
    await api.pool.execute("UPDATE instances SET phase = 'ready'")
    assert (await ended(api, answer))["status"] == "Succeeded"


async def test_a_reimage_that_was_cancelled_or_failed_says_so(api: Any) -> None:
    await a_set(api, {}, {})
    first = await api.ask("POST", f"{api.set}/reimage", {"instanceIds": ["0"]})
    second = await api.ask("POST", f"{api.set}/reimage", {"instanceIds": ["1"]})
    numbers = [event.number for event in await asked(api, ModelDeployRequested)]
    assert numbers[0] < numbers[1]
    await api.pool.execute("UPDATE instances SET reimage_number = $1", numbers[1])
    failed = "UPDATE instances SET attempt = 2, phase = 'failed', error = $1 WHERE id = '1'"
    await api.pool.execute(failed, '{"code": "ImageUnavailable", "message": "no image"}')
    assert (await ended(api, first))["status"] == "Canceled"
    assert (await ended(api, second))["error"]["code"] == "ImageUnavailable"


async def test_what_is_powered_off_is_not_reimaged_by_name(api: Any) -> None:
    await a_set(api, {"wish": "deallocated", "power": "stopped"})
    error = await api.error("POST", f"{api.set}/reimage", 409, {"instanceIds": ["0"]})
    assert (error["code"], error["target"]) == ("OperationNotAllowed", "0")
    assert "POST start first" in error["message"]


@pytest.mark.parametrize(
    ("path", "body", "change", "named"),
    [
        ("powerOff", None, PowerAction.POWER_OFF, ("0",)),
        ("poweroff", {"instanceIds": ["0", "1"]}, PowerAction.POWER_OFF, ("0", "1")),
        ("deallocate", {"instanceIds": ["1"]}, PowerAction.DEALLOCATE, ("1",)),
        ("start", None, PowerAction.START, ("0",)),
        ("virtualMachines/1/restart", None, PowerAction.RESTART, ("1",)),
        ("virtualMachines/0/redeploy", None, PowerAction.REDEPLOY, ("0",)),
    ],
)
async def test_a_change_of_power_is_done_when_the_agent_has_done_it(
    api: Any, path: str, body: Any, change: PowerAction, named: tuple[str, ...]
) -> None:
    await a_set(api, {}, {"protect_from_scale_set_actions": True})
    answer = await api.ask("POST", f"{api.set}/{path}", body)
    assert answer.status_code == 202, answer.text
    (event,) = await asked(api, PowerChangeRequested)
    assert (event.change, event.instance_ids) == (change, named)
    assert (await ended(api, answer))["status"] == "InProgress"
    await api.pool.execute(
        "UPDATE instances SET power_number = $1, power_due = 'restart'", event.number
    )
    assert (await ended(api, answer))["status"] == "InProgress"
    await api.pool.execute("UPDATE instances SET power_due = NULL, phase = 'powering'")
    assert (await ended(api, answer))["status"] == "InProgress"
    await api.pool.execute("UPDATE instances SET phase = 'ready'")
    assert (await ended(api, answer))["status"] == "Succeeded"


async def test_a_change_of_power_that_failed_says_so(api: Any) -> None:
    await a_set(api, {})
    answer = await api.ask("POST", f"{api.set}/virtualMachines/0/start")
    (event,) = await asked(api, PowerChangeRequested)
    await api.pool.execute(
        "UPDATE instances SET power_number = $1, phase = 'failed', error = $2",
        event.number,
        '{"code": "PowerOperationFailed", "message": "no answer"}',
    )
    document = await ended(api, answer)
    assert (document["status"], document["error"]["code"]) == ("Failed", "PowerOperationFailed")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "PowerState/running"),
        ({"power": "stopped"}, "PowerState/stopped"),  # by itself
        ({"power": "stopped", "wish": "stopped"}, "PowerState/stopped"),
        ({"power": "stopped", "wish": "deallocated"}, "PowerState/deallocated"),
        ({"wish": "deallocated", "power_due": "powerOff"}, "PowerState/running"),
        ({"wish": "deallocated", "phase": "powering"}, "PowerState/deallocating"),
        ({"wish": "stopped", "phase": "powering"}, "PowerState/stopping"),
        ({"power": "stopped", "phase": "powering"}, "PowerState/starting"),
    ],
)
async def test_an_instance_view_shows_the_power(
    api: Any, fields: dict[str, Any], code: str
) -> None:
    await a_set(api, fields)
    view = await api.get(f"{api.set}/virtualMachines/0/instanceView")
    assert view["statuses"][1]["code"] == code
    counted = (await api.get(f"{api.set}/instanceView"))["virtualMachine"]["statusesSummary"]
    assert {"code": code, "count": 1} in counted
    assert view["vmAgent"]["statuses"][0]["displayStatus"] == "Not Ready"
    await api.pool.execute(
        "INSERT INTO hosts (host, driver, seen_at) VALUES ('host-1', 'process', now())"
    )
    view = await api.get(f"{api.set}/virtualMachines/0/instanceView")
    assert view["vmAgent"]["statuses"][0]["displayStatus"] == "Ready"


async def test_the_very_instances_that_are_deleted_lower_the_capacity(api: Any) -> None:
    await a_set(api, {}, {}, {}, {})
    answer = await api.ask("POST", f"{api.set}/delete", {"instanceIds": ["1", "3"]})
    assert answer.status_code == 202
    assert (await api.get(api.set))["sku"]["capacity"] == 2
    changed = (await asked(api, ScaleSetChanged))[-1].spec
    assert (changed.capacity, changed.leaving) == (2, ("1", "3"))
    other = await api.ask("PATCH", api.set, {"tags": {"a": "b"}})
    assert other.status_code == 200
    assert (await asked(api, ScaleSetChanged))[-1].spec.leaving == ("1", "3"), "not gone yet"
    one = await api.ask("DELETE", f"{api.set}/virtualMachines/3")
    assert one.status_code == 202
    assert (await api.get(api.set))["sku"]["capacity"] == 2, "it was counted already"
    await api.pool.execute("DELETE FROM instances WHERE id IN ('1', '3')")
    assert (await ended(api, answer))["status"] == "InProgress", "the orchestrator has not read it"
    await api.pool.execute("UPDATE fleets SET spec = $1", changed.model_dump_json())
    assert (await ended(api, answer))["status"] == "Succeeded"
    assert (await api.ask("DELETE", f"{api.set}/virtualMachines/3")).status_code == 204
    await api.ask("PATCH", api.set, {"tags": {"a": "c"}})
    assert (await asked(api, ScaleSetChanged))[-1].spec.leaving == ()


@pytest.mark.parametrize("field", ["protect_from_scale_in", "protect_from_scale_set_actions"])
async def test_a_protected_instance_is_deleted_by_force_only(api: Any, field: str) -> None:
    await a_set(api, {}, {field: True})
    for method, path, body in (
        ("POST", f"{api.set}/delete", {"instanceIds": ["0", "1"]}),
        ("POST", f"{api.set}/delete", {"instanceIds": ["*"]}),
        ("DELETE", f"{api.set}/virtualMachines/1", None),
    ):
        error = await api.error(method, path, 409, body)
        assert error["target"] == "1"
        assert "forceDeletion=true" in error["message"]
    answer = await api.ask("DELETE", f"{api.set}/virtualMachines/1", params=FORCED)
    assert answer.status_code == 202
    assert (await asked(api, ScaleSetChanged))[-1].spec.leaving == ("1",)


async def test_the_new_one_of_a_surge_is_not_deleted(api: Any) -> None:
    await a_set(api, {}, {"replaces": "0"})
    error = await api.error("DELETE", f"{api.set}/virtualMachines/1", 409)
    assert "takes the place of instance 0" in error["message"]


async def test_what_gets_in_the_way_of_an_upgrade_is_refused_while_it_runs(api: Any) -> None:
    await a_set(api, {}, {})
    extensions = f"{api.set}/extensions"
    given = {"properties": {"publisher": "p", "type": "t"}}
    await api.put(f"{extensions}/first", given, 201)
    id = await api.add_upgrade({"pending": 2}, status="RollingForward", ended_at=None)
    pinned = {"storageProfile": {"imageReference": {"version": "1.0.0"}}}
    for method, path, body in (
        ("PATCH", api.set, {"properties": {"virtualMachineProfile": pinned}}),
        ("POST", f"{api.set}/manualupgrade", {"instanceIds": ["*"]}),
        ("POST", f"{api.set}/reimage", None),
        ("POST", f"{api.set}/virtualMachines/0/reimage", None),
        ("PUT", f"{extensions}/second", given),
        ("DELETE", f"{extensions}/first", None),
    ):
        error = await api.error(method, path, 409, body)
        assert error["code"] == "OperationNotAllowed", path
        assert id in error["message"]
        assert "rollingUpgrades/cancel" in error["message"]
    shown = await api.get(api.set)
    policy = {"automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": False}}
    goes_through: tuple[tuple[str, str, Any, int], ...] = (
        ("PUT", api.set, shown, 200),  # az writes back all that it read
        ("PATCH", api.set, {"tags": {"a": "b"}}, 200),
        ("PATCH", api.set, {"sku": {"capacity": 3}}, 200),
        ("PATCH", api.set, {"properties": {"upgradePolicy": policy}}, 200),
        ("PUT", f"{api.set}/virtualMachines/0", {"properties": {"protectionPolicy": {}}}, 200),
        ("POST", f"{api.set}/powerOff", {"instanceIds": ["0"]}, 202),
        ("DELETE", f"{api.set}/virtualMachines/0", None, 202),
        ("DELETE", api.set, None, 202),
    )
    for method, path, body, status in goes_through:
        answer = await api.ask(method, path, body)
        assert answer.status_code == status, (path, body, answer.text)


async def test_an_upgrade_may_be_started_of_instances_that_are_at_the_latest(api: Any) -> None:
    await a_set(api, {}, {"wish": "stopped"})
    error = await api.error("POST", f"{api.set}/osRollingUpgrade", 409)
    assert "runs the latest version" in error["message"]
    by_query = await api.ask("POST", f"{api.set}/osRollingUpgrade", params={"forceReimage": "true"})
    by_body = await api.ask("POST", f"{api.set}/osRollingUpgrade", {"forceReimage": True})
    assert (by_query.status_code, by_body.status_code) == (202, 202)
    events = [event for event in await api.events() if event.type == "upgrade.start_requested.v1"]
    assert [event.reimage for event in events] == [True, True]


async def test_a_cancellation_gives_up_the_reimages_that_have_not_begun(api: Any) -> None:
    await a_set(api, {"reimage": True})
    answer = await api.ask("POST", f"{api.set}/rollingUpgrades/cancel")
    assert answer.status_code == 202
    assert (await ended(api, answer))["status"] == "Succeeded"
    await api.pool.execute("UPDATE instances SET reimage = false")
    assert (await api.error("POST", f"{api.set}/rollingUpgrades/cancel", 409))["code"] == "Conflict"


async def test_an_extension_is_a_part_of_the_model(api: Any) -> None:
    await a_set(api, {})
    path = f"{api.set}/extensions/Web"
    secret = {"commandToExecute": "run --password hunter2"}
    body = {
        "location": "local",
        "properties": {"Publisher": "p", "type": "CustomScript", "protectedSettings": secret},
    }
    made = await api.put(path, body, 201)
    assert made["name"] == "Web"
    assert "hunter2" not in str(made)
    (extension,) = (await asked(api, ScaleSetChanged))[-1].spec.provisioning.extensions
    assert (extension.name, extension.publisher) == ("Web", "p")
    sealed = extension.sealed_protected_settings
    assert sealed is not None
    assert "hunter2" not in sealed
    await api.put(f"{api.set}/extensions/second", {"properties": {"publisher": "q"}}, 201)
    changed = await api.ask("PATCH", f"{api.set}/extensions/WEB", {"properties": {"type": "New"}})
    assert changed.status_code == 200
    assert changed.json()["properties"]["publisher"] == "p"
    first, second = (await asked(api, ScaleSetChanged))[-1].spec.provisioning.extensions
    assert (first.extension_type, first.sealed_protected_settings) == ("New", sealed)
    assert second.name == "second"
    assert (await api.ask("DELETE", path)).status_code == 202
    (left,) = (await asked(api, ScaleSetChanged))[-1].spec.provisioning.extensions
    assert left.name == "second"
    assert (await api.ask("DELETE", path)).status_code == 204
    assert (await api.error("PATCH", path, 404, {}))["code"] == "ResourceNotFound"


async def test_an_instance_view_shows_how_each_extension_ended(api: Any) -> None:
    await a_set(api, {}, {})
    for name in ("one", "two", "three"):
        given = {"properties": {"publisher": "p", "type": "t", "typeHandlerVersion": "2.0"}}
        await api.put(f"{api.set}/extensions/{name}", given, 201)
    error = '{"code": "VMExtensionProvisioningError", "message": "code 3", "target": "two"}'
    generation = (await api.events())[-1].spec.provisioning.generation
    failed = "UPDATE instances SET phase = 'failed', error = $1, generation = $2 WHERE id = '0'"
    await api.pool.execute(failed, error, generation)
    await api.pool.execute("UPDATE instances SET generation = $1 WHERE id = '1'", generation)
    view = await api.get(f"{api.set}/virtualMachines/0/instanceView")
    assert [(x["name"], x["statuses"][0]["code"]) for x in view["extensions"]] == [
        ("one", "ProvisioningState/succeeded"),
        ("two", "ProvisioningState/failed"),
        ("three", "ProvisioningState/creating"),
    ]
    assert view["extensions"][1]["statuses"][0]["message"] == "code 3"
    summary = (await api.get(f"{api.set}/instanceView"))["extensions"]
    assert summary[1] == {
        "name": "two",
        "statusesSummary": [
            {"code": "ProvisioningState/failed", "count": 1},
            {"code": "ProvisioningState/succeeded", "count": 1},
        ],
    }


@pytest.mark.parametrize("kind", ["ApplicationHealthLinux", "ApplicationHealthWindows"])
async def test_the_health_extension_is_a_source_of_health(api: Any, kind: str) -> None:
    """M34: a probe, or the Application Health extension; M32 is about load balancers only."""
    settings = {"protocol": "http", "port": "8080", "requestPath": "/health", "numberOfProbes": 2}
    item = {
        "name": "health",
        "properties": {
            "publisher": "Microsoft.ManagedServices",
            "type": kind,
            "settings": settings,
        },
    }
    body = api.scale_set_body(1, enable=True, extensionProfile={"extensions": [item]})
    body["properties"]["singlePlacementGroup"] = False
    made = await api.put(api.set, body, 201)
    assert made["properties"]["rollcall"]["warnings"] == []
    probe = (await api.events())[-1].spec.probe
    assert (probe.protocol, probe.port, probe.request_path) == ("Http", 8080, "/health")
    assert probe.number_of_probes == 2
    settings["protocol"] = "tcp"
    error = await api.error("PUT", f"{api.set}2", 400, body)
    assert error["target"].endswith("settings.requestPath")
