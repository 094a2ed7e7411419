"""PGP clear-signed documents, verified by the system's gpgv with the feed's own keyring.

What counts is the text that gpgv gives out, never our own reading of the armor: around and between
signed parts anybody may have written something.
"""

import base64
import binascii
import re
import subprocess
import tempfile
import threading
from pathlib import Path

from image_publisher.domain.feed import FeedCode, FeedError

CLEAR_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_ARMORED_KEYS = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\s*?\n(?:[^\n]*:[^\n]*\n)*\s*?\n"
    rb"([A-Za-z0-9+/=\s]+?)(?:\n=[A-Za-z0-9+/]{4})?\s*-----END PGP PUBLIC KEY BLOCK-----"
)
_BAD = frozenset({"BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NODATA", "UNEXPECTED"})


def read_keyring(path: Path) -> bytes:
    """Return a keyring in the binary form that gpgv wants; an armored file is unpacked.

    Raises FeedError (FeedKeyringUnusable) when it cannot be read or holds nothing.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if b"-----BEGIN PGP" not in content[:4096]:
        if not content or not content[0] & 0x80:  # the first bit of every OpenPGP packet is set
            raise _unusable(path, "it is empty" if not content else "it holds no OpenPGP keys")
        return content
    blocks = _ARMORED_KEYS.findall(content)
    if not blocks:
        raise _unusable(path, "it holds no complete PUBLIC KEY BLOCK")
    try:
        return b"".join(
            base64.b64decode(b"".join(block.split()), validate=True) for block in blocks
        )
    except binascii.Error as error:
        raise _unusable(path, f"its armor is damaged: {error}") from error


def _unusable(path: Path, why: str) -> FeedError:
    return FeedError(FeedCode.KEYRING_UNUSABLE, f"keyring {path}: {why}")


def verify(content: bytes, keyring: bytes, *, url: str, max_bytes: int, timeout: float) -> bytes:
    """Return the signed text of a clear-signed document.

    Blocking; `timeout` is in seconds. Raises FeedError: no signature, a signature that is not by
    a key of the keyring, expired or by SHA-1, or no gpgv on this machine.
    """
    if not content.lstrip().startswith(CLEAR_SIGNED):
        raise FeedError(
            FeedCode.SIGNATURE_MISSING,
            f"{url}: is not a PGP clear-signed text, and the feed has a keyring",
        )
    with tempfile.TemporaryDirectory(prefix="rollcall-gpgv-") as folder:
        room = Path(folder)
        (room / "keyring.gpg").write_bytes(keyring)
        (room / "document").write_bytes(content)
        text, code = _run(room, max_bytes, timeout, url)
        said = (room / "status").read_text(errors="replace")
    words = [line.split()[1:] for line in said.splitlines() if line.startswith("[GNUPG:] ")]
    marks = {word[0] for word in words if word}
    if code != 0 or "VALIDSIG" not in marks or "GOODSIG" not in marks or marks & _BAD:
        raise FeedError(FeedCode.SIGNATURE_INVALID, f"{url}: {_explain(said, code)}")
    return text


def _run(room: Path, max_bytes: int, timeout: float, url: str) -> tuple[bytes, int]:
    command = ["gpgv", "--homedir", str(room), "--keyring", str(room / "keyring.gpg")]
    command += [
        "--weak-digest",
        "SHA1",
        "--status-fd",
        "2",
        "--output",
        "-",
        str(room / "document"),
    ]
    with (room / "status").open("wb") as status:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=status
            )
        except FileNotFoundError as error:
            raise FeedError(
                FeedCode.VERIFIER_MISSING,
                "gpgv is not installed: install the package `gpgv` (Debian, Ubuntu) or `gnupg2`",
            ) from error
        alarm = threading.Timer(timeout, process.kill)
        alarm.start()
        try:
            with process:
                assert process.stdout is not None  # asked for above
                text = process.stdout.read(max_bytes + 1)
                if len(text) > max_bytes:
                    process.kill()
                    raise FeedError(FeedCode.TOO_LARGE, f"{url}: its signed text is too large")
        finally:
            alarm.cancel()
            alarm.join()
    return text, process.returncode


def _explain(said: str, code: int) -> str:
    """Return the sentence of gpgv that says most, without the lines meant for programs."""
    lines = [line.removeprefix("gpgv: ") for line in said.splitlines() if line.startswith("gpgv: ")]
    return f"signature not accepted (gpgv status {code}): {'; '.join(lines)}"
