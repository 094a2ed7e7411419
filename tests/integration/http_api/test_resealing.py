"""Another key for secrets: what the old one sealed is sealed anew, and nothing else changes."""

import base64
import json
from dataclasses import replace
from typing import Any

from http_api.resealing import reseal
from http_api.writes import Server
from rollcall_contracts.events import ScaleSetChanged
from rollcall_kit.secrets import new_key, unseal
from structlog.testing import capture_logs

SECRET = base64.b64encode(b"custom data of the test").decode()
SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
EXTENSION = {
    "name": "app",
    "properties": {
        "publisher": "Microsoft.Azure.Extensions",
        "type": "CustomScript",
        "typeHandlerVersion": "2.0",
        "protectedSettings": {"commandToExecute": "./run --password x"},
    },
}


def with_key(server: Server, key: str) -> Server:
    """Return the server as it is after a restart with another ROLLCALL_SECRETS_KEY."""
    return replace(server, settings=server.settings.model_copy(update={"secrets_key": key}))


async def test_what_an_old_key_sealed_is_sealed_with_the_new_one(api: Any) -> None:
    old, new = api.server.settings.secrets_key, new_key()
    body = api.scale_set_body(
        1,
        osProfile={"customData": SECRET},
        userData=SECRET,
        extensionProfile={"extensions": [EXTENSION]},
    )
    await api.put(api.set, body, 201)
    await api.put(f"{api.set}-plain", api.scale_set_body(1), 201)
    roles = [{"role": "reader", "scope": "/"}]
    made = (await api.http.post("/rollcall/accounts", json={"name": "a", "roles": roles})).json()
    form = {
        "grant_type": "client_credentials",
        "client_id": made["clientId"],
        "client_secret": made["clientSecret"],
    }
    assert (await api.http.post("/common/oauth2/token", data=form)).status_code == 200
    template = {"$schema": SCHEMA, "contentVersion": "1.0.0.0", "resources": []}
    deployment = f"{api.group}/providers/Microsoft.Resources/deployments/d"
    properties = {"mode": "Incremental", "template": template}
    await api.put(deployment, {"properties": properties}, 201)
    before = await api.pool.fetchrow("SELECT * FROM scale_sets WHERE id = $1", api.set)

    with capture_logs() as logs:
        await reseal(api.server)  # one key: there is nothing to do
        await reseal(with_key(api.server, f"{old},{new}"))  # known everywhere, but not yet used
        await reseal(with_key(api.server, f"{new},{old}"))
        await reseal(with_key(api.server, f"{new},{old}"))
    counts = [line["changed"] for line in logs if line["event"] == "secrets_resealed"]
    assert counts == [0, 3, 0]  # a signing key, a deployment and a set

    first, last = [each for each in await api.events() if isinstance(each, ScaleSetChanged)]
    opened = unseal(new, str(last.spec.provisioning.sealed_custom_data))
    assert opened == SECRET
    (extension,) = last.spec.provisioning.extensions
    settings = json.loads(unseal(new, str(extension.sealed_protected_settings)))
    assert settings == EXTENSION["properties"]["protectedSettings"]  # type: ignore[index]
    assert last.spec.revision > first.spec.revision
    assert last.spec.provisioning.generation == first.spec.provisioning.generation
    same = {"provisioning": first.spec.provisioning, "revision": first.spec.revision}
    assert last.spec.model_copy(update=same) == first.spec
    after = await api.pool.fetchrow("SELECT * FROM scale_sets WHERE id = $1", api.set)
    assert unseal(new, json.loads(after["secrets"])["userData"]) == SECRET
    columns = ("model", "generation", "warnings", "created_at", "resource_group", "key")
    assert [before[each] for each in columns] == [after[each] for each in columns]
    unseal(new, await api.pool.fetchval("SELECT sealed_private_key FROM signing_keys"))
    unseal(new, await api.pool.fetchval("SELECT sealed FROM deployments"))


async def test_what_no_key_opens_is_named_and_stays(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(1, osProfile={"customData": SECRET}), 201)
    events = await api.events()
    with capture_logs() as logs:
        await reseal(with_key(api.server, f"{new_key()},{new_key()}"))
    (line,) = [line for line in logs if line["event"] == "secrets_resealed"]
    assert (line["changed"], line["left"]) == (0, [api.set])
    assert await api.events() == events
