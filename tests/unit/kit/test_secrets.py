"""Sealing with one key, and with several while they are changed."""

import base64

import pytest
from rollcall_kit.secrets import SealError, new_key, resealed, seal, unseal

# Not fresh ones: they are in the names of tests, which must be the same in each process.
OLD, NEW, OTHER = (base64.urlsafe_b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("sealed_with", "opened_with"),
    [(OLD, OLD), (OLD, f"{NEW},{OLD}"), (OLD, f"{OLD}, {NEW}"), (f"{NEW},{OLD}", NEW)],
)
def test_each_key_opens_and_the_first_one_seals(sealed_with: str, opened_with: str) -> None:
    assert unseal(opened_with, seal(sealed_with, "sécret")) == "sécret"


@pytest.mark.parametrize("key", [NEW, f"{NEW},{OTHER}"])
def test_what_another_key_sealed_is_not_opened(key: str) -> None:
    sealed = seal(f"{OLD},{NEW}", "x")
    for work in (unseal, resealed):
        with pytest.raises(SealError, match="ROLLCALL_SECRETS_KEY"):
            work(key, sealed)


def test_what_the_first_key_sealed_stays_as_it_is() -> None:
    sealed = seal(OLD, "x")
    assert resealed(OLD, sealed) == sealed
    assert resealed(f"{OLD},{NEW}", sealed) == sealed
    newer = resealed(f"{NEW},{OLD}", sealed)
    assert newer != sealed
    assert unseal(NEW, newer) == "x"


def test_a_fresh_key_is_another_one_each_time() -> None:
    keys = {new_key(), new_key()}
    assert len(keys) == 2
    assert all(unseal(key, seal(key, "x")) == "x" for key in keys)


@pytest.mark.parametrize("key", ["", "short", f"{OLD},", f"{OLD},short"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="32 url-safe"):
        seal(key, "x")
