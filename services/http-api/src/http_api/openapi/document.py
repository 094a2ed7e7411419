"""Walk over the routes and write down what each takes and answers."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from http_api.domain.access import is_open
from http_api.openapi.answers import ANYTHING, NOTHING, ROUTES, Route
from http_api.openapi.schemas import ANSWERS, BODIES, TEXT, Schema, ref
from http_api.routes.common import (
    conditions_of,
    json_body,
    need_api_version,
    optional_body,
    raw_body,
)
from http_api.routes.status import what_is_asked

VERSION = "1"
OAUTH_ERRORS = (400, 401, 429)  # of the token endpoint, which has a shape of its own
_API_VERSION: Schema = {
    "name": "api-version",
    "in": "query",
    "required": True,
    "description": "Any from 2017-03-30; one that is newer than any known here is taken too.",
    "schema": {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(-[a-z]+)?$"},
    "example": "2024-11-01",
}
_CLIENT_REQUEST: Schema = {
    "name": "x-ms-client-request-id",
    "in": "header",
    "required": False,
    "description": "The same request again with the same id is the same operation.",
    "schema": TEXT,
}
_WHOLE_BODIES = ("DeploymentBody", "TemplateBody")  # read as they are: templates have comments
_FOLLOW = {
    "Azure-AsyncOperation": "URL of a status document",
    "Location": "URL that answers 202 until it is done",
    "Retry-After": "Seconds until it is worth while to ask",
}


def openapi_document(routers: Sequence[APIRouter]) -> dict[str, Any]:
    """Return the document. Raises UndescribedRouteError for a route that nobody described."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    document = get_openapi(
        title="Rollcall",
        version=VERSION,
        summary="Automatic OS image upgrades: Azure's scale set API, and Rollcall's own.",
        routes=routes,
    )
    used: set[str] = set()
    for route in routes:
        described = ROUTES.get(route_name(route), ANYTHING)
        for method in sorted(route.methods or ()):
            operation = document["paths"][route.path_format][method.lower()]
            _complete(operation, route, described, _name(route, used))
    schemas = {**BODIES, **ANSWERS, "EventStream": TEXT, "Metrics": TEXT}
    document["components"] = {
        "schemas": dict(sorted(schemas.items())),
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        },
        "responses": dict(_error_responses(document["paths"])),
    }
    document["security"] = [{"bearer": []}]
    document["paths"] = dict(sorted(document["paths"].items()))
    return document


def openapi_text(routers: Sequence[APIRouter]) -> str:
    """Return the document as the file that is checked in."""
    return json.dumps(openapi_document(routers), indent=1, ensure_ascii=False) + "\n"


def routes_of(routers: Sequence[APIRouter]) -> list[APIRoute]:
    """Return all routes in the order in which they are asked."""
    return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]


def undescribed(routers: Sequence[APIRouter]) -> list[str]:
    """Return the routes that have no row in the table of answers."""
    return sorted({route_name(route) for route in routes_of(routers)} - set(ROUTES))


def route_name(route: APIRoute) -> str:
    """Return a route's module and function."""
    return f"{route.endpoint.__module__.rpartition('.')[2]}.{route.endpoint.__name__}"


def _name(route: APIRoute, used: set[str]) -> str:
    """Return an id of the operation; of several paths of one function each has its own."""
    base = name = route_name(route).replace(".", "_")
    number = 1
    while name in used:
        number += 1
        name = f"{base}_{number}"
    used.add(name)
    return name


def _complete(operation: dict[str, Any], route: APIRoute, described: Route, name: str) -> None:
    needs = set(_calls(route.dependant))
    operation["operationId"] = name
    operation["summary"] = operation["description"].partition(". ")[0].rstrip(".")
    operation["parameters"] = [
        *(_tidy(each) for each in operation.get("parameters", [])),
        *_more_parameters(needs, described),
    ]
    if not operation["parameters"]:
        del operation["parameters"]
    if needs & {json_body, optional_body, raw_body} and (body := _body(needs, described)):
        operation["requestBody"] = body
    if is_open(_example_path(route)):
        operation["security"] = []
    operation["responses"] = _responses(operation, route, described, needs)


