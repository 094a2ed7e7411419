"""What a provider's claims and keys amount to."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from http_api.domain.access import Grant, Role
from http_api.external import ProviderConfig, groups_of, principal_of, read_mapping, usable_keys
from jwt.algorithms import ECAlgorithm
from rollcall_testing.openid_provider import ec_key, public_document, rsa_key

CONFIG = ProviderConfig(
    issuer="https://x",
    audience="a",
    claim="groups",
    grants=read_mapping({"ops": [{"role": "operator", "scope": "/subscriptions/S"}]}),
)


@pytest.mark.parametrize(
    ("claims", "claim", "expected"),
    [
        ({"roles": ["a", "b"]}, "roles", ["a", "b"]),
        ({"scope": "a b"}, "scope", ["a", "b"]),
        ({"realm": {"roles": ["a"]}}, "realm.roles", ["a"]),
        ({"https://x.y/roles": ["a"]}, "https://x.y/roles", ["a"]),
        ({"roles": ["a", 1, None, {"b": 1}]}, "roles", ["a"]),
        ({"roles": {"a": 1}}, "roles", []),
        ({"roles": 7}, "roles.more", []),
        ({}, "roles", []),
    ],
)
def test_groups_are_read_from_the_claim(
    claims: dict[str, Any], claim: str, expected: list[str]
) -> None:
    assert groups_of(claims, claim) == expected


def test_a_bearer_has_a_name_an_id_and_the_grants_of_its_groups() -> None:
    found = principal_of(
        {"sub": "s", "oid": "o", "name": "Ann\nforged=1", "groups": ["ops", "x"]}, CONFIG
    )
    assert (found.name, found.id) == ("Ann?forged=1", "o")
    assert found.grants == (Grant(role=Role.OPERATOR, scope="/subscriptions/s"),)
    assert principal_of({"sub": "s"}, CONFIG).grants == ()


def document(key: Any, **more: Any) -> dict[str, Any]:
    return {**public_document(key), "kid": "k", **more}


def test_only_keys_that_are_for_signing_and_strong_enough_count() -> None:
    strong, weak, curve = rsa_key(), rsa_key(1024), ec_key()
    other = ec.generate_private_key(ec.SECP384R1())
    large: dict[str, Any] = ECAlgorithm.to_jwk(other.public_key(), as_dict=True)
    assert set(usable_keys([document(strong)])) == {("RS256", "k")}
    assert set(usable_keys([document(curve)])) == {("ES256", "k")}
    for unusable in (
        document(strong, use="enc"),
        document(strong, alg="RS512"),
        document(strong, kid=7),
        document(weak),
        {**large, "kid": "k"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "k"},
        {"kty": "RSA", "kid": "k", "n": "!!", "e": "AQAB"},
        "text",
    ):
        assert usable_keys([unusable]) == {}
    assert usable_keys(None) == {}
