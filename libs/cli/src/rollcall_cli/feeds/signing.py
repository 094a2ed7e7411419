"""Signing of a feed's documents: PGP clear-signed `.sjson` files beside the plain ones.

Uses the system's gpg. With a folder of keys of its own (`gnupghome`) its agent is stopped again.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rollcall_cli.feeds.folder import (
    INDEX,
    FeedFolderError,
    dict_of,
    locked,
    read_document,
    write_atomically,
)

GPG_TIMEOUT = 120.0  # seconds; a person may have to type a passphrase


def sign_feed(
    folder: Path, *, key: str, gnupghome: Path | None = None, keyring_out: Path | None = None
) -> None:
    """Write the signed form of each document, the index last, with the key named by `key`.

    `keyring_out` gets the public key, as `keyring:` of the configuration wants it. Raises
    FeedFolderError: no feed, no such key, no gpg.
    """
    with locked(folder), _keys(gnupghome) as options:
        index = read_document(folder, INDEX)
        for name, value in dict_of(index.get("index")).items():
            entry = dict_of(value)
            path = str(entry["path"])
            signed = path.removesuffix(".json") + ".sjson"
            _sign(options, key, (folder / path).read_bytes(), folder / signed)
            index["index"][name] = {**entry, "path": signed}
        text = (json.dumps(index, indent=1) + "\n").encode()
        _sign(options, key, text, (folder / INDEX).with_suffix(".sjson"))
        if keyring_out is not None:
            public = _gpg([*options, "--export", key])
            if not public:
                raise FeedFolderError(f"gpg has no public key {key}")
            write_atomically(keyring_out, public)


def make_signing_key(gnupghome: Path, name: str) -> str:
    """Make a key without passphrase in `gnupghome`, for feeds that a program signs.

    Returns its fingerprint. Raises FeedFolderError when gpg is missing or fails.
    """
    gnupghome.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _keys(gnupghome) as options:
        said = _gpg(
            [
                *options,
                *("--pinentry-mode", "loopback", "--passphrase", "", "--status-fd", "1"),
                *("--quick-generate-key", name, "ed25519", "sign", "never"),
            ]
        )
    for line in said.decode().splitlines():
        words = line.split()
        if words[:2] == ["[GNUPG:]", "KEY_CREATED"]:
            return words[3]
    raise FeedFolderError(f"gpg did not say which key it made for {name!r}")


@contextmanager
def _keys(gnupghome: Path | None) -> Iterator[Sequence[str]]:
    """Give gpg's options for a folder of keys, and leave no agent of it running."""
    if gnupghome is None:
        yield ()
        return
    with tempfile.TemporaryDirectory(prefix="rollcall-gpg-") as folder:
        # The agent's socket lies in the folder, and a socket's path must be shorter than 108 bytes.
        short = Path(folder) / "home"
        short.symlink_to(gnupghome.resolve(), target_is_directory=True)
        try:
            yield ("--homedir", str(short))
        finally:
            _run(["gpgconf", "--homedir", str(short), "--kill", "all"], b"")


def _sign(options: Sequence[str], key: str, text: bytes, target: Path) -> None:
    arguments = [*options, "--local-user", key, "--digest-algo", "SHA512", "--clear-sign"]
    write_atomically(target, _gpg(arguments, text))


def _gpg(arguments: Sequence[str], stdin: bytes = b"") -> bytes:
    return _run(["gpg", "--batch", "--no-tty", "--yes", "--quiet", *arguments], stdin)


def _run(command: Sequence[str], stdin: bytes) -> bytes:
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=GPG_TIMEOUT)
    except FileNotFoundError as error:
        raise FeedFolderError(
            f"{command[0]} is not installed: install the package `gnupg`"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise FeedFolderError(f"{command[0]} took longer than {GPG_TIMEOUT:g} s") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise FeedFolderError(f"{command[0]} failed with status {done.returncode}: {said}")
    return done.stdout
