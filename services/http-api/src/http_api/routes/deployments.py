"""Deployments of templates: validate, preview, deploy, watch, cancel (M53)."""

import asyncio
import hashlib
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from rollcall_contracts.events import Event
from rollcall_kit.outbox import Connection
from rollcall_kit.secrets import seal, unseal
from rollcall_templates.errors import TemplateError
from rollcall_templates.hashing import template_hash
from rollcall_templates.jsonc import dumps
from rollcall_templates.plan import Plan

from http_api import deployments, progress, resources
from http_api.domain.access import Principal, needed
from http_api.domain.deployments import (
    DEPLOYMENTS,
    Deployment,
    State,
    Step,
    deployment_json,
    providers_here,
    shown_of,
    status_json,
    step_json,
)
from http_api.domain.documents import parse_body
from http_api.domain.operations import Kind, Operation
from http_api.domain.paths import normal_path
from http_api.domain.present.catalog import subscription_json, tenant_json
from http_api.domain.present.scale_sets import group_json
from http_api.domain.resource_ids import ResourceId, group_id, resource_id
from http_api.domain.secrets import redacted
from http_api.domain.template_inputs import Inputs, exported, read_inputs
from http_api.domain.template_requests import (
    TemplateRequest,
    plan_request,
    read_request,
    template_error_json,
)
from http_api.domain.what_if import Resource, change_json
from http_api.errors import ApiError, not_found, refuse
from http_api.inside import Inside
from http_api.routes.common import (
    GROUP,
    Pool,
    RawBody,
    ServerOf,
    SkipToken,
    Top,
    need_api_version,
    page,
)
from http_api.routes.status import RETRY_AFTER, accepted
from http_api.urls import base_url
from http_api.writes import Server

router = APIRouter(tags=["deployments"], dependencies=[Depends(need_api_version)])
ALL = GROUP + f"/providers/{DEPLOYMENTS}"
ONE = ALL + "/{name}"
SHORT = GROUP + "/deployments/{name}"  # where clients of old ask for operations
_BY_STATE = re.compile(r"\s*provisioningState\s+eq\s+'(\w+)'\s*", re.IGNORECASE)
T = TypeVar("T")


def deployment_place(subscription: str, group: str, name: str) -> ResourceId:
    """Return the id of the deployment in the path."""
    return resource_id(subscription=subscription, group=group, type=DEPLOYMENTS, name=name)


Place = Annotated[ResourceId, Depends(deployment_place)]


async def existing_deployment(place: Place, pool: Pool) -> Deployment:
    """Return the deployment in the path. Raises ApiError 404."""
    async with pool.acquire() as connection:
        found = await deployments.find(connection, place.key)
    if found is None:
        raise ApiError(404, "DeploymentNotFound", f"Deployment '{place.name}' could not be found.")
    return found


Known = Annotated[Deployment, Depends(existing_deployment)]


