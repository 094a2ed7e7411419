"""Who may do what where: three roles, each with a scope below which it holds."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum

from rollcall_contracts.model import Failure

from http_api.domain.documents import ModelError, Reader

EVERYWHERE = "/"
_SCOPE = re.compile(
    r"/subscriptions/[^/]+(/resourcegroups/[^/]+(/providers/[^/]+/[^/]+/[^/]+)?)?", re.ASCII
)


class Role(IntEnum):
    """What an account may do; each may do what those before it may."""

    READER = 1  # look
    OPERATOR = 2  # start, cancel, approve and the like: what changes no model
    OWNER = 3  # everything

    @property
    def word(self) -> str:
        """Return the role's name."""
        return self.name.lower()


# The POST actions of operators, by the last word of the path.
_OPERATIONS = frozenset(
    {
        *("osrollingupgrade", "cancel", "pause", "resume", "rollback", "approverollingupgrade"),
        *("manualupgrade", "reimage", "reimageall", "release"),
        *("start", "restart", "poweroff", "deallocate", "redeploy"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A role that somebody has below a scope."""

    role: Role
    scope: str  # in lower case, without a slash at its end; or '/'


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks."""

    name: str
    id: str
    grants: Collection[Grant]

    def may(self, need: "Need") -> bool:
        """Say whether one of the grants is enough."""
        if need.role is None:
            return True
        return any(
            grant.role >= need.role
            and (covers(grant.scope, need.scope) or (need.inside and _inside(need, grant)))
            for grant in self.grants
        )

    def sees(self, scope: str) -> bool:
        """Say whether there is anything at or below a scope that the principal may look at."""
        wanted = scope.lower()
        return any(covers(g.scope, wanted) or covers(wanted, g.scope) for g in self.grants)

    @property
    def scopes(self) -> tuple[str, ...] | None:
        """Return the scopes at and below which the principal may look; None: everywhere."""
        found = tuple(dict.fromkeys(grant.scope for grant in self.grants))
        return None if EVERYWHERE in found else found


OWNER = Principal(
    name="the installation's owner", id="owner", grants=(Grant(role=Role.OWNER, scope=EVERYWHERE),)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a request needs."""

    role: Role | None  # None: whoever logged in
    scope: str
    # Enough is a role on anything below `scope`: what a whole subscription shares.
    inside: bool = False


def covers(scope: str, other: str) -> bool:
    """Say whether `other` is at or below `scope`; both in lower case."""
    return scope == EVERYWHERE or other == scope or other.startswith(scope + "/")


def _inside(need: Need, grant: Grant) -> bool:
    return covers(need.scope, grant.scope)


# Nobody needs a token for these: health, and what clients read before they log in.
_OPEN = re.compile(
    r"/healthz|/readyz|/rollcall/openapi\.json|/metadata/endpoints"
    r"|/[A-Za-z0-9.-]+/(v2\.0/)?\.well-known/openid-configuration"
    r"|/[A-Za-z0-9.-]+/oauth2/(v2\.0/)?token"
    r"|/[A-Za-z0-9.-]+/discovery/(v2\.0/)?keys",
    re.ASCII,
)


def is_open(path: str) -> bool:
    """Say whether a path is answered without a token."""
    return _OPEN.fullmatch(path) is not None


def needed(method: str, path: str) -> Need:
    """Return what a request needs; `path` is a normal one."""
    parts = path.lower().strip("/").split("/")
    if parts == ["providers", "microsoft.resources", "calculatetemplatehash"]:
        return Need(role=Role.READER, scope=EVERYWHERE, inside=True)  # it is work for nothing kept
    if parts[0] in ("tenants", "providers") or parts == ["subscriptions"]:
        return Need(role=None, scope=EVERYWHERE)
    role = _role(method, parts)
    if parts[0] != "subscriptions":
        is_accounts = parts[:2] in (["rollcall", "accounts"], ["rollcall", "keys"])
        shows_own = role is Role.READER and parts[1:2] in (["scalesets"], ["events"])
        return Need(role=Role.OWNER if is_accounts else role, scope=EVERYWHERE, inside=shows_own)
    subscription = "/" + "/".join(parts[:2])
    if _is_shared(parts[2:], role):
        return Need(role=Role.READER, scope=subscription, inside=True)
    if role is Role.READER and (above := _listed_from(parts)):
        return Need(role=role, scope=above, inside=True)
    return Need(role=role, scope="/" + "/".join(parts))


def _listed_from(parts: list[str]) -> str:
    """Return the scope of a list that shows each client its own part of it; '' for others.

    A list that is not named here needs a role on all that could be in it.
    """
    is_group = parts[2:3] == ["resourcegroups"] and len(parts) >= 4
    above = parts[:4] if is_group else parts[:2]
    match parts[len(above) :]:
        case []:
            return "/" + "/".join(above) if is_group else ""
        case ["resources"] | ["providers", "microsoft.network", _]:
            return "/" + "/".join(above)
        case ["providers", "microsoft.insights", "autoscalesettings"]:
            return "/" + "/".join(above)
        case ["providers", "microsoft.compute", "virtualmachinescalesets"]:
            return "/" + "/".join(above)
        case ["resourcegroups"]:
            return "/" + "/".join(above)
        case ["providers", "microsoft.compute", "locations", _, "virtualmachinescalesets"]:
            return "/" + "/".join(above)
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a request does, in Azure's words."""

    name: str  # such as Microsoft.Compute/virtualMachineScaleSets/write
    scope: str


_VERBS = {"PUT": "write", "PATCH": "write", "DELETE": "delete"}


def action_of(method: str, path: str) -> Action:
    """Return what a request does to what; `path` is a normal one, in the client's own case."""
    parts = [part for part in path.split("/") if part]
    namespace, words, before = _words(parts)
    acted: list[str] = []
    if method == "POST" and words:  # `…/name/start`, or two words as in `…/rollingUpgrades/cancel`
        count = 1 if len(words) % 2 else 2
        words, acted = words[:-count], [*words[-count:], "action"]
    kinds = words[::2]
    named = words if len(words) % 2 == 0 else words[:-1]
    scope = [*before, *named] if parts[:1] == ["subscriptions"] else []
    name = [namespace, *kinds, *(acted or [_VERBS.get(method, "read")])]
    return Action(name="/".join(name), scope="/" + "/".join(scope))


def _words(parts: list[str]) -> tuple[str, list[str], list[str]]:
    """Return the provider, its types and names in turns, and what is before them."""
    if "providers" in parts:
        at = len(parts) - 1 - parts[::-1].index("providers")
        return "/".join(parts[at + 1 : at + 2]), parts[at + 2 :], parts[: at + 2]
    if parts[:1] == ["subscriptions"]:
        return "Microsoft.Resources", parts, []
    if parts[:1] == ["rollcall"]:
        ending = parts[-1:] if len(parts) > 3 else []  # what is done to it, or a part of it
        return "Rollcall", [*parts[1:2], *([""] if ending else []), *ending], []
    return "Rollcall", parts[:1], []


def _is_shared(rest: list[str], role: Role) -> bool:
    """Say whether all who work in a subscription may see it: places, providers, images."""
    match rest:
        case ["providers"] | ["providers", _] | ["providers", _, "register" | "unregister"]:
            return True
        case [] | ["locations"]:
            return role is Role.READER
        case ["providers", _, "locations", _, "publishers" | "operations" | "operationresults", *_]:
            return role is Role.READER
    return False


def _role(method: str, parts: list[str]) -> Role:
    if method in ("GET", "HEAD", "OPTIONS"):
        return Role.READER
    if method == "POST" and parts[-1] in _OPERATIONS:
        return Role.OPERATOR
    if method == "PATCH" and parts[8:9] == ["lifecyclehookevents"] and len(parts) == 10:
        return Role.OPERATOR  # the answer of a hook; names before and after it can be any word
    return Role.OWNER


def read_grants(reader: Reader) -> tuple[Grant, ...]:
    """Return the `roles` of an account's document. Raises ModelError."""
    grants: list[Grant] = []
    for index, item in enumerate(reader.objects("roles")):
        inner = Reader(item)
        role = inner.choice("role", [each.word for each in Role], "")
        scope = (inner.text("scope", EVERYWHERE) or EVERYWHERE).lower()
        scope = scope.rstrip("/") or EVERYWHERE
        if not role:
            inner.fault("role", "role must be one of reader, operator, owner")
        if scope != EVERYWHERE and not _SCOPE.fullmatch(scope):
            inner.fault(
                "scope",
                "scope must be '/', or the id of a subscription, a resource group or a resource",
            )
        reader.take(inner, f"roles[{index}]")
        if not inner.faults:
            grants.append(Grant(role=Role[role.upper()], scope=scope))
    if not grants and not reader.faults:
        raise ModelError(
            Failure(
                code="InvalidParameter",
                message='roles must be a list such as [{"role": "reader", "scope": "/"}]',
                target="roles",
            )
        )
    reader.finish()
    return tuple(dict.fromkeys(grants))
