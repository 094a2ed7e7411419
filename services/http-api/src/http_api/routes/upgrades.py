"""Upgrades: history (M50), the latest, start and cancel (M52), and Rollcall's full record."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from rollcall_contracts.events import Event, UpgradeCancelRequested, UpgradeStartRequested
from rollcall_contracts.model import LATEST, ImageReference
from rollcall_kit.outbox import Connection

from http_api import queries
from http_api.domain.documents import at
from http_api.domain.present.scale_sets import StoredScaleSet
from http_api.domain.present.upgrades import UpgradeRow, history_json, latest_json, upgrade_json
from http_api.domain.starting import Refusal, refusal_to_start
from http_api.errors import ApiError
from http_api.routes.common import (
    SET,
    Pool,
    ScaleSet,
    ServerOf,
    Top,
    need_api_version,
    page,
)

router = APIRouter(tags=["upgrades"], dependencies=[Depends(need_api_version)])
RUNNING = "RollingForward"


@router.get(SET + "/osUpgradeHistory")
async def history(scale_set: ScaleSet, pool: Pool, server: ServerOf) -> Response:
    """Return the last five upgrades of the past two months, newest first."""
    async with pool.acquire() as connection:
        found = await queries.recent_upgrades(connection, scale_set.id, server.context.now())
    return JSONResponse({"value": [history_json(each, scale_set.location) for each in found]})


@router.get(SET + "/rollingUpgrades/latest")
async def latest(scale_set: ScaleSet, pool: Pool) -> Response:
    """Return the upgrade that runs, or the last one."""
    async with pool.acquire() as connection:
        found = await _latest(connection, scale_set)
        if found is None:
            raise ApiError(
                404,
                "RollingUpgradeNotFound",
                f"The scale set {scale_set.name} never had a rolling upgrade.",
            )
        cancelled_at = (
            await queries.cancelled_at(connection, scale_set.id.lower(), found.started_at)
            if found.cancel_requested
            else None
        )
    return JSONResponse(
        latest_json(
            found,
            scale_set=scale_set.id,
            location=scale_set.location,
            cancelled_at=cancelled_at,
        )
    )


@router.post(SET + "/osRollingUpgrade")
async def start(scale_set: ScaleSet, server: ServerOf) -> Response:
    """Ask for an upgrade to the latest version now; refused where there is nothing to do."""

    async def work(connection: Connection) -> tuple[None, list[Event]]:
        running = await _latest(connection, scale_set)
        reference = _image(scale_set)
        refusal = refusal_to_start(
            name=scale_set.name,
            is_running=running is not None and running.status == RUNNING,
            version=reference.version,
            images=await queries.images(connection, "/".join(reference.stream)),
            versions=await queries.versions_in_use(connection, scale_set.id),
        )
        if refusal is not None:
            raise _refused(refusal)
        return None, [UpgradeStartRequested(scale_set=scale_set.id)]

    await server.transact(work)
    return Response(status_code=202)


@router.post(SET + "/rollingUpgrades/cancel")
async def cancel(scale_set: ScaleSet, server: ServerOf) -> Response:
    """Ask the running upgrade to stop after its current batch (M05)."""

    async def work(connection: Connection) -> tuple[None, list[Event]]:
        running = await _latest(connection, scale_set)
        if running is None or running.status != RUNNING:
            raise ApiError(409, "Conflict", "There is no ongoing Rolling Upgrade to cancel.")
        return None, [UpgradeCancelRequested(scale_set=scale_set.id)]

    await server.transact(work)
    return Response(status_code=202)


@router.get(SET + "/rollcall/upgrades")
async def full_history(
    request: Request,
    scale_set: ScaleSet,
    pool: Pool,
    server: ServerOf,
    expand: Annotated[str, Query(alias="$expand")] = "",
    top: Top = None,
    skip: Annotated[int, Query(alias="$skiptoken", ge=0, le=2**31)] = 0,
) -> Response:
    """Return upgrades of any age with their batches; `$expand=instances` adds each result."""
    limit = min(top or 20, server.settings.api_page_size)
    async with pool.acquire() as connection:
        found = await queries.upgrades(connection, scale_set.id, offset=skip, limit=limit + 1)
        shown = found[:limit]
        batches = await queries.batches(connection, [each.id for each in shown])
        value = [
            upgrade_json(
                each,
                batches[each.id],
                await queries.results(connection, each.id)
                if expand.lower() == "instances"
                else None,
            )
            for each in shown
        ]
    token = str(skip + limit) if len(found) > limit else None
    return JSONResponse(page(request, value, token))


@router.get(SET + "/rollcall/upgrades/{upgrade_id}")
async def one_upgrade(scale_set: ScaleSet, upgrade_id: str, pool: Pool) -> Response:
    """Return one upgrade with its batches and each instance's result."""
    async with pool.acquire() as connection:
        found = await queries.upgrade(connection, scale_set.id, upgrade_id)
        if found is None:
            raise ApiError(
                404,
                "RollingUpgradeNotFound",
                f"The scale set {scale_set.name} has no upgrade {upgrade_id}.",
            )
        batches = await queries.batches(connection, [found.id])
        results = await queries.results(connection, found.id)
    return JSONResponse(upgrade_json(found, batches[found.id], results))


async def _latest(connection: Connection, scale_set: StoredScaleSet) -> UpgradeRow | None:
    found = await queries.upgrades(connection, scale_set.id, limit=1)
    return found[0] if found else None


def _image(scale_set: StoredScaleSet) -> ImageReference:
    document = at(scale_set.model, "properties.virtualMachineProfile.storageProfile.imageReference")
    reference = ImageReference.model_validate(document)
    if reference.version.lower() == LATEST:
        return reference.model_copy(update={"version": LATEST})
    return reference


def _refused(refusal: Refusal) -> ApiError:
    return ApiError(refusal.status, "OperationNotAllowed", refusal.message)
