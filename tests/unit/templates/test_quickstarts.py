"""Templates in the style of Azure's quickstarts for scale sets: each reads, and is complete."""

import json
from pathlib import Path
from typing import Any

import pytest
from http_api.domain.deployments import unsupported
from rollcall_templates.parameters import read_parameters
from rollcall_templates.plan import Plan, make_plan
from rollcall_templates.template import read_template
from rollcall_testing.templating import AROUND, FRESH

HERE = Path(__file__).parent / "quickstarts"
EXAMPLES = Path(__file__).parents[3] / "examples" / "templates"
GIVEN: dict[str, dict[str, Any]] = {
    "autoupdate.json": {
        "vmssNamePrefix": "web",
        "instanceCount": 3,
        "adminUsername": "me",
        "adminPassword": "x",
    },
    "behind-a-load-balancer.json": {
        "vmssName": "web",
        "adminPassword": "x",
        "scripts": ["https://example.org/install.sh"],
        "autoscale": True,
    },
    "linux-nat.json": {"vmssName": "web", "adminPassword": "x", "instanceCount": 2},
    "windows-autoscale.json": {"vmssName": "win", "adminPassword": "x"},
    "several-sets.json": {"prefix": "fleet", "sshKey": "ssh-ed25519 A", "sizes": [1, 2, 3]},
    "modular.json": {"name": "inner"},
    "symbolic.json": {"name": "new"},
}
FILES = sorted([*HERE.glob("*.json"), *EXAMPLES.glob("*.json")])
KNOWN = {"properties": {"outputs": {"subnetId": {"value": "/subnet"}}, "probes": [{}]}, "sku": {}}


def plan_of(file: Path) -> Plan:
    """Return what a template amounts to."""
    template = read_template(json.loads(file.read_text()))
    given = {name: {"value": value} for name, value in GIVEN[file.name].items()}
    return make_plan(template, AROUND, read_parameters(template, given, AROUND, FRESH))


def texts(value: Any) -> list[str]:
    """Return all texts of a value."""
    match value:
        case str():
            return [value]
        case dict():
            return [text for each in (*value, *value.values()) for text in texts(each)]
        case list():
            return [text for each in value for text in texts(each)]
    return []


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_it_amounts_to_resources_that_can_be_deployed(file: Path) -> None:
    plan = plan_of(file)
    assert unsupported(plan) is None
    assert plan.resources
    known: dict[Any, Any] = {
        (each.id.lower(), each.api_version): {**KNOWN, "name": each.name} for each in plan.resources
    }
    for resource in plan.resources:
        body = plan.body(resource, known)
        if resource.is_nested_template:
            body = {**body, "properties": {**body["properties"], "template": {}}}
        assert not [text for text in texts(body) if text.startswith("[")], resource.id


def test_each_file_has_parameters_here() -> None:
    assert {file.name for file in FILES} == set(GIVEN)


def test_the_seeds_template_is_the_set_that_upgrades_by_itself() -> None:
    plan = plan_of(EXAMPLES / "autoupdate.json")
    network, scale_set = plan.resources
    assert scale_set.depends_on == (network.id,)
    body = plan.body(scale_set, {})
    assert body["properties"]["singlePlacementGroup"] == "false"
    assert body["properties"]["upgradePolicy"]["automaticOSUpgrade"] == "true"
    assert body["sku"]["capacity"] == 3


def test_several_sets_follow_each_other() -> None:
    plan = plan_of(HERE / "several-sets.json")
    sets = [each for each in plan.resources if each.type.endswith("virtualMachineScaleSets")]
    assert [each.name for each in sets] == ["fleet-1", "fleet-2", "fleet-3"]
    assert sets[0].id in sets[1].depends_on
    assert [plan.body(each, {})["sku"]["capacity"] for each in sets] == [1, 2, 3]
