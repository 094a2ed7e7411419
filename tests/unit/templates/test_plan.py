"""From a template to its resources: order, loops, conditions, children, outputs."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollcall_templates.errors import TemplateError
from rollcall_templates.evaluate import Missing
from rollcall_templates.limits import MAX_COPIES, MAX_RESOURCES
from rollcall_testing.templating import GROUP, planned, resource, template

NET = "Microsoft.Network/virtualNetworks"
SETS = "Microsoft.Compute/virtualMachineScaleSets"


def names(document: Any, **parameters: Any) -> list[str]:
    """Return the names of a template's resources in their order."""
    return [each.name for each in planned(document, **parameters).resources]


def refusal(document: Any, **parameters: Any) -> TemplateError:
    """Return why a template is refused."""
    with pytest.raises(TemplateError) as caught:
        planned(document, **parameters)
    return caught.value


def needs(document: Any) -> dict[str, list[str]]:
    """Return the names of what each resource needs."""
    return {
        each.name: [id.rpartition("/")[2] for id in each.depends_on]
        for each in planned(document).resources
    }


@pytest.mark.parametrize(
    "name",
    [
        "[resourceId('Microsoft.Network/virtualNetworks', 'net')]",
        "[resourceId('Microsoft.Network/virtualNetworks/', 'net')]",
        "Microsoft.Network/virtualNetworks/net",
        "microsoft.network/VIRTUALNETWORKS/Net",
        "net",
    ],
)
def test_a_resource_follows_what_it_depends_on_however_it_is_named(name: str) -> None:
    found = template(resource("first", dependsOn=[name]), resource("net"))
    assert names(found) == ["net", "first"]


def test_asking_about_a_resource_is_depending_on_it() -> None:
    by_name = "[reference('net').addressSpace]"
    by_id = f"[reference(resourceId('{NET}', 'net')).addressSpace]"
    for expression in (by_name, by_id):
        found = template(resource("first", tags={"a": expression}), resource("net"))
        assert needs(found) == {"net": [], "first": ["net"]}


def test_a_circle_is_named() -> None:
    error = refusal(
        template(
            resource("a", dependsOn=["b"]),
            resource("b", dependsOn=["c"]),
            resource("c", dependsOn=["a"]),
        )
    )
    assert "Circular dependency detected on resource: " in error.message
    chain = " -> ".join(f"Microsoft.Network/virtualNetworks/{each}" for each in "abca")
    assert chain in error.message


def test_what_does_not_exist_cannot_be_depended_on() -> None:
    error = refusal(template(resource("a", dependsOn=["[concat('no', 'ne')]"])))
    assert "The resource 'none' is not defined in the template" in error.message
    assert error.path == ("resources", 0, "dependsOn", 0)


def test_a_condition_takes_a_resource_and_what_depends_on_it_stays() -> None:
    document = template(
        resource("gone", condition="[parameters('want')]"),
        resource("kept", dependsOn=["gone"]),
        parameters={"want": {"type": "bool"}},
    )
    assert names(document, want=True) == ["gone", "kept"]
    assert names(document, want=False) == ["kept"]
    # Of two resources of one name only one may be written.
    either = template(
        resource("a", condition="[parameters('want')]", tags={"v": "1"}),
        resource("a", condition="[not(parameters('want'))]", tags={"v": "2"}),
        parameters={"want": {"type": "bool"}},
    )
    assert names(either, want=True) == ["a"]
    error = refusal(template(resource("a"), resource("A")))
    assert "is defined multiple times in the template: here and at resources[0]" in error.message
    assert error.path == ("resources", 1)


def test_a_loop_makes_a_resource_for_each_round() -> None:
    document = template(
        resource(
            "[concat('net', copyIndex(1))]",
            copy={"name": "nets", "count": "[parameters('count')]"},
            tags={"index": "[copyIndex('NETS')]", "padded": "[format('{0:D3}', copyIndex())]"},
        ),
        resource("last", dependsOn=["nets"]),
        parameters={"count": {"type": "int"}},
    )
    plan = planned(document, count=3)
    assert [each.name for each in plan.resources] == ["net1", "net2", "net3", "last"]
    assert [id.rpartition("/")[2] for id in plan.resources[-1].depends_on] == [
        "net1",
        "net2",
        "net3",
    ]
    assert plan.body(plan.resources[1], {})["tags"] == {"index": 1, "padded": "001"}
    assert names(document, count=0) == ["last"]
    assert f"from 0 to {MAX_COPIES}" in refusal(document, count=801).message
    assert f"from 0 to {MAX_COPIES}" in refusal(document, count=-1).message


