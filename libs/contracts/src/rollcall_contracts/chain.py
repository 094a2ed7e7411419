"""The event log's chain: each entry carries the hash of the one before, so that a gap shows."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the event log; `body` is the event's exact text on the wire."""

    stream: str
    sequence: int  # counts from 1 within the stream, without gaps
    id: str
    type: str
    source: str
    time: datetime
    body: str
    previous_hash: str
    hash: str


def entry_hash(
    *,
    stream: str,
    sequence: int,
    id: str,
    type: str,
    source: str,
    time: datetime,
    body: str,
    previous_hash: str,
) -> str:
    """Return the SHA-256 of an entry and of all before it, in hexadecimal.

    Fields are joined by a newline, which none but the body (the last) can contain.
    """
    head = (previous_hash, stream, str(sequence), id, type, source, time.isoformat())
    return hashlib.sha256("\n".join((*head, body)).encode()).hexdigest()


def is_intact(entry: Entry) -> bool:
    """Say whether an entry's hash is the hash of its own content."""
    return entry.hash == entry_hash(
        stream=entry.stream,
        sequence=entry.sequence,
        id=entry.id,
        type=entry.type,
        source=entry.source,
        time=entry.time,
        body=entry.body,
        previous_hash=entry.previous_hash,
    )
