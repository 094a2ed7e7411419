"""A template's outer form: its sections, each of the right kind, and nothing that is not known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollcall_templates.errors import Path, TemplateError
from rollcall_templates.limits import MAX_OUTPUTS, MAX_PARAMETERS, MAX_VARIABLES
from rollcall_templates.values import kind_of

_SECTIONS = {
    *("$schema", "contentVersion", "languageVersion", "apiProfile", "metadata", "definitions"),
    *("functions", "parameters", "variables", "resources", "outputs", "imports", "extensions"),
}
_SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFunction:
    """A function that the template defines itself."""

    name: str  # with its namespace
    parameters: tuple[str, ...]
    output: Any
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RawResource:
    """A resource as the template writes it."""

    symbol: str | None  # its name in a template of languageVersion 2.0
    body: Mapping[str, Any]
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template in its sections."""

    raw: Mapping[str, Any]
    parameters: Mapping[str, Mapping[str, Any]]
    variables: Mapping[str, Any]
    functions: Mapping[str, UserFunction]  # by name in lower case
    resources: tuple[RawResource, ...]
    outputs: Mapping[str, Mapping[str, Any]]


def read_template(raw: Any) -> Template:
    """Return a template's sections. Raises TemplateError."""
    if not isinstance(raw, Mapping):
        raise TemplateError(f"the template must be an object, and is {kind_of(raw)}")
    for name in raw:
        if name not in _SECTIONS:
            known = ", ".join(sorted(_SECTIONS - {"imports", "extensions", "definitions"}))
            raise TemplateError(
                f"a template has no section '{name[:100]}'; it may have {known}", path=(name,)
            )
    _check_head(raw)
    parameters = _objects(raw, "parameters", MAX_PARAMETERS)
    variables = _section(raw, "variables", MAX_VARIABLES)
    return Template(
        raw=raw,
        parameters=parameters,
        variables=variables,
        functions=_functions(raw),
        resources=_resources(raw),
        outputs=_objects(raw, "outputs", MAX_OUTPUTS),
    )


def _check_head(raw: Mapping[str, Any]) -> None:
    for name, example in (("$schema", _SCHEMA), ("contentVersion", "1.0.0.0"), ("resources", "[]")):
        if name not in raw:
            raise TemplateError(
                f"the template has no '{name}', which is required: write {example} there"
            )
    schema = str(raw["$schema"]).lower().partition("#")[0]
    if not schema.endswith("/deploymenttemplate.json"):
        raise TemplateError(
            "only templates of a resource group are deployed here: $schema must end in "
            "deploymentTemplate.json",
            path=("$schema",),
        )
    for name in ("imports", "extensions"):
        if raw.get(name):
            raise TemplateError(f"'{name}' cannot be used here: take it out", path=(name,))


def _section(raw: Mapping[str, Any], name: str, most: int) -> Mapping[str, Any]:
    section = raw.get(name)
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise TemplateError(f"'{name}' must be an object, and is {kind_of(section)}", path=(name,))
    if len(section) > most:
        raise TemplateError(
            f"the template has {len(section)} {name}, and may have {most}", path=(name,)
        )
    _check_names(section, (name,))
    return section


def _check_names(section: Mapping[str, Any], path: Path) -> None:
    """Refuse names that are equal but for their case, which names here do not have."""
    known: dict[str, str] = {}
    for name in section:
        other = known.setdefault(name.lower(), name)
        if other != name:
            raise TemplateError(
                f"'{other[:100]}' and '{name[:100]}' are one name, for case makes no difference: "
                "take one of them out",
                path=(*path, name),
            )


def _objects(raw: Mapping[str, Any], name: str, most: int) -> Mapping[str, Mapping[str, Any]]:
    section = _section(raw, name, most)
    for key, item in section.items():
        if not isinstance(item, Mapping):
            raise TemplateError(
                f"{name}.{key} must be an object, and is {kind_of(item)}", path=(name, key)
            )
    return section


def _functions(raw: Mapping[str, Any]) -> dict[str, UserFunction]:
    found: dict[str, UserFunction] = {}
    sections = raw.get("functions") or []
    if not isinstance(sections, list):
        raise TemplateError("'functions' must be an array", path=("functions",))
    for place, section in enumerate(sections):
        path: Path = ("functions", place)
        members = section.get("members") if isinstance(section, Mapping) else None
        if not isinstance(members, Mapping) or not isinstance(section.get("namespace"), str):
            raise TemplateError(
                "a section of 'functions' must have a namespace and members", path=path
            )
        _check_names(members, (*path, "members"))
        for name, item in members.items():
            function = _function(f"{section['namespace']}.{name}", item, (*path, "members", name))
            found[function.name.lower()] = function
    return found


def _function(name: str, item: Any, path: Path) -> UserFunction:
    output = item.get("output") if isinstance(item, Mapping) else None
    if not isinstance(output, Mapping) or "value" not in output:
        raise TemplateError(f"the function {name} must have an output with a value", path=path)
    parameters = item.get("parameters") or []
    if not isinstance(parameters, list) or not all(
        isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in parameters
    ):
        raise TemplateError(
            f"the parameters of the function {name} must be an array of objects with a name",
            path=path,
        )
    return UserFunction(
        name=name,
        parameters=tuple(each["name"] for each in parameters),
        output=output["value"],
        path=(*path, "output", "value"),
    )


def _resources(raw: Mapping[str, Any]) -> tuple[RawResource, ...]:
    section = raw["resources"]
    items: list[tuple[str | None, str | int, Any]]
    if isinstance(section, Mapping):
        items = [(name, name, item) for name, item in section.items()]
    elif isinstance(section, list):
        items = [(None, place, item) for place, item in enumerate(section)]
    else:
        raise TemplateError(
            f"'resources' must be an array, or with languageVersion 2.0 an object, and is "
            f"{kind_of(section)}",
            path=("resources",),
        )
    found: list[RawResource] = []
    for symbol, step, item in items:
        path: Path = ("resources", step)
        if not isinstance(item, Mapping):
            raise TemplateError(f"a resource must be an object, and is {kind_of(item)}", path=path)
        found.append(RawResource(symbol=symbol, body=item, path=path))
    return tuple(found)