def test_a_serial_loop_goes_in_rounds() -> None:
    document = template(
        resource(
            "[string(copyIndex())]",
            copy={"name": "l", "count": 5, "mode": "serial", "batchSize": 2},
        )
    )
    assert needs(document) == {
        "0": [],
        "1": [],
        "2": ["0", "1"],
        "3": ["0", "1"],
        "4": ["2", "3"],
    }
    assert (
        "batchSize must be an integer above 0"
        in refusal(
            template(
                resource("a", copy={"name": "l", "count": 1, "mode": "Serial", "batchSize": 0})
            )
        ).message
    )
    assert (
        "mode must be serial or parallel"
        in refusal(template(resource("a", copy={"name": "l", "count": 1, "mode": "quick"}))).message
    )


def test_loops_in_properties_variables_and_outputs() -> None:
    document = template(
        resource(
            "net",
            properties={
                "copy": [
                    {
                        "name": "subnets",
                        "count": "[length(variables('names'))]",
                        "input": {
                            "name": "[variables('names')[copyIndex('subnets')]]",
                            "copy": [
                                {
                                    "name": "rules",
                                    "count": 2,
                                    "input": "[concat(copyIndex('subnets'), copyIndex('rules'))]",
                                }
                            ],
                        },
                    }
                ],
                "other": 1,
            },
        ),
        variables={
            "copy": [{"name": "names", "count": 2, "input": "[concat('s', copyIndex('names'))]"}],
            "inner": {
                "copy": [{"name": "disks", "count": 2, "input": {"lun": "[copyIndex('disks')]"}}]
            },
        },
        outputs={
            "names": {
                "type": "array",
                "copy": {"count": 2, "input": "[variables('names')[copyIndex()]]"},
            },
            "disks": {"type": "array", "value": "[variables('inner').disks]"},
        },
    )
    plan = planned(document)
    assert plan.body(plan.resources[0], {})["properties"] == {
        "subnets": [
            {"name": "s0", "rules": ["00", "01"]},
            {"name": "s1", "rules": ["10", "11"]},
        ],
        "other": 1,
    }
    assert plan.outputs({}) == {
        "names": {"type": "Array", "value": ["s0", "s1"]},
        "disks": {"type": "Array", "value": [{"lun": 0}, {"lun": 1}]},
    }


def test_resources_within_resources() -> None:
    document = template(
        resource(
            "net",
            resources=[
                {"type": "subnets", "apiVersion": "2020-06-01", "name": "one", "properties": {}}
            ],
        ),
        {"type": f"{NET}/subnets", "apiVersion": "2020-06-01", "name": "net/two"},
    )
    plan = planned(document)
    assert [each.id for each in plan.resources] == [
        f"{GROUP}/providers/{NET}/net",
        f"{GROUP}/providers/{NET}/net/subnets/one",
        f"{GROUP}/providers/{NET}/net/subnets/two",
    ]
    assert "resources" not in plan.body(plan.resources[0], {})
    assert plan.resources[1].depends_on == (plan.resources[0].id,)
    error = refusal(template({"type": f"{NET}/subnets", "apiVersion": "1", "name": "two"}))
    assert "needs 2 names, and 1 were given" in error.message


def test_a_template_of_symbolic_names() -> None:
    document = template(
        languageVersion="2.0",
        resources={
            "front": resource("lb", dependsOn=["nets"], tags={"a": "[reference('old').x]"}),
            "nets": resource("[string(copyIndex())]", copy={"name": "loop", "count": 2}),
            "old": resource("before", existing=True),
        },
        outputs={
            "all": {"type": "array", "value": "[references('nets', 'full')]"},
            "old": {"type": "string", "value": "[reference('old', '2020-06-01', 'Full').name]"},
        },
    )
    plan = planned(document)
    assert [each.name for each in plan.resources] == ["0", "1", "lb"]
    known: dict[Any, Any] = {
        (f"{GROUP}/providers/{NET}/{name}".lower(), "2020-06-01"): {
            "name": name,
            "properties": {"x": 7},
        }
        for name in ("0", "1", "before")
    }
    assert plan.body(plan.resources[2], known)["tags"] == {"a": 7}
    assert plan.outputs(known) == {
        "all": {
            "type": "Array",
            "value": [{"name": name, "properties": {"x": 7}} for name in ("0", "1")],
        },
        "old": {"type": "String", "value": "before"},
    }


