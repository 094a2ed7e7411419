"""What a set waits for and why, and its whole state for planners."""

from contextlib import AbstractAsyncContextManager
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from rollcall_contracts.model import ImageReference
from rollcall_kit.outbox import Connection

from http_api import insight, queries
from http_api.domain.present.explanations import Scene, explanation_json, state_json
from http_api.domain.present.images import holds_for
from http_api.domain.present.upgrades import upgrade_json
from http_api.errors import ApiError
from http_api.routes.common import SET, Caller, Pool, ScaleSet, ServerOf, need_api_version
from http_api.routes.hooks import current_hook

router = APIRouter(tags=["explanations"], dependencies=[Depends(need_api_version)])
EVERYTHING = 1_000_000  # more instances than a set can have


def one_moment(connection: Connection) -> AbstractAsyncContextManager[None]:
    """Return a transaction in which all queries see the same state."""
    transaction: AbstractAsyncContextManager[None] = connection.transaction(
        isolation="repeatable_read", readonly=True
    )
    return transaction


@router.get(SET + "/explain")
async def explain(
    scale_set: ScaleSet,
    pool: Pool,
    principal: Caller,
    top: Annotated[int, Query(alias="$top", ge=1, le=1000)] = 20,
) -> Response:
    """Return what the set waits for, its last `$top` decisions, and each instance's part."""
    async with pool.acquire() as connection, one_moment(connection):
        fleet = await queries.fleet(connection, scale_set.id)
        upgrade = await queries.latest_upgrade(connection, scale_set.id)
        shown = None
        if upgrade is not None:
            batches = await queries.batches(connection, [upgrade.id])
            shown = upgrade_json(upgrade, batches[upgrade.id], None)
        scene = Scene(
            scale_set=scale_set.id,
            fleet=fleet,
            hook=await current_hook(connection, scale_set),
            holds=holds_for(
                principal, await queries.holds(connection, "/".join(scale_set.image.stream))
            ),
            upgrade=upgrade,
            results=await queries.results(connection, upgrade.id) if upgrade else [],
            instances=await queries.instances(connection, scale_set.id, limit=EVERYTHING),
        )
        decisions = await insight.decisions(connection, scale_set.id.lower(), limit=top)
    return JSONResponse(explanation_json(scene, upgrade=shown, decisions=decisions))


@router.get(SET + "/state")
async def state(scale_set: ScaleSet, pool: Pool, server: ServerOf, principal: Caller) -> Response:
    """Return everything from which the set can be rebuilt elsewhere, as of one moment."""
    async with pool.acquire() as connection, one_moment(connection):
        fleet = await queries.fleet(connection, scale_set.id)
        if fleet is None:
            raise ApiError(
                503,
                "ServiceUnavailable",
                f"The orchestrator has not taken {scale_set.name} over yet; try again.",
            )
        stream = "/".join(ImageReference.model_validate(fleet.spec["image"]).stream)
        document = state_json(
            fleet,
            await insight.whole_rows(connection, scale_set.id),
            images=await queries.images(connection, stream),
            holds=holds_for(principal, await queries.holds(connection, stream)),
            durations=await insight.durations(connection, scale_set.id),
            now=server.context.now(),
        )
    return JSONResponse(document)
