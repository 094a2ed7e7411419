"""Tokens of an external OpenID provider: its keys are fetched, and its groups are given roles.

A provider that is away costs nobody else anything: accounts of Rollcall's own and the owner's token
are looked at before it, and no database connection is held while it is asked.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from http_api.domain.access import Grant, Principal, read_grants
from http_api.domain.documents import ModelError, Reader, parse_body
from http_api.tokens import TokenError

log = structlog.get_logger()

FRESH = 3600.0  # seconds after which the keys are fetched again
PATIENCE = 10.0  # seconds between fetches, whatever is asked: strangers can send any key id
TIMEOUT = 5.0  # seconds for one document
MAX_BYTES = 1024 * 1024  # of one document
LEEWAY = timedelta(minutes=1)  # clocks differ
MIN_BITS = 2048
# What a key must be for an algorithm. The token's header only chooses among these: a public key is
# never taken for a shared secret, and `none` is not there at all.
_KEY_TYPES: Mapping[str, type] = {
    "RS256": rsa.RSAPublicKey,
    "ES256": ec.EllipticCurvePublicKey,
}
# Where a token says how its bearer is called, the best first.
_NAMES = ("preferred_username", "upn", "email", "name", "appid", "azp", "client_id", "sub")


class ProviderAwayError(Exception):
    """The provider's keys cannot be had just now, and none are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig:
    """What an installation says of its provider."""

    issuer: str
    audience: str
    claim: str  # which has the names of groups or roles; dots lead into objects
    grants: Mapping[str, tuple[Grant, ...]]  # by such a name
    ca: str = ""  # path of the authority of its certificate; '' for the system's


def read_mapping(mapping: Mapping[str, Any]) -> dict[str, tuple[Grant, ...]]:
    """Return the grants of each group. Raises ModelError."""
    return {name: read_grants(Reader({"roles": roles})) for name, roles in mapping.items()}


def groups_of(claims: Mapping[str, Any], claim: str) -> list[str]:
    """Return the names in a claim: a list of texts, or one text with names between spaces."""
    found: Any = claims.get(claim)
    if found is None:
        found = claims
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return found.split()
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def granted(names: Iterable[str], grants: Mapping[str, tuple[Grant, ...]]) -> tuple[Grant, ...]:
    """Return what somebody in these groups may do."""
    return tuple(dict.fromkeys(grant for name in names for grant in grants.get(name, ())))


def principal_of(claims: Mapping[str, Any], config: ProviderConfig) -> Principal:
    """Return whose token it is; somebody without a group that counts may do nothing."""
    name = next((str(claims[key]) for key in _NAMES if claims.get(key)), "")
    return Principal(
        name=_shown(name),
        id=_shown(str(claims.get("oid") or claims["sub"])),
        grants=granted(groups_of(claims, config.claim), config.grants),
    )


def _shown(text: str) -> str:
    """Return a text of somebody else's as it may be in a log."""
    return "".join(character if character.isprintable() else "?" for character in text[:200])


@dataclass(slots=True)
class Provider:
    """One external provider, with the keys that it is known to have."""

    config: ProviderConfig
    clock: Callable[[], float] = field(default_factory=lambda: asyncio.get_running_loop().time)
    _keys: dict[tuple[str, str], Any] = field(default_factory=dict)  # by algorithm and key id
    _fetched_at: float | None = None
    _tried_at: float | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def principal(self, token: str) -> Principal:
        """Return who bears a token. Raises TokenError, ProviderAwayError."""
        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = str(header.get("alg")), header.get("kid")
            if algorithm not in _KEY_TYPES or not isinstance(kid, str) or "crit" in header:
                raise TokenError("The access token must be signed RS256 or ES256, with a key id.")
            claims = jwt.decode(
                token,
                await self._key(algorithm, kid),
                algorithms=[algorithm],
                audience=self.config.audience,
                issuer=self.config.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenError("The access token expired: log in again.") from error
        except jwt.PyJWTError as error:
            raise TokenError("The access token of the external provider is not valid.") from error
        return principal_of(claims, self.config)

    async def _key(self, algorithm: str, kid: str) -> Any:
        is_old = self._fetched_at is None or self.clock() - self._fetched_at > FRESH
        if is_old or (algorithm, kid) not in self._keys:
            await self._refresh(algorithm, kid)
        if (algorithm, kid) in self._keys:
            return self._keys[algorithm, kid]
        if self._fetched_at is None:
            raise ProviderAwayError("The external OpenID provider does not answer.")
        raise TokenError("The access token is not signed by a key of the external provider.")

    async def _refresh(self, algorithm: str, kid: str) -> None:
        """Fetch the keys, unless somebody just did; a failure leaves those that are known."""
        async with self._lock:
            now = self.clock()
            if self._tried_at is not None and now - self._tried_at < PATIENCE:
                return
            self._tried_at = now
            try:
                async with asyncio.timeout(TIMEOUT):
                    keys = await fetch_keys(self.config)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, ModelError) as error:
                log.warning(
                    "openid_keys_not_fetched",
                    issuer=self.config.issuer,
                    error=str(error) or type(error).__name__,
                )
                return
            self._keys, self._fetched_at = keys, self.clock()
            log.info("openid_keys_fetched", issuer=self.config.issuer, count=len(keys))


async def fetch_keys(config: ProviderConfig) -> dict[tuple[str, str], Any]:
    """Return the provider's keys, found by discovery. Raises ValueError, ModelError, ClientError.

    ModelError and ValueError: what it answers cannot be used.
    """
    context = ssl.create_default_context(cafile=config.ca or None)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:
        base = config.issuer.rstrip("/")
        found = await _document(session, f"{base}/.well-known/openid-configuration")
        if found.get("issuer") != config.issuer:
            raise ValueError(f"its configuration is of the issuer {found.get('issuer')!r}")
        url = found.get("jwks_uri")
        if not isinstance(url, str) or not url.startswith("https://"):
            raise ValueError(f"jwks_uri must be an https address, but is {url!r}")
        return usable_keys((await _document(session, url)).get("keys"))


async def _document(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url, allow_redirects=False) as answer:
        if answer.status != 200:
            raise ValueError(f"{url} answers {answer.status}")
        raw = await answer.content.read(MAX_BYTES + 1)
        while len(raw) <= MAX_BYTES and (more := await answer.content.read(MAX_BYTES)):
            raw += more
        if len(raw) > MAX_BYTES:
            raise ValueError(f"{url} answers more than {MAX_BYTES} bytes")
        return parse_body(raw)


def usable_keys(documents: Any) -> dict[tuple[str, str], Any]:
    """Return the keys that may sign tokens, by algorithm and key id; others are passed over."""
    found: dict[tuple[str, str], Any] = {}
    items: Sequence[Any] = documents if isinstance(documents, list) else ()
    for item in items:
        if not isinstance(item, Mapping) or item.get("use", "sig") != "sig":
            continue
        for algorithm in _KEY_TYPES:
            key = _usable(item, algorithm)
            if key is not None and isinstance(item.get("kid"), str):
                found[algorithm, item["kid"]] = key
    return found


def _usable(document: Mapping[str, Any], algorithm: str) -> Any:
    if document.get("alg", algorithm) != algorithm:
        return None
    try:
        key = jwt.PyJWK(dict(document), algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None  # of a kind that is not for this algorithm
    if not isinstance(key, _KEY_TYPES[algorithm]):
        return None
    if isinstance(key, rsa.RSAPublicKey):
        return key if key.key_size >= MIN_BITS else None
    is_p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    return key if is_p256 else None
