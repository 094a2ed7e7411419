"""Access tokens: signed RS256 with keys that are kept in Postgres and change from time to time."""

import asyncio
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from rollcall_kit.outbox import Connection
from rollcall_kit.secrets import SealError, seal, unseal

LIFETIME = timedelta(hours=1)
ROTATION = timedelta(days=30)  # a key signs for so long
KEPT = ROTATION + LIFETIME + timedelta(hours=1)
_LOCK = 0x4A575453  # "JWTS"


class TokenError(ValueError):
    """A token is not valid here; the message says why, and nothing of its content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Whose token it is, and since when."""

    client_id: str
    issued_at: datetime


@dataclass(slots=True)
class Keys:
    """The public keys that this process has seen, by their id."""

    public: dict[str, str] = field(default_factory=dict)


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
        "nbf": now - timedelta(minutes=5),  # clocks differ
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
    """Return the newest key, or a new one when that is old; another process may just make it.

    In a transaction of the caller, so that the lock ends with it.
    """
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    row = await connection.fetchrow(
        "SELECT kid, sealed_private_key FROM signing_keys WHERE created_at > $1 "
        "ORDER BY created_at DESC LIMIT 1",
        now - ROTATION,
    )
    if row is not None:
        try:
            return str(row["kid"]), unseal(secrets_key, row["sealed_private_key"])
        except SealError:  # the secrets' key was changed: this one is lost
            await connection.execute("DELETE FROM signing_keys WHERE kid = $1", row["kid"])
    await connection.execute("DELETE FROM signing_keys WHERE created_at < $1", now - KEPT)
    made = await asyncio.to_thread(rsa.generate_private_key, 65537, 2048)
    private = made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    public = made.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    kid = uuid.uuid4().hex
    await connection.execute(
        "INSERT INTO signing_keys (kid, sealed_private_key, public_key, created_at) "
        "VALUES ($1, $2, $3, $4)",
        kid,
        seal(secrets_key, private),
        public.decode(),
        now,
    )
    return kid, private


async def bearer(connection: Connection, keys: Keys, token: str, *, tenant: str) -> Bearer:
    """Return who bears a token. Raises TokenError."""
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        public = await _public_key(connection, keys, str(kid))
        claims = jwt.decode(
            token,
            public,
            algorithms=["RS256"],
            # The audience is whatever address the client used; only we sign with our keys.
            options={"verify_aud": False, "require": ["exp", "iat", "sub", "tid"]},
            leeway=60,
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


async def _public_key(connection: Connection, keys: Keys, kid: str) -> str:
    if kid not in keys.public:
        rows = await connection.fetch("SELECT kid, public_key FROM signing_keys")
        keys.public = {row["kid"]: row["public_key"] for row in rows}
    if kid not in keys.public:
        raise TokenError("The access token is not signed by a key of this installation.")
    return keys.public[kid]


async def key_set(connection: Connection) -> dict[str, Any]:
    """Return the public keys as a JSON Web Key Set."""
    rows = await connection.fetch(
        "SELECT kid, public_key FROM signing_keys ORDER BY created_at DESC"
    )
    found = []
    for row in rows:
        loaded = serialization.load_pem_public_key(row["public_key"].encode())
        if isinstance(loaded, rsa.RSAPublicKey):
            document = RSAAlgorithm.to_jwk(loaded, as_dict=True)
            found.append({**document, "kid": row["kid"], "use": "sig", "alg": "RS256"})
    return {"keys": found}
