"""Access tokens: signed RS256 with keys that are kept in Postgres and change from time to time."""

import asyncio
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from rollcall_kit.outbox import Connection
from rollcall_kit.secrets import SealError, seal, unseal

log = structlog.get_logger()

LIFETIME = timedelta(hours=1)
LEEWAY = timedelta(minutes=1)  # clocks differ
KEPT = LIFETIME + LEEWAY  # a key that no longer signs counts for so long: then its last token ends
_LOCK = 0x4A575453  # "JWTS"


class TokenError(ValueError):
    """A token is not valid here; the message says why, and nothing of its content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Whose token it is, and since when."""

    client_id: str
    issued_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key that signs tokens, or did."""

    kid: str
    created_at: datetime
    retired_at: datetime | None  # since when another one signs

    def json(self) -> dict[str, Any]:
        """Return the key as it is shown: nothing of it is secret."""
        until = None if self.retired_at is None else (self.retired_at + KEPT).isoformat()
        return {
            "kid": self.kid,
            "createdTime": self.created_at.isoformat(),
            "signs": self.retired_at is None,
            "publishedUntil": until,
        }


async def issue(
    connection: Connection,
    secrets_key: str,
    now: datetime,
    *,
    tenant: str,
    client_id: str,
    issuer: str,
    audience: str,
) -> str:
    """Return a token that says who its bearer is; what it may do is looked up at each request."""
    kid, private = await _signing_key(connection, secrets_key, now)
    claims = {
        "aud": audience,
        "iss": issuer,
        "iat": now,
        "nbf": now - timedelta(minutes=5),  # of whoever looks at it
        "exp": now + LIFETIME,
        "appid": client_id,
        "oid": client_id,
        "sub": client_id,
        "tid": tenant,
        "idtyp": "app",
        "uti": uuid.uuid4().hex,
        "ver": "1.0",
    }
    return jwt.encode(claims, private, algorithm="RS256", headers={"kid": kid})


async def _signing_key(connection: Connection, secrets_key: str, now: datetime) -> tuple[str, str]:
    """Return the key that signs; one is made where there is none that can be opened.

    In a transaction of the caller, so that the lock ends with it: copies of the service agree.
    """
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    row = await connection.fetchrow(
        "SELECT kid, sealed_private_key FROM signing_keys WHERE retired_at IS NULL "
        "ORDER BY created_at DESC LIMIT 1"
    )
    if row is not None:
        try:
            return str(row["kid"]), unseal(secrets_key, row["sealed_private_key"])
        except SealError:
            log.warning(
                "signing_key_sealed_otherwise",
                kid=row["kid"],
                advice="ROLLCALL_SECRETS_KEY was changed, or differs between copies of http-api",
            )
    return await _make_key(connection, secrets_key, now)


async def _make_key(connection: Connection, secrets_key: str, now: datetime) -> tuple[str, str]:
    """Make the key that signs from now on; those before it only count until their tokens end."""
    made = await asyncio.to_thread(rsa.generate_private_key, 65537, 2048)
    private = made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    public = made.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    await connection.execute(
        "UPDATE signing_keys SET retired_at = $1 WHERE retired_at IS NULL", now
    )
    await connection.execute("DELETE FROM signing_keys WHERE retired_at < $1", now - KEPT)
    kid = uuid.uuid4().hex
    await connection.execute(
        "INSERT INTO signing_keys (kid, sealed_private_key, public_key, created_at) "
        "VALUES ($1, $2, $3, $4)",
        kid,
        seal(secrets_key, private),
        public.decode(),
        now,
    )
    log.info("signing_key_made", kid=kid)
    return kid, private


async def rotate(
    connection: Connection,
    secrets_key: str,
    now: datetime,
    *,
    older_than: timedelta = timedelta(0),
    revoke: bool = False,
) -> bool:
    """Make another key sign where the present one is older than that; return whether one was made.

    `revoke`: the keys before are worth nothing from now on, and neither are their tokens: whoever
    has one must log in again. In a transaction of the caller.
    """
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    newest = await connection.fetchval(
        "SELECT max(created_at) FROM signing_keys WHERE retired_at IS NULL"
    )
    is_due = newest is None or newest <= now - older_than
    if is_due:
        await _make_key(connection, secrets_key, now)
    else:
        await connection.execute("DELETE FROM signing_keys WHERE retired_at < $1", now - KEPT)
    if revoke:
        await connection.execute("DELETE FROM signing_keys WHERE retired_at IS NOT NULL")
    return is_due


async def signing_keys(connection: Connection, now: datetime) -> list[SigningKey]:
    """Return the keys whose tokens count, the newest first."""
    rows = await connection.fetch(
        "SELECT kid, created_at, retired_at FROM signing_keys "
        "WHERE retired_at IS NULL OR retired_at > $1 ORDER BY created_at DESC",
        now - KEPT,
    )
    return [SigningKey(**dict(row)) for row in rows]


def claimed_issuer(token: str) -> str:
    """Return who says to have issued a token; nothing is verified. '' where it does not say."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return ""
    return str(claims.get("iss", ""))


async def bearer(connection: Connection, token: str, now: datetime, *, tenant: str) -> Bearer:
    """Return who bears a token. Raises TokenError."""
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        public = await _public_key(connection, str(kid), now)
        claims = jwt.decode(
            token,
            public,
            algorithms=["RS256"],
            # The audience is whatever address the client used; only we sign with our keys.
            options={"verify_aud": False, "require": ["exp", "iat", "sub", "tid"]},
            leeway=LEEWAY,
        )
    except jwt.ExpiredSignatureError as error:
        raise TokenError("The access token expired: log in again.") from error
    except jwt.PyJWTError as error:
        raise TokenError("The access token is not valid here.") from error
    if claims["tid"] != tenant:
        raise TokenError("The access token is of another tenant.")
    return Bearer(
        client_id=str(claims["sub"]), issued_at=datetime.fromtimestamp(claims["iat"], UTC)
    )


async def _public_key(connection: Connection, kid: str, now: datetime) -> str:
    """Return a public key; looked up each time, so that a revoked one is so for every copy."""
    found = None
    if kid.isascii() and kid.isalnum():
        found = await connection.fetchval(
            "SELECT public_key FROM signing_keys "
            "WHERE kid = $1 AND (retired_at IS NULL OR retired_at > $2)",
            kid,
            now - KEPT,
        )
    if found is None:
        raise TokenError("The access token is not signed by a key of this installation.")
    return str(found)


async def key_set(connection: Connection, now: datetime) -> dict[str, Any]:
    """Return the public keys as a JSON Web Key Set."""
    rows = await connection.fetch(
        "SELECT kid, public_key FROM signing_keys WHERE retired_at IS NULL OR retired_at > $1 "
        "ORDER BY created_at DESC",
        now - KEPT,
    )
    found = []
    for row in rows:
        loaded = serialization.load_pem_public_key(row["public_key"].encode())
        if isinstance(loaded, rsa.RSAPublicKey):
            document = RSAAlgorithm.to_jwk(loaded, as_dict=True)
            found.append({**document, "kid": row["kid"], "use": "sig", "alg": "RS256"})
    return {"keys": found}
