"""Who may do what: each route with each role, at its place and beside it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from http_api.openapi import routes_of
from http_api.openapi.document import route_name
from http_api.web import ROUTERS
from structlog.testing import capture_logs

GROUP = "/subscriptions/s/resourceGroups/g"
SET = f"{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/web"
ROLES = ("reader", "operator", "owner")
# Which role each route needs, and where: at the resource in its path (`here`), anywhere in the
# subscription (`shared`: what all who work in it see, or lists of which each sees its own part),
# on the whole installation. `login`: whoever logged in; `open`: nobody needs a token.
RULES = {
    "open": "operations.healthz operations.readyz login.endpoints login.openid_configuration "
    "login.keys login.token",
    "login": "subscriptions.subscriptions subscriptions.tenants subscriptions.operations",
    "reader here": "scale_sets.get scale_sets.list_skus extensions.list_extensions "
    "extensions.get_extension scale_sets.get_view upgrades.history upgrades.latest "
    "upgrades.full_history upgrades.one_upgrade upgrades.events_of_upgrade hooks.list_all "
    "hooks.get explain.explain explain.state instances.list_all instances.get "
    "instances.get_view load_balancers.get load_balancers.list_parts load_balancers.get_part "
    "networks.get networks.list_parts networks.get_part groups.get groups.head "
    "deployments.get deployments.head deployments.list_all deployments.get_status "
    "deployments.list_operations deployments.get_operation autoscale.get existence.head",
    "reader shared": "autoscale.list_all "
    "scale_sets.list_all load_balancers.list_all networks.list_all "
    "groups.list_all groups.list_resources images.publishers images.offers images.skus "
    "images.versions images.one_version status.get status.get_result "
    "subscriptions.subscription subscriptions.locations subscriptions.providers "
    "subscriptions.provider subscriptions.register",
    "reader anywhere": "deployments.calculate_hash operations.scale_sets events.list_events "
    "events.stream_events",
    "reader installation": "operations.metrics operations.feeds operations.hosts "
    "operations.health holds.list_all",
    "operator here": "steering.start steering.cancel steering.pause steering.resume "
    "steering.roll_back steering.approve steering.approve_one hooks.answer "
    "instances.deploy_model actions.reimage actions.reimage_one actions.change "
    "actions.change_one deployments.cancel",
    "operator installation": "holds.release",
    "owner here": "scale_sets.put scale_sets.patch scale_sets.delete instances.put "
    "actions.delete_some actions.delete_one extensions.put extensions.patch extensions.delete "
    "instances.refuse load_balancers.put "
    "load_balancers.patch load_balancers.delete networks.put networks.patch networks.delete "
    "networks.put_part networks.delete_part groups.put groups.patch groups.delete "
    "autoscale.put autoscale.patch autoscale.delete deployments.put deployments.delete "
    "deployments.validate deployments.what_if deployments.export_template "
    "load_balancers.put_rule load_balancers.delete_rule",
    "owner installation": "accounts.list_all accounts.add accounts.get accounts.put_roles "
    "accounts.renew accounts.remove keys.list_all keys.rotate",
}
RULE_OF = {name: rule for rule, names in RULES.items() for name in names.split()}
# In the path of every request; what is not named here is `x`.
PLACES = {"subscription": "s", "group": "g", "name": "web", "tenant": "common", "kind": "subnets"}


def calls() -> list[tuple[str, str, str]]:
    """Return (rule, method, path) of each route, from the route table itself."""
    found = []
    for route in routes_of(ROUTERS):
        rule = RULE_OF.get(route_name(route), "")
        found += [(rule, method, path_of(route)) for method in sorted(route.methods or ())]
    return found


def path_of(route: APIRoute) -> str:
    """Return a path that the route answers, with an api-version."""
    values = {name: PLACES.get(name, "x") for name in route.param_convertors}
    return route.path_format.format(**values) + "?api-version=2024-11-01"


def is_let_in(rule: str, role: str, at: str) -> bool:
    """Say whether somebody with a role on the installation, the group or elsewhere may."""
    if rule in ("open", "login"):
        return True
    needed, where = rule.split()
    covered = {
        "installation": ("installation", "here", "shared", "anywhere"),
        "group": ("here", "shared", "anywhere"),
        "elsewhere": ("anywhere",),
    }[at]
    return where in covered and ROLES.index(role) >= ROLES.index(needed)


def test_every_route_has_a_rule() -> None:
    names = {route_name(route) for route in routes_of(ROUTERS)}
    assert names - set(RULE_OF) == set(), "say in RULES who may call it"
    assert set(RULE_OF) - names == set(), "there is no such route"


SCOPES = {"installation": "/", "group": GROUP, "elsewhere": "/subscriptions/other"}


@pytest.fixture
async def clients(api: Any) -> AsyncIterator[dict[tuple[str, str], httpx.AsyncClient]]:
    """A client of each role and scope, logged in; and one that is not."""
    found: dict[tuple[str, str], httpx.AsyncClient] = {}
    async with AsyncExitStack() as stack:
        for at, scope in SCOPES.items():
            for role in ROLES:
                token = await log_in(api, role, scope, f"{role} of {at}")
                found[at, role] = await stack.enter_async_context(client(api, token))
        found["nowhere", ""] = await stack.enter_async_context(client(api, ""))
        yield found


def client(api: Any, token: str) -> httpx.AsyncClient:
    """Return a client with a token."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(base_url=str(api.http.base_url), headers=headers, timeout=60)