def test_a_value_that_depends_on_a_deployed_resource_says_which() -> None:
    plan = planned(
        template(
            resource("net"),
            resource("second", tags={"a": "[reference('net', '2019-01-01').x]"}),
        )
    )
    with pytest.raises(Missing) as caught:
        plan.body(plan.resources[1], {})
    request = caught.value.request
    assert (request.id, request.api_version) == (f"{GROUP}/providers/{NET}/net", "2019-01-01")
    shown = plan.body(plan.resources[1], {}, partial=True)
    assert shown["tags"]["a"] == "[reference('net', '2019-01-01').x]"
    known = {request.key: {"properties": {"x": "y"}}}
    assert plan.body(plan.resources[1], known)["tags"]["a"] == "y"


def test_a_nested_template_is_evaluated_by_its_scope() -> None:
    inner = template(
        parameters={"p": {"type": "string"}},
        outputs={"o": {"type": "string", "value": "[parameters('p')]"}},
    )

    def nested(**options: Any) -> Any:
        return template(
            resource(
                "nested",
                "Microsoft.Resources/deployments",
                resourceGroup="other",
                properties={
                    "mode": "Incremental",
                    "template": inner,
                    "parameters": {"p": {"value": "[parameters('p')]"}},
                    **options,
                },
            ),
            parameters={"p": {"type": "string", "defaultValue": "[[outer]"}},
        )

    plan = planned(nested(expressionEvaluationOptions={"scope": "inner"}))
    (one,) = plan.resources
    assert one.id.startswith("/subscriptions/sub-1/resourceGroups/other/providers/")
    body = plan.body(one, {})["properties"]
    assert body["template"] == inner
    assert body["parameters"] == {"p": {"value": "[outer]"}}
    plan = planned(nested())
    body = plan.body(plan.resources[0], {})["properties"]
    # What was evaluated out here is not evaluated once more in there.
    assert body["template"]["outputs"]["o"]["value"] == "[[outer]"


