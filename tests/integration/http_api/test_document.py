"""The running service does what its OpenAPI document says, whatever it is asked."""

import asyncio
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import httpx
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from rollcall_testing import eventually
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

load_all_checks()
FILE = Path(__file__).parents[3] / "docs" / "openapi.json"
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
EXAMPLES = 5  # of each operation, once within its schemas and once beside them
ENDLESS = "/rollcall/events/stream"  # it never ends; test_events.py reads it
WHICH = st.integers(0, 10**6)
ORDER = ("get", "head", "put", "patch", "post", "delete")  # what takes away comes last


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def service(database_url: str, amqp_url: str, key: str) -> AsyncIterator[str]:
    """Run http-api as a process; give its address once it is ready."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "http_api"),
        env={
            **os.environ,
            "ROLLCALL_DATABASE_URL": database_url,
            "ROLLCALL_AMQP_URL": amqp_url,
            "ROLLCALL_API_TOKEN": "t",
            "ROLLCALL_API_PORT": str(port),
            "ROLLCALL_SECRETS_KEY": key,
            "ROLLCALL_LOG_LEVEL": "ERROR",
            "ROLLCALL_LOG_FORMAT": "json",
        },
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:

            async def is_ready() -> bool:
                try:
                    return (await http.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(is_ready, timeout=60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def seed(api: Any) -> dict[str, str]:
    """Fill the installation; return names that exist, by the parameters that take them."""
    extension = {"name": "init", "properties": {"publisher": "p", "type": "CustomScript"}}
    profile = {"extensionProfile": {"extensions": [extension]}}
    await api.put(api.set, api.scale_set_body(2, **profile), 201)
    await api.put(api.balancer, api.balancer_body("app"), 201)
    subnet = {"properties": {"subnets": [{"name": "inner"}]}}
    network = f"{api.group}/providers/Microsoft.Network/virtualNetworks/net"
    await api.put(network, subnet, 201)
    (changed,) = await api.events()
    await api.add_fleet(spec=json.loads(changed.spec.model_dump_json()))
    await api.add_instance("0")
    await api.add_instance("1", phase="failed", error={"code": "X", "message": "y"})
    upgrade = await api.add_upgrade({"succeeded": 1, "failed": 1})
    await api.add_batch(upgrade, 1)
    await api.add_image("1.0.0")
    await api.add_hold("2.0.0")
    begun = await api.ask("DELETE", network.replace("/net", "/gone"))
    assert begun.status_code == 204
    begun = await api.ask("PATCH", api.set, {"tags": {"a": "b"}})
    operation = begun.headers["Azure-AsyncOperation"].rpartition("/")[2].partition("?")[0]
    account = {"name": "robot", "roles": [{"role": "reader"}]}
    made = (await api.http.post("/rollcall/accounts", json=account)).json()
    return {
        "subscription": "s",
        "group": "g",
        "name": "web",
        "location": "local",
        "instance_id": "0",
        "upgrade_id": upgrade,
        "operation_id": operation,
        "client_id": made["clientId"],
        "extension": "init",
        "publisher": "Contoso",
        "offer": "Web",
        "sku": "stable",
        "version": "1.0.0",
        "namespace": "Microsoft.Compute",
        "tenant": "common",
        "action": "runCommand",
    }


def names_for(path: str, names: dict[str, str]) -> dict[str, str]:
    """Return the names of what exists below a path."""
    if "/loadBalancers/" in path:
        return {**names, "name": "lb", "kind": "probes", "part": "app"}
    if "/Microsoft.Network/" in path:
        kinds = {"kind": "virtualNetworks", "part_kind": "subnets"}
        return {**names, **kinds, "name": "net", "part": "inner"}
    if "/holds/" in path:
        return {**names, "version": "2.0.0"}
    return names


def takes_anything(operation: Any) -> bool:
    """Say whether there is something that could be sent wrongly."""
    return "parameters" in operation.definition.raw or "requestBody" in operation.definition.raw


def with_one_part(valid: Any, given: Any, which: int) -> Any:
    """Return a valid body with one part of another one, somewhere in its depth."""
    if not isinstance(valid, dict) or not isinstance(given, dict) or not given:
        return given
    key = sorted(given, key=str)[which % len(given)]
    return {**valid, key: with_one_part(valid.get(key), given[key], which // len(given))}


def faults_of(
    operation: Any, names: dict[str, str], bodies: dict[str, Any], **how: Any
) -> tuple[list[str], Counter[int]]:
    """Ask an operation again and again; return its wrong answers, and the statuses of all."""
    found: list[str] = []
    statuses: Counter[int] = Counter()
    existing = names_for(operation.path, names)
    valid = bodies.get(operation.definition.raw["operationId"].rstrip("_0123456789"))

    def ask(case: Any, real: bool, which: int) -> None:
        if real:
            known = {name: existing.get(name, each) for name, each in case.path_parameters.items()}
            case.path_parameters = known
            if "api-version" in (case.query or {}):
                case.query = {"api-version": "2024-11-01"}
            for name in ("If-Match", "If-None-Match"):
                case.headers.pop(name, None)
            if valid is not None:
                case.body = with_one_part(valid, case.body, which)
        case.headers["Authorization"] = "Bearer t"
        response = case.call(**how)
        statuses[response.status_code] += 1
        text = f"{case.as_curl_command()}\n-> {response.status_code} {response.text[:300]}"
        if response.status_code >= 500:
            found.append(f"server error: {text}")
            return
        try:
            case.validate_response(response, checks=CHECKS)
        except FailureGroup as group:
            found.extend(f"{type(each).__name__}: {each}\n{text}" for each in group.exceptions)
        except Failure as failure:
            found.append(f"{type(failure).__name__}: {failure}\n{text}")

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        if mode is GenerationMode.NEGATIVE and not takes_anything(operation):
            continue
        run = settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(given(operation.as_strategy(generation_mode=mode), st.booleans(), WHICH)(ask))
        # Of plain texts in a path nothing can be wrong, and there is nothing to send.
        with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():
            run()
    return found, statuses


async def test_what_the_document_says_is_so(api: Any, database_url: str, amqp_url: str) -> None:
    document = json.loads(FILE.read_text())
    schema = schemathesis.openapi.from_dict(document)
    schema.config.generation.with_security_parameters = False  # who asks is test_roles.py's matter
    described = [each for each in schema.get_all_operations() if isinstance(each, Ok)]
    operations = [each.ok() for each in described if each.ok().path != ENDLESS]
    operations.sort(key=lambda each: (ORDER.index(each.method), each.path))
    names = await seed(api)
    faults: list[str] = []
    statuses: Counter[int] = Counter()
    bodies = {
        "scale_sets_put": api.scale_set_body(2),
        "scale_sets_patch": api.scale_set_body(2),
        "load_balancers_put": api.balancer_body("app"),
        "load_balancers_patch": api.balancer_body("app"),
        "groups_put": {"location": "local"},
        "networks_put": {"location": "local", "properties": {"subnets": [{"name": "inner"}]}},
        "accounts_add": {"name": "robot", "roles": [{"role": "reader"}]},
        "accounts_put_roles": {"roles": [{"role": "reader"}]},
        "instances_deploy_model": {"instanceIds": ["0"]},
        "login_token": {"grant_type": "client_credentials"},
    }
    async with service(database_url, amqp_url, api.server.settings.secrets_key) as base:
        with requests.Session() as session:
            how = {"base_url": base, "session": session, "timeout": 60}
            for operation in operations:
                found, counted = await asyncio.to_thread(faults_of, operation, names, bodies, **how)
                faults += found
                statuses += counted
    assert len(operations) > 90
    assert not faults, "\n\n".join([f"{len(faults)} faults", *faults[:20]])
    # Most of what is asked beside the schemas is refused; without these nothing was tested.
    assert statuses[200] > 200, statuses
    assert statuses[202] > 20, statuses
