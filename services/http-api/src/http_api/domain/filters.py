"""The forms of a `$filter`, taken apart in a time that grows with its length alone."""

import re

from rollcall_contracts.model import Failure

from http_api.domain.documents import ModelError

MAX_LENGTH = 1000  # characters; the longest that az sends have some 200
_AND = re.compile(r"\sand\s", re.IGNORECASE)


def forms_of(text: str) -> list[str]:
    """Return the forms that `and` joins; an empty text has none. Raises ModelError for a long one.

    One space on each side is all that is looked for: a pattern with `\\s+` would go over a long
    row of spaces once for each of them.
    """
    if len(text) > MAX_LENGTH:
        raise refused_filter(f"$filter has {len(text)} characters; at most {MAX_LENGTH} are taken")
    stripped = text.strip()
    return [form.strip() for form in _AND.split(stripped)] if stripped else []


def refused_filter(message: str) -> ModelError:
    """Return what says that a `$filter` is not taken.

    One that is not heeded would give a client what it did not ask for.
    """
    return ModelError(Failure(code="InvalidParameter", message=message, target="$filter"))
