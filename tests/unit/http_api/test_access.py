"""Who may do what where."""

from typing import Any

import pytest
from http_api.domain.access import OWNER, Grant, Principal, Role, needed, read_grants
from http_api.domain.documents import ModelError, Reader

SUB = "/subscriptions/S"
GROUP = f"{SUB}/resourceGroups/G"
SETS = f"{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets"
WEB = f"{SETS}/web"


def account(role: Role, scope: str) -> Principal:
    return Principal(name="a", id="1", grants=(Grant(role=role, scope=scope.lower()),))


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", WEB, Role.READER),
        ("HEAD", GROUP, Role.READER),
        ("PUT", WEB, Role.OWNER),
        ("PATCH", WEB, Role.OWNER),
        ("DELETE", WEB, Role.OWNER),
        ("POST", f"{WEB}/osRollingUpgrade", Role.OPERATOR),
        ("POST", f"{WEB}/rollingUpgrades/cancel", Role.OPERATOR),
        ("POST", f"{WEB}/virtualMachines/0/approveRollingUpgrade", Role.OPERATOR),
        ("POST", f"{WEB}/manualupgrade", Role.OPERATOR),
        ("POST", f"{WEB}/delete", Role.OWNER),
        ("PATCH", f"{WEB}/lifecycleHookEvents/x", Role.OPERATOR),
        ("PUT", f"{WEB}/virtualMachines/0", Role.OWNER),
        ("POST", f"{SUB}/providers/Microsoft.Compute/register", Role.READER),
        ("GET", "/rollcall/events", Role.READER),
        ("POST", "/rollcall/holds/a/b/c/1/release", Role.OPERATOR),
        ("GET", "/rollcall/accounts", Role.OWNER),
        ("POST", "/rollcall/accounts", Role.OWNER),
        ("GET", "/metrics", Role.READER),
        ("GET", "/subscriptions", None),
        ("GET", "/tenants", None),
        ("GET", "/rollcall/openapi.json", None),
    ],
)
def test_each_request_needs_a_role(method: str, path: str, role: Role | None) -> None:
    need = needed(method, path)
    assert need.role == role
    assert OWNER.may(need)
    for other in Role:
        allowed = role is None or other >= role
        assert account(other, "/").may(need) is allowed
    assert account(Role.OWNER, "/subscriptions/other").may(need) is (role is None)


@pytest.mark.parametrize(
    ("scope", "path", "allowed"),
    [
        (SUB, WEB, True),
        (GROUP, WEB, True),
        (WEB, WEB, True),
        (WEB, f"{WEB}/virtualMachines/0", True),
        (WEB, f"{WEB}2", False),
        (WEB, SETS, False),
        (GROUP, SETS, True),
        (GROUP, f"{SUB}/resourceGroups/G2/providers", False),
        (WEB, GROUP, True),  # the group that it is in, but not what else is there
        (WEB, f"{GROUP}/resources", False),
        (WEB, SUB, True),
        (WEB, f"{SUB}/providers/Microsoft.Compute/locations/l/publishers", True),
        (WEB, f"{SUB}/providers/Microsoft.Compute/locations/l/operations/x", True),
        (WEB, f"{SUB}/providers/Microsoft.Compute/locations/l/virtualMachineScaleSets", False),
        (WEB, f"{SUB}/providers/Microsoft.Compute/virtualMachineScaleSets", False),
        (WEB, f"{SUB}/resourceGroups", False),
        (GROUP, "/rollcall/scaleSets", False),
    ],
)
def test_a_role_holds_at_and_below_its_scope(scope: str, path: str, allowed: bool) -> None:
    assert account(Role.READER, scope).may(needed("GET", path)) is allowed


def test_only_what_is_seen_is_listed() -> None:
    reader = account(Role.READER, WEB)
    assert reader.sees(SUB)
    assert not reader.sees("/subscriptions/other")
    assert OWNER.sees("/subscriptions/other")


def test_roles_are_read_and_tidied() -> None:
    document: dict[str, Any] = {
        "roles": [
            {"role": "Reader"},
            {"role": "operator", "scope": f"{GROUP}/"},
            {"role": "operator", "scope": GROUP.upper()},
        ]
    }
    assert read_grants(Reader(document)) == (
        Grant(role=Role.READER, scope="/"),
        Grant(role=Role.OPERATOR, scope=GROUP.lower()),
    )


@pytest.mark.parametrize(
    "roles",
    [
        None,
        [],
        ["reader"],
        [{"role": "king"}],
        [{"scope": "/"}],
        [{"role": "reader", "scope": "everywhere"}],
        [{"role": "reader", "scope": "/subscriptions"}],
    ],
)
def test_roles_that_cannot_be_taken(roles: Any) -> None:
    with pytest.raises(ModelError):
        read_grants(Reader({"roles": roles}))
