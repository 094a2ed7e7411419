"""The OpenAPI document says what the routes do, and is checked in as it is served."""

import json
from pathlib import Path
from typing import Any

import pytest
from http_api.openapi import openapi_document, openapi_text, routes_of, undescribed
from http_api.openapi.answers import ROUTES
from http_api.openapi.document import route_name
from http_api.web import ROUTERS

FILE = Path(__file__).parents[3] / "docs" / "openapi.json"


def test_the_file_is_what_is_served() -> None:
    assert FILE.read_text() == openapi_text(ROUTERS), "run `make golden`, and look at the diff"


def test_every_route_is_described_and_nothing_else() -> None:
    assert undescribed(ROUTERS) == [], "say what they answer, in http_api/openapi/answers.py"
    assert set(ROUTES) == {route_name(route) for route in routes_of(ROUTERS)}


def references(value: Any) -> set[str]:
    """Return what a document refers to."""
    if isinstance(value, list):
        return set().union(*(references(each) for each in value))
    if not isinstance(value, dict):
        return set()
    inner = references(list(value.values()))
    return inner | {value["$ref"]} if isinstance(value.get("$ref"), str) else inner


def test_every_reference_leads_somewhere() -> None:
    document = openapi_document(ROUTERS)
    for reference in references(document):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert isinstance(found, dict)


@pytest.mark.parametrize(
    ("path", "method", "statuses", "parameters"),
    [
        ("/healthz", "get", {"200", "500", "503"}, set()),
        (
            "/rollcall/accounts/{client_id}/roles",
            "put",
            {"200", "400", "401", "403", "404", "413", "500", "503"},
            {"client_id"},
        ),
        (
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute"
            "/virtualMachineScaleSets/{name}",
            "put",
            {*("200", "201", "400", "401", "403", "404", "412", "413", "500", "503")},
            {"subscription", "group", "name", "api-version", "If-Match", "If-None-Match"},
        ),
    ],
)
def test_what_a_route_depends_on_is_part_of_it(
    path: str, method: str, statuses: set[str], parameters: set[str]
) -> None:
    operation = json.loads(FILE.read_text())["paths"][path][method]
    assert set(operation["responses"]) >= statuses
    assert {each["name"] for each in operation.get("parameters", [])} == parameters
    assert ("requestBody" in operation) is (method == "put")
    assert (operation.get("security") == []) is (path == "/healthz")
