"""Checking the secrets of accounts, with a brake on those who try wrong ones."""

import asyncio
import hmac
import secrets
import time

import asyncpg

from http_api import accounts
from http_api.domain.throttling import Brake

AT_ONCE = 2  # secrets that are hashed: each takes 16 MiB and a processor


class HeldError(Exception):
    """Too many wrong secrets were tried; the next is looked at after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"wait for {seconds:.1f} seconds")
        self.seconds = seconds


class Logins:
    """Checks secrets. One copy of http-api counts by itself."""

    def __init__(self) -> None:
        self._brake = Brake()
        self._hashing = asyncio.Semaphore(AT_ONCE)
        # What proves again that a secret is the right one, by account: whoever has used it here
        # is not held up by others, and costs nothing. It is worth nothing without this process.
        self._key = secrets.token_bytes(32)
        self._proofs: dict[str, bytes] = {}

    async def check(self, pool: asyncpg.Pool, client_id: str, secret: str, address: str) -> bool:
        """Say whether an account has this secret; an id that is no UUID is nobody's.

        Raises HeldError where the secret is not looked at.
        """
        async with pool.acquire() as connection:
            kept = await accounts.kept_secret(connection, client_id)
        account, hash = kept or ("", None)
        proof = hmac.digest(self._key, f"{hash}\n{secret}".encode(), "sha256")
        if kept is not None and hmac.compare_digest(self._proofs.get(account, b""), proof):
            return True
        seconds = self._brake.begin(account, address, time.monotonic())
        if seconds > 0:
            raise HeldError(seconds)
        async with self._hashing:
            is_right = await accounts.is_secret(secret, hash)
        if is_right:
            self._brake.succeed(account, address)
            self._proofs[account] = proof
        return is_right
