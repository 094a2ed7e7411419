"""The broker's accounts, vhost and permissions, as RabbitMQ imports them when it starts.

`python -m rollcall_kit.definitions FILE` writes them, with the passwords that the environment gives
in ROLLCALL_BROKER_PASSWORD and ROLLCALL_AUDITOR_PASSWORD; the file holds only their hashes.
"""

import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from rollcall_kit.auditing import auditor_definitions, password_hash

USER = "rollcall"
VHOST = "rollcall"


def broker_definitions(*, password: str, auditor_password: str) -> dict[str, Any]:
    """Return what the broker holds from its first start: `rollcall` may do everything in the vhost.

    The auditor's part is that of `auditor_definitions`. Salts are fresh each time.
    """
    own: dict[str, list[dict[str, Any]]] = {
        "users": [
            {
                "name": USER,
                "password_hash": password_hash(password, secrets.token_bytes(4)),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "administrator",
            }
        ],
        "vhosts": [{"name": VHOST}],
        "permissions": [
            {"user": USER, "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"}
        ],
    }
    auditor = auditor_definitions(
        password=auditor_password, salt=secrets.token_bytes(4), vhost=VHOST
    )
    return {kind: own.get(kind, []) + auditor.get(kind, []) for kind in own | auditor}


def main() -> None:
    """Write the definitions to the file that the command line names; a broken one never shows."""
    target = Path(sys.argv[1])
    made = broker_definitions(
        password=os.environ["ROLLCALL_BROKER_PASSWORD"],
        auditor_password=os.environ["ROLLCALL_AUDITOR_PASSWORD"],
    )
    temporary = target.with_name(target.name + ".new")
    temporary.write_text(json.dumps(made, indent=2))
    temporary.replace(target)


if __name__ == "__main__":
    main()
