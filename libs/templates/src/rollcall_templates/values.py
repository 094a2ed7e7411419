"""The values of the language: JSON, with names for its kinds, and what counts as equal."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Value: TypeAlias = Any  # str, int, float, bool, None, list or dict


class FunctionError(Exception):
    """A function cannot take its arguments; the message never shows a value: it may be secret."""


_SURROGATE = re.compile("[\ud800-\udfff]")


def walk(value: Value) -> Iterator[tuple[int, Value]]:
    """Give each value in a value, with its depth; the caller stops when it has seen enough."""
    waiting = [(0, value)]
    while waiting:
        depth, each = waiting.pop()
        yield depth, each
        if isinstance(each, dict):
            waiting.extend((depth + 1, item) for item in each.values())
        elif isinstance(each, list):
            waiting.extend((depth + 1, item) for item in each)


def sound(value: Value) -> Value:
    """Return a value that a function made of a text, if it is one that can be kept and sent on.

    The body of a request is checked for the same when it is read. Raises FunctionError.
    """
    for _, each in walk(value):
        if isinstance(each, float) and not math.isfinite(each):
            raise FunctionError("its argument has a number that is out of range")
        for text in (each,) if isinstance(each, str) else each if isinstance(each, dict) else ():
            if "\0" in text:
                raise FunctionError("its argument stands for a text with the character NUL")
            if _SURROGATE.search(text):
                raise FunctionError("its argument stands for a text with half a surrogate pair")
    return value


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


def member(value: Mapping[str, Value], name: str) -> tuple[bool, Value]:
    """Return whether an object has a member, and its value; names have no case."""
    if name in value:
        return True, value[name]
    wanted = name.lower()
    for key, each in value.items():
        if key.lower() == wanted:
            return True, each
    return False, None