class _BadTemplate(Exception):
    """A template cannot be taken; how it is told is ready."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error

    def response(self) -> Response:
        """Return the answer."""
        return JSONResponse({"error": self.error}, status_code=400)


async def _apart(work: Callable[..., T], *values: Any, **named: Any) -> T:
    """Do what takes a moment of the processor beside the requests of others."""
    return await asyncio.to_thread(work, *values, **named)


async def _planned(
    request: Request, place: ResourceId, raw: bytes
) -> tuple[TemplateRequest, Plan, Inputs]:
    """Return what a request amounts to. Raises ModelError, ApiError and _BadTemplate."""
    server: Server = request.app.state.server
    asked = await _apart(read_request, raw)
    async with server.context.database.acquire() as connection:
        tenant, _ = await resources.directory(connection)
        groups = await resources.groups(
            connection, place.subscription, location=server.config.location, name=place.group
        )
    if groups:
        group = group_json(groups[0])
    else:
        group = {
            "id": group_id(place.subscription, place.group),
            "name": place.group,
            "type": "Microsoft.Resources/resourceGroups",
            "location": server.config.location,
            "properties": {"provisioningState": "Succeeded"},
        }
    try:
        plan, inputs = await _apart(
            plan_request,
            asked,
            names={"name": place.name},
            subscription=subscription_json(place.subscription, tenant),
            group=group,
            tenant=tenant_json(tenant),
            environment=_environment(request),
            providers=providers_here(),
            now=server.context.now(),
            guid=uuid.uuid4(),
        )
    except TemplateError as error:
        raise _BadTemplate(await _apart(template_error_json, error, asked)) from error
    _check_permissions(request, place, plan)
    return asked, plan, inputs


def _environment(request: Request) -> dict[str, Any]:
    base = base_url(request)
    return {
        "name": "Rollcall",
        "portal": base,
        "resourceManager": base,
        "gallery": base,
        "graph": base,
        "authentication": {"loginEndpoint": base, "audiences": [f"{base}/"], "tenant": "common"},
        "suffixes": {},
    }


def _check_permissions(request: Request, place: ResourceId, plan: Plan) -> None:
    """Refuse a template that writes what its deployer may not write by hand. Raises ApiError."""
    principal: Principal = request.state.principal
    for resource in plan.resources:
        path = normal_path(resource.id)
        if not principal.may(needed("PUT", path)):
            failure = refuse(principal, "PUT", path)
            raise ApiError(403, failure.code, failure.message)
        if resource.id.lower() == place.key:
            raise _BadTemplate(
                {
                    "code": "InvalidTemplate",
                    "message": f"The template deploys itself: its resource {resource.id} has the "
                    "name of the deployment. Give it another one.",
                }
            )


@router.put(ONE)
async def put(request: Request, place: Place, raw: RawBody, server: ServerOf) -> Response:
    """Deploy a template. The answer comes at once; the resources are written one by one."""
    try:
        asked, plan, inputs = await _planned(request, place, raw)
    except _BadTemplate as bad:
        return bad.response()
    digest = hashlib.sha256(raw).hexdigest()
    hashed = await _apart(template_hash, asked.template)
    shown = shown_of(plan, mode=asked.mode, template_hash=hashed)
    if asked.tags is not None:
        shown["tags"] = asked.tags
    sealed = await _apart(lambda: seal(server.settings.secrets_key, inputs.as_text()))
    fresh = Deployment(
        id=place.id,
        correlation=str(uuid.uuid4()),
        shown={**shown, "digest": digest},
        started_at=server.context.now(),
        changed_at=server.context.now(),
    )

    async def work(connection: Connection) -> tuple[tuple[Deployment, bool], Sequence[Event]]:
        old = await deployments.hold(connection, place.key)
        if old is not None and old.is_open:
            raise deployments.Busy
        await deployments.begin(
            connection, place, fresh, sealed=sealed, principal=request.state.principal
        )
        return (fresh, old is not None), []

    try:
        deployment, was_there = await server.transact(work)
    except deployments.Busy:
        deployment, was_there = await _repeated(server, place, digest), True
    return JSONResponse(
        deployment_json(deployment),
        status_code=200 if was_there else 201,
        headers=_where_to_ask(request, deployment),
    )


async def _repeated(server: Server, place: ResourceId, digest: str) -> Deployment:
    """Return the deployment that goes on, where the same request began it. Raises ApiError.

    Clients send a request again when they got no answer to it.
    """
    async with server.context.database.acquire() as connection:
        found = await deployments.find(connection, place.key)
    if found is not None and found.is_open and found.shown.get("digest") == digest:
        return found
    raise _active(place)


def _active(place: ResourceId) -> ApiError:
    return ApiError(
        409,
        "DeploymentActive",
        f"The deployment with name '{place.name}' cannot be saved, because it is active at this "
        "moment. Wait for its end, or stop it with POST cancel.",
    )


def _where_to_ask(request: Request, deployment: Deployment) -> dict[str, str]:
    version = next((v for k, v in request.query_params.items() if k.lower() == "api-version"), "")
    url = f"{base_url(request)}{deployment.id}/operationStatuses/{deployment.correlation}"
    return {**RETRY_AFTER, "Azure-AsyncOperation": f"{url}?api-version={version}"}


@router.get(ONE)
async def get(deployment: Known, pool: Pool) -> Response:
    """Return a deployment, with its outputs when it has succeeded."""
    return JSONResponse(await _shown(pool, deployment))


async def _shown(pool: Pool, deployment: Deployment) -> dict[str, Any]:
    found: list[Step] = []
    if deployment.state is State.SUCCEEDED:
        async with pool.acquire() as connection:
            found = await deployments.steps(connection, deployment.id.lower())
    return deployment_json(deployment, found)


@router.head(ONE)
async def head(place: Place, pool: Pool) -> Response:
    """Say whether a deployment exists: 204 or 404, without a body."""
    async with pool.acquire() as connection:
        found = await deployments.find(connection, place.key)
    return Response(status_code=204 if found else 404)


@router.delete(ONE)
async def delete(request: Request, place: Place, server: ServerOf) -> Response:
    """Forget a deployment that has ended; what it has written stays. 204 if there is none."""

    async def work(connection: Connection) -> tuple[Operation | None, list[Event]]:
        found = await deployments.hold(connection, place.key)
        if found is None:
            return None, []
        if found.is_open:
            raise deployments.Busy
        await deployments.delete(connection, place.key)
        asked = progress.Asked(action="DELETE")
        now = server.context.now()
        return await progress.begin(connection, Kind.NOTHING, place.id, asked, now), []

    try:
        return accepted(request, server, await server.transact(work))
    except deployments.Busy:
        raise _active(place) from None


@router.get(ALL)
async def list_all(
    request: Request,
    subscription: str,
    group: str,
    pool: Pool,
    server: ServerOf,
    filter: Annotated[str, Query(alias="$filter", max_length=200)] = "",
    top: Top = None,
    skip_token: SkipToken = "",
) -> Response:
    """Return the deployments of a resource group; `$filter=provisioningState eq '…'`."""
    match = _BY_STATE.fullmatch(filter) if filter else None
    if filter and match is None:
        raise ApiError(
            400,
            "InvalidFilterInQueryString",
            "$filter may be provisioningState eq '…' here.",
            target="$filter",
        )
    limit = min(top or server.settings.api_page_size, server.settings.api_page_size)
    async with pool.acquire() as connection:
        found = await deployments.listed(
            connection,
            subscription=subscription,
            group=group,
            state=match[1] if match else None,
            after=skip_token,
            limit=limit + 1,
        )
    token = found[limit - 1].id.lower() if len(found) > limit else None
    value = [await _shown(pool, each) for each in found[:limit]]
    return JSONResponse(page(request, value, token))


@router.get(ONE + "/operationStatuses/{operation_id}")
async def get_status(deployment: Known, operation_id: str) -> Response:
    """Return how far a deployment is: what `Azure-AsyncOperation` names."""
    if deployment.correlation != operation_id.lower():
        raise ApiError(
            404,
            "OperationNotFound",
            f"The deployment '{deployment.name}' was begun anew since then.",
        )
    headers = RETRY_AFTER if deployment.is_open else {}
    return JSONResponse(status_json(deployment), headers=headers)


@router.get(ONE + "/operations")
@router.get(SHORT + "/operations")
async def list_operations(deployment: Known, pool: Pool, top: Top = None) -> Response:
    """Return what became of each resource of a deployment."""
    async with pool.acquire() as connection:
        found = await deployments.steps(connection, deployment.id.lower())
    return JSONResponse({"value": [step_json(deployment, each) for each in found[:top]]})


@router.get(ONE + "/operations/{operation_id}")
@router.get(SHORT + "/operations/{operation_id}")
async def get_operation(deployment: Known, pool: Pool, operation_id: str) -> Response:
    """Return what became of one resource of a deployment."""
    async with pool.acquire() as connection:
        found = await deployments.steps(connection, deployment.id.lower())
    for each in found:
        if each.id == operation_id.lower():
            return JSONResponse(step_json(deployment, each))
    place = deployment.id.split("/")
    raise not_found(f"{DEPLOYMENTS}/{deployment.name}/operations", operation_id, place[4])


@router.post(ONE + "/cancel")
async def cancel(deployment: Known, server: ServerOf) -> Response:
    """Stop a deployment: what it has not begun to write is not written."""

    async def work(connection: Connection) -> tuple[bool, list[Event]]:
        return await deployments.request_cancel(connection, deployment.id.lower()), []

    if not await server.transact(work):
        raise ApiError(
            409,
            "DeploymentCannotBeCancelled",
            f"The deployment '{deployment.name}' cannot be cancelled: it is not running, but "
            f"{deployment.state}.",
        )
    return Response(status_code=204)


@router.post(ONE + "/validate")
async def validate(request: Request, place: Place, raw: RawBody, server: ServerOf) -> Response:
    """Say whether a template could be deployed: its faults, or what it amounts to."""
    try:
        asked, plan, _ = await _planned(request, place, raw)
    except _BadTemplate as bad:
        return bad.response()
    now = server.context.now()
    hashed = await _apart(template_hash, asked.template)
    shown = shown_of(plan, mode=asked.mode, template_hash=hashed)
    document = deployment_json(
        Deployment(
            id=place.id,
            correlation=str(uuid.uuid4()),
            shown=shown,
            state=State.SUCCEEDED,
            started_at=now,
            changed_at=now,
        )
    )
    document["properties"]["validatedResources"] = shown["validatedResources"]
    return JSONResponse(document)


@router.post(ONE + "/whatIf")
async def what_if(request: Request, place: Place, raw: RawBody) -> Response:
    """Return what a template would change, without changing anything."""
    try:
        asked, plan, _ = await _planned(request, place, raw)
    except _BadTemplate as bad:
        return bad.response()
    inside: Inside = request.app.state.inside
    principal: Principal = request.state.principal
    changes: list[dict[str, Any]] = []
    for resource in plan.resources:
        answer = await inside.ask("GET", resource.id, principal, version=resource.api_version)
        before = answer.document if answer.status == 200 else None
        planned = Resource(
            id=resource.id,
            type=resource.type,
            name=resource.name,
            api_version=resource.api_version,
            body=redacted(plan.preview(resource)),
        )
        brief = asked.result_format == "ResourceIdOnly"
        changes.append(change_json(planned, before, brief=brief))
    return JSONResponse({"status": "Succeeded", "properties": {"changes": changes}})


@router.post(ONE + "/exportTemplate")
async def export_template(deployment: Known, pool: Pool, server: ServerOf) -> Response:
    """Return the template of a deployment, without what is named as a secret."""
    async with pool.acquire() as connection:
        sealed = await deployments.sealed_of(connection, deployment.id.lower())
    text = await _apart(unseal, server.settings.secrets_key, sealed)
    return JSONResponse({"template": exported(read_inputs(text).template)})


@router.post("/providers/Microsoft.Resources/calculateTemplateHash")
async def calculate_hash(raw: RawBody) -> Response:
    """Return a template's hash: whether two templates are the same but for white space."""
    template = await _apart(parse_body, raw)
    return JSONResponse(
        {
            "minifiedTemplate": await _apart(dumps, template),
            "templateHash": await _apart(template_hash, template),
        }
    )
