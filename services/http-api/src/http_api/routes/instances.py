"""Instances of a scale set, protecting them, and bringing them to the model (M41)."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from rollcall_contracts.events import Event, InstanceProtectionChanged, ModelDeployRequested
from rollcall_kit.outbox import Connection

from http_api import progress, queries, store
from http_api.domain.asking import read_instance_ids
from http_api.domain.instance_filter import Filter, parse_filter
from http_api.domain.operations import Kind, Operation
from http_api.domain.present.instances import (
    InstanceRow,
    instance_json,
    instance_view_json,
    is_latest_model,
)
from http_api.domain.present.scale_sets import StoredScaleSet
from http_api.domain.protection import read_protection
from http_api.errors import ApiError, need
from http_api.routes.common import (
    SET,
    FilterText,
    JsonBody,
    Pool,
    ScaleSet,
    ServerOf,
    SkipToken,
    Top,
    When,
    need_api_version,
    page,
)
from http_api.routes.status import Asking, accepted, operation_headers
from http_api.writes import Server, refuse_while_upgrading

router = APIRouter(tags=["instances"], dependencies=[Depends(need_api_version)])
INSTANCES = SET + "/virtualMachines"
_AGENT = "the agents cannot be asked for it."
# What Azure can do with instances and Rollcall cannot, and why.
NOT_DONE = {
    "performMaintenance": _AGENT,
    **dict.fromkeys(("reapply", "simulateEviction", "runCommand", "scaleOut"), _AGENT),
    **dict.fromkeys(("attachDetachDataDisks", "retrieveBootDiagnosticsData"), _AGENT),
    "extensionRollingUpgrade": "extensions run again with each new OS disk. POST manualupgrade "
    "brings a changed model to the instances.",
    "setOrchestrationServiceState": "there is no automatic repair to suspend or resume.",
    "convertToSinglePlacementGroup": "placement groups are only kept and given back.",
    "forceRecoveryServiceFabricPlatformUpdateDomainWalk": "an upgrade goes through the update "
    "domains of a Service Fabric set by itself.",
}
GET_ONLY = ("instanceview", "osupgradehistory", "skus", "virtualmachines", "explain", "state")
Expand = Annotated[str, Query(alias="$expand")]


def wants_view(expand: str) -> bool:
    """Say whether `$expand` asks for instance views."""
    return "instanceview" in (part.strip().lower() for part in expand.split(","))


@router.get(INSTANCES)
async def list_all(
    request: Request,
    scale_set: ScaleSet,
    pool: Pool,
    server: ServerOf,
    expand: Expand = "",
    filter: FilterText = "",
    top: Top = None,
    skip_token: SkipToken = "",
) -> Response:
    """Return the instances in the order of their numbers."""
    wanted = parse_filter(filter) if filter else None
    limit = min(top or server.settings.api_page_size, server.settings.api_page_size)
    found: list[InstanceRow] = []
    async with pool.acquire() as connection:
        while len(found) <= limit:
            rows = await queries.instances(
                connection, scale_set.id, after=skip_token, limit=limit + 1
            )
            found += [row for row in rows if wanted is None or _passes(scale_set, row, wanted)]
            if len(rows) <= limit:
                break
            skip_token = rows[-1].id
    token = found[limit - 1].id if len(found) > limit else None
    shown = [instance_json(scale_set, each, with_view=wants_view(expand)) for each in found[:limit]]
    return JSONResponse(page(request, shown, token))


def _passes(scale_set: StoredScaleSet, row: InstanceRow, wanted: Filter) -> bool:
    codes = [status["code"] for status in instance_view_json(scale_set, row)["statuses"]]
    return wanted(codes, is_latest_model(scale_set, row))


async def existing_instance(scale_set: ScaleSet, instance_id: str, pool: Pool) -> InstanceRow:
    """Return the instance in the path. Raises ApiError 404."""
    async with pool.acquire() as connection:
        found = await queries.instance(connection, scale_set.id, instance_id)
    if found is None:
        raise _no_instances(scale_set.name, [instance_id], status=404)
    return found


Instance = Annotated[InstanceRow, Depends(existing_instance)]


@router.get(INSTANCES + "/{instance_id}")
async def get(scale_set: ScaleSet, instance: Instance, expand: Expand = "") -> Response:
    """Return one instance."""
    shown = instance_json(scale_set, instance, with_view=wants_view(expand))
    return JSONResponse(shown, headers={"ETag": instance.etag})


@router.put(INSTANCES + "/{instance_id}")
async def put(
    request: Request,
    scale_set: ScaleSet,
    instance: Instance,
    body: JsonBody,
    server: ServerOf,
    asked: Asking,
    when: When,
) -> Response:
    """Protect an instance, or no longer; the rest of its model is the set's, and left alone."""
    wanted = read_protection(body)

    async def work(
        connection: Connection,
    ) -> tuple[tuple[InstanceRow, Operation | None], list[Event]]:
        now = server.context.now()
        await store.lock_models(connection)
        row = await as_asked(connection, scale_set, instance.id, now)
        if row is None:
            raise _no_instances(scale_set.name, [instance.id], status=404)
        need(when, row.etag)
        if wanted is None:
            return (row, None), []
        row = replace(
            row,
            protect_from_scale_in=wanted.scale_in,
            protect_from_scale_set_actions=wanted.set_actions,
        )
        goal = {
            "id": row.id,
            "scale_in": wanted.scale_in,
            "set_actions": wanted.set_actions,
        }
        begun = await progress.begin(connection, Kind.PROTECTION, scale_set.id, asked, now, goal)
        event = InstanceProtectionChanged(
            scale_set=scale_set.id,
            instance_id=row.id,
            protect_from_scale_in=wanted.scale_in,
            protect_from_scale_set_actions=wanted.set_actions,
        )
        return (row, begun), [event]  # also where it is so already: another may be on its way

    row, operation = await server.transact(work)
    headers = {"ETag": row.etag}
    if operation is not None:
        headers |= operation_headers(request, server, operation, location=False)
    return JSONResponse(instance_json(scale_set, row, with_view=False), headers=headers)


