"""Signatures, with real keys and the system's gpgv."""

import base64
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from image_publisher.domain.feed import FeedCode, FeedError
from image_publisher.signature import read_keyring, verify
from rollcall_cli.feed import make_signing_key

TEXT = b'{"format": "index:1.0"}\n'


class Keys:
    """A folder of gpg's keys."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.key = make_signing_key(home, "feed test")

    def gpg(self, *arguments: str, stdin: bytes = b"") -> bytes:
        # The socket's path must be short, and a test's folder is not.
        link = Path(f"/tmp/rollcall-test-gpg-{os.getpid()}")
        link.symlink_to(self.home)
        command = ["gpg", "--batch", "--homedir", str(link)]
        try:
            done = subprocess.run([*command, *arguments], input=stdin, capture_output=True)
        finally:
            subprocess.run(["gpgconf", "--homedir", str(link), "--kill", "all"], check=True)
            link.unlink()
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sign(self, text: bytes = TEXT, *options: str) -> bytes:
        return self.gpg("-u", self.key, *options, "--clear-sign", stdin=text)

    @property
    def public(self) -> bytes:
        return self.gpg("--export", self.key)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


def check(content: bytes, keyring: bytes, max_bytes: int = 10_000) -> bytes:
    return verify(content, keyring, url="https://m/x", max_bytes=max_bytes, timeout=20)


def refused(content: bytes, keyring: bytes) -> FeedError:
    with pytest.raises(FeedError) as caught:
        check(content, keyring)
    return caught.value


def test_a_good_signature_gives_the_signed_text(keys: Keys) -> None:
    assert check(keys.sign(), keys.public) == TEXT


def test_only_the_signed_part_is_taken(keys: Keys) -> None:
    signed = keys.sign()
    assert check(b"\n" + signed + b"{}\n", keys.public) == TEXT


def test_changed_content_is_refused(keys: Keys) -> None:
    error = refused(keys.sign().replace(b"index", b"ondex"), keys.public)
    assert error.code is FeedCode.SIGNATURE_INVALID
    assert "BAD signature" in error.message


def test_a_truncated_document_is_refused(keys: Keys) -> None:
    signed = keys.sign()
    for length in (40, 80, len(signed) // 2, len(signed) - 60):
        assert refused(signed[:length], keys.public).code is FeedCode.SIGNATURE_INVALID


def test_two_signed_texts_in_one_are_refused(keys: Keys) -> None:
    both = keys.sign(b"{}\n") + keys.sign()
    assert refused(both, keys.public).code is FeedCode.SIGNATURE_INVALID


def test_another_key_is_refused(keys: Keys, tmp_path: Path) -> None:
    other = Keys(tmp_path / "other")
    error = refused(other.sign(), keys.public)
    assert error.code is FeedCode.SIGNATURE_INVALID
    assert "No public key" in error.message


def test_an_expired_signature_is_refused(keys: Keys) -> None:
    signed = keys.sign(TEXT, "--default-sig-expire", "seconds=1")
    assert refused_eventually(signed, keys.public).code is FeedCode.SIGNATURE_INVALID


def refused_eventually(content: bytes, keyring: bytes) -> FeedError:
    """Verify again until the signature's second is over."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            check(content, keyring)
        except FeedError as error:
            return error
    raise AssertionError("the signature never expired")


def test_sha1_is_refused(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "sha1")
    weak = keys.sign(TEXT, "--digest-algo", "SHA1", "--allow-weak-digest-algos")
    assert b"Hash: SHA1" in weak
    assert refused(weak, keys.public).code is FeedCode.SIGNATURE_INVALID


def test_plain_text_has_no_signature(keys: Keys) -> None:
    assert refused(TEXT, keys.public).code is FeedCode.SIGNATURE_MISSING
    assert refused(b"", keys.public).code is FeedCode.SIGNATURE_MISSING


def test_a_signed_message_of_another_form_is_refused(keys: Keys) -> None:
    armored = keys.gpg("-u", keys.key, "--armor", "--sign", stdin=TEXT)
    assert refused(armored, keys.public).code is FeedCode.SIGNATURE_MISSING


def test_a_huge_signed_text_is_refused(keys: Keys) -> None:
    with pytest.raises(FeedError) as caught:
        check(keys.sign(b"x" * 20_000), keys.public, max_bytes=10_000)
    assert caught.value.code is FeedCode.TOO_LARGE


def test_a_keyring_may_be_armored(keys: Keys, tmp_path: Path) -> None:
    ring = tmp_path / "ring.asc"
    armored = keys.gpg("--armor", "--export", keys.key)
    for content in (
        armored,
        b"A comment before.\n" + armored,
        armored.replace(b"\n\n", b"\nVersion: 1\nComment: x\n\n", 1),
        armored.replace(b"\n", b"\r\n"),
        armored + armored,
    ):
        ring.write_bytes(content)
        assert check(keys.sign(), read_keyring(ring)) == TEXT
    ring.write_bytes(keys.public)
    assert read_keyring(ring) == keys.public


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"not a key",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQGN",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQG\n-----END PGP PUBLIC KEY BLOCK-----",
    ],
)
def test_a_keyring_that_cannot_be_used_is_named(content: bytes | None, tmp_path: Path) -> None:
    ring = tmp_path / "ring.gpg"
    if content is not None:
        ring.write_bytes(content)
    with pytest.raises(FeedError, match=r"ring\.gpg") as caught:
        read_keyring(ring)
    assert caught.value.code is FeedCode.KEYRING_UNUSABLE


def test_a_keyring_of_garbage_verifies_nothing(keys: Keys) -> None:
    garbage = base64.b64decode(json.dumps("x" * 400)[1:-1])
    assert refused(keys.sign(), garbage).code is FeedCode.SIGNATURE_INVALID


def test_a_missing_gpgv_names_its_package(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    signed, public = keys.sign(), keys.public
    monkeypatch.setenv("PATH", str(tmp_path))
    error = refused(signed, public)
    assert error.code is FeedCode.VERIFIER_MISSING
    assert "package `gpgv`" in error.message
