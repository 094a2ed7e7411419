"""The contract's policies as ARM JSON: fields in camelCase, durations in ISO 8601.

What a field may hold is asked of the model itself, so that each bound stands in one place. Numbers
that are not whole are durations, in seconds.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from pydantic.alias_generators import to_camel
from rollcall_contracts.model import Model

from http_api.domain.documents import Reader, at
from http_api.domain.durations import format_duration


class Kind(Enum):
    """What a field holds."""

    FLAG = "boolean"
    WHOLE = "integer"
    DURATION = "number"
    TEXT = "string"
    WORD = "word"  # one of a few
    OBJECT = "object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a model: its names in Python and in JSON, and what it may hold."""

    name: str
    key: str
    kind: Kind
    required: bool
    default: Any  # as JSON has it
    low: float
    high: float
    zero: bool  # zero seconds are a duration here
    pattern: str
    longest: int  # characters
    words: tuple[str, ...]
    fields: tuple["Field", ...]  # of an object


@cache
def fields_of(model: type[Model]) -> tuple[Field, ...]:
    """Return a model's fields in their order."""
    schema = model.model_json_schema()
    return _fields(schema, schema.get("$defs", {}))


def _fields(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[Field, ...]:
    required = schema.get("required", ())
    return tuple(
        _field(name, spec, definitions, required=name in required)
        for name, spec in schema["properties"].items()
    )


def _resolved(spec: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a property is, beside null."""
    choices = [each for each in spec.get("anyOf", ()) if each.get("type") != "null"]
    inner = choices[0] if choices else spec
    if "$ref" not in inner:
        return inner
    found: Mapping[str, Any] = definitions[inner["$ref"].rpartition("/")[2]]
    return found


def _field(
    name: str, property: Mapping[str, Any], definitions: Mapping[str, Any], *, required: bool
) -> Field:
    spec = _resolved(property, definitions)
    kind = Kind.WORD if "enum" in spec else Kind(spec["type"])
    default = property.get("default")
    if kind is Kind.DURATION and default is not None:
        default = format_duration(default)
    return Field(
        name=name,
        key=to_camel(name),
        kind=kind,
        required=required,
        default=default,
        low=spec.get("minimum", 0),
        high=spec.get("maximum", 0),
        zero="exclusiveMinimum" not in spec,
        pattern=spec.get("pattern", ""),
        longest=spec.get("maxLength", 1000),
        words=tuple(spec.get("enum", ())),
        fields=_fields(spec, definitions) if kind is Kind.OBJECT else (),
    )


def within(place: str, key: str) -> str:
    """Return the dotted path of a member; the document itself has no path."""
    return f"{place}.{key}" if place else key


def read_fields(
    reader: Reader,
    place: str,
    fields: tuple[Field, ...],
    *,
    expected: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the values that a document gives, by their names in Python, and note its faults.

    `expected` says in words what a text with a pattern should be, by its key. What is absent is
    left out: the model has its default.
    """
    values: dict[str, Any] = {}
    for field in fields:
        path = within(place, field.key)
        if reader.value(path) is None:
            if field.required:
                reader.fault(path, f"{path} is required")
            continue
        values[field.name] = _value(reader, path, field, expected or {})
    return values


def _value(reader: Reader, path: str, field: Field, expected: Mapping[str, str]) -> Any:
    match field.kind:
        case Kind.FLAG:
            return reader.flag(path)
        case Kind.WHOLE:
            return reader.whole(path, low=int(field.low), high=int(field.high))
        case Kind.DURATION:
            return reader.duration(path, low=field.low, high=field.high, default=0, zero=field.zero)
        case Kind.WORD:
            return reader.choice(path, field.words, field.words[0])
        case Kind.TEXT:
            return _text(reader, path, field, expected.get(field.key, "a text"))
        case Kind.OBJECT:
            return _object(reader, path, field, expected)


def _text(reader: Reader, path: str, field: Field, expected: str) -> str | None:
    text = reader.text(path)
    if text is None:
        return None
    if len(text) > field.longest:
        reader.fault(path, f"{path} must not be longer than {field.longest} characters")
    # Python's `$` also matches before a last newline; pydantic's does not.
    elif not re.search(field.pattern.replace("$", r"\Z"), text):
        reader.fault(path, f"{path} must be {expected}")  # not what it is: it may hold a password
    return text


def _object(
    reader: Reader, path: str, field: Field, expected: Mapping[str, str]
) -> dict[str, Any] | None:
    document = reader.value(path)
    if not isinstance(document, Mapping):
        reader.fault(path, f"{path} must be an object")
        return None
    # These objects are Rollcall's own: what they have beside their fields is a slip.
    for name in unknown(document, field.fields):
        known = ", ".join(each.key for each in field.fields)
        reader.fault(within(path, name), f"{path} has no {name}; it may have {known}")
    return read_fields(reader, path, field.fields, expected=expected)


def unknown(document: Mapping[str, Any], fields: tuple[Field, ...]) -> list[str]:
    """Return the members of a document that are no fields."""
    known = {field.key for field in fields}
    return [name for name in document if name not in known]


def with_defaults(document: Mapping[str, Any], fields: tuple[Field, ...]) -> dict[str, Any]:
    """Return a document with each field that it leaves out, and what else it has."""
    shown = {field.key: field.default for field in fields} | dict(document)
    for field in fields:
        inner = shown[field.key]
        if field.kind is Kind.OBJECT and isinstance(inner, Mapping):
            shown[field.key] = with_defaults(inner, field.fields)
    return shown


def to_json(value: Model) -> dict[str, Any]:
    """Return a model as the API writes it, absent fields as null."""
    return _to_json(value.model_dump(mode="json"), fields_of(type(value)))


def _to_json(values: Mapping[str, Any], fields: tuple[Field, ...]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for field in fields:
        value = at(values, field.name)
        if value is not None and field.kind is Kind.DURATION:
            value = format_duration(value)
        elif value is not None and field.kind is Kind.OBJECT:
            value = _to_json(value, field.fields)
        document[field.key] = value
    return document
