"""Upgrades as they are and were: history (M50), the latest (M52), and Rollcall's full record."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from rollcall_kit.outbox import Connection

from http_api import insight, installation, queries
from http_api.domain.api_versions import progress_for_older
from http_api.domain.present.upgrades import (
    ResultRow,
    UpgradeRow,
    history_json,
    latest_json,
    upgrade_json,
)
from http_api.errors import ApiError
from http_api.routes.common import (
    SET,
    ApiVersion,
    Pool,
    ScaleSet,
    ServerOf,
    Top,
    need_api_version,
    page,
)
from http_api.routes.events import After, Limit, log_page

router = APIRouter(tags=["upgrades"], dependencies=[Depends(need_api_version)])


@router.get(SET + "/osUpgradeHistory")
async def history(
    scale_set: ScaleSet, pool: Pool, server: ServerOf, version: ApiVersion
) -> Response:
    """Return the last five upgrades of the past two months, newest first."""
    async with pool.acquire() as connection:
        found = await queries.recent_upgrades(connection, scale_set.id, server.context.now())
        value = [
            progress_for_older(
                history_json(each, scale_set.location, failure=await _failure(connection, each)),
                version,
            )
            for each in found
        ]
    return JSONResponse({"value": value})


@router.get(SET + "/rollingUpgrades/latest")
async def latest(scale_set: ScaleSet, pool: Pool, version: ApiVersion) -> Response:
    """Return the upgrade that runs, or the last one."""
    async with pool.acquire() as connection:
        found = await queries.latest_upgrade(connection, scale_set.id)
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
        fleet = await queries.fleet(connection, scale_set.id)
        failure = await _failure(connection, found)
    shown = latest_json(
        found,
        scale_set=scale_set.id,
        location=scale_set.location,
        cancelled_at=cancelled_at,
        waiting=fleet.waiting if fleet else None,
        failure=failure,
    )
    return JSONResponse(progress_for_older(shown, version))


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


async def existing_upgrade(scale_set: ScaleSet, upgrade_id: str, pool: Pool) -> UpgradeRow:
    """Return the upgrade in the path. Raises ApiError 404."""
    async with pool.acquire() as connection:
        found = await queries.upgrade(connection, scale_set.id, upgrade_id)
    if found is None:
        raise ApiError(
            404,
            "RollingUpgradeNotFound",
            f"The scale set {scale_set.name} has no upgrade {upgrade_id}.",
        )
    return found


Upgrade = Annotated[UpgradeRow, Depends(existing_upgrade)]


@router.get(SET + "/rollcall/upgrades/{upgrade_id}")
async def one_upgrade(upgrade: Upgrade, pool: Pool) -> Response:
    """Return one upgrade with its batches and each instance's result."""
    async with pool.acquire() as connection:
        batches = await queries.batches(connection, [upgrade.id])
        results = await queries.results(connection, upgrade.id)
    return JSONResponse(upgrade_json(upgrade, batches[upgrade.id], results))


@router.get(SET + "/rollcall/upgrades/{upgrade_id}/events")
async def events_of_upgrade(
    request: Request,
    scale_set: ScaleSet,
    upgrade: Upgrade,
    pool: Pool,
    after: After = None,
    limit: Limit = 200,
) -> Response:
    """Return the set's event log from the upgrade's start to its end, oldest first."""
    stream = scale_set.id.lower()
    async with pool.acquire() as connection:
        span = await insight.span(connection, stream, upgrade.id, upgrade.started_at)
        rows = await installation.events(
            connection,
            stream,
            after=max(after or 0, span.first - 1),
            limit=limit + 1,
            last=span.last,
        )
    return log_page(request, rows, limit)


async def _failure(connection: Connection, upgrade: UpgradeRow) -> ResultRow | None:
    """Return the first failed instance of an upgrade that goes on."""
    if not upgrade.is_running or not upgrade.failed:
        return None
    return await queries.first_failure(connection, upgrade.id)
