"""A deployment's parameters: given, or by default; of their types, and within their bounds."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollcall_templates.context import fresh_functions
from rollcall_templates.errors import Path, TemplateError
from rollcall_templates.evaluate import TOP, Evaluator
from rollcall_templates.limits import MAX_BODY, Budget, fits_in
from rollcall_templates.secure import IS_SECURE, SECURE, secured
from rollcall_templates.surroundings import Fresh, Surroundings
from rollcall_templates.template import Template
from rollcall_templates.values import Value, is_whole, kind_of, same

# Types as Azure gives them back, by their names in lower case.
TYPES: Mapping[str, str] = {
    name.lower(): name
    for name in ("String", "SecureString", "Int", "Bool", "Object", "SecureObject", "Array")
}
_BOUNDS = ("minValue", "maxValue", "minLength", "maxLength")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """The parameters' values, and their types by name. Those of a secure type never leave here.

    What is made of a secret is of a secure type, whatever the template says of it.
    """

    values: Mapping[str, Value]
    types: Mapping[str, str]

    @property
    def secure(self) -> frozenset[str]:
        """Return the names of those that must not be shown, in lower case."""
        return frozenset(name.lower() for name, kind in self.types.items() if kind in SECURE)

    def shown(self) -> dict[str, Any]:
        """Return the parameters as a deployment gives them back: secure ones without a value."""
        return {
            name: {"type": kind} if kind in SECURE else {"type": kind, "value": self.values[name]}
            for name, kind in self.types.items()
        }


def read_parameters(
    template: Template, given: Any, surroundings: Surroundings, fresh: Fresh
) -> Parameters:
    """Return every parameter's value. Raises TemplateError, which names the parameter.

    `given` is what the deployment gives: `{"name": {"value": …}}`.
    """
    supplied, secrets = _supplied(template, given)
    types = {name: _type(name, item) for name, item in template.parameters.items()}
    names = {name.lower(): name for name in template.parameters}
    values: dict[str, Value] = {}
    being_read: list[str] = []

    def read(evaluator: Evaluator, name: str) -> Value:
        """Return a parameter, whose default may ask for others."""
        known = names.get(name.lower())
        if known is None:
            raise unknown(name, template)
        if known in values:
            evaluator.tainted = evaluator.tainted or known.lower() in secrets
            return values[known]
        if known in being_read:
            circle = " -> ".join([*being_read[being_read.index(known) :], known])
            raise TemplateError(f"parameters depend on each other in a circle: {circle}")
        being_read.append(known)
        before, evaluator.tainted = evaluator.tainted, known.lower() in secrets
        path: Path = ("parameters", known)
        item = template.parameters[known]
        if known.lower() in supplied:
            value = supplied[known.lower()]
        elif "defaultValue" in item:
            value = evaluator.document(item["defaultValue"], TOP, (*path, "defaultValue"))
        elif item.get("nullable") is True:
            value = None
        else:
            raise TemplateError(
                f"The value for the template parameter '{known}' is not provided, and it has no "
                "defaultValue: give it in 'parameters'",
                path=path,
            )
        if not (value is None and item.get("nullable") is True):
            hidden = evaluator.tainted or types[known] in SECURE
            _check(known, types[known], item, value, evaluator, hidden=hidden)
        values[known] = value
        being_read.pop()
        if evaluator.tainted or types[known] in SECURE:
            secrets.add(known.lower())
        evaluator.tainted = before or known.lower() in secrets
        return value

    evaluator = Evaluator(
        template, surroundings, read, budget=Budget(), contextual=fresh_functions(fresh)
    )
    for name in template.parameters:
        read(evaluator, name)
    if not fits_in(values, MAX_BODY):
        raise TemplateError(
            f"the parameters have more than {MAX_BODY} characters in all", path=("parameters",)
        )
    return Parameters(
        values={name: values[name] for name in template.parameters},
        types={
            name: secured(kind) if name.lower() in secrets else kind for name, kind in types.items()
        },
    )


def unknown(name: str, template: Template) -> TemplateError:
    """Return what to raise for a parameter that the template does not have."""
    known = {each.lower(): each for each in template.parameters}
    close = difflib.get_close_matches(name.lower()[:100], list(known), n=1)
    hint = f"; did you mean {known[close[0]]}?" if close else ""
    return TemplateError(f"the template has no parameter '{name[:100]}'{hint}")


def _supplied(template: Template, given: Any) -> tuple[dict[str, Value], set[str]]:
    """Return the values that are given, and the names of those that are said to be secret."""
    if given is None:
        return {}, set()
    if not isinstance(given, Mapping):
        raise TemplateError(f"'parameters' must be an object, and is {kind_of(given)}")
    if isinstance(given.get("parameters"), Mapping) and "contentVersion" in given:
        raise TemplateError(
            "'parameters' is a whole parameter file: give what stands in its 'parameters'"
        )
    known = {name.lower() for name in template.parameters}
    supplied: dict[str, Value] = {}
    secrets: set[str] = set()
    for name, item in given.items():
        if name.lower() not in known:
            raise TemplateError(
                "The following parameters were supplied, but do not correspond to any parameters "
                f"defined in the template: '{name[:100]}'. The parameters defined in the template "
                f"are: '{', '.join(template.parameters) or 'none'}'"
            )
        if isinstance(item, Mapping) and "reference" in item:
            raise TemplateError(
                f"the parameter '{name}' is a reference to a key vault, and there is none here: "
                "give its value"
            )
        if not isinstance(item, Mapping) or "value" not in item:
            raise TemplateError(
                f"the parameter '{name}' must be given as an object: {{\"value\": …}}"
            )
        if name.lower() in supplied:
            raise TemplateError(f"the parameter '{name}' is given twice, in another case")
        supplied[name.lower()] = item["value"]
        if item.get(IS_SECURE) is True:
            secrets.add(name.lower())
    return supplied, secrets


def _type(name: str, item: Mapping[str, Any]) -> str:
    given = item.get("type")
    kind = TYPES.get(given.lower()) if isinstance(given, str) else None
    if kind is None:
        raise TemplateError(
            f"the type of the parameter '{name}' must be one of "
            "string, securestring, int, bool, object, secureObject and array",
            path=("parameters", name, "type"),
        )
    return kind


def fits(kind: str, value: Value) -> bool:
    """Say whether a value is of a type."""
    match kind:
        case "String" | "SecureString":
            return isinstance(value, str)
        case "Int":
            return is_whole(value)
        case "Bool":
            return isinstance(value, bool)
        case "Array":
            return isinstance(value, list)
    return isinstance(value, dict)


def _check(
    name: str,
    kind: str,
    item: Mapping[str, Any],
    value: Value,
    evaluator: Evaluator,
    *,
    hidden: bool,
) -> None:
    """Raise TemplateError for a value that a parameter must not have; `hidden` ones say nothing."""
    path: Path = ("parameters", name)
    if not fits(kind, value):
        raise TemplateError(
            f"The provided value for the template parameter '{name}' is not valid. Expected a "
            f"value of type '{kind}', but received a value of type '{kind_of(value)}'",
            path=path,
        )
    allowed = item.get("allowedValues")
    if isinstance(allowed, list) and not _allowed(value, allowed):
        shown = "" if hidden else f": {', '.join(map(_brief, allowed))}"
        raise TemplateError(
            f"The provided value for the template parameter '{name}' is not valid. It is not part "
            f"of the allowed values{shown}",
            path=path,
        )
    for bound in _BOUNDS:
        if bound not in item:
            continue
        limit = evaluator.document(item[bound], TOP, (*path, bound))
        if not is_whole(limit):
            raise TemplateError(f"{bound} must be an integer", path=(*path, bound))
        measured = _measured(bound, value)
        if measured is None:
            raise TemplateError(f"a parameter of type {kind} has no {bound}", path=(*path, bound))
        if measured < limit if bound.startswith("min") else measured > limit:
            what = "length" if bound.endswith("Length") else "value"
            word = "at least" if bound.startswith("min") else "at most"
            told = "" if hidden else f", and is {measured}"
            raise TemplateError(
                f"The provided value for the template parameter '{name}' is not valid. Its {what} "
                f"must be {word} {limit}{told}",
                path=path,
            )


def _measured(bound: str, value: Value) -> int | None:
    if bound.endswith("Length"):
        return len(value) if isinstance(value, str | list) else None
    return int(value) if is_whole(value) else None


def _allowed(value: Value, allowed: list[Any]) -> bool:
    if any(same(value, each) for each in allowed):
        return True
    # An array may have any items of those that are allowed.
    return isinstance(value, list) and all(any(same(v, e) for e in allowed) for v in value)


def _brief(value: Value) -> str:
    return str(value)[:60]
