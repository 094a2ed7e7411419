"""A certificate authority of this machine's own, and a certificate for the API on loopback."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rollcall_embedded.process import private_folder, write_private

CA_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=397)  # what browsers and operating systems accept at most
RENEWED_BEFORE = timedelta(days=30)
NAMES = ("localhost",)
ADDRESSES = ("127.0.0.1", "::1")
_EARLIER = timedelta(hours=1)  # clocks differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Where the PEM files are."""

    ca: Path  # what clients trust
    certificate: Path
    key: Path

    def client_context(self) -> ssl.SSLContext:
        """Return how a client of this machine trusts the API."""
        return ssl.create_default_context(cafile=str(self.ca))


def make_certificates(folder: Path, now: datetime) -> Certificates:
    """Return the certificates in a folder, made where they are missing or about to expire.

    The authority stays as long as it is valid, so that clients need to be told only once. It may
    only vouch for loopback names: whoever gets its key gains nothing elsewhere.
    """
    private_folder(folder)
    files = Certificates(
        ca=folder / "ca.pem", certificate=folder / "api.pem", key=folder / "api-key.pem"
    )
    ca_key_file = folder / "ca-key.pem"
    renewed = False
    if not (ca_key_file.exists() and _is_valid(files.ca, now)):
        ca_key = ec.generate_private_key(ec.SECP256R1())
        write_private(ca_key_file, _key_pem(ca_key))
        write_private(files.ca, _pem(_authority(ca_key, now)), mode=0o644)
        renewed = True
    if renewed or not (files.key.exists() and _is_valid(files.certificate, now)):
        authority = x509.load_pem_x509_certificate(files.ca.read_bytes())
        loaded = serialization.load_pem_private_key(ca_key_file.read_bytes(), password=None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{ca_key_file} is not the key that was made here: remove {folder}")
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(files.key, _key_pem(key))
        write_private(files.certificate, _pem(_leaf(key, authority, loaded, now)), mode=0o644)
    return files


def _is_valid(file: Path, now: datetime) -> bool:
    if not file.exists():
        return False
    found = x509.load_pem_x509_certificate(file.read_bytes())
    return now + RENEWED_BEFORE < found.not_valid_after_utc


def _authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    # The serial number makes two authorities of one machine two names: clients tell them apart.
    serial = x509.random_serial_number()
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"Rollcall on this machine {serial % 10**8:08}")]
    )
    return (
        _builder(name, name, key.public_key(), now, CA_LIFETIME)
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(
            x509.NameConstraints(
                permitted_subtrees=[
                    *(x509.DNSName(each) for each in NAMES),
                    *(x509.IPAddress(ip_network(each)) for each in ADDRESSES),
                ],
                excluded_subtrees=None,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Rollcall")])
    public = authority_key.public_key()
    return (
        _builder(name, authority.subject, key.public_key(), now, LIFETIME)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    *(x509.DNSName(each) for each in NAMES),
                    *(x509.IPAddress(ip_address(each)) for each in ADDRESSES),
                ]
            ),
            critical=False,
        )
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .not_valid_before(now.astimezone(UTC) - _EARLIER)
        .not_valid_after(now.astimezone(UTC) + lifetime)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
