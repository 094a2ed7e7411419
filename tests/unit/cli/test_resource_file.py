"""Files for `apply`: every way to say which resource it is, and every slip."""

import json

import pytest
import yaml
from rollcall_cli.resource_file import BALANCERS, GROUPS, SETS, ResourceFileError, read_resources

ID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"


def ids(text: str, subscription: str | None = None, group: str | None = None) -> list[str]:
    found = read_resources(text, "f", subscription=subscription, group=group)
    return [resource.id for resource in found]


@pytest.mark.parametrize(
    "text",
    [
        f"id: {ID}\nsku: {{capacity: 1}}",
        json.dumps({"id": ID, "name": "web", "type": SETS}),
        json.dumps({"value": [{"id": ID}]}),
        f"- id: {ID}",
        "type: virtualmachinescalesets\nname: web\nsubscription: s\nresourceGroup: g",
        f"---\ntype: {SETS}\nname: web\nsubscription: s\nresourceGroup: g\n---\n",
    ],
)
def test_a_resource_is_known_by_its_id_or_its_parts(text: str) -> None:
    assert ids(text) == [ID]


def test_options_say_where_what_the_file_leaves_out() -> None:
    text = f"type: {SETS}\nname: web"
    assert ids(text, "s", "g") == [ID]
    assert ids(text + "\nsubscription: other", "s", "g") == [ID.replace("/s/", "/other/")]
    assert ids(f"type: {GROUPS}\nname: g", "s") == ["/subscriptions/s/resourceGroups/g"]


def test_where_it_is_said_is_no_part_of_the_resource() -> None:
    text = f"id: {ID}\ntype: {SETS}\nname: web\netag: x\nlocation: local"
    (resource,) = read_resources(text, "f", subscription=None, group=None)
    assert resource.body == {"location": "local"}
    assert (resource.name, resource.type) == ("web", SETS)


def test_what_others_name_comes_first() -> None:
    text = f"id: {ID}\n---\ntype: loadBalancers\nname: front\n---\ntype: resourceGroups\nname: g"
    found = read_resources(text, "f", subscription="s", group="g")
    assert [r.type for r in sorted(found, key=lambda r: r.order)] == [GROUPS, BALANCERS, SETS]
    assert [r.source for r in found] == ["f, document 1", "f, document 2", "f, document 3"]


def test_a_time_in_yaml_is_a_text() -> None:
    text = f"id: {ID}\nproperties: {{start: 2026-05-02, at: 2026-05-02 22:00}}"
    (resource,) = read_resources(text, "f", subscription=None, group=None)
    assert resource.body["properties"] == {"start": "2026-05-02", "at": "2026-05-02 22:00"}
    assert yaml.safe_load("2026-05-02") != "2026-05-02"  # for everybody else it is as it was


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "f: there is no document"),
        ("just words", "f: must be an object"),
        ("a: [1", "f: no YAML at line"),
        ('{"a": }', "f: no JSON at line 1"),
        ("name: web", "f: `type` must say which resource"),
        (f"type: {SETS}", "f: `name` must say which resource"),
        (f"type: {SETS}\nname: web", "f: in which subscription"),
        (f"type: {SETS}\nname: web\nsubscription: s", "f: in which resource group"),
        ("type: virtualMachineScaleSet\nname: web",
         "type virtualMachineScaleSet is not known. Did you mean Microsoft.Compute/virtual"),
        ("id: /subscriptions/s/web", "is no id of a resource"),
        ("id: 7", "f: `id` must say which resource this is."),
        ('{"$schema": "https://x/deploymentTemplate.json#", "resources": []}', "an ARM template"),
        (f"id: {ID}\n---\nname: x", "f, document 2: `type`"),
    ],
)  # fmt: skip  # a table
def test_a_slip_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ResourceFileError) as caught:
        read_resources(text, "f", subscription=None, group=None)
    assert said in str(caught.value)
