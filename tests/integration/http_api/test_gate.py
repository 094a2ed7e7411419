"""What holds for every request: token, api-version, errors in ARM's shape, log, operations."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

GROUP = "/subscriptions/s/resourceGroups/g"
SET = f"{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/web"


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert set(document) == {"error"}
    error: dict[str, Any] = document["error"]
    assert error["code"]
    assert error["message"]
    return error


@pytest.mark.parametrize("path", [SET, "/rollcall/events", "/metrics", "/nothing", "/"])
@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "AuthenticationFailed"),
        ("Basic dXNlcg==", "AuthenticationFailed"),
        ("Bearer", "AuthenticationFailed"),
        ("Bearer wrong", "InvalidAuthenticationToken"),
        ("Bearer t\u00f6ken", "InvalidAuthenticationToken"),
    ],
)
async def test_nobody_is_let_in_without_the_token(
    api: Any, path: str, header: str | None, code: str
) -> None:
    async with httpx.AsyncClient(base_url=str(api.http.base_url)) as stranger:
        headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
        response = await stranger.get(path, headers=headers)
    assert error_of(response, 401)["code"] == code
    assert response.headers["www-authenticate"] == "Bearer"


async def test_health_needs_no_token(api: Any) -> None:
    async with httpx.AsyncClient(base_url=str(api.http.base_url)) as stranger:
        assert (await stranger.get("/healthz")).status_code == 200
        assert (await stranger.get("/readyz")).status_code == 503


@pytest.mark.parametrize("options", [{"api_metrics_open": True}])
async def test_metrics_can_be_opened(api: Any) -> None:
    async with httpx.AsyncClient(base_url=str(api.http.base_url)) as stranger:
        assert (await stranger.get("/metrics")).status_code == 200


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "MissingApiVersionParameter"),
        ("api-version=", "MissingApiVersionParameter"),
        ("api-version=newest", "InvalidApiVersionParameter"),
        ("api-version=2018-13-01", "InvalidApiVersionParameter"),
        ("api-version=2018-10-01", "ResourceNotFound"),
        ("API-Version=2018-10-01", "ResourceNotFound"),
        ("api-version=2031-01-01-preview", "ResourceNotFound"),
    ],
)
async def test_api_version_is_required_and_any_is_taken(api: Any, query: str, code: str) -> None:
    response = await api.http.get(f"{SET}?{query}")
    assert error_of(response, response.status_code)["code"] == code


async def test_unknown_paths_and_methods_have_arms_shape(api: Any) -> None:
    assert error_of(await api.http.get("/nothing"), 404)["code"] == "NotFound"
    response = await api.http.request("POST", f"{SET}?api-version=2018-10-01")
    assert error_of(response, 405)["code"] == "MethodNotAllowed"
    assert response.headers["allow"] == "DELETE, GET, HEAD, PATCH, PUT"
    name = SET.replace("web", "w%0Ab")
    assert error_of(await api.ask("GET", name), 400)["code"] == "InvalidResourceName"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": "\\u0000"}', b"\xff"])
async def test_bodies_that_are_no_json_object(api: Any, content: bytes) -> None:
    response = await api.http.put(f"{SET}?api-version=2018-10-01", content=content)
    assert error_of(response, 400)["code"] == "InvalidRequestContent"


@pytest.mark.parametrize("options", [{"api_max_body": 2000}])
async def test_a_body_that_is_too_large(api: Any) -> None:
    response = await api.http.put(f"{SET}?api-version=2018-10-01", content=b"x" * 3000)
    assert error_of(response, 413)["code"] == "RequestEntityTooLarge"


@pytest.mark.parametrize("options", [{"require_health_source": True}])
async def test_m34_a_setting_makes_a_health_source_mandatory(api: Any) -> None:
    error = await api.error("PUT", api.set, 400, api.scale_set_body(3, enable=True))
    assert error["code"] == "BadRequest"
    assert error["message"] == (
        "Automatic OS Upgrade is not supported for this Virtual Machine Scale Set because a "
        "health probe or health extension was not specified."
    )


async def test_a_missing_view_is_503_and_readyz_names_it(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(3), 201)
    await api.pool.execute("DROP VIEW upgrade_view")
    error = await api.error("GET", f"{api.set}/osUpgradeHistory", 503)
    assert error["code"] == "ServiceUnavailable"
    response = await api.http.get("/readyz")
    targets = [detail["target"] for detail in error_of(response, 503)["details"]]
    assert targets == ["upgrade_view", "broker"]


async def test_a_fault_of_ours_is_logged_and_not_shown(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(3), 201)
    await api.pool.execute('UPDATE scale_sets SET model = \'{"sku": "secret"}\'')
    with capture_logs() as logs:
        error = await api.error("GET", api.set, 500)
    assert "secret" not in json.dumps(error)
    assert [line["event"] for line in logs] == ["request_failed", "request_handled"]
    assert logs[1]["request_id"] in error["message"]


async def test_the_log_has_no_query_and_no_token(api: Any) -> None:
    with capture_logs() as logs:
        await api.get(api.set, 404, params={"sig": "s3cret"})
    (line,) = logs
    assert (line["event"], line["path"], line["status"]) == ("request_handled", SET, 404)
    assert "s3cret" not in json.dumps(logs)
    assert "token" not in json.dumps(logs)


async def test_feeds_and_hosts(api: Any) -> None:
    error = {"code": "FeedStale", "message": "old", "target": "t"}
    await api.pool.execute(
        "INSERT INTO feeds (feed, url, error) VALUES "
        "('good', 'https://user:pass@mirror/x', NULL), ('bad', 'file:///y', $1)",
        json.dumps(error),
    )
    await api.pool.execute("INSERT INTO feed_errors VALUES ('bad', 'FeedStale', 3, now(), 'old')")
    await api.pool.execute(
        "INSERT INTO hosts (host, driver, capacity, seen_at) VALUES ('host-1', 'process', 9, now())"
    )
    await api.put(api.set, api.scale_set_body(3), 201)
    await api.add_fleet()
    await api.add_instance("0")
    await api.add_upgrade({"succeeded": 1})
    for code in ("ImageUnsafe", "ImageUnsafe", "ImageVerificationFailed"):
        error_of_upgrade = {"code": code, "message": "refused"}
        await api.add_upgrade({}, status="Faulted", error=error_of_upgrade)
    await api.add_upgrade({}, status="Cancelled", error={"code": "ImageWithdrawn", "message": "x"})
    bad, good = (await api.get("/rollcall/feeds"))["value"]
    assert (good["url"], good["up"], good["error"]) == ("https://mirror/x", True, None)
    assert (bad["up"], bad["error"]) == (False, error)
    assert [(e["code"], e["count"], e["lastMessage"]) for e in bad["errors"]] == [
        ("FeedStale", 3, "old")
    ]
    (host,) = (await api.get("/rollcall/hosts"))["value"]
    assert (host["host"], host["driver"]) == ("host-1", "process")
    assert (host["instances"], host["capacity"]) == (1, 9)
    text = (await api.http.get("/metrics")).text.splitlines()
    for line in (
        'rollcall_feed_up{feed="bad"} 0.0',
        'rollcall_feed_up{feed="good"} 1.0',
        'rollcall_feed_errors_total{code="FeedStale",feed="bad"} 3.0',
        f'rollcall_instances{{health="Healthy",scale_set="{SET}",version="1.0.0"}} 1.0',
        'rollcall_upgrades{status="Completed"} 1.0',
        'rollcall_upgrades{status="Faulted"} 3.0',
        'rollcall_upgrade_faults{code="ImageUnsafe"} 2.0',
        'rollcall_upgrade_faults{code="ImageVerificationFailed"} 1.0',
    ):
        assert line in text
    assert any(line.startswith('rollcall_http_requests_total{method="PUT"') for line in text)
    assert not any("ImageWithdrawn" in line for line in text), "a cancelled upgrade is no fault"


async def test_writers_of_one_set_and_its_balancer_do_not_stand_in_each_others_way(
    api: Any,
) -> None:
    await api.put(api.balancer, api.balancer_body("app"), 201)
    probe = {"healthProbe": {"id": f"{api.balancer}/probes/app"}}
    body = api.scale_set_body(3, networkProfile=probe)
    await api.put(api.set, body, 201)
    requests = [api.ask("PUT", api.set, body) for _ in range(10)]
    requests += [
        api.ask("PUT", api.balancer, api.balancer_body("app", interval=n)) for n in range(1, 11)
    ]
    answers = await asyncio.gather(*requests)
    assert {answer.status_code for answer in answers} == {200}
    revisions = [event.spec.revision for event in await api.events()]
    assert len(revisions) == 21
    assert revisions == sorted(set(revisions))


async def test_requests_are_counted_by_route(api: Any) -> None:
    await api.get(api.set, 404)
    await api.http.get("/a/path/that/nobody/has")
    text = (await api.http.get("/metrics")).text
    route = "/subscriptions/{subscription}/resourceGroups/{group}/providers"
    assert (
        f'route="{route}/Microsoft.Compute/virtualMachineScaleSets/{{name}}",status="404"' in text
    )
    assert "nobody" not in text, "paths of strangers must not become labels"