def _calls(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    for inner in dependant.dependencies:
        if inner.call is not None:
            yield inner.call
        yield from _calls(inner)


def _tidy(parameter: Schema) -> Schema:
    schema = {key: value for key, value in parameter["schema"].items() if key != "title"}
    if parameter["in"] == "path":
        schema = {**schema, "minLength": 1}
    return {**parameter, "schema": schema}


def _more_parameters(needs: set[Callable[..., Any]], described: Route) -> Iterator[Schema]:
    if need_api_version in needs:
        yield _API_VERSION
    if conditions_of in needs:
        for name in ("If-Match", "If-None-Match"):
            yield {"name": name, "in": "header", "required": False, "schema": TEXT}
    if what_is_asked in needs:
        yield _CLIENT_REQUEST
    for name, schema in described.query.items():
        yield {"name": name, "in": "query", "required": False, "schema": schema}


def _body(needs: set[Callable[..., Any]], described: Route) -> Schema | None:
    if described.body == "TokenForm":
        media = "application/x-www-form-urlencoded"
    elif needs & {json_body, optional_body} or described.body in _WHOLE_BODIES:
        media = "application/json"
    else:
        return None  # the body only tells a repeated request from a new one
    return {
        "required": optional_body not in needs,
        "content": {media: {"schema": ref(described.body)}},
    }


def _responses(
    operation: Mapping[str, Any],
    route: APIRoute,
    described: Route,
    needs: set[Callable[..., Any]],
) -> dict[str, Any]:
    found: dict[int, Schema] = {}
    for status, name in described.answers.items():
        found[status] = {"description": HTTPStatus(status).phrase}
        if name != NOTHING:
            found[status]["content"] = {described.media: {"schema": ref(name)}}
        if status == HTTPStatus.ACCEPTED:
            found[status]["headers"] = {
                header: {"description": text, "schema": TEXT} for header, text in _FOLLOW.items()
            }
    for status in {*described.errors, *_usual_errors(operation, needs)}:
        kind = "NoBody" if route.methods == {"HEAD"} else "Error"
        if described.body == "TokenForm" and status in OAUTH_ERRORS:
            kind = "OAuthError"
        found[status] = {"$ref": f"#/components/responses/{kind}{int(status)}"}
    return {str(status): found[status] for status in sorted(found)}


def _error_responses(paths: Mapping[str, Any]) -> Iterator[tuple[str, Schema]]:
    """Yield each error that some operation answers with."""
    used = {
        answer["$ref"].rpartition("/")[2]
        for methods in paths.values()
        for operation in methods.values()
        for answer in operation["responses"].values()
        if "$ref" in answer
    }
    for name in sorted(used):
        response: Schema = {"description": HTTPStatus(int(name[-3:])).phrase}
        shapes = [ref("Error"), ref("OAuthError")]
        if name.startswith("OAuthError"):
            response["content"] = {"application/json": {"schema": {"anyOf": shapes}}}
        elif name.startswith("Error"):
            response["content"] = {"application/json": {"schema": ref("Error")}}
        yield name, response


def _usual_errors(
    operation: Mapping[str, Any], needs: set[Callable[..., Any]]
) -> Iterator[HTTPStatus]:
    yield HTTPStatus.INTERNAL_SERVER_ERROR
    yield HTTPStatus.SERVICE_UNAVAILABLE
    if operation.get("security") != []:
        yield HTTPStatus.UNAUTHORIZED
        yield HTTPStatus.FORBIDDEN
        yield HTTPStatus.TOO_MANY_REQUESTS
    if "parameters" in operation or "requestBody" in operation:
        yield HTTPStatus.BAD_REQUEST
    if any(each["in"] == "path" for each in operation.get("parameters", [])):
        yield HTTPStatus.NOT_FOUND
    if conditions_of in needs:
        yield HTTPStatus.PRECONDITION_FAILED
    if raw_body in needs:
        yield HTTPStatus.REQUEST_TIMEOUT
        yield HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        yield HTTPStatus.UNSUPPORTED_MEDIA_TYPE


def _example_path(route: APIRoute) -> str:
    return route.path_format.replace("{tenant}", "common")
