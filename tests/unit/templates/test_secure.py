"""Secrets in templates within templates: an inner one knows what is secret as the outer does."""

import json
from typing import Any

import pytest
from rollcall_templates.parameters import read_parameters
from rollcall_templates.plan import Plan, make_plan
from rollcall_templates.secure import shown_body, shown_template
from rollcall_templates.template import read_template
from rollcall_testing.templating import AROUND, FRESH, planned, resource, template

SECRET = "hunter2-hunter2"
DEPLOYMENTS = "Microsoft.Resources/deployments"
INNER: dict[str, Any] = {"expressionEvaluationOptions": {"scope": "inner"}}
PW = {"pw": {"type": "securestring"}}


def nested(inner: Any, name: str = "inner", **properties: Any) -> dict[str, Any]:
    """Return a resource that deploys a template."""
    inside = {"mode": "Incremental", "template": inner, **properties}
    made: dict[str, Any] = resource(name, DEPLOYMENTS, properties=inside)
    return made


def output(expression: Any, kind: str = "string") -> dict[str, Any]:
    return {"o": {"type": kind, "value": expression}}


def inner_plan(plan: Plan) -> Plan:
    """Return the plan of the nested deployment, from what would be sent to deploy it."""
    properties = json.loads(json.dumps(plan.body(plan.resources[0], {})["properties"]))
    read = read_template(properties["template"])
    given = read_parameters(read, properties.get("parameters"), AROUND, FRESH)
    return make_plan(read, AROUND, given)


def shown(plan: Plan) -> str:
    """Return all that is given back of a deployment, and of what it would write."""
    previews = [plan.preview(each) for each in plan.resources]
    exported = shown_template(plan.template.raw)
    return json.dumps([plan.parameters.shown(), plan.outputs({}), previews, exported])


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("[parameters('pw')]", "string"),
        ("[concat('a', parameters('pw'))]", "string"),
        ("[variables('v')]", "string"),
        ("[variables('w').x]", "string"),
        ("[createArray(parameters('pw'))]", "array"),
        ("[createObject('a', parameters('pw'))]", "object"),
        ({"a": ["[parameters('pw')]"]}, "object"),
        ({"[parameters('pw')]": 1}, "object"),
    ],
)
def test_what_an_outer_scope_puts_into_an_inner_template_stays_secret(
    expression: Any, kind: str
) -> None:
    variables = {"v": "[parameters('pw')]", "w": {"x": "[concat(variables('v'), '!')]"}}
    inner = template(resource("net", tags={"t": expression}), outputs=output(expression, kind))
    plan = planned(template(nested(inner), parameters=PW, variables=variables), pw=SECRET)
    there = inner_plan(plan)
    assert SECRET not in shown(plan) + shown(there)
    assert there.outputs({})["o"] == {"type": f"Secure{'String' if kind == 'string' else 'Object'}"}
    # It is a secret, but it is there: the resource gets it.
    assert SECRET in json.dumps(there.body(there.resources[0], {}))


def test_a_secret_goes_through_every_level_of_templates() -> None:
    innermost = template(
        resource("net", tags={"t": "[parameters('pw')]", "u": "[[not()]"}),
        outputs=output("[parameters('pw')]"),
    )
    middle = template(nested(innermost, "c"), outputs=output("[parameters('pw')]"))
    plan = planned(template(nested(middle, "b"), parameters=PW), pw=SECRET)
    there = inner_plan(plan)
    last = inner_plan(there)
    assert SECRET not in shown(plan) + shown(there) + shown(last)
    tags = last.body(last.resources[0], {})["tags"]
    assert tags == {"t": SECRET, "u": "[not()]"}


