"""JSON as strangers write it: never an exception, whatever they send."""

import json
import math
from collections.abc import Mapping
from typing import Any

_DIGITS = 20  # of a whole number; a longer one is hostile, and Python refuses very long ones


def read_json(text: bytes | str) -> Any:
    """Return what a JSON text says; None when it is none, or is nested beyond reason.

    Numbers that are none of use, NaN, infinities and those of more than 20 digits, are None too.
    """
    try:
        return json.loads(
            text,
            parse_int=lambda digits: int(digits) if len(digits) <= _DIGITS else None,
            parse_float=_finite,
            parse_constant=lambda _: None,
        )
    except (ValueError, RecursionError):  # the second: thousands of nested brackets
        return None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def find(document: Any, name: str) -> Any:
    """Return an object's member whatever the case of its name; None where there is none."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            if key.lower() == name:
                return value
    return None