async def as_asked(
    connection: Connection, scale_set: StoredScaleSet, id: str, now: datetime
) -> InstanceRow | None:
    """Return an instance with the protection that was asked for last, taken over or not yet.

    The caller holds `lock_models`: of two clients that write what they read, one is refused.
    """
    row = await queries.instance(connection, scale_set.id, id)
    last = await progress.unfinished(connection, scale_set.id, id, now)
    if row is None or last is None or last.kind is not Kind.PROTECTION:
        return row
    return replace(
        row,
        protect_from_scale_in=last.goal["scale_in"],
        protect_from_scale_set_actions=last.goal["set_actions"],
    )


@router.get(INSTANCES + "/{instance_id}/instanceView")
async def get_view(scale_set: ScaleSet, instance: Instance) -> Response:
    """Return the state of one instance at this moment."""
    return JSONResponse(instance_view_json(scale_set, instance))


@router.post(SET + "/manualupgrade")
async def deploy_model(
    request: Request, scale_set: ScaleSet, body: JsonBody, server: ServerOf, asked: Asking
) -> Response:
    """Bring instances to the model now, failed ones too; `["*"]` means all."""
    ids = read_instance_ids(body, required=True)
    return accepted(request, server, await deploy(server, scale_set, ids, asked))


@router.post(SET + "/{action}")
@router.post(INSTANCES + "/{instance_id}/{action}")
async def refuse(request: Request, scale_set: ScaleSet, action: str) -> Response:
    """Refuse what Azure can do and Rollcall cannot, with a reason rather than a 404."""
    names = {name.lower(): name for name in NOT_DONE}
    if action.lower() not in names:
        raise HTTPException(405 if action.lower() in GET_ONLY else 404)
    raise _not_done(names[action.lower()])


def _not_done(action: str) -> ApiError:
    return ApiError(
        409,
        "OperationNotAllowed",
        f"Operation '{action}' is not allowed on a Virtual Machine Scale Set here: "
        f"{NOT_DONE[action]}",
    )


async def deploy(
    server: Server, scale_set: StoredScaleSet, ids: tuple[str, ...], asked: progress.Asked
) -> Operation:
    """Ask for instances to be brought to the model; a repeated request is the same operation."""

    async def work(connection: Connection) -> tuple[Operation, list[Event]]:
        now = server.context.now()
        known = await progress.repeated(connection, scale_set.id, asked, now)
        if known is not None:
            return known, []
        await refuse_while_upgrading(connection, scale_set, asked.action)
        await check_instances(connection, scale_set, ids)
        wanted = await queries.wanted_version(connection, scale_set.id, scale_set.image)
        goal = await progress.deployment_goal(
            connection, scale_set.id, scale_set.generation, wanted, ids
        )
        operation = await progress.begin(connection, Kind.INSTANCES, scale_set.id, asked, now, goal)
        return operation, [ModelDeployRequested(scale_set=scale_set.id, instance_ids=ids)]

    return await server.transact(work)


async def check_instances(
    connection: Connection, scale_set: StoredScaleSet, ids: Sequence[str]
) -> None:
    """Raise ApiError 400 where the set has no such instance; `*` is all that it has."""
    if "*" in ids:
        return
    known = await queries.known_instances(connection, scale_set.id, ids)
    unknown = [each for each in ids if each not in known]
    if unknown:
        raise _no_instances(scale_set.name, unknown, status=400)


def _no_instances(scale_set: str, ids: list[str], *, status: int) -> ApiError:
    shown = ", ".join(ids[:10])
    return ApiError(
        status,
        "InstanceNotFound" if status == 404 else "InvalidParameter",
        f"The scale set {scale_set} has no instance {shown}.",
        target="instanceIds",
    )
