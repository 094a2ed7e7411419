"""Service principals in Postgres: their hashed secrets and their roles."""

import asyncio
import base64
import hashlib
import hmac
import secrets
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollcall_kit.outbox import Connection

from http_api.domain.access import Grant, Principal, Role

_COST, _BLOCK = 2**14, 8  # of scrypt: 16 MiB and some 50 ms for each try


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account without its secret."""

    client_id: str
    name: str
    created_at: datetime
    secret_at: datetime
    grants: tuple[Grant, ...]

    def json(self, tenant: str) -> dict[str, Any]:
        """Return the account as it is shown."""
        return {
            "clientId": self.client_id,
            "tenantId": tenant,
            "name": self.name,
            "createdTime": self.created_at.isoformat(),
            "secretTime": self.secret_at.isoformat(),
            "roles": [{"role": grant.role.word, "scope": grant.scope} for grant in self.grants],
        }


async def new_secret() -> tuple[str, str]:
    """Return a secret and its hash."""
    secret = secrets.token_urlsafe(32)
    return secret, await _hash(secret, secrets.token_bytes(16))


async def _hash(secret: str, salt: bytes) -> str:
    digest = await asyncio.to_thread(
        hashlib.scrypt, secret.encode(), salt=salt, n=_COST, r=_BLOCK, p=1
    )
    return "$".join(base64.b64encode(part).decode() for part in (salt, digest))


# Compared with where there is no account, so that both take the same time.
_NOBODY = "$".join(base64.b64encode(bytes(size)).decode() for size in (16, 64))


async def kept_secret(connection: Connection, client_id: str) -> tuple[str, str] | None:
    """Return an account's id and its secret's hash; an id that is no UUID is nobody's."""
    key = _uuid(client_id)
    if key is None:
        return None
    hash = await connection.fetchval("SELECT secret_hash FROM accounts WHERE client_id = $1", key)
    return None if hash is None else (str(key), str(hash))


async def is_secret(secret: str, hash: str | None) -> bool:
    """Say whether a secret has this hash; without one it takes as long, and is not."""
    wanted = hash or _NOBODY
    given = await _hash(secret, base64.b64decode(wanted.partition("$")[0]))
    return hmac.compare_digest(given, wanted) and hash is not None


async def add(
    connection: Connection, name: str, hash: str, grants: Iterable[Grant], now: datetime
) -> str:
    """Add an account; return its client id."""
    client_id = uuid.uuid4()
    await connection.execute(
        "INSERT INTO accounts (client_id, name, secret_hash, created_at, secret_at) "
        "VALUES ($1, $2, $3, $4, $4)",
        client_id,
        name,
        hash,
        now,
    )
    await set_grants(connection, str(client_id), grants)
    return str(client_id)


async def set_grants(connection: Connection, client_id: str, grants: Iterable[Grant]) -> None:
    """Replace an account's roles."""
    key = uuid.UUID(client_id)
    await connection.execute("DELETE FROM account_roles WHERE client_id = $1", key)
    await connection.executemany(
        "INSERT INTO account_roles (client_id, role, scope) VALUES ($1, $2, $3)",
        [(key, grant.role.word, grant.scope) for grant in grants],
    )


async def replace_secret(connection: Connection, client_id: str, hash: str, now: datetime) -> None:
    """Give an account another secret; the one before is worth nothing from now on."""
    await connection.execute(
        "UPDATE accounts SET secret_hash = $2, secret_at = $3 WHERE client_id = $1",
        uuid.UUID(client_id),
        hash,
        now,
    )


async def remove(connection: Connection, client_id: str) -> bool:
    """Remove an account; its tokens are worth nothing from now on."""
    key = _uuid(client_id)
    return (
        key is not None
        and await connection.fetchval("DELETE FROM accounts WHERE client_id = $1 RETURNING 1", key)
        is not None
    )


async def accounts(connection: Connection, client_id: str | None = None) -> list[Account]:
    """Return all accounts by name, or the one with this id."""
    key = None if client_id is None else _uuid(client_id)
    if client_id is not None and key is None:
        return []
    rows = await connection.fetch(
        "SELECT a.client_id, name, created_at, secret_at, "
        "coalesce(array_agg(role ORDER BY scope, role) FILTER (WHERE role IS NOT NULL), '{}') "
        "AS roles, "
        "coalesce(array_agg(scope ORDER BY scope, role) FILTER (WHERE role IS NOT NULL), '{}') "
        "AS scopes FROM accounts a LEFT JOIN account_roles USING (client_id) "
        "WHERE $1::uuid IS NULL OR a.client_id = $1 GROUP BY a.client_id ORDER BY name, client_id",
        key,
    )
    return [_account(row) for row in rows]


async def principal(
    connection: Connection, client_id: str, issued_at: datetime
) -> Principal | None:
    """Return who an account is and what it may do now.

    None where it is gone, or has another secret since its token was issued.
    """
    found = await accounts(connection, client_id)
    # Tokens count whole seconds.
    if not found or issued_at < found[0].secret_at.replace(microsecond=0):
        return None
    return Principal(name=found[0].name, id=found[0].client_id, grants=found[0].grants)


def _account(row: Mapping[str, Any]) -> Account:
    return Account(
        client_id=str(row["client_id"]),
        name=row["name"],
        created_at=row["created_at"],
        secret_at=row["secret_at"],
        grants=tuple(
            Grant(role=Role[role.upper()], scope=scope)
            for role, scope in zip(row["roles"], row["scopes"], strict=True)
        ),
    )


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