async def log_in(api: Any, role: str, scope: str, name: str) -> str:
    """Make an account with a role; return a token of it."""
    body = {"name": name, "roles": [{"role": role, "scope": scope}]}
    made = (await api.http.post("/rollcall/accounts", json=body)).json()
    answer = await api.http.post(
        f"/{made['tenantId']}/oauth2/v2.0/token",
        data={
            "client_id": made["clientId"],
            "client_secret": made["clientSecret"],
            "grant_type": "client_credentials",
        },
    )
    token: str = answer.json()["access_token"]
    return token


async def test_each_route_lets_in_whom_its_rule_says(
    api: Any, clients: dict[tuple[str, str], httpx.AsyncClient]
) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    wrong = []
    for rule, method, path in calls():
        for (at, role), http in clients.items():
            status = (await http.request(method, path)).status_code
            expected = {True: "let in", False: "refused"}
            if at == "nowhere":
                wanted = expected[rule == "open"]
                found = expected[status != 401 or rule == "open"]
            else:
                wanted = expected[is_let_in(rule, role, at)]
                found = expected[status != 403]
                if status == 401 and rule != "open":
                    found = "unknown"
            if found != wanted:
                wrong.append(f"{method} {path} for the {role} of {at}: {status}, not {wanted}")
    assert wrong == []


async def test_a_refusal_is_azures_and_leaves_one_line_that_says_who_and_what(
    api: Any, clients: dict[tuple[str, str], httpx.AsyncClient]
) -> None:
    robot = clients["group", "reader"]
    with capture_logs() as logs:
        refused = await robot.put(f"{SET}?api-version=2024-11-01", json={})
    (line,) = [each for each in logs if each["event"] == "call_refused"]
    assert line["who"] == "reader of group"
    assert line["action"] == "Microsoft.Compute/virtualMachineScaleSets/write"
    assert (line["scope"], line["needs"], line["method"]) == (SET, "owner", "PUT")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (403, "AuthorizationFailed")
    assert error["message"].startswith(
        f"The client 'reader of group' with object id '{line['client_id']}' does not have "
        "authorization to perform action 'Microsoft.Compute/virtualMachineScaleSets/write' over "
        f"scope '{SET}' or the scope is invalid"
    )


async def test_a_set_names_no_probe_that_its_writer_may_not_look_at(api: Any) -> None:
    other = "/subscriptions/s/resourceGroups/other"
    balancer = f"{other}/providers/Microsoft.Network/loadBalancers/lb"
    await api.put(balancer, api.balancer_body("app"), 201)
    version = {"api-version": "2024-11-01"}

    def body(probe: str) -> dict[str, Any]:
        network = {"healthProbe": {"id": f"{balancer}/probes/{probe}"}}
        found: dict[str, Any] = api.scale_set_body(1, networkProfile=network)
        return found

    async with client(api, await log_in(api, "owner", GROUP, "robot")) as http:
        answers = []
        for probe in ("app", "none"):
            answer = await http.put(SET, json=body(probe), params=version)
            assert answer.status_code == 403
            error = answer.json()["error"]
            assert error["code"] == "LinkedAuthorizationFailed"
            answers.append(error["message"])
        assert answers[0] == answers[1]  # nobody learns which probes there are
        made = await http.put(SET, json=api.scale_set_body(1), params=version)
        assert made.status_code == 201
        answer = await http.patch(SET, json=body("app"), params=version)
        assert answer.status_code == 403
        await api.put(SET, body("app"))  # by somebody who may
        answer = await http.patch(SET, json={"sku": {"capacity": 2}}, params=version)
        assert answer.status_code == 200, "what it named before is left to it"
        answer = await http.put(SET, json=body("app"), params=version)
        assert answer.status_code == 200
        answer = await http.patch(
            SET,
            json={"properties": {"virtualMachineProfile": {"networkProfile": None}}},
            params=version,
        )
        assert answer.status_code == 200
    grants = {"roles": [{"role": "owner", "scope": GROUP}, {"role": "reader", "scope": balancer}]}
    made = (await api.http.post("/rollcall/accounts", json={"name": "both", **grants})).json()
    login = {
        "client_id": made["clientId"],
        "client_secret": made["clientSecret"],
        "grant_type": "client_credentials",
    }
    answer = await api.http.post(f"/{made['tenantId']}/oauth2/v2.0/token", data=login)
    async with client(api, answer.json()["access_token"]) as http:
        answer = await http.put(SET, json=body("app"), params=version)
        assert answer.status_code == 200