@pytest.mark.parametrize(
    ("document", "message", "path"),
    [
        ([], "the template must be an object, and is Array", ()),
        ({"contentVersion": "1"}, "the template has no '$schema'", ()),
        (template(more=1), "a template has no section 'more'", ("more",)),
        (
            {**template(), "$schema": "https://x/subscriptionDeploymentTemplate.json#"},
            "only templates of a resource group",
            ("$schema",),
        ),
        (template(resources={"a": 1}), "a resource must be an object", ("resources", "a")),
        (template(resources="x"), "'resources' must be an array", ("resources",)),
        (template({"type": NET, "name": "a"}), "no 'apiVersion'", ("resources", 0)),
        (template({"apiVersion": "1", "name": "a"}), "no 'type'", ("resources", 0)),
        (template(resource("[createArray()]")), "name must be a text", ("resources", 0, "name")),
        (template(resource("a", "nothing")), "must have a provider", ("resources", 0, "name")),
        (
            template(resource("a", condition=1)),
            "a condition must be a boolean",
            ("resources", 0, "condition"),
        ),
        (
            template(resource("a", scope="/")),
            "resources of another scope",
            ("resources", 0, "scope"),
        ),
        (
            template(resource("a", resourceGroup="g")),
            "only a Microsoft.Resources/deployments has a 'resourceGroup'",
            ("resources", 0, "resourceGroup"),
        ),
        (
            template(
                resource(
                    "a",
                    "Microsoft.Resources/deployments",
                    properties={"templateLink": {"uri": "https://x"}},
                )
            ),
            "linked templates are not fetched here",
            ("resources", 0, "properties", "templateLink"),
        ),
        (
            template(resource("a", tags={"x": "[bad(]"})),
            "at character 6 of the expression",
            ("resources", 0, "tags", "x"),
        ),
        (
            template(resource("a", tags={"x": "[variables('v')]"}), variables={"v": "[no()]"}),
            "there is no function 'no'",
            ("variables", "v"),
        ),
        (
            template(
                variables={"a": "[variables('b')]", "b": "[variables('a')]"},
                outputs={"o": {"type": "string", "value": "[variables('a')]"}},
            ),
            "variables depend on each other in a circle: b -> a -> b",
            ("variables", "a"),
        ),
        (
            template(
                variables={"v": "[reference('x')]"},
                outputs={"o": {"type": "string", "value": "[variables('v')]"}},
            ),
            "reference(): it cannot be used at this location",
            ("variables", "v"),
        ),
        (
            template(outputs={"o": {"type": "int", "value": "x"}}),
            "the output is of type 'Int', and its value is String",
            ("outputs", "o", "value"),
        ),
        (template(outputs={"o": {"type": "x"}}), "the type of an output", ("outputs", "o", "type")),
        (template(functions={}), "", None),
        (template(parameters=[]), "'parameters' must be an object", ("parameters",)),
        (
            template(variables={str(n): n for n in range(257)}),
            "the template has 257 variables, and may have 256",
            ("variables",),
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(document: Any, message: str, path: Any) -> None:
    if path is None:
        planned(document)
        return
    error = refusal(document)
    assert message in error.message
    assert error.path == path


def test_a_template_that_grows_without_end_is_refused() -> None:
    doubling = {"v0": "0123456789"} | {
        f"v{n}": f"[concat(variables('v{n - 1}'), variables('v{n - 1}'))]" for n in range(1, 60)
    }
    output = {"o": {"type": "string", "value": "[variables('v59')]"}}
    assert "longer than" in refusal(template(variables=doubling, outputs=output)).message
    trees = {"v0": "[createArray(1)]"} | {
        f"v{n}": f"[createArray(variables('v{n - 1}'), variables('v{n - 1}'))]"
        for n in range(1, 60)
    }
    output = {"o": {"type": "array", "value": "[variables('v59')]"}}
    assert "more than" in refusal(template(variables=trees, outputs=output)).message
    deep = {"v0": "[createArray()]"} | {
        f"v{n}": f"[createArray(variables('v{n - 1}'))]" for n in range(1, 100)
    }
    output = {"o": {"type": "array", "value": "[variables('v99')]"}}
    assert "nested more than" in refusal(template(variables=deep, outputs=output)).message
    many = [
        resource("[concat('a', copyIndex())]", copy={"name": "a", "count": 500}),
        resource("[concat('b', copyIndex())]", copy={"name": "b", "count": 500}),
    ]
    assert f"more than {MAX_RESOURCES} resources" in refusal(template(*many)).message
    loops = {
        "copy": [
            {
                "name": "a",
                "count": 800,
                "input": {"copy": [{"name": "b", "count": 800, "input": "[concat('x', 'y')]"}]},
            },
            {
                "name": "c",
                "count": 800,
                "input": {"copy": [{"name": "d", "count": 800, "input": "[concat('x', 'y')]"}]},
            },
        ]
    }
    output = {"o": {"type": "array", "value": "[concat(variables('a'), variables('c'))]"}}
    assert "calls functions more than" in refusal(template(variables=loops, outputs=output)).message


def test_loops_within_loops_are_counted_even_without_a_call() -> None:
    inner: Any = "x" * 1000
    for depth in range(3):
        inner = {"copy": [{"name": f"l{depth}", "count": 800, "input": inner}]}
    output = {"o": {"type": "object", "value": "[variables('v')]"}}
    error = refusal(template(variables={"v": inner}, outputs=output))
    assert "makes more than" in error.message


def test_a_long_chain_of_variables_is_no_nesting() -> None:
    chain = {"v0": "[string(0)]"} | {
        f"v{n}": f"[concat('', variables('v{n - 1}'))]" for n in range(1, 256)
    }
    plan = planned(
        template(variables=chain, outputs={"o": {"type": "string", "value": "[variables('v255')]"}})
    )
    assert plan.outputs({})["o"]["value"] == "0"


@given(st.integers(2, 7), st.data())
def test_the_order_keeps_every_dependency_or_names_a_circle(count: int, data: Any) -> None:
    pairs = [(a, b) for a, b in itertools.product(range(count), repeat=2) if a != b]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=8))
    document = template(
        *(resource(f"r{n}", dependsOn=[f"r{b}" for a, b in edges if a == n]) for n in range(count))
    )
    try:
        found = names(document)
    except TemplateError as error:
        message = error.message
        circle = [part.rpartition("/")[2] for part in message.partition(": take")[0].split(" -> ")]
        steps = list(itertools.pairwise(circle))
        found = []
    else:
        message, steps = "", []
    if message:
        assert len(steps) > 1
        assert all((int(a[1:]), int(b[1:])) in edges for a, b in steps)
    else:
        assert sorted(found) == sorted(f"r{n}" for n in range(count))
        assert all(found.index(f"r{b}") < found.index(f"r{a}") for a, b in edges)
