"""What a template may not make: it is refused before it takes the memory of the service."""

import tracemalloc
from typing import Any

import pytest
from rollcall_templates.errors import TemplateError
from rollcall_templates.limits import MAX_BODY, MAX_NAME, MAX_TEXT, Budget, fits_in
from rollcall_testing.templating import planned, resource, template

LONG = "[padLeft('x', 1048576)]"  # as long as a text may be
MOST = 160 * 1024 * 1024  # bytes


def output(expression: Any, type: str = "string", **variables: Any) -> dict[str, Any]:
    """Return a template with one output, and the variable `d`, which is long."""
    outputs = {"o": {"type": type, "value": expression}}
    return template(variables={"d": LONG, **variables}, outputs=outputs)


def looped(outer: int, inner: int, value: Any) -> dict[str, Any]:
    """Return a template of one resource with a value in it so many times so many times."""
    loop = {"name": "b", "count": inner, "input": value}
    loops = [{"name": "a", "count": outer, "input": {"copy": [loop]}}]
    return template(resource("v", properties={"copy": loops}), variables={"d": LONG})


DS = ", ".join(["variables('d')"] * 1500)
NAMES = "/".join(["t"] * 200)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (output("[join(range(0, 1500), variables('d'))]"), "would be longer than"),
        (output(f"[concat({DS})]"), "was given more than"),
        (output("[concat(variables('d'), 'x')]"), "would be longer than"),
        (output("[format('" + "{0}" * 1500 + "', variables('d'))]"), "would be longer than"),
        (output("[format('" + "{0,9999}" * 1500 + "', 'x')]"), "would be longer than"),
        (output("[replace(variables('d'), ' ', 'xx')]"), "would be longer than"),
        (output("[padLeft('x', 1048577)]"), "must be from 0 to"),
        (output("[string(range(0, 10001))]"), "must be from 0 to"),
        (output(f"[string(createArray({DS}))]"), "was given more than"),
        (output("[string(variables('l'))]", l=["[variables('d')]"] * 30), "would be longer than"),
        (output(f"[uniqueString({DS})]"), "was given more than"),
        (output(f"[guid({DS})]"), "was given more than"),
        (output(f"[resourceId('a/{NAMES}', {DS})]"), "was given more than"),
        (output("[variables('l')]", "array", l=["[variables('d')]"] * 800), "in all"),
        (output(["[variables('d')]"] * 30, "array"), "the outputs become longer than"),
        (looped(400, 40, "[variables('d')]"), "in all"),
        (looped(140, 140, "[variables('d')]"), "in all"),
        (looped(3, 10, "[variables('d')]"), "the resource becomes longer than"),
        (looped(140, 140, "[concat(padLeft('', 300), copyIndex())]"), "the resource becomes"),
        (template(resource("[padLeft('x', 2049)]")), f"may have {MAX_NAME}"),
        (
            template(resource("v[copyIndex()]", copy={"name": LONG, "count": 800})),
            f"may have {MAX_NAME}",
        ),
        (
            template(
                parameters={f"p{n}": {"type": "string", "defaultValue": LONG} for n in range(10)}
            ),
            "the parameters have more than",
        ),
    ],
)
def test_what_would_take_too_much_memory_is_refused_before_it_is_made(
    document: Any, message: str
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError) as caught:
            planned(document)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message in caught.value.message
    assert peak < MOST


def test_what_is_as_long_as_allowed_is_made() -> None:
    for expression in (
        "[join(range(0, 2), padLeft('', 1048574))]",
        "[format('{0}', variables('d'))]",
        "[replace(variables('d'), 'x', 'y')]",
        "[concat(variables('d'), '')]",
        "[string(variables('d'))]",
    ):
        made = planned(output(expression)).outputs({})
        assert len(made["o"]["value"]) == MAX_TEXT


def test_a_value_that_is_used_again_counts_again() -> None:
    budget = Budget(characters=10)
    budget.take("12345")
    budget.take({"12": ["345"]})
    with pytest.raises(TemplateError, match="in all"):
        budget.take("1")


@pytest.mark.parametrize("value", ["x" * 100, ["x"] * 50, {"x" * 50: "y" * 50}, [10**100]])
def test_the_length_of_a_value_is_known_without_writing_it(value: Any) -> None:
    assert fits_in(value, 300)
    assert not fits_in(value, 90)
    assert not fits_in([value] * (MAX_BODY // 100), MAX_BODY)
