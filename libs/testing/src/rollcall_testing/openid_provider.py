"""A small OpenID provider over https, as a process: discovery, and the keys of a file.

`python -m rollcall_testing.openid_provider FOLDER` listens on a port of its own choice and prints
it. `FOLDER/keys.json` is read at each request, and `FOLDER/asked` has a line for each.
"""

import asyncio
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from rollcall_embedded.certificates import make_certificates


@dataclass(kw_only=True)
class OpenIdProvider:
    """A running provider, and the hand that signs its tokens."""

    folder: Path
    port: int
    ca: Path
    process: asyncio.subprocess.Process

    @property
    def issuer(self) -> str:
        """Return what its tokens say to be issued by."""
        return f"https://127.0.0.1:{self.port}/realm"

    def publish(self, keys: Mapping[str, Any]) -> None:
        """Publish the public halves of private keys, by their ids."""
        documents = [
            {**public_document(key), "kid": kid, "use": "sig"} for kid, key in keys.items()
        ]
        self.publish_documents(documents)

    def publish_documents(self, documents: list[dict[str, Any]]) -> None:
        """Publish keys as they are given."""
        file = self.folder / "keys.new"
        file.write_text(json.dumps({"keys": documents}))
        file.rename(self.folder / "keys.json")

    def token(self, key: Any, kid: str, now: datetime, **claims: Any) -> str:
        """Return a token that is good for ten minutes, unless its claims say otherwise."""
        seconds = int(now.timestamp())
        found = {
            "iss": self.issuer,
            "aud": "rollcall",
            "sub": "subject-1",
            "iat": seconds,
            "nbf": seconds,
            "exp": seconds + 600,
            **claims,
        }
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        kept = {name: value for name, value in found.items() if value is not None}
        return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": kid})

    def asked(self) -> int:
        """Return how often its keys were asked for."""
        file = self.folder / "asked"
        return len(file.read_text().splitlines()) if file.exists() else 0

    async def stop(self) -> None:
        """End the process."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return a fresh key for RS256."""
    return rsa.generate_private_key(65537, bits)


def ec_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh key for ES256."""
    return ec.generate_private_key(ec.SECP256R1())


def public_document(key: Any) -> dict[str, Any]:
    """Return a private key's public half as a JSON Web Key."""
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    document: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    return document


@asynccontextmanager
async def openid_provider(folder: Path) -> AsyncIterator[OpenIdProvider]:
    """Run a provider with an authority of its own; `folder` keeps what it has."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rollcall_testing.openid_provider", str(folder)),
        stdout=asyncio.subprocess.PIPE,
    )
    provider = None
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            port = int(await process.stdout.readline())
        provider = OpenIdProvider(
            folder=folder, port=port, ca=folder / "tls" / "ca.pem", process=process
        )
        yield provider
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _serve(folder: Path) -> None:
    files = make_certificates(folder / "tls", datetime.now(UTC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)

    async def discovery(request: web.Request) -> web.Response:
        issuer = f"https://{request.host}/realm"
        return web.json_response({"issuer": issuer, "jwks_uri": f"{issuer}/keys"})

    async def keys(_request: web.Request) -> web.Response:
        with (folder / "asked").open("a") as asked:
            asked.write("keys\n")
        return web.Response(
            text=(folder / "keys.json").read_text(), content_type="application/json"
        )

    app = web.Application()
    app.router.add_get("/realm/.well-known/openid-configuration", discovery)
    app.router.add_get("/realm/keys", keys)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    os.write(1, f"{runner.addresses[0][1]}\n".encode())
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
