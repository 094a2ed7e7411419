"""Sealing of what must not be read on the way: custom data and protected settings.

http-api seals, agents open; the broker, the event log and auditors only ever see the sealed text.
"""

from cryptography.fernet import Fernet, InvalidToken


class SealError(ValueError):
    """The sealed text was made with another key, or changed."""


def new_key() -> str:
    """Return a fresh key for `ROLLCALL_SECRETS_KEY`."""
    return Fernet.generate_key().decode()


def seal(key: str, text: str) -> str:
    """Return `text` encrypted and authenticated under `key`."""
    return Fernet(key.encode()).encrypt(text.encode()).decode()


def unseal(key: str, sealed: str) -> str:
    """Return the text of `seal`. Raises SealError when the key is not the one it was made with."""
    try:
        return Fernet(key.encode()).decrypt(sealed.encode()).decode()
    except (InvalidToken, ValueError) as error:
        raise SealError(
            "a secret of the model cannot be opened: ROLLCALL_SECRETS_KEY differs between "
            "http-api and this agent"
        ) from error
