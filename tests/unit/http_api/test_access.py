"""Who may do what where."""

from typing import Any

import pytest
from http_api.domain.access import (
    OWNER,
    Grant,
    Principal,
    Role,
    action_of,
    is_open,
    needed,
    read_grants,
)
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
        ("PATCH", f"{SETS}/lifecycleHookEvents", Role.OWNER),  # models, whatever their names
        ("PATCH", f"{SETS}/lifecycleHookEvents/extensions/x", Role.OWNER),
        ("PATCH", f"{WEB}/extensions/lifecycleHookEvents", Role.OWNER),
        ("PATCH", f"{SUB}/resourceGroups/lifecycleHookEvents", Role.OWNER),
        (
            "PATCH",
            f"{GROUP}/providers/Microsoft.Network/loadBalancers/lifecycleHookEvents",
            Role.OWNER,
        ),
        ("PUT", f"{WEB}/virtualMachines/0", Role.OWNER),
        ("POST", f"{SUB}/providers/Microsoft.Compute/register", Role.READER),
        ("GET", "/rollcall/hosts", Role.READER),
        ("POST", "/rollcall/holds/a/b/c/1/release", Role.OPERATOR),
        ("GET", "/rollcall/accounts", Role.OWNER),
        ("POST", "/rollcall/accounts", Role.OWNER),
        ("GET", "/metrics", Role.READER),
        ("GET", "/subscriptions", None),
        ("GET", "/tenants", None),
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
        (WEB, SETS, True),
        (GROUP, SETS, True),
        (GROUP, f"{SUB}/resourceGroups/G2/providers", False),
        (WEB, GROUP, True),  # the group that it is in, but not what else is there
        (WEB, f"{GROUP}/resources", True),  # its own part of the list
        (f"{GROUP}2", f"{GROUP}/resources", False),
        (WEB, f"{GROUP}/providers/Microsoft.Resources/deployments", False),
        (WEB, SUB, True),
        (WEB, f"{SUB}/providers/Microsoft.Compute/locations/l/publishers", True),
        (WEB, f"{SUB}/providers/Microsoft.Compute/locations/l/operations/x", True),
        (WEB, f"{SUB}/providers/Microsoft.Compute/locations/l/virtualMachineScaleSets", True),
        (WEB, f"{SUB}/providers/Microsoft.Compute/virtualMachineScaleSets", True),
        (WEB, f"{SUB}/resourceGroups", True),
        (GROUP, "/rollcall/scaleSets", True),
        (GROUP, "/rollcall/hosts", False),
    ],
)
def test_a_role_holds_at_and_below_its_scope(scope: str, path: str, allowed: bool) -> None:
    assert account(Role.READER, scope).may(needed("GET", path)) is allowed


def test_the_hash_of_a_template_is_for_all_who_have_a_role_somewhere() -> None:
    need = needed("POST", "/providers/Microsoft.Resources/calculateTemplateHash")
    assert account(Role.READER, WEB).may(need)
    assert not Principal(name="a", id="1", grants=()).may(need)


def test_only_what_is_seen_is_listed() -> None:
    reader = account(Role.READER, WEB)
    assert reader.sees(SUB)
    assert not reader.sees("/subscriptions/other")
    assert OWNER.sees("/subscriptions/other")


def test_lists_are_cut_to_the_scopes_of_the_client() -> None:
    assert account(Role.READER, WEB).scopes == (WEB.lower(),)
    assert OWNER.scopes is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/healthz", True),
        ("/rollcall/openapi.json", True),
        ("/common/v2.0/.well-known/openid-configuration", True),
        ("/adfs/oauth2/token", True),
        ("/metrics", False),
        ("/healthz/", False),
        ("/a/b/oauth2/token", False),
        ("/subscriptions/s/oauth2/token", False),
        ("/x\n/oauth2/token", False),
        ("/healthz\n", False),
        ("/common/discovery/keys/..", False),
    ],
)
def test_what_needs_no_token(path: str, expected: bool) -> None:
    assert is_open(path) is expected


@pytest.mark.parametrize(
    ("method", "path", "action", "scope"),
    [
        ("PUT", WEB, "Microsoft.Compute/virtualMachineScaleSets/write", WEB),
        (
            "GET",
            SETS,
            "Microsoft.Compute/virtualMachineScaleSets/read",
            f"{GROUP}/providers/Microsoft.Compute",
        ),
        (
            "POST",
            f"{WEB}/rollingUpgrades/cancel",
            "Microsoft.Compute/virtualMachineScaleSets/rollingUpgrades/cancel/action",
            WEB,
        ),
        (
            "POST",
            f"{WEB}/virtualMachines/0/reimage",
            "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/reimage/action",
            f"{WEB}/virtualMachines/0",
        ),
        ("DELETE", GROUP, "Microsoft.Resources/subscriptions/resourceGroups/delete", GROUP),
        ("PUT", "/rollcall/accounts/1/roles", "Rollcall/accounts/roles/write", "/"),
        ("POST", "/rollcall/accounts", "Rollcall/accounts/action", "/"),
        ("GET", "/metrics", "Rollcall/metrics/read", "/"),
        ("BREW", "/", "Rollcall/read", "/"),
    ],
)
def test_what_is_refused_is_named_in_azures_words(
    method: str, path: str, action: str, scope: str
) -> None:
    found = action_of(method, path)
    assert (found.name, found.scope.rstrip("/") or "/") == (action, scope)


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
