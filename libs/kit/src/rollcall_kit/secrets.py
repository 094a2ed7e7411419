"""Sealing of what must not be read on the way: custom data and protected settings.

http-api seals, agents open; the broker, the event log and auditors only ever see the sealed text.
A key may be several, with commas between them: the first one seals, and each of them opens.
"""

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class SealError(ValueError):
    """The sealed text was made with another key, or changed."""


def new_key() -> str:
    """Return a fresh key for `ROLLCALL_SECRETS_KEY`."""
    return Fernet.generate_key().decode()


def _keys(key: str) -> list[Fernet]:
    return [Fernet(each.strip().encode()) for each in key.split(",")]


def seal(key: str, text: str) -> str:
    """Return `text` encrypted and authenticated under the first key."""
    return _keys(key)[0].encrypt(text.encode()).decode()


def unseal(key: str, sealed: str) -> str:
    """Return the text of `seal`. Raises SealError when no key is the one it was made with."""
    try:
        return MultiFernet(_keys(key)).decrypt(sealed.encode()).decode()
    except (InvalidToken, ValueError) as error:
        raise SealError(
            "a secret of the model cannot be opened: ROLLCALL_SECRETS_KEY differs between "
            "http-api and this agent"
        ) from error


def resealed(key: str, sealed: str) -> str:
    """Return the same content sealed with the first key: the same text, where it is already.

    Raises SealError when no key is the one it was made with.
    """
    try:
        _keys(key)[0].decrypt(sealed.encode())
    except InvalidToken:
        return seal(key, unseal(key, sealed))
    return sealed
