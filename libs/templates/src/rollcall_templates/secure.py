"""What is secret of a template, and what of it may be shown."""

from collections.abc import Mapping
from typing import Any

from rollcall_templates.values import member

MASK = "*******"  # in the place of a secret
SECURE = frozenset({"SecureString", "SecureObject"})
IS_SECURE = "secure"  # beside a parameter's value: it is secret, whatever its type
_PLAIN = frozenset({"string", "int", "bool", "object", "array"})
_SECRETS = frozenset({"defaultvalue", "allowedvalues", "value"})


def secured(kind: str) -> str:
    """Return the type to show of a value of a type, when it is made of secure parameters."""
    if kind in SECURE:
        return kind
    return "SecureString" if kind in ("String", "Int", "Bool") else "SecureObject"


def has_own_scope(properties: Mapping[str, Any]) -> bool:
    """Say whether a nested deployment says that its template is evaluated in there."""
    options = member(properties, "expressionEvaluationOptions")[1]
    scope = member(options, "scope")[1] if isinstance(options, dict) else None
    return isinstance(scope, str) and scope.lower() == "inner"


def shown_template(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return a template without what its secure parameters, and those of nested ones, may be."""
    secure = _secure_names(template)
    return {
        key: _covered(item, secure) if key.lower() == "parameters" else shown_body(item)
        for key, item in template.items()
    }


def shown_body(value: Any) -> Any:
    """Return a resource, or a part of one, without the secrets of nested deployments."""
    if isinstance(value, list):
        return [shown_body(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    template = next((value[key] for key in value if key.lower() == "template"), None)
    if not isinstance(template, Mapping):
        return {key: shown_body(each) for key, each in value.items()}
    secure = _secure_names(template)
    shown: dict[str, Any] = {}
    for key, item in value.items():
        if key.lower() == "template" and isinstance(item, Mapping):
            shown[key] = shown_template(item)
        elif key.lower() == "parameters":
            shown[key] = _covered(item, secure)
        else:
            shown[key] = shown_body(item)
    return shown


def _secure_names(template: Mapping[str, Any]) -> frozenset[str]:
    """Return the parameters of a template that are not plainly of an open type, in lower case."""
    return frozenset(
        name.lower()
        for key, section in template.items()
        if key.lower() == "parameters" and isinstance(section, Mapping)
        for name, item in section.items()
        if not isinstance(item, Mapping) or str(_type(item)).lower() not in _PLAIN
    )


def _type(item: Mapping[str, Any]) -> Any:
    return next((each for key, each in item.items() if key.lower() == "type"), None)


def _covered(section: Any, secure: frozenset[str]) -> Any:
    """Return parameters, as defined or as given, without the values of the secure ones."""
    if not isinstance(section, Mapping):
        return section
    return {
        name: _without_values(item) if name.lower() in secure else shown_body(item)
        for name, item in section.items()
    }


def _without_values(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return MASK
    return {key: each for key, each in item.items() if key.lower() not in _SECRETS}
