"""What is wrong with a template, where, and what to do about it."""

from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]  # members and places in lists, from the template's top

INVALID_TEMPLATE = "InvalidTemplate"


class TemplateError(Exception):
    """A template, or what it was given, cannot be taken.

    `path` is the place within the template, from its top; `expression` the one that failed, if one
    did; `column` the place in it, from 1.
    """

    def __init__(
        self,
        message: str,
        *,
        path: Path = (),
        code: str = INVALID_TEMPLATE,
        expression: str | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.code = code
        self.expression = expression
        self.column = column

    def at(self, path: Path) -> "TemplateError":
        """Return the error with its place, where it does not know it yet."""
        return TemplateError(
            self.message,
            path=self.path or path,
            code=self.code,
            expression=self.expression,
            column=self.column,
        )


def dotted(path: Path) -> str:
    """Return a path as ARM writes it, such as `resources[0].properties.sku`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def short(text: str, length: int = 200) -> str:
    """Return a text of at most so many characters, for a message."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