def test_a_template_of_inner_scope_within_one_of_outer_scope_is_left_as_it_is() -> None:
    innermost = template(
        resource("net", tags={"t": "[parameters('p')]"}),
        parameters={"p": {"type": "string"}},
        outputs=output("[parameters('p')]"),
    )
    given = {"p": {"value": "[parameters('pw')]"}}
    middle = template(nested(innermost, "c", parameters=given, **INNER))
    plan = planned(template(nested(middle, "b"), parameters=PW), pw=SECRET)
    there = inner_plan(plan)
    last = inner_plan(there)
    assert SECRET not in shown(plan) + shown(there) + shown(last)
    assert last.body(last.resources[0], {})["tags"] == {"t": SECRET}


@pytest.mark.parametrize(
    ("kind", "expression"),
    [
        ("string", "[parameters('pw')]"),
        ("array", "[createArray(parameters('pw'))]"),
        ("object", {"deep": ["[parameters('pw')]"]}),
    ],
)
def test_a_plain_parameter_that_is_given_a_secret_is_secure(kind: str, expression: Any) -> None:
    inner = template(
        parameters={"p": {"type": kind}, "q": {"type": "string"}},
        outputs=output("[parameters('p')]", kind) | {"q": output("[parameters('q')]")["o"]},
    )
    given = {"p": {"value": expression}, "q": {"value": "open"}}
    plan = planned(template(nested(inner, parameters=given, **INNER), parameters=PW), pw=SECRET)
    there = inner_plan(plan)
    assert SECRET not in shown(plan) + shown(there)
    assert "value" not in there.outputs({})["o"]
    assert there.outputs({})["q"] == {"type": "String", "value": "open"}
    assert there.parameters.shown()["q"] == {"type": "String", "value": "open"}


def test_a_plain_parameter_whose_default_is_made_of_a_secret_is_secure() -> None:
    parameters = {
        "a": {"type": "string", "defaultValue": "[concat(parameters('pw'), '!')]"},
        "b": {"type": "object", "defaultValue": {"x": "[parameters('a')]"}},
        "open": {"type": "int", "defaultValue": 1},
        **PW,
    }
    plan = planned(
        template(parameters=parameters, outputs=output("[parameters('b').x]")), pw=SECRET
    )
    assert SECRET not in shown(plan)
    assert plan.parameters.shown() == {
        "a": {"type": "SecureString"},
        "b": {"type": "SecureObject"},
        "open": {"type": "Int", "value": 1},
        "pw": {"type": "SecureString"},
    }
    assert plan.outputs({}) == {"o": {"type": "SecureString"}}


def test_a_parameter_of_the_same_name_as_the_secrets_keeps_its_own_value() -> None:
    inner = template(
        resource("net", tags={"t": "[parameters('pw')]"}),
        parameters={"secrets": {"type": "string", "defaultValue": "own"}},
    )
    there = inner_plan(planned(template(nested(inner), parameters=PW), pw=SECRET))
    assert there.parameters.values["secrets"] == "own"
    assert there.body(there.resources[0], {})["tags"] == {"t": SECRET}


def test_what_is_shown_has_no_value_that_is_written_for_a_secure_parameter() -> None:
    inner = template(
        parameters={
            "pw": {"type": "secureString", "DefaultValue": SECRET, "allowedValues": [SECRET]},
            "open": {"type": "string", "defaultValue": "seen"},
        }
    )
    given = {"PW": {"value": SECRET}, "open": {"value": "too"}}
    outer = template(
        nested(template(nested(inner, parameters=given, **INNER)), "outer"),
        parameters={"o": {"type": "secureObject", "defaultValue": {"key": SECRET}}},
    )
    for text in (
        json.dumps(shown_template(outer)),
        json.dumps(shown_body(outer["resources"])),
        json.dumps(planned(outer).preview(planned(outer).resources[0])),
    ):
        assert SECRET not in text
        assert "seen" in text
        assert "too" in text


def test_how_many_there_are_may_depend_on_a_secret_in_a_preview() -> None:
    loop = {"name": "l", "count": "[length(parameters('pw'))]", "input": "x"}
    plan = planned(template(resource("net", properties={"copy": [loop]}), parameters=PW), pw=SECRET)
    assert plan.preview(plan.resources[0])["properties"]["l"] == ["x"] * len(SECRET)
