"""The certificate of `rollcall up --tls`: who trusts it, by which names, and its renewal."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from rollcall_embedded.certificates import LIFETIME, Certificates, make_certificates

NOW = datetime.now(UTC)


async def handshake(files: Certificates, name: str, trust: ssl.SSLContext) -> None:
    """Connect to a server with this certificate under a name. Raises ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)

    def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trust, server_hostname=name
        )
        writer.close()


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "localhost"])
async def test_clients_that_trust_the_authority_connect_by_every_loopback_name(
    tmp_path: Path, name: str
) -> None:
    files = make_certificates(tmp_path, NOW)
    await handshake(files, name, files.client_context())


async def test_nobody_else_does(tmp_path: Path) -> None:
    files = make_certificates(tmp_path, NOW)
    for name, trust in (
        ("127.0.0.1", ssl.create_default_context()),
        ("rollcall.example", files.client_context()),
    ):
        with pytest.raises(ssl.SSLCertVerificationError):
            await handshake(files, name, trust)


def test_keys_are_private_and_the_rest_is_readable(tmp_path: Path) -> None:
    files = make_certificates(tmp_path / "tls", NOW)
    modes = {path.name: path.stat().st_mode & 0o777 for path in files.ca.parent.iterdir()}
    assert modes == {
        "ca.pem": 0o644,
        "ca-key.pem": 0o600,
        "api.pem": 0o644,
        "api-key.pem": 0o600,
    }


async def test_the_certificate_is_renewed_and_the_authority_stays(tmp_path: Path) -> None:
    files = make_certificates(tmp_path, NOW)
    ca, first = files.ca.read_bytes(), files.certificate.read_bytes()
    assert make_certificates(tmp_path, NOW + LIFETIME - timedelta(days=31)) == files
    assert files.certificate.read_bytes() == first
    make_certificates(tmp_path, NOW + LIFETIME - timedelta(days=29))
    assert files.certificate.read_bytes() != first
    assert files.ca.read_bytes() == ca
    later = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    assert later.not_valid_after_utc > NOW + LIFETIME
    make_certificates(tmp_path, NOW + timedelta(days=3640))
    assert files.ca.read_bytes() != ca
