"""How many examples Hypothesis draws: all of them in `make test`, a share in `make check`."""

import os

from hypothesis import settings

SHARE = int(os.environ.get("ROLLCALL_EXAMPLES", "100"))  # percent


def examples(count: int) -> settings:
    """Return settings for so many examples, or the share of them that is asked for."""
    return settings(max_examples=max(5, count * SHARE // 100), deadline=None)
