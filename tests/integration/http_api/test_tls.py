"""https from a certificate in files: what is served, what a change of the files does."""

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from http_api.app import SettingsError, build
from http_api.settings import Settings
from rollcall_kit.secrets import new_key
from rollcall_testing import eventually

ROOT = Path(__file__).parents[3]
Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def private_key(kind: str = "ec") -> Key:
    if kind == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, 2048)


class Files:
    """A certificate and its key, as an operator's tools write them."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "tls.crt"
        self.key = folder / "tls.key"

    def write(self, kind: str = "ec") -> int:
        """Make another certificate; return its serial number."""
        key = private_key(kind)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
            .not_valid_after(datetime.now(UTC) + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        self.replace(self.key, key_pem(key))
        self.replace(self.certificate, made.public_bytes(serialization.Encoding.PEM))
        return made.serial_number

    @staticmethod
    def replace(file: Path, content: bytes) -> None:
        """Put another file in its place, as certbot and Kubernetes do."""
        other = file.with_suffix(".new")
        other.write_bytes(content)
        other.rename(file)


def key_pem(key: Key, passphrase: bytes = b"") -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    found = Files(tmp_path)
    yield found
    shutil.rmtree(tmp_path)  # keys are not left lying about


class Running:
    """http-api as a process, and what it has written into its log."""

    def __init__(self, process: asyncio.subprocess.Process, environment: dict[str, str]) -> None:
        self.process = process
        self.environment = environment
        self.lines: list[dict[str, Any]] = []

    async def read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(json.loads(line))

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    @property
    def port(self) -> int:
        listening = self.logged("api_listening")
        return int(listening[0]["port"]) if listening else 0

    async def serial(self, highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> int:
        """Return the serial number of the certificate in a new handshake."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = highest
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return x509.load_der_x509_certificate(found).serial_number

    async def healthcheck(self) -> int:
        """Run what a container runs; return its exit code."""
        check = await asyncio.create_subprocess_exec(
            *(sys.executable, ROOT / "deploy" / "container" / "healthcheck.py"),
            env={**os.environ, **self.environment, "ROLLCALL_API_PORT": str(self.port)},
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await check.wait()


@asynccontextmanager
async def running(database_url: str, amqp_url: str, **settings: str) -> AsyncIterator[Running]:
    environment = {
        "ROLLCALL_DATABASE_URL": database_url,
        "ROLLCALL_AMQP_URL": amqp_url,
        "ROLLCALL_API_TOKEN": "t",
        "ROLLCALL_API_PORT": "0",
        "ROLLCALL_SECRETS_KEY": new_key(),
        "ROLLCALL_LOG_FORMAT": "json",
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "http_api"),
        env={**os.environ, **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    found = Running(process, environment)
    reading = asyncio.create_task(found.read())
    try:
        await eventually(lambda: found.port, timeout=60)
        yield found
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 60)
        await reading


async def test_a_renewed_certificate_is_served_without_a_restart_and_a_broken_one_is_not(
    database_url: str, amqp_url: str, files: Files
) -> None:
    first = files.write()
    settings = {
        "ROLLCALL_API_TLS_CERTIFICATE": str(files.certificate),
        "ROLLCALL_API_TLS_KEY": str(files.key),
        "ROLLCALL_API_TLS_LOOK": "0.1",
    }
    async with running(database_url, amqp_url, **settings) as api:
        assert await api.serial() == first
        assert await api.healthcheck() == 0
        context = ssl.create_default_context(cafile=str(files.certificate))
        reader, writer = await asyncio.open_connection(
            "localhost", api.port, ssl=context, family=2, server_hostname="localhost"
        )

        for kind in ("ec", "rsa", "ec"):  # one of another kind of key takes the place of both
            newer = files.write(kind)

            async def is_served(wanted: int = newer) -> bool:
                return await api.serial() == wanted

            await eventually(is_served, timeout=30)
            assert await api.serial(ssl.TLSVersion.TLSv1_2) == newer

        # A connection of before goes on with what it has.
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"alive" in await reader.read()
        writer.close()

        count = len(api.logged("certificate_refused"))
        for broken in (b"no certificate", key_pem(private_key()), None):
            if broken is None:
                files.key.unlink()
            else:
                Files.replace(files.key, broken)
            count += 1

            def is_told(wanted: int = count) -> bool:
                return len(api.logged("certificate_refused")) >= wanted

            await eventually(is_told, timeout=30)
            assert await api.serial() == newer
        refused = api.logged("certificate_refused")
        assert {line["level"] for line in refused} == {"error"}
        assert all(str(files.key) in line["error"] for line in refused), refused

        last = files.write("rsa")

        async def is_mended() -> bool:
            return await api.serial() == last

        await eventually(is_mended, timeout=30)
        refusals = len(api.logged("certificate_refused"))
        assert refusals <= count + 1, "each broken state is told once; a half-written one may be"
        assert await api.healthcheck() == 0


async def test_without_a_certificate_the_health_check_asks_over_plain_http(
    database_url: str, amqp_url: str
) -> None:
    async with running(database_url, amqp_url) as api:
        assert await api.healthcheck() == 0
        api.process.terminate()
        await api.process.wait()
        assert await api.healthcheck() != 0


def settings_of(files: Files) -> dict[str, str]:
    return {
        "api_token": "t",
        "secrets_key": new_key(),
        "api_tls_certificate": str(files.certificate),
        "api_tls_key": str(files.key),
    }


def test_it_does_not_start_with_a_certificate_that_cannot_be_used(files: Files) -> None:
    settings = settings_of(files)
    with pytest.raises(SettingsError, match=r"ROLLCALL_API_TLS_CERTIFICATE.*tls\.crt"):
        build(Settings.model_validate(settings))
    files.write()
    files.key.write_bytes(key_pem(private_key(), b"locked"))
    with pytest.raises(SettingsError, match="passphrase"):
        build(Settings.model_validate(settings))
    with pytest.raises(SettingsError, match="ROLLCALL_API_TLS_CERTIFICATE"):
        build(Settings.model_validate({**settings, "api_tls_certificate": ""}))


def test_the_compose_file_passes_the_certificate_on_and_its_folder(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    subprocess.run([ROOT / "deploy" / "init", env_file], check=True, capture_output=True)
    offered = {
        name: value
        for line in env_file.read_text().splitlines()
        if line.startswith("#ROLLCALL_")
        for name, value in [line.removeprefix("#").split("=", 1)]
    }
    api = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["http-api"]
    for name in ("ROLLCALL_API_TLS_CERTIFICATE", "ROLLCALL_API_TLS_KEY"):
        assert api["environment"][name] == f"${{{name}:-}}"
        assert offered[name].startswith("/etc/rollcall/tls/")
    folder = f"${{ROLLCALL_TLS:-{offered['ROLLCALL_TLS']}}}:/etc/rollcall/tls:ro"
    assert folder in api["volumes"], "a folder: of a single file, a renewed one would not be seen"
    assert api["healthcheck"]["test"] == ["CMD", "python", "/app/healthcheck.py"]
