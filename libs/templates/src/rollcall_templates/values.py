"""The values of the language: JSON, with names for its kinds, and what counts as equal."""

from typing import Any, TypeAlias

Value: TypeAlias = Any  # str, int, float, bool, None, list or dict


class FunctionError(Exception):
    """A function cannot take its arguments; the message never shows a value: it may be secret."""


def kind_of(value: Value) -> str:
    """Return what a value is, in ARM's words."""
    match value:
        case None:
            return "Null"
        case bool():
            return "Boolean"
        case int():
            return "Integer"
        case float():
            return "Float"
        case str():
            return "String"
        case list():
            return "Array"
    return "Object"


def is_whole(value: Value) -> bool:
    """Say whether a value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def same(one: Value, other: Value) -> bool:
    """Say whether two values are equal; true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def member(value: dict[str, Value], name: str) -> tuple[bool, Value]:
    """Return whether an object has a member, and its value; names have no case."""
    if name in value:
        return True, value[name]
    wanted = name.lower()
    for key, each in value.items():
        if key.lower() == wanted:
            return True, each
    return False, None
