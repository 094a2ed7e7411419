"""What people do with instances: new OS disks, power, and deletion of those that they name."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from rollcall_contracts.events import Event, ModelDeployRequested, PowerChangeRequested
from rollcall_contracts.model import PowerAction
from rollcall_kit.outbox import Connection

from http_api import progress, queries, store
from http_api.domain.actions import (
    Chosen,
    of_the_set,
    refusal_to_delete,
    refusal_to_reimage,
)
from http_api.domain.asking import read_instance_ids
from http_api.domain.conditions import ANYHOW, Conditions
from http_api.domain.operations import Kind, Operation
from http_api.domain.present.scale_sets import StoredScaleSet
from http_api.domain.resource_ids import SCALE_SETS, ResourceId
from http_api.errors import ApiError, need, not_found
from http_api.routes.common import (
    SET,
    JsonBody,
    OptionalBody,
    Pool,
    ScaleSet,
    ScaleSetPlace,
    ServerOf,
    When,
    need_api_version,
)
from http_api.routes.instances import INSTANCES, Instance, as_asked, check_instances
from http_api.routes.status import Asking, accepted
from http_api.writes import Server, refuse_while_upgrading, remove_instances

router = APIRouter(tags=["instances"], dependencies=[Depends(need_api_version)])
Forced = Annotated[str, Query(alias="forceDeletion")]

# Given the instances that are meant, returns the operation and what is logged of it.
Work = Callable[[Connection, list[Chosen]], Awaitable[tuple[Operation, list[Event]]]]


@router.post(SET + "/reimage")
@router.post(SET + "/reimageall")
async def reimage(
    request: Request, scale_set: ScaleSet, body: OptionalBody, server: ServerOf, asked: Asking
) -> Response:
    """Give instances a new OS disk, a few at a time; data disks stay, as always here."""
    ids = read_instance_ids(body, required=False)
    return accepted(request, server, await _reimage(server, scale_set, ids, asked))


@router.post(INSTANCES + "/{instance_id}/reimage")
@router.post(INSTANCES + "/{instance_id}/reimageall")
async def reimage_one(
    request: Request, scale_set: ScaleSet, instance: Instance, server: ServerOf, asked: Asking
) -> Response:
    """Give one instance a new OS disk."""
    return accepted(request, server, await _reimage(server, scale_set, (instance.id,), asked))


async def _reimage(
    server: Server, scale_set: StoredScaleSet, ids: Sequence[str], asked: progress.Asked
) -> Operation:
    async def work(connection: Connection, chosen: list[Chosen]) -> tuple[Operation, list[Event]]:
        named = "*" not in ids
        await refuse_while_upgrading(connection, scale_set, asked.action)
        _refuse(refusal_to_reimage(chosen, scale_set=scale_set.name, named=named))
        meant = chosen if named else [each for each in of_the_set(chosen) if not each.is_parked]
        number = await store.next_revision(connection)
        goal = {"number": number, "attempts": {each.id: each.attempt for each in meant}}
        now = server.context.now()
        operation = await progress.begin(connection, Kind.REIMAGE, scale_set.id, asked, now, goal)
        event = ModelDeployRequested(
            scale_set=scale_set.id,
            instance_ids=tuple(each.id for each in meant),
            reimage=True,
            number=number,
        )
        return operation, [event]

    return await _begin(server, scale_set, ids, asked, work)


def _add_power(action: PowerAction) -> None:
    async def change(
        request: Request, scale_set: ScaleSet, body: OptionalBody, server: ServerOf, asked: Asking
    ) -> Response:
        ids = read_instance_ids(body, required=False)
        return accepted(request, server, await _power(server, scale_set, ids, action, asked))

    async def change_one(
        request: Request, scale_set: ScaleSet, instance: Instance, server: ServerOf, asked: Asking
    ) -> Response:
        begun = await _power(server, scale_set, (instance.id,), action, asked)
        return accepted(request, server, begun)

    change.__doc__ = f"Ask for `{action.value}` of all instances, or of those named."
    change_one.__doc__ = f"Ask for `{action.value}` of one instance."
    add = partial(router.add_api_route, methods=["POST"])
    add(f"{SET}/{action.value}", change, name=action.value)
    add(f"{INSTANCES}/{{instance_id}}/{action.value}", change_one, name=f"{action.value}_one")


for _action in PowerAction:
    _add_power(_action)


async def _power(
    server: Server,
    scale_set: StoredScaleSet,
    ids: Sequence[str],
    action: PowerAction,
    asked: progress.Asked,
) -> Operation:
    async def work(connection: Connection, chosen: list[Chosen]) -> tuple[Operation, list[Event]]:
        meant = tuple(each.id for each in (chosen if "*" not in ids else of_the_set(chosen)))
        number = await store.next_revision(connection)
        goal = {"number": number, "ids": meant}
        now = server.context.now()
        operation = await progress.begin(connection, Kind.POWER, scale_set.id, asked, now, goal)
        event = PowerChangeRequested(
            scale_set=scale_set.id, instance_ids=meant, change=action, number=number
        )
        return operation, [event]

    return await _begin(server, scale_set, ids, asked, work)


@router.post(SET + "/delete")
async def delete_some(
    request: Request,
    place: ScaleSetPlace,
    scale_set: ScaleSet,
    body: JsonBody,
    server: ServerOf,
    asked: Asking,
    forced: Forced = "",
) -> Response:
    """Delete these very instances, which lowers the capacity by their number; `["*"]` is all."""
    ids = read_instance_ids(body, required=True)
    begun = await _remove(server, place, scale_set, ids, asked, forced=forced.lower() == "true")
    return accepted(request, server, begun)


@router.delete(INSTANCES + "/{instance_id}")
async def delete_one(
    request: Request,
    place: ScaleSetPlace,
    scale_set: ScaleSet,
    instance_id: str,
    server: ServerOf,
    pool: Pool,
    asked: Asking,
    when: When,
    forced: Forced = "",
) -> Response:
    """Delete this very instance, which lowers the capacity by one; 204 where there is none."""
    async with pool.acquire() as connection:
        known = await queries.known_instances(connection, scale_set.id, [instance_id])
    if not known:
        need(when, None)
        return Response(status_code=204)
    force = forced.lower() == "true"
    begun = await _remove(server, place, scale_set, (instance_id,), asked, forced=force, when=when)
    return accepted(request, server, begun)


async def _remove(
    server: Server,
    place: ResourceId,
    scale_set: StoredScaleSet,
    ids: Sequence[str],
    asked: progress.Asked,
    *,
    forced: bool,
    when: Conditions = ANYHOW,
) -> Operation:
    async def work(connection: Connection, chosen: list[Chosen]) -> tuple[Operation, list[Event]]:
        if when != ANYHOW:
            row = await as_asked(connection, scale_set, ids[0], server.context.now())
            need(when, None if row is None else row.etag)
        _refuse(refusal_to_delete(chosen, scale_set=scale_set.name, forced=forced))
        stored = await store.scale_set(connection, place.key)
        if stored is None:
            raise not_found(SCALE_SETS, place.name, place.group)
        _, revision, event = await remove_instances(connection, server, place, stored, ids)
        goal: dict[str, Any] = {"revision": revision, "ids": [each.id for each in chosen]}
        now = server.context.now()
        operation = await progress.begin(connection, Kind.REMOVAL, stored.id, asked, now, goal)
        return operation, [event]

    return await _begin(server, scale_set, ids, asked, work)


async def _begin(
    server: Server,
    scale_set: StoredScaleSet,
    ids: Sequence[str],
    asked: progress.Asked,
    work: Work,
) -> Operation:
    """Begin an operation on instances; the same request, repeated, is the same operation."""

    async def begin(connection: Connection) -> tuple[Operation, list[Event]]:
        await store.lock_models(connection)  # numbers are in the order of the transactions
        known = await progress.repeated(connection, scale_set.id, asked, server.context.now())
        if known is not None:
            return known, []
        await check_instances(connection, scale_set, ids)
        return await work(connection, await queries.chosen(connection, scale_set.id, ids))

    return await server.transact(begin)


def _refuse(refusal: tuple[str, str] | None) -> None:
    if refusal is not None:
        raise ApiError(409, "OperationNotAllowed", refusal[1], target=refusal[0])
