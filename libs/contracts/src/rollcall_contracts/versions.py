"""The order of image versions: numeric, component by component (mission row M21)."""

import re
from functools import lru_cache

_COMPONENT = re.compile(r"\d+|[^\d.]+")


@lru_cache(maxsize=4096)  # asked for each instance of a set, of which few versions are in use
def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key under which `1.10` comes after `1.9`, and `20240101.10` after `20240101.9`.

    Numbers compare as numbers and after text, so that `1.0-rc` comes before `1.0.1`.
    """
    return tuple(
        (1, int(part), "") if part.isdecimal() else (0, 0, part)
        for part in _COMPONENT.findall(version)
    )