async def test_an_operation_is_shown_to_those_who_may_look_at_its_resource(api: Any) -> None:
    sets = "providers/Microsoft.Compute/virtualMachineScaleSets"
    written = await api.ask("PUT", SET, api.scale_set_body(1))
    assert written.status_code == 201
    status = written.headers["azure-asyncoperation"]
    result = status.replace("/operations/", "/operationResults/")
    scopes = {
        "/": True,
        "/subscriptions/s": True,
        GROUP: True,
        SET: True,
        f"{GROUP}/{sets}/web2": False,
        "/subscriptions/s/resourceGroups/hidden": False,
    }
    for scope, is_shown in scopes.items():
        token = await log_in(api, "reader", scope, "robot")
        async with client(api, token) as http:
            for url in (status, result):
                answer = await http.get(url)
                if is_shown:
                    assert answer.status_code in (200, 202, 204), (scope, answer.text)
                else:
                    assert answer.status_code == 404, scope
                    assert answer.json()["error"]["code"] == "OperationNotFound"
                    assert "/web" not in answer.text


async def test_lists_have_what_the_client_may_see_and_page_through_it(api: Any) -> None:
    sets = "providers/Microsoft.Compute/virtualMachineScaleSets"
    networks = "providers/Microsoft.Network/virtualNetworks"
    balancers = "providers/Microsoft.Network/loadBalancers"
    own, other = f"{GROUP}/{sets}/web", f"{GROUP}/{sets}/web2"
    hidden = f"/subscriptions/s/resourceGroups/hidden/{sets}/web"
    for path in (own, other, hidden):
        await api.put(path, api.scale_set_body(1), 201)
    for group in ("g", "hidden"):
        base = f"/subscriptions/s/resourceGroups/{group}"
        await api.put(f"{base}/{networks}/net", {"location": "local"}, 201)
        await api.put(f"{base}/{balancers}/lb", api.balancer_body("app"), 201)
    seen: dict[str, dict[str, list[str]]] = {}
    lists = {
        "sets": f"/subscriptions/s/{sets}",
        "in group": f"{GROUP}/{sets}",
        "in place": "/subscriptions/s/providers/Microsoft.Compute/locations/local"
        "/virtualMachineScaleSets",
        "all sets": "/rollcall/scaleSets",
        "networks": f"/subscriptions/s/{networks}",
        "balancers": f"/subscriptions/s/{balancers}",
        "resources": "/subscriptions/s/resources",
        "groups": "/subscriptions/s/resourceGroups",
    }
    for scope in (own, GROUP, "/subscriptions/s"):
        token = await log_in(api, "reader", scope, "robot")
        async with client(api, token) as http:
            seen[scope] = {name: await everything(http, path) for name, path in lists.items()}
            events = await http.get("/rollcall/events", params={"scaleSet": hidden})
            assert events.status_code == (200 if scope == "/subscriptions/s" else 403)
            assert (await http.get("/rollcall/events", params={"scaleSet": own})).is_success
            assert (await http.get("/rollcall/events", params={"stream": "images"})).is_success
    one = {name: [own] for name in ("sets", "in group", "in place", "all sets", "resources")}
    assert seen[own] == {**one, "networks": [], "balancers": [], "groups": [GROUP]}
    mine = seen[GROUP]
    assert mine["sets"] == mine["in place"] == mine["all sets"] == [own, other]
    assert mine["networks"] == [f"{GROUP}/{networks}/net"]
    assert mine["balancers"] == [f"{GROUP}/{balancers}/lb"]
    assert (len(mine["resources"]), mine["groups"]) == (4, [GROUP])
    whole = seen["/subscriptions/s"]
    assert whole["sets"] == [own, other, hidden]
    assert (len(whole["resources"]), len(whole["groups"]), len(whole["networks"])) == (7, 2, 2)


async def everything(http: httpx.AsyncClient, path: str) -> list[str]:
    """Return the ids of a list, page by page."""
    found: list[str] = []
    url = f"{path}?api-version=2024-11-01&$top=1"
    while url:
        answer = await http.get(url)
        assert answer.status_code == 200, answer.text
        found += [each["id"] for each in answer.json()["value"]]
        url = answer.json().get("nextLink", "")
    return found
