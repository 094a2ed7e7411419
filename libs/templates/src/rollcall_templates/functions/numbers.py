"""Functions on numbers: whole ones of 64 bits, divided as in C#, towards zero."""

import math
import re

from rollcall_templates.functions.arguments import Arguments, Function, within
from rollcall_templates.limits import MAX_ITEMS
from rollcall_templates.values import FunctionError, Value, is_whole, kind_of

MAX_RANGE = 10_000  # items, as in Azure
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,19}\s*", re.ASCII)
_FLOAT = re.compile(r"\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\s*", re.ASCII)


def whole(arguments: Arguments) -> int:
    """Return a number, or a text of digits, as a whole number."""
    value = arguments.values[0]
    if is_whole(value):
        return int(value)
    if isinstance(value, float):
        return within(int(value))
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return within(int(value))
    raise FunctionError(f"it takes an integer or a string of digits, and was given {_what(value)}")


def _what(value: Value) -> str:
    return "another string" if isinstance(value, str) else f"an {kind_of(value)}"


def real(arguments: Arguments) -> float:
    """Return a number, or a text that is one, as a floating-point number."""
    value = arguments.values[0]
    if is_whole(value) or isinstance(value, float):
        return float(value)
    if isinstance(value, str) and _FLOAT.fullmatch(value) and math.isfinite(float(value)):
        return float(value)
    raise FunctionError(f"it takes a number or a string that is one, and was given {_what(value)}")


def divide(arguments: Arguments) -> int:
    """Divide whole numbers, towards zero."""
    number, by = arguments.whole(0), arguments.whole(1)
    if by == 0:
        raise FunctionError("its argument 2 must not be 0")
    quotient = abs(number) // abs(by)
    return within(quotient if (number < 0) == (by < 0) else -quotient)


def remainder(arguments: Arguments) -> int:
    """Return what a division leaves over; it has the sign of the first number."""
    number, by = arguments.whole(0), arguments.whole(1)
    if by == 0:
        raise FunctionError("its argument 2 must not be 0")
    rest = abs(number) % abs(by)
    return -rest if number < 0 else rest


def _numbers(arguments: Arguments) -> list[int]:
    if isinstance(arguments.values[0], list):
        if len(arguments) > 1:
            raise FunctionError("it takes one array, or integers")
        arguments = Arguments(arguments.values[0])
        if not len(arguments):
            raise FunctionError("its array must not be empty")
    return [arguments.whole(place) for place in range(len(arguments))]


def counted(arguments: Arguments) -> list[int]:
    """Return so many whole numbers from a first one on."""
    start, count = arguments.whole(0), arguments.whole(1)
    if not 0 <= count <= min(MAX_RANGE, MAX_ITEMS):
        raise FunctionError(f"its argument 2 must be from 0 to {MAX_RANGE}")
    within(start + count)
    return list(range(start, start + count))


TABLE = (
    Function("add", 2, 2, lambda a: within(a.whole(0) + a.whole(1))),
    Function("sub", 2, 2, lambda a: within(a.whole(0) - a.whole(1))),
    Function("mul", 2, 2, lambda a: within(a.whole(0) * a.whole(1))),
    Function("div", 2, 2, divide),
    Function("mod", 2, 2, remainder),
    Function("int", 1, 1, whole),
    Function("float", 1, 1, real),
    Function("min", 1, None, lambda a: min(_numbers(a))),
    Function("max", 1, None, lambda a: max(_numbers(a))),
    Function("range", 2, 2, counted),
)
