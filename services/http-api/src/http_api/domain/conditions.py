"""Optimistic concurrency: etags, If-Match and If-None-Match (RFC 9110, as ARM uses them)."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any


def etag_of(*parts: Any) -> str:
    """Return what changes whenever what is kept changes."""
    text = json.dumps(parts, sort_keys=False, separators=(",", ":"))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under which conditions a client wants its request to be done."""

    if_match: str = ""
    if_none_match: str = ""
    once: str | None = None  # names the request; one of that name that was done is not done again

    def refusal(self, etag: str | None) -> str | None:
        """Return why a request is not to be done; `etag` is None where nothing is there yet."""
        if self.if_none_match and etag is not None and _matches(self.if_none_match, etag):
            return "the resource exists already (If-None-Match)"
        if not self.if_match:
            return None
        if etag is None:
            return "the resource does not exist (If-Match)"
        if not _matches(self.if_match, etag):
            return f"the resource was changed meanwhile: its etag is {etag} now (If-Match)"
        return None


ANYHOW = Conditions()


def _matches(header: str, etag: str) -> bool:
    given = [value.strip().removeprefix("W/") for value in header.split(",")]
    return "*" in given or etag in given or etag.strip('"') in given
