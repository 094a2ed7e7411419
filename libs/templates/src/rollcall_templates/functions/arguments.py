"""What a function is, and reading its arguments: each by its place, refused by its kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rollcall_templates.expressions import INT_MAX, INT_MIN
from rollcall_templates.values import FunctionError, Value, is_whole, kind_of


class Arguments:
    """The arguments of one call; places count from 0 here and from 1 in messages."""

    def __init__(self, values: Sequence[Value]) -> None:
        self.values = list(values)

    def __len__(self) -> int:
        return len(self.values)

    def wrong(self, place: int, expected: str) -> FunctionError:
        """Return what to raise for an argument of the wrong kind."""
        return FunctionError(
            f"its argument {place + 1} must be {expected}, and is {kind_of(self.values[place])}"
        )

    def text(self, place: int) -> str:
        """Return a text. Raises FunctionError."""
        value = self.values[place]
        if not isinstance(value, str):
            raise self.wrong(place, "a string")
        return value

    def texts(self) -> list[str]:
        """Return all arguments, which are texts. Raises FunctionError."""
        return [self.text(place) for place in range(len(self))]

    def whole(self, place: int, default: int | None = None) -> int:
        """Return a whole number. Raises FunctionError."""
        if place >= len(self) and default is not None:
            return default
        value = self.values[place]
        if not is_whole(value):
            raise self.wrong(place, "an integer")
        return int(value)

    def flag(self, place: int) -> bool:
        """Return true or false. Raises FunctionError."""
        value = self.values[place]
        if not isinstance(value, bool):
            raise self.wrong(place, "a boolean")
        return value

    def array(self, place: int) -> list[Value]:
        """Return an array. Raises FunctionError."""
        value = self.values[place]
        if not isinstance(value, list):
            raise self.wrong(place, "an array")
        return value

    def object(self, place: int) -> dict[str, Value]:
        """Return an object. Raises FunctionError."""
        value = self.values[place]
        if not isinstance(value, dict):
            raise self.wrong(place, "an object")
        return value

    def all_are(self, kind: type) -> bool:
        """Say whether each argument is of a kind."""
        return all(isinstance(value, kind) for value in self.values)


@dataclass(frozen=True, slots=True)
class Function:
    """One function: its name as Azure writes it, how many arguments it takes, and what it does."""

    name: str
    least: int
    most: int | None  # None: any number
    work: Callable[[Arguments], Any]

    def check(self, count: int) -> None:
        """Raise FunctionError for a wrong number of arguments."""
        if count >= self.least and (self.most is None or count <= self.most):
            return
        expected = (
            f"{self.least} or more"
            if self.most is None
            else str(self.least)
            if self.most == self.least
            else f"{self.least} to {self.most}"
        )
        raise FunctionError(f"it takes {expected} arguments, and was given {count}")

    def call(self, values: Sequence[Value]) -> Value:
        """Return what the function makes of its arguments. Raises FunctionError."""
        self.check(len(values))
        try:
            return self.work(Arguments(values))
        except (ValueError, OverflowError):  # a number beyond what there is, for the most part
            raise FunctionError("it cannot be made of these arguments") from None


def within(value: int) -> int:
    """Return a whole number of 64 bits. Raises FunctionError for any other."""
    if not INT_MIN <= value <= INT_MAX:
        raise FunctionError("the result does not fit into 64 bits")
    return value
