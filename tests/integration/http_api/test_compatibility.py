"""docs/azure-compatibility.md is true: each operation is called, each property written."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_api.domain.documents import at
from http_api.web import create_app

TEXT = (Path(__file__).parents[3] / "docs" / "azure-compatibility.md").read_text()
SHORT = {
    "V": "G/providers/Microsoft.Compute/virtualMachineScaleSets/{name}",
    "N": "G/providers/Microsoft.Network",
    "L": "S/providers/Microsoft.Compute/locations/{location}",
    "G": "S/resourceGroups/{group}",
    "S": "/subscriptions/{subscription}",
}
# What stands for the names in a path that is called.
NAMES = {
    "subscription": "s",
    "group": "g",
    "name": "web",
    "location": "local",
    "instance_id": "0",
    "namespace": "Microsoft.Compute",
    "kind": "virtualNetworks",
    "part_kind": "subnets",
}
OPERATION = re.compile(r"^\| `([A-Z]+) ([^`]+)` \| (\w+) \|", re.MULTILINE)
PROPERTY = re.compile(r"^\| `([A-Za-z.]+)` \| (\w+) \| `(.+)` \|$", re.MULTILINE)


def full_path(short: str) -> str:
    """Return a path without abbreviations."""
    for name, meaning in SHORT.items():
        if short == name or short.startswith(f"{name}/"):
            return full_path(meaning + short.removeprefix(name))
    return short


def operations() -> list[tuple[str, str, str]]:
    """Return (method, path, status) of each documented operation."""
    return [(method, full_path(path), status) for method, path, status in OPERATION.findall(TEXT)]


def routes(api: Any) -> Iterator[tuple[str, str]]:
    """Return (method, path) of each route that is Azure's."""
    for path, methods in create_app(api.server).openapi()["paths"].items():
        if re.match("/(subscriptions|tenants|providers)", path):
            for method in methods:
                yield method.upper(), path


OURS = re.compile(r"/(rollcall/.*|explain|state|pause|resume|rollback|\{action\})$")


async def test_every_operation_is_documented_and_none_that_is_not_there(api: Any) -> None:
    there = {(m, p) for m, p in routes(api) if not OURS.search(p)}
    documented = {(m, p) for m, p, status in operations() if status != "refused"}
    refused = {(m, p) for m, p, status in operations() if status == "refused"}
    assert documented | {each for each in refused if each in there} == there
    assert len(operations()) == len(documented | refused), "a row stands there twice"


async def test_what_is_refused_says_why_and_the_rest_is_not_refused(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    await api.add_fleet()
    await api.add_instance("0")
    for method, path, status in operations():
        if "loadBalancers" in path:
            path = path.replace("{kind}", "probes")
        called = re.sub(r"\{(\w+)\}", lambda m: NAMES.get(m[1], "x"), path)
        if method in ("DELETE", "PATCH") and status != "refused":
            continue  # these would take away what the next ones need
        answer = await api.ask(method, called, {"location": "local"})
        if status == "refused":
            assert answer.status_code in (404, 405, 409), (method, called, answer.text)
            assert answer.json()["error"]["message"]
        else:
            assert answer.status_code < 500, (method, called, answer.text)
            assert answer.status_code != 405, (method, called)
            if answer.status_code == 404 and method != "HEAD":
                assert "There is nothing at" not in answer.json()["error"]["message"], called


def with_value(document: dict[str, Any], path: str, value: Any) -> None:
    """Set what is at a dotted path."""
    *parents, last = path.split(".")
    for name in parents:
        document = document.setdefault(name, {})
    document[last] = value


def expected_back(example: Any, shown: Any) -> bool:
    """Say whether an example came back; what is shown may have more, such as defaults."""
    if isinstance(example, dict) and isinstance(shown, dict):
        return all(key in shown and expected_back(example[key], shown[key]) for key in example)
    return bool(example == shown)


async def test_every_property_is_what_the_page_says(api: Any) -> None:
    balancer = api.balancer_body("app", "slow")
    balancer["properties"]["probes"][1]["properties"]["intervalInSeconds"] = 60
    await api.put(api.balancer, balancer, 201)

    def body() -> dict[str, Any]:
        made: dict[str, Any] = api.scale_set_body(
            3, networkProfile={"healthProbe": {"id": f"{api.balancer}/probes/app"}}
        )
        with_value(made, "properties.virtualMachineProfile.storageProfile.dataDisks", [])
        with_value(made, "properties.virtualMachineProfile.osProfile.computerNamePrefix", "vm")
        return made

    async def spec(path: str) -> dict[str, Any]:
        kept: dict[str, Any] = (await api.events(path))[-1].spec.model_dump()
        for name in ("scale_set", "revision"):
            kept.pop(name)
        kept["provisioning"].pop("generation")
        return kept

    await api.put(api.set, body(), 201)
    plain = await spec(api.set)
    rows = PROPERTY.findall(TEXT)
    assert len(rows) > 50
    for number, (place, status, text) in enumerate(rows):
        example, path, given = json.loads(text), f"{api.set}{number}", body()
        with_value(given, place, example)
        answer = await api.ask("PUT", path, given)
        if status == "refused":
            assert answer.status_code == 400, place
            continue
        assert answer.status_code == 201, (place, answer.text)
        shown = await api.get(path)
        is_secret = place.endswith((".customData", ".userData", ".adminPassword"))
        assert expected_back(example, at(shown, place)) is not is_secret, place
        assert (await spec(path) != plain) is (status == "works"), place


@pytest.mark.parametrize("word", ["works", "kept", "refused", "dropped"])
def test_each_status_is_explained(word: str) -> None:
    assert f"- **{word}**" in TEXT
    used = {status for *_, status in OPERATION.findall(TEXT)}
    used |= {status for _, status, _ in PROPERTY.findall(TEXT)}
    assert word in used
    assert used <= {"works", "kept", "refused", "dropped"}
