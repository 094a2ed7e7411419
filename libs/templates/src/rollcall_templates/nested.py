"""Templates within templates: evaluated in there, or out here with the secrets kept apart.

A nested template that is evaluated out here gets what is secret by a secure parameter of its own,
and a parameter that is given a secret is secure, whatever its type: so outputs, previews and
exports in there treat it as out here.
"""

from collections.abc import Mapping
from typing import Any

from rollcall_templates.errors import Path, TemplateError
from rollcall_templates.evaluate import Evaluator, Frame
from rollcall_templates.expressions import escaped, is_expression
from rollcall_templates.secure import IS_SECURE, has_own_scope
from rollcall_templates.values import Value, member


def nested_properties(
    evaluator: Evaluator, item: Any, frame: Frame, path: Path, *, own_scope: bool, partial: bool
) -> dict[str, Any]:
    """Return a nested deployment's properties; its template is its own, or evaluated out here."""
    if not isinstance(item, Mapping):
        raise TemplateError("properties must be an object", path=path)
    handed = _Handed(member(item, "template")[1])
    result: dict[str, Any] = {}
    for key, value in item.items():
        at = (*path, key)
        match key.lower():
            case "template" if own_scope:
                result[key] = value
            case "template" if not partial:
                result[key] = _evaluated_template(evaluator, value, handed, frame, at)
            case "parameters":
                result[key] = _given(evaluator, value, frame, at, partial=partial)
            case "expressionevaluationoptions":
                continue
            case _:
                result[key] = evaluator.document(value, frame, at, partial=partial)
    handed.complete(result)
    return result


def _evaluated_template(
    evaluator: Evaluator, value: Any, handed: "_Handed", frame: Frame, path: Path
) -> Any:
    before, evaluator.cover = evaluator.cover, handed.cover
    try:
        return _as_template(evaluator.document(value, frame, path))
    finally:
        evaluator.cover = before


def _given(evaluator: Evaluator, value: Any, frame: Frame, path: Path, *, partial: bool) -> Any:
    """Return the parameters of a nested deployment; those that are made of secrets say so."""
    found: dict[str, Any] = {}
    for part in (
        [{name: each} for name, each in value.items()] if isinstance(value, Mapping) else [value]
    ):
        before, evaluator.tainted = evaluator.tainted, False
        given = evaluator.document(part, frame, path, partial=partial)
        if not isinstance(given, dict):
            return given
        if evaluator.tainted and not partial:
            given = {
                name: {**each, IS_SECURE: True} if isinstance(each, dict) else each
                for name, each in given.items()
            }
        evaluator.tainted = evaluator.tainted or before
        found |= given
    return found


class _Reference(str):
    """An expression that stands for a secret in a nested template; it is to be evaluated there."""


class _Handed:
    """The secrets that a nested template gets, all of them in one secure parameter."""

    def __init__(self, template: Any) -> None:
        known = member(template, "parameters")[1] if isinstance(template, dict) else None
        names = {name.lower() for name in known} if isinstance(known, dict) else set()
        number = 0
        while (name := f"secrets{number or ''}") in names:
            number += 1
        self._name = name
        self._values: dict[str, Value] = {}

    def cover(self, value: Value) -> Value:
        """Return what is to stand in the place of a secret."""
        name = f"s{len(self._values)}"
        self._values[name] = value
        return _Reference(f"[parameters('{self._name}').{name}]")

    def complete(self, properties: dict[str, Any]) -> None:
        """Add the secrets to the properties of a nested deployment.

        What is no template, or has no usable parameters, is refused where it is deployed.
        """
        template = properties.get(_key(properties, "template"))
        if self._values and isinstance(template, dict):
            _add(template, "parameters", self._name, {"type": "secureObject"})
            _add(properties, "parameters", self._name, {"value": self._values})


def _add(document: dict[str, Any], section: str, name: str, item: Any) -> None:
    place = _key(document, section)
    known = document.get(place)
    if known is None or isinstance(known, dict):
        document[place] = {**(known or {}), name: item}


def _key(document: Mapping[str, Any], name: str) -> str:
    """Return how a document writes a name."""
    return next((key for key in document if key.lower() == name), name)


def _as_template(value: Any) -> Any:
    """Return an evaluated template, whose texts must not be evaluated once more."""
    match value:
        case _Reference():
            return str(value)
        case str():
            return escaped(value)
        case list():
            return [_as_template(each) for each in value]
        case dict():
            own = has_own_scope(value)
            return {
                _as_key(key): each if own and key.lower() == "template" else _as_template(each)
                for key, each in value.items()
            }
    return value


def _as_key(key: str) -> str:
    return f"[{key}" if is_expression(key) and not isinstance(key, _Reference) else str(key)
