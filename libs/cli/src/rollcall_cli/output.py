"""How answers are printed: a table for people; the API's own document for scripts."""

import json
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPED_WIDTH = 200  # where nobody looks at a terminal, a row stays a line


class Output(StrEnum):
    """What an answer looks like."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def console(*, stderr: bool = False) -> "Console":
    """Return the terminal; where nobody looks at one, lines are as long as they must be."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return Console(highlight=False, stderr=stderr)
    return Console(highlight=False, stderr=stderr, width=PIPED_WIDTH)


def put(document: Any, output: Output, shown: Callable[[], "RenderableType"]) -> None:
    """Print a document as it was asked for; `shown` makes of it what a person reads."""
    if output is Output.TABLE:
        console().print(shown())
    else:
        print(text_of(document, output))


def text_of(document: Any, output: Output) -> str:
    """Return a document as JSON or YAML."""
    if output is Output.YAML:
        import yaml

        text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
        return text.rstrip("\n")
    return json.dumps(document, indent=2, ensure_ascii=False)
