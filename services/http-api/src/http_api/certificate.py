"""The server's certificate: PEM files, which are taken anew when they change."""

import asyncio
import hashlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import structlog
from cryptography import x509
from prometheus_client import Gauge

log = structlog.get_logger()

expires = Gauge(
    "rollcall_tls_certificate_expires_timestamp_seconds",
    "When the certificate that is served ends, in Unix time",
    ["file"],
)


class CertificateError(ValueError):
    """The certificate or its key cannot be used; the message names the files and what is wrong."""


class Certificate:
    """A certificate with its chain and key, as new handshakes are answered with it.

    One context listens for as long as the server lives, and hands each handshake over to the
    context of the newest files: to load other files into the first one would leave a certificate
    of another kind of key in use beside them.
    """

    def __init__(self, certificate: str, key: str) -> None:
        """Read the files; an empty `key`: it is in the same one. Raises CertificateError."""
        self._certificate = Path(certificate)
        self._key = Path(key) if key else self._certificate
        self._seen = self._contents()
        self._newest = self._loaded()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.sni_callback = self._answer

    def _answer(
        self, handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        handshake.context = self._newest

    def _contents(self) -> str:
        """Return what tells two states of the files apart. Raises CertificateError."""
        digest = hashlib.sha256()
        for file in (self._certificate, self._key):
            try:
                digest.update(hashlib.sha256(file.read_bytes()).digest())
            except OSError as error:
                raise CertificateError(f"{file} cannot be read: {error.strerror}") from error
        return digest.hexdigest()

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._certificate, self._key, _no_passphrase)
            found = x509.load_pem_x509_certificate(self._certificate.read_bytes())
        except (OSError, ValueError) as error:  # of which ssl.SSLError is one
            raise CertificateError(
                f"{self._certificate} and {self._key} must hold a certificate and its private key "
                f"in PEM: {error}"
            ) from error
        ends = found.not_valid_after_utc
        expires.labels(str(self._certificate)).set(ends.timestamp())
        log.info(
            "certificate_loaded",
            file=str(self._certificate),
            serial=f"{found.serial_number:x}",
            ends=ends.isoformat(),
            expired=ends < datetime.now(UTC),
        )
        return context

    def look(self) -> bool:
        """Take the files if they have changed, and return whether they were taken.

        What cannot be used is told once, and the certificate of before stays: a half-written
        pair of files is whole at the next look.
        """
        contents = ""
        try:
            contents = self._contents()
            if contents == self._seen:
                return False
            self._newest = self._loaded()
        except CertificateError as error:
            if contents != self._seen:
                log.error(
                    "certificate_refused",
                    error=str(error),
                    advice="the certificate of before is still served; mend the files, and they "
                    "are taken without a restart",
                )
            self._seen = contents
            return False
        self._seen = contents
        return True

    async def keep(self, seconds: float) -> None:
        """Look at the files again and again, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.look)


def _no_passphrase() -> NoReturn:
    """Refuse a locked key, for which the terminal would be asked otherwise."""
    raise ValueError("the private key has a passphrase: store it without one, readable only here")
