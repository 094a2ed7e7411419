"""Lifecycle hook events: who asks, and answering (azure-aws-gcp.md 1.7)."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse
from rollcall_contracts.events import Event, LifecycleHookAnswered
from rollcall_kit.outbox import Connection

from http_api import insight, queries
from http_api.domain.hook_events import (
    HookEvent,
    after,
    hook_event_json,
    hook_from_view,
    read_answer,
)
from http_api.domain.present.scale_sets import StoredScaleSet
from http_api.errors import ApiError
from http_api.routes.common import SET, JsonBody, Pool, ScaleSet, ServerOf, need_api_version

router = APIRouter(tags=["lifecycle hooks"], dependencies=[Depends(need_api_version)])
HOOK_EVENTS = SET + "/lifecycleHookEvents"


async def current_hook(connection: Connection, scale_set: StoredScaleSet) -> HookEvent | None:
    """Return the hook that asks now, or was answered and not acted on yet."""
    fleet = await queries.fleet(connection, scale_set.id)
    return hook_from_view(fleet.hook) if fleet is not None and fleet.hook else None


@router.get(HOOK_EVENTS)
async def list_all(scale_set: ScaleSet, pool: Pool) -> Response:
    """Return the hook that asks, if one does, and the last ones that did, newest first."""
    async with pool.acquire() as connection:
        current = await current_hook(connection, scale_set)
        past = await insight.past_hooks(connection, scale_set.id.lower())
    found = [current] if current is not None else []
    found += [hook for hook in past if current is None or hook.id != current.id]
    return JSONResponse({"value": [hook_event_json(hook, scale_set.id) for hook in found]})


async def existing_hook(scale_set: ScaleSet, hook_id: str, pool: Pool) -> HookEvent:
    """Return the hook event in the path. Raises ApiError 404."""
    id = hook_id.lower()
    async with pool.acquire() as connection:
        current = await current_hook(connection, scale_set)
        if current is not None and current.id == id:
            return current
        past = await insight.past_hooks(connection, scale_set.id.lower(), id=id)
    if not past:
        raise ApiError(
            404,
            "LifecycleHookEventNotFound",
            f"The scale set {scale_set.name} has no lifecycle hook event {hook_id}.",
        )
    return past[0]


Hook = Annotated[HookEvent, Depends(existing_hook)]


@router.get(HOOK_EVENTS + "/{hook_id}")
async def get(scale_set: ScaleSet, hook: Hook) -> Response:
    """Return one hook event."""
    return JSONResponse(hook_event_json(hook, scale_set.id))


@router.patch(HOOK_EVENTS + "/{hook_id}")
async def answer(scale_set: ScaleSet, hook: Hook, body: JsonBody, server: ServerOf) -> Response:
    """Approve or reject targets, or ask for more time; the answer shows how the event then is."""
    given = read_answer(body, hook, scale_set=scale_set.id)
    if not given:
        return JSONResponse(hook_event_json(hook, scale_set.id))
    if not hook.is_active:
        raise ApiError(
            409,
            "OperationNotAllowed",
            f"The lifecycle hook event {hook.id} is completed: nobody asks any more. GET "
            "lifecycleHookEvents shows whether another one does.",
        )
    event = LifecycleHookAnswered(
        scale_set=scale_set.id,
        hook_id=hook.id,
        actions=given.actions,
        wait_until=given.wait_until,
    )

    async def work(_connection: Connection) -> tuple[None, list[Event]]:
        return None, [event]

    await server.transact(work)
    return JSONResponse(hook_event_json(after(hook, given), scale_set.id))
