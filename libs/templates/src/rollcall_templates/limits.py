"""How much a template may ask for: Azure's limits where it has any, and some against an attacker.

Azure: 4 MB of template, 256 parameters, 256 variables, 64 outputs, 800 resources, 800 rounds of a
loop, 24,576 characters of an expression.

What a function would make is measured before it is made: a small template can name one long text
a million times.
"""

from typing import Any

from rollcall_templates.errors import TemplateError
from rollcall_templates.values import walk

MAX_TEMPLATE = 4 * 1024 * 1024  # characters
MAX_PARAMETERS = 256
MAX_VARIABLES = 256
MAX_OUTPUTS = 64
MAX_RESOURCES = 800
MAX_COPIES = 800
MAX_EXPRESSION = 24_576  # characters
MAX_NESTING = 64  # calls within calls, and objects within objects
MAX_TEXT = 1024 * 1024  # characters that an expression may make
MAX_CALLS = 200_000  # of functions, in all that is made of one template
MAX_ITEMS = 2_000_000  # values, and written characters by the hundred, in all
MAX_CHARACTERS = 64 * 1024 * 1024  # of the texts that expressions come to, in all
MAX_GIVEN = MAX_TEMPLATE  # characters of the texts that one call is given
MAX_BODY = MAX_TEMPLATE  # characters of a resource, of all parameters, of all outputs, as JSON
MAX_NAME = 2048  # characters of the name of a resource, a loop or a member


class Budget:
    """What evaluating a template may still cost; an attacker's template ends with an error."""

    def __init__(
        self,
        calls: int = MAX_CALLS,
        items: int = MAX_ITEMS,
        characters: int = MAX_CHARACTERS,
    ) -> None:
        self._calls = calls
        self._items = items
        self._characters = characters

    def call(self) -> None:
        """Count one call. Raises TemplateError."""
        self._calls -= 1
        if self._calls < 0:
            raise TemplateError(
                f"the template calls functions more than {MAX_CALLS} times: make it smaller, or "
                "deploy it in parts"
            )

    def spend(self, items: int) -> None:
        """Count values that are made. Raises TemplateError."""
        self._items -= items
        if self._items < 0:
            raise TemplateError(
                f"the template makes more than {MAX_ITEMS} values: make it smaller, or deploy it "
                "in parts"
            )

    def take(self, value: Any) -> None:
        """Count what a function or an expression came to, even what it came to before.

        Raises TemplateError for what is too long or deep.
        """
        for depth, each in walk(value):
            self.spend(1)
            if depth > MAX_NESTING:
                raise TemplateError(f"a value is nested more than {MAX_NESTING} levels deep")
            if isinstance(each, str):
                if len(each) > MAX_TEXT:
                    raise TemplateError(f"a text became longer than {MAX_TEXT} characters")
                self._characters -= len(each)
            elif isinstance(each, dict):
                self._characters -= sum(map(len, each))
            if self._characters < 0:
                raise TemplateError(
                    f"the texts of the template have more than {MAX_CHARACTERS} characters in all: "
                    "make it smaller, or deploy it in parts"
                )


def fits_in(value: Any, most: int) -> bool:
    """Say whether a value has at most so many characters as JSON, about.

    It is not written out for that, and no longer looked at when it has too many: a value may have
    one and the same text in it a million times.
    """
    left = most
    for _, each in walk(value):
        match each:
            case str():
                left -= len(each) + 3
            case dict():
                left -= 2 + sum(len(key) + 4 for key in each)
            case int() | float():
                left -= len(repr(each)) + 1
            case _:
                left -= 3
        if left < 0:
            return False
    return True
