"""Comparisons and booleans; `if`, `and`, `or` and `coalesce` are lazy and stand elsewhere."""

from rollcall_templates.functions.arguments import Arguments, Function
from rollcall_templates.values import FunctionError, Value, is_whole, same


def boolean(arguments: Arguments) -> bool:
    """Return a text or a number as true or false."""
    value = arguments.values[0]
    if isinstance(value, bool):
        return value
    if is_whole(value):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false", "1", "0"):
        return value.strip().lower() in ("true", "1")
    raise FunctionError("it takes a boolean, an integer, or one of the strings 'true' and 'false'")


def _pair(arguments: Arguments) -> tuple[Value, Value]:
    """Return two values that have an order. Raises FunctionError."""
    one, other = arguments.values
    if isinstance(one, str) and isinstance(other, str):
        return one, other
    if all(is_whole(each) or isinstance(each, float) for each in (one, other)):
        return one, other
    raise FunctionError("its arguments must be two numbers or two strings")


def less(arguments: Arguments) -> bool:
    """Say whether the first is below the second."""
    one, other = _pair(arguments)
    return bool(one < other)


def less_or_equals(arguments: Arguments) -> bool:
    """Say whether the first is not above the second."""
    one, other = _pair(arguments)
    return bool(one <= other)


TABLE = (
    Function("equals", 2, 2, lambda a: same(a.values[0], a.values[1])),
    Function("less", 2, 2, less),
    Function("lessOrEquals", 2, 2, less_or_equals),
    Function("greater", 2, 2, lambda a: not less_or_equals(a)),
    Function("greaterOrEquals", 2, 2, lambda a: not less(a)),
    Function("not", 1, 1, lambda a: not a.flag(0)),
    Function("bool", 1, 1, boolean),
    Function("true", 0, 0, lambda a: True),
    Function("false", 0, 0, lambda a: False),
    Function("null", 0, 0, lambda a: None),
)
