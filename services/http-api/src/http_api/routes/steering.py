"""What people ask of upgrades: start and cancel (M52), pause, resume, roll back, approve."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from rollcall_contracts.events import (
    Event,
    UpgradeApproveRequested,
    UpgradeCancelRequested,
    UpgradePauseRequested,
    UpgradeResumeRequested,
    UpgradeRollbackRequested,
    UpgradeStartRequested,
)
from rollcall_kit.outbox import Connection, lock_stream

from http_api import progress, queries
from http_api.domain.asking import (
    Refusal,
    read_instance_ids,
    read_wish,
    refusal_to_approve,
    refusal_to_pause,
    refusal_to_resume,
    refusal_to_roll_back,
    refusal_to_start,
)
from http_api.domain.operations import Kind, Operation
from http_api.domain.present.scale_sets import StoredScaleSet
from http_api.domain.present.upgrades import UpgradeRow
from http_api.errors import ApiError
from http_api.routes.common import SET, OptionalBody, ScaleSet, ServerOf, need_api_version
from http_api.routes.instances import INSTANCES, Instance, check_instances
from http_api.routes.status import Asking, accepted
from http_api.writes import Server

router = APIRouter(tags=["upgrades"], dependencies=[Depends(need_api_version)])
ROLLING = SET + "/rollingUpgrades"

# Given the upgrade that runs, returns why not, if so.
Check = Callable[[Connection, UpgradeRow | None], Awaitable[Refusal | None]]
# Given the same, returns what the operation will be judged by.
Goal = Callable[[Connection, UpgradeRow | None], Awaitable[Mapping[str, Any]]]
# Given the same, returns what the request is about, so that it is about nothing else later.
About = Callable[[Connection, UpgradeRow | None], Awaitable[Mapping[str, Any]]]


@router.post(SET + "/osRollingUpgrade")
async def start(
    request: Request,
    scale_set: ScaleSet,
    body: OptionalBody,
    server: ServerOf,
    asked: Asking,
    forced: Annotated[str, Query(alias="forceReimage")] = "",
) -> Response:
    """Ask for an upgrade to the latest version now; refused where there is nothing to do.

    With `forceReimage`, in the query or the body, also of instances that run it already.
    """
    wish = read_wish(body)
    reimage = wish.force_reimage or forced.lower() == "true"

    async def check(connection: Connection, running: UpgradeRow | None) -> Refusal | None:
        reference = scale_set.image
        return refusal_to_start(
            name=scale_set.name,
            is_running=running is not None,
            reimage=reimage,
            version=reference.version,
            images=await queries.images(connection, "/".join(reference.stream)),
            standings=await queries.standings(connection, scale_set.id),
        )

    event = UpgradeStartRequested(
        scale_set=scale_set.id, override=wish.override, reimage=reimage, reason=wish.reason
    )

    async def goal(connection: Connection, _running: UpgradeRow | None) -> Mapping[str, Any]:
        return await progress.start_goal(connection, scale_set.id)

    begun = await _begin(server, scale_set, event, check, Follow(asked, Kind.START, goal))
    return accepted(request, server, begun)


@router.post(ROLLING + "/cancel")
async def cancel(
    request: Request, scale_set: ScaleSet, body: OptionalBody, server: ServerOf, asked: Asking
) -> Response:
    """Ask the running upgrade to stop after its current batch (M05).

    Where none runs, but instances wait for new OS disks that were asked for, those are given up.
    """
    wish = read_wish(body)

    async def check(connection: Connection, running: UpgradeRow | None) -> Refusal | None:
        reimages = await queries.awaits_reimage(connection, scale_set.id)
        if running is None and not reimages:  # Azure's own code and words
            raise ApiError(409, "Conflict", "There is no ongoing Rolling Upgrade to cancel.")
        return None

    async def goal(_connection: Connection, running: UpgradeRow | None) -> Mapping[str, Any]:
        return {"upgrade": "" if running is None else running.id}

    event = UpgradeCancelRequested(scale_set=scale_set.id, reason=wish.reason)
    follow = Follow(asked, Kind.CANCEL, goal)
    begun = await _begin(server, scale_set, event, check, follow, _the_running_one)
    return accepted(request, server, begun)


@router.post(ROLLING + "/pause")
async def pause(
    scale_set: ScaleSet, body: OptionalBody, server: ServerOf, asked: Asking
) -> Response:
    """Ask that no further batch starts until the upgrade is resumed."""
    wish = read_wish(body)

    async def check(_connection: Connection, running: UpgradeRow | None) -> Refusal | None:
        cancelled = running is not None and running.cancel_requested
        return refusal_to_pause(is_running=running is not None, is_cancelled=cancelled)

    event = UpgradePauseRequested(scale_set=scale_set.id, reason=wish.reason)
    return await _ask(server, scale_set, event, check, asked, _the_running_one)


@router.post(ROLLING + "/resume")
async def resume(
    scale_set: ScaleSet, body: OptionalBody, server: ServerOf, asked: Asking
) -> Response:
    """Let a paused upgrade go on."""
    wish = read_wish(body)

    async def check(connection: Connection, running: UpgradeRow | None) -> Refusal | None:
        paused = running is not None and await queries.is_paused(
            connection, scale_set.id.lower(), running.started_at
        )
        return refusal_to_resume(is_running=running is not None, is_paused=paused)

    event = UpgradeResumeRequested(scale_set=scale_set.id, reason=wish.reason)
    return await _ask(server, scale_set, event, check, asked, _the_running_one)


@router.post(ROLLING + "/rollback")
async def roll_back(
    scale_set: ScaleSet, body: OptionalBody, server: ServerOf, asked: Asking
) -> Response:
    """Ask to bring the set back to what its last upgrade found there."""
    wish = read_wish(body)

    async def check(connection: Connection, running: UpgradeRow | None) -> Refusal | None:
        fleet = await queries.fleet(connection, scale_set.id)
        last = None if fleet is None else fleet.last_version
        return refusal_to_roll_back(
            name=scale_set.name,
            is_running=running is not None,
            is_rollback=running is not None and running.rollback_of is not None,
            can_return=await queries.can_return(connection, scale_set.id, last),
        )

    async def about(connection: Connection, running: UpgradeRow | None) -> Mapping[str, Any]:
        if running is not None:
            return {"version": running.image["version"]}
        fleet = await queries.fleet(connection, scale_set.id)
        return {"version": None if fleet is None else fleet.last_version}

    event = UpgradeRollbackRequested(scale_set=scale_set.id, reason=wish.reason)
    return await _ask(server, scale_set, event, check, asked, about)


@router.post(SET + "/approveRollingUpgrade")
async def approve(
    request: Request, scale_set: ScaleSet, body: OptionalBody, server: ServerOf, asked: Asking
) -> Response:
    """Approve a deferred upgrade of all its instances, or of those named."""
    ids = read_instance_ids(body, required=False)
    return accepted(request, server, await _approve(server, scale_set, ids, asked))


@router.post(INSTANCES + "/{instance_id}/approveRollingUpgrade")
async def approve_one(
    request: Request, scale_set: ScaleSet, instance: Instance, server: ServerOf, asked: Asking
) -> Response:
    """Approve a deferred upgrade of one instance."""
    return accepted(request, server, await _approve(server, scale_set, (instance.id,), asked))


async def _approve(
    server: Server, scale_set: StoredScaleSet, ids: tuple[str, ...], asked: progress.Asked
) -> Operation:
    async def check(connection: Connection, running: UpgradeRow | None) -> Refusal | None:
        await check_instances(connection, scale_set, ids)
        return refusal_to_approve(
            is_running=running is not None,
            is_deferred=running is not None and running.deferred,
            ids=ids,
            members=await queries.members(connection, running.id, ids) if running else (),
        )

    event = UpgradeApproveRequested(scale_set=scale_set.id, instance_ids=ids)
    return await _begin(server, scale_set, event, check, Follow(asked, Kind.NOTHING))


async def _nothing(_connection: Connection, _running: UpgradeRow | None) -> Mapping[str, Any]:
    return {}


async def _the_running_one(
    _connection: Connection, running: UpgradeRow | None
) -> Mapping[str, Any]:
    """Name the upgrade that runs; where none is seen, one that starts just now is meant too."""
    return {"upgrade_id": None if running is None else running.id}


@dataclass(frozen=True, slots=True)
class Follow:
    """How a client follows what it asked for."""

    asked: progress.Asked
    kind: Kind
    goal: Goal = _nothing


async def _ask(
    server: Server,
    scale_set: StoredScaleSet,
    event: Event,
    check: Check,
    asked: progress.Asked,
    about: About,
) -> Response:
    """Log a request of Rollcall's own, unless it would come to nothing. Raises ApiError."""
    await _begin(server, scale_set, event, check, Follow(asked, Kind.NOTHING), about)
    return Response(status_code=202)  # how far it is, the set's own resources show


async def _begin(
    server: Server,
    scale_set: StoredScaleSet,
    event: Event,
    check: Check,
    follow: Follow,
    about: About = _nothing,
) -> Operation:
    """Log a request and begin its operation, unless it would come to nothing. Raises ApiError.

    The same request, repeated by its client, is the same operation.
    """

    async def work(connection: Connection) -> tuple[Operation, list[Event]]:
        now = server.context.now()
        known = await progress.repeated(connection, scale_set.id, follow.asked, now)
        if known is not None:
            return known, []
        # So that what the orchestrator decides at this moment is either seen here, or decided in
        # the knowledge of this request.
        await lock_stream(connection, scale_set.id.lower())
        last = await queries.latest_upgrade(connection, scale_set.id)
        running = last if last is not None and last.is_running else None
        refusal = await check(connection, running)
        if refusal is not None:
            raise ApiError(refusal.status, "OperationNotAllowed", refusal.message)
        named = event.model_copy(update=dict(await about(connection, running)))
        goal = await follow.goal(connection, running)
        operation = await progress.begin(
            connection, follow.kind, scale_set.id, follow.asked, now, goal
        )
        return operation, [named]

    return await server.transact(work)
