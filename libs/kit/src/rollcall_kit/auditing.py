"""The external auditor's account: its own queue, every entry of the event log, and nothing else.

The account may read one queue. It can neither declare, bind nor publish, so the queue, its
bindings and its permissions are part of the broker's definitions, which whoever starts the broker
loads (mission row M54; docs/auditing.md tells the auditor's side).
"""

import base64
import hashlib
from typing import Any

from rollcall_contracts.events import EVENT_CLASSES, event_type

from rollcall_kit.broker import EXCHANGE

AUDITOR = "auditor"  # the account's name, and its queue's
MAX_BYTES = 4 * 1024**3  # of bodies that wait for an auditor who is away

# RabbitMQ 4 drops a delivery after 20 attempts and RabbitMQ 3.10 knows no "unlimited": a number
# that no auditor reaches means the same to both. An auditor that restarts must lose nothing.
_NEVER = 1_000_000_000


def auditor_bindings() -> tuple[str, ...]:
    """Return the routing keys of the event log: one per family of types.

    `#` alone would also bring the reports (`report.…`), which are not entries of the log. A key
    ends in `#` and not in `*` because a request's key ends in its host's name, which may hold dots.
    Requests are included: without them the numbers of a stream would have gaps, and their secrets
    are sealed.
    """
    families = {event_type(cls).partition(".")[0] for cls in EVENT_CLASSES}
    return tuple(f"{family}.#" for family in sorted(families))


def auditor_definitions(
    *, password: str, salt: bytes, vhost: str = "/", max_bytes: int = MAX_BYTES
) -> dict[str, list[dict[str, Any]]]:
    """Return the part of RabbitMQ's definitions that makes the auditor's account and queue.

    `salt` is four random bytes. When more than `max_bytes` wait, the oldest entries go: the broker
    lives on and the auditor sees the gap in the numbers; refusing to publish instead would let an
    auditor who is away stop every upgrade. Raises ValueError for a salt of another length.
    """
    return {
        "users": [
            {
                "name": AUDITOR,
                "password_hash": password_hash(password, salt),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": [],
            }
        ],
        "permissions": [
            {"user": AUDITOR, "vhost": vhost, "configure": "", "write": "", "read": f"^{AUDITOR}$"}
        ],
        "exchanges": [
            {
                "name": EXCHANGE,
                "vhost": vhost,
                "type": "topic",
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
        ],
        "queues": [
            {
                "name": AUDITOR,
                "vhost": vhost,
                "durable": True,
                "auto_delete": False,
                "arguments": {
                    "x-queue-type": "quorum",
                    "x-delivery-limit": _NEVER,
                    "x-max-length-bytes": max_bytes,
                    "x-overflow": "drop-head",
                    # Two that share the entries would each see gaps: the second one waits.
                    "x-single-active-consumer": True,
                },
            }
        ],
        "bindings": [
            {
                "source": EXCHANGE,
                "vhost": vhost,
                "destination": AUDITOR,
                "destination_type": "queue",
                "routing_key": key,
                "arguments": {},
            }
            for key in auditor_bindings()
        ],
    }


def password_hash(password: str, salt: bytes) -> str:
    """Return a password as RabbitMQ's definitions carry it: salt and SHA-256, in base64.

    Raises ValueError unless the salt has four bytes.
    """
    if len(salt) != 4:
        raise ValueError(f"RabbitMQ's password salt has 4 bytes, not {len(salt)}")
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
