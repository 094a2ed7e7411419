"""Parameters: types, defaults, bounds; secure ones never shown, nor what is made of them."""

from typing import Any

import pytest
from rollcall_templates.errors import TemplateError
from rollcall_testing.templating import planned, template

SECRET = "hunter2-hunter2"


def refusal(definition: dict[str, Any], *given: Any) -> TemplateError:
    """Return why a parameter is refused."""
    with pytest.raises(TemplateError) as caught:
        planned(template(parameters={"p": definition}), **({"p": given[0]} if given else {}))
    return caught.value


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("string", "a", "String"),
        ("STRING", "[not(evaluated)]", "String"),
        ("int", 5, "Int"),
        ("bool", True, "Bool"),
        ("object", {"a": [1]}, "Object"),
        ("array", ["a", 1], "Array"),
    ],
)
def test_each_type(kind: str, value: Any, shown: str) -> None:
    plan = planned(template(parameters={"p": {"type": kind}}), p=value)
    assert plan.parameters.shown() == {"p": {"type": shown, "value": value}}


@pytest.mark.parametrize(
    ("definition", "value", "message"),
    [
        ({"type": "int"}, "5", "Expected a value of type 'Int', but received a value of type 'Str"),
        ({"type": "int"}, True, "but received a value of type 'Boolean'"),
        ({"type": "string"}, None, "but received a value of type 'Null'"),
        ({"type": "text"}, "a", "the type of the parameter 'p' must be one of"),
        ({"type": "string", "allowedValues": ["a", "b"]}, "c", "allowed values: a, b"),
        ({"type": "string", "minLength": 3}, "ab", "length must be at least 3, and is 2"),
        ({"type": "string", "maxLength": 1}, "ab", "length must be at most 1, and is 2"),
        ({"type": "array", "maxLength": 1}, [1, 2], "length must be at most 1, and is 2"),
        ({"type": "int", "minValue": 1}, 0, "value must be at least 1, and is 0"),
        ({"type": "int", "maxValue": 1}, 2, "value must be at most 1, and is 2"),
        ({"type": "int", "maxValue": "x"}, 2, "maxValue must be an integer"),
        ({"type": "object", "minValue": 1}, {}, "a parameter of type Object has no minValue"),
    ],
)
def test_what_does_not_fit_is_refused(definition: Any, value: Any, message: str) -> None:
    error = refusal(definition, value)
    assert message in error.message
    assert error.path[:2] == ("parameters", "p")


def test_a_missing_or_unknown_parameter_is_named() -> None:
    assert (
        "The value for the template parameter 'p' is not provided"
        in refusal({"type": "string"}).message
    )
    with pytest.raises(
        TemplateError, match=r"'q'. The parameters defined in the template are: 'p'"
    ):
        planned(template(parameters={"p": {"type": "string"}}), q=1)


def test_defaults_may_ask_for_each_other_but_not_in_a_circle() -> None:
    parameters = {
        "a": {"type": "string", "defaultValue": "[concat(parameters('b'), '!')]"},
        "b": {"type": "string", "defaultValue": "[toUpper('b')]"},
        "c": {"type": "string", "nullable": True},
    }
    shown = planned(template(parameters=parameters)).parameters
    assert shown.values == {"a": "B!", "b": "B", "c": None}
    parameters["b"] = {"type": "string", "defaultValue": "[parameters('a')]"}
    with pytest.raises(TemplateError, match="in a circle: a -> b -> a"):
        planned(template(parameters=parameters))


def test_an_array_may_have_any_of_the_allowed_values() -> None:
    definition = {"type": "array", "allowedValues": ["a", "b", "c"]}
    planned(template(parameters={"p": definition}), p=["a", "c"])
    assert "allowed values" in refusal(definition, ["a", "d"]).message


@pytest.mark.parametrize(
    ("definition", "value"),
    [
        ({"type": "securestring", "allowedValues": [SECRET + "x"]}, SECRET),
        ({"type": "securestring", "maxLength": 3}, SECRET),
        ({"type": "secureString"}, [SECRET]),
        ({"type": "secureObject"}, SECRET),
    ],
)
def test_no_message_shows_a_secret(definition: Any, value: Any) -> None:
    message = refusal(definition, value).message
    assert SECRET not in message
    assert str(len(SECRET)) not in message


@pytest.mark.parametrize(
    "expression",
    [
        "[int(parameters('p'))]",
        "[parameters('p').x]",
        "[json(parameters('p'))]",
        "[substring(parameters('p'), 40)]",
        "[bool(parameters('p'))]",
        "[base64ToString(parameters('p'))]",
        "[dateTimeAdd(parameters('p'), 'P1D')]",
        "[createObject('a', 1)[int(parameters('p'))]]",
    ],
)
def test_no_mistake_of_an_expression_shows_a_secret(expression: str) -> None:
    document = template(
        parameters={"p": {"type": "securestring"}},
        outputs={"o": {"type": "string", "value": expression}},
    )
    with pytest.raises(TemplateError) as caught:
        planned(document, p=SECRET)
    assert SECRET not in caught.value.message


def test_what_is_made_of_a_secret_is_never_given_back() -> None:
    document = template(
        parameters={
            "p": {"type": "securestring"},
            "o": {"type": "secureObject", "defaultValue": {"key": SECRET}},
            "plain": {"type": "string", "defaultValue": "x"},
        },
        variables={"v": "[concat('a', parameters('p'))]", "w": "[variables('v')]"},
        outputs={
            "direct": {"type": "string", "value": "[parameters('p')]"},
            "through": {"type": "string", "value": "[variables('w')]"},
            "again": {"type": "string", "value": "[variables('w')]"},
            "object": {"type": "object", "value": "[parameters('o')]"},
            "length": {"type": "int", "value": "[length(parameters('p'))]"},
            "secure": {"type": "securestring", "value": "x"},
            "plain": {"type": "string", "value": "[parameters('plain')]"},
        },
    )
    plan = planned(document, p=SECRET)
    assert plan.parameters.shown() == {
        "p": {"type": "SecureString"},
        "o": {"type": "SecureObject"},
        "plain": {"type": "String", "value": "x"},
    }
    assert plan.outputs({}) == {
        "direct": {"type": "SecureString"},
        "through": {"type": "SecureString"},
        "again": {"type": "SecureString"},
        "object": {"type": "SecureObject"},
        "length": {"type": "SecureString"},
        "secure": {"type": "SecureString"},
        "plain": {"type": "String", "value": "x"},
    }


@pytest.mark.parametrize(
    "sections",
    [
        {"parameters": {"pw": {"type": "securestring"}, "PW": {"type": "string"}}},
        {"variables": {"a": "1", "A": "2"}},
        {"outputs": {name: {"type": "int", "value": 1} for name in ("o", "O")}},
        {
            "functions": [
                {
                    "namespace": "n",
                    "members": {name: {"output": {"value": 1}} for name in ("f", "F")},
                }
            ]
        },
    ],
)
def test_names_that_are_equal_but_for_their_case_are_refused(sections: Any) -> None:
    with pytest.raises(TemplateError, match="are one name, for case makes no difference"):
        planned(template(**sections), pw=SECRET)


def test_a_parameter_is_not_given_twice_in_another_case() -> None:
    document = template(parameters={"pw": {"type": "securestring"}})
    with pytest.raises(TemplateError, match="given twice"):
        planned(document, pw=SECRET, PW=SECRET)
