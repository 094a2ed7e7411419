"""How much a template may ask for: Azure's limits where it has any, and some against an attacker.

Azure: 4 MB of template, 256 parameters, 256 variables, 64 outputs, 800 resources, 800 rounds of a
loop, 24,576 characters of an expression.
"""

from collections.abc import Iterator
from typing import Any

from rollcall_templates.errors import TemplateError

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
MAX_ITEMS = 2_000_000  # values, and characters by the hundred, that may be made in all


class Budget:
    """What evaluating a template may still cost; an attacker's template ends with an error."""

    def __init__(self, calls: int = MAX_CALLS, items: int = MAX_ITEMS) -> None:
        self._calls = calls
        self._items = items

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
        """Count what a function returned. Raises TemplateError for what is too long or deep."""
        for depth, each in _walk(value):
            cost = 1
            if isinstance(each, str):
                if len(each) > MAX_TEXT:
                    raise TemplateError(f"a text became longer than {MAX_TEXT} characters")
                cost += len(each) // 100
            self.spend(cost)
            if depth > MAX_NESTING:
                raise TemplateError(f"a value is nested more than {MAX_NESTING} levels deep")


def _walk(value: Any) -> Iterator[tuple[int, Any]]:
    """Give each value in a value, with its depth; the caller stops when it has seen enough."""
    waiting = [(0, value)]
    while waiting:
        depth, each = waiting.pop()
        yield depth, each
        if isinstance(each, dict):
            waiting.extend((depth + 1, item) for item in each.values())
        elif isinstance(each, list):
            waiting.extend((depth + 1, item) for item in each)
