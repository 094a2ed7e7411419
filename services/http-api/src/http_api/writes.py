"""Writing models: merge, check, store, and say so in the same transaction."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from rollcall_contracts.events import Event, ScaleSetChanged, ScaleSetDeleted
from rollcall_contracts.model import Failure, ScaleSetSpec
from rollcall_kit.config import Config
from rollcall_kit.outbox import Connection
from rollcall_kit.service import Context

from http_api import deployments, progress, queries, resources, store
from http_api.domain.access import Principal
from http_api.domain.actions import refusal_while_upgrading
from http_api.domain.conditions import Conditions
from http_api.domain.documents import ModelError, at
from http_api.domain.load_balancers import LoadBalancer, read_load_balancer
from http_api.domain.merging import READ_ONLY, merge_patch, merge_put, without
from http_api.domain.operations import Kind, Operation
from http_api.domain.parts import read_resource
from http_api.domain.present.scale_sets import Stored, StoredScaleSet
from http_api.domain.resource_ids import LOAD_BALANCERS, SCALE_SETS, ResourceId, group_id
from http_api.domain.scale_sets import (
    Rules,
    Sealed,
    has_data_disks,
    probe_reference,
    read_scale_set,
)
from http_api.domain.secrets import take_secrets
from http_api.domain.shape import SCALE_SET, canonical
from http_api.errors import ApiError, need, need_linked, not_found
from http_api.sealing import all_resealed, sealed_secrets
from http_api.settings import Settings

T = TypeVar("T")
# From the set as it is stored, the body of a write.
Edit = Callable[[StoredScaleSet], Mapping[str, Any]]
_PROFILE = "properties.virtualMachineProfile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What every route may use."""

    context: Context
    settings: Settings
    config: Config

    @property
    def rules(self) -> Rules:
        """Return what this installation allows."""
        return Rules(
            supports=self.config.supports,
            require_health_source=self.settings.require_health_source,
        )

    async def transact(
        self, work: Callable[[Connection], Awaitable[tuple[T, Sequence[Event]]]]
    ) -> T:
        """Run `work` in one transaction with the events that it returns; return its result."""
        results: list[T] = []

        async def keep_result(connection: Connection) -> Sequence[Event]:
            result, events = await work(connection)
            results.append(result)
            return events

        await self.context.transact(keep_result)
        return results[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A scale set after a write."""

    stored: StoredScaleSet
    created: bool
    operation: Operation


async def write_scale_set(
    server: Server,
    place: ResourceId,
    body: Mapping[str, Any] | Edit,
    *,
    patch: bool,
    principal: Principal,
    when: Conditions,
) -> Written:
    """Put or patch a scale set; return it with the operation that makes it so.

    `body` may be a function that makes it from the set as it is stored. Raises ModelError for a
    model that cannot be taken, ApiError for a patch of nothing, where it begins to name a probe
    that the principal may not look at, where an upgrade runs that the change would get in the way
    of, and where the set was deleted since the same request (`when.once`) was done.
    """

    async def work(connection: Connection) -> tuple[Written, list[Event]]:
        await store.lock_models(connection)
        now = server.context.now()
        asked = progress.Asked(action="PATCH" if patch else "PUT", client_request=when.once)
        known = await progress.repeated(connection, place.id, asked, now, progress.KEPT)
        old = await store.scale_set(connection, place.key)
        if old is None and (patch or known is not None):
            raise not_found(SCALE_SETS, place.name, place.group)
        if old is not None and known is not None:
            return Written(stored=old, created=False, operation=known), []
        need(when, None if old is None else old.etag)
        base = old or await _blank(server, connection, place, now)
        given = body(base) if callable(body) else body
        clean, secrets = take_secrets(without(canonical(given, SCALE_SET), READ_ONLY), patch=patch)
        merge = merge_patch if patch else merge_put
        model = merge(base.model, clean)
        reference = probe_reference(model)
        if reference is not None and reference != probe_reference(base.model):
            need_linked(principal, base.id, reference[0])
        sealed = sealed_secrets(
            server.settings.secrets_key,
            model,
            # An edit says itself what it takes away: a patch of an extension may change its type.
            model if callable(body) else base.model,
            base.secrets,
            secrets,
        )
        revision = await store.next_revision(connection)
        generation = base.generation
        if old is None or _profile(old.model, old.secrets) != _profile(model, sealed):
            generation = revision
        stored = replace(base, model=model, secrets=sealed, generation=generation)
        had_disks = old is not None and has_data_disks(old.model)
        stored, spec = await _check(server, connection, stored, revision, had_disks=had_disks)
        if old is not None and generation != old.generation:
            await refuse_while_upgrading(connection, stored, "update of virtualMachineProfile")
        await store.save_scale_set(connection, place, stored, now)
        operation = await progress.begin(
            connection,
            Kind.SET,
            stored.id,
            asked,
            now,
            {"revision": revision},
        )
        written = Written(stored=stored, created=old is None, operation=operation)
        return written, [ScaleSetChanged(scale_set=stored.id, spec=spec)]

    return await server.transact(work)


async def reseal_scale_set(server: Server, key: str) -> bool:
    """Seal a set's secrets with the first key; return whether another one had sealed some.

    It is the same model, so the generation stays: no instance is behind it. Raises SealError where
    no key opens them, ModelError where the model cannot be taken any more.
    """

    async def work(connection: Connection) -> tuple[bool, list[Event]]:
        await store.lock_models(connection)
        old = await store.scale_set(connection, key)
        if old is None:
            return False, []
        sealed = all_resealed(server.settings.secrets_key, old.secrets)
        if sealed == old.secrets:
            return False, []
        revision = await store.next_revision(connection)
        stored, spec = await _check(
            server,
            connection,
            replace(old, secrets=sealed),
            revision,
            had_disks=has_data_disks(old.model),
        )
        place = ResourceId.parse(old.id)
        await store.save_scale_set(connection, place, stored, server.context.now())
        return True, [ScaleSetChanged(scale_set=stored.id, spec=spec)]

    return await server.transact(work)


async def refuse_while_upgrading(
    connection: Connection, stored: StoredScaleSet, operation: str
) -> None:
    """Raise ApiError 409 where an upgrade runs, which the operation would get in the way of."""
    last = await queries.latest_upgrade(connection, stored.id)
    if last is not None and last.is_running:
        raise ApiError(
            409,
            "OperationNotAllowed",
            refusal_while_upgrading(
                operation, stored.id, upgrade=last.id, version=str(last.image["version"])
            ),
            target=f"{stored.id}/rollingUpgrades/latest",
        )


async def remove_instances(
    connection: Connection,
    server: Server,
    place: ResourceId,
    stored: StoredScaleSet,
    ids: Sequence[str],
) -> tuple[StoredScaleSet, int, Event]:
    """Lower the capacity by these instances, which are the ones to go; `*` is all of them.

    Returns the set, the revision of its model, and what says so. The caller holds `lock_models`.
    """
    former = await queries.leaving(connection, place.key)
    chosen = await queries.chosen(connection, stored.id, ids)
    leaving = [each.id for each in chosen if each.phase != "deleting" and each.id not in former]
    capacity = 0 if "*" in ids else max(0, stored.capacity - len(leaving))
    model = merge_patch(stored.model, {"sku": {"capacity": capacity}})
    revision = await store.next_revision(connection)
    changed, spec = await _check(
        server, connection, replace(stored, model=model), revision, leaving=leaving
    )
    await store.save_scale_set(connection, place, changed, server.context.now())
    return changed, revision, ScaleSetChanged(scale_set=stored.id, spec=spec)


async def _blank(
    server: Server, connection: Connection, place: ResourceId, now: datetime
) -> StoredScaleSet:
    """Return a set that has nothing yet; one that comes back keeps the case of its former id."""
    return StoredScaleSet(
        id=await queries.former_id(connection, place.key) or place.id,
        model={"location": server.config.location},
        secrets={},
        generation=0,
        load_balancer=None,
        warnings=(),
        created_at=now,
    )


def _profile(model: Mapping[str, Any], sealed: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what instances are made from: a change of it makes a new generation."""
    return at(model, _PROFILE), sealed


async def _check(
    server: Server,
    connection: Connection,
    stored: StoredScaleSet,
    revision: int,
    *,
    had_disks: bool = False,
    leaving: Sequence[str] = (),
) -> tuple[StoredScaleSet, ScaleSetSpec]:
    """Return the set with its warnings and its load balancer, and the spec that it amounts to.

    Instances that are to go are named until they are gone: also in what is written after that, for
    the orchestrator may see the newer model only.
    """
    balancer: LoadBalancer | None = None
    reference = probe_reference(stored.model)
    if reference is not None:
        found = await store.load_balancer(connection, reference[0])
        balancer = None if found is None else read_load_balancer(found.model)
    spec, warnings = read_scale_set(
        stored.model,
        id=stored.id,
        name=stored.name,
        revision=revision,
        generation=stored.generation,
        sealed=Sealed(
            custom_data=stored.secrets.get("customData"),
            extensions=stored.secrets.get("extensions") or {},
        ),
        balancer=balancer,
        rules=server.rules,
        had_disks=had_disks,
    )
    former = await queries.leaving(connection, stored.id.lower())
    spec = spec.model_copy(update={"leaving": tuple(dict.fromkeys((*former, *leaving)))})
    return replace(
        stored,
        load_balancer=None if reference is None else reference[0],
        warnings=tuple(warning.model_dump() for warning in warnings),
    ), spec


async def delete_scale_set(server: Server, place: ResourceId, when: Conditions) -> Operation | None:
    """Delete a scale set, and have its instances deleted; return None where there is none.

    Asked again while the instances go, it is the same operation.
    """

    async def work(connection: Connection) -> tuple[Operation | None, list[Event]]:
        await store.lock_models(connection)
        now = server.context.now()
        old = await store.scale_set(connection, place.key)
        need(when, None if old is None else old.etag)
        id = await store.delete_scale_set(connection, place.key)
        if id is None:
            return await progress.unfinished(connection, place.id, "DELETE", now), []
        revision = await store.next_revision(connection)
        operation = await progress.begin(
            connection, Kind.DELETION, id, progress.Asked(action="DELETE"), now, {"sets": [id]}
        )
        return operation, [ScaleSetDeleted(scale_set=id, revision=revision)]

    return await server.transact(work)


async def write_load_balancer(
    server: Server,
    place: ResourceId,
    body: Mapping[str, Any],
    *,
    patch: bool,
    when: Conditions,
) -> tuple[Stored, bool]:
    """Put or patch a load balancer, and tell the sets that use its probes.

    Raises ModelError for a model that cannot be taken, or that a set using it could not go on with.
    """
    body = read_resource(body, LOAD_BALANCERS)

    async def work(connection: Connection) -> tuple[tuple[Stored, bool], list[Event]]:
        await store.lock_models(connection)
        old = await store.load_balancer(connection, place.key)
        if old is None and patch:
            raise not_found(LOAD_BALANCERS, place.name, place.group)
        need(when, None if old is None else old.etag)
        now = server.context.now()
        base = old or Stored(
            id=place.id, model={"location": server.config.location}, created_at=now
        )
        merge = merge_patch if patch else merge_put
        stored = replace(base, model=merge(base.model, body))
        probes = read_load_balancer(stored.model).probes
        users = await store.scale_sets_behind(connection, place.key)
        for user in users:
            reference = probe_reference(user.model)
            if reference is not None and reference[1] not in probes:
                raise _in_use("probe", f"{stored.id}/probes/{reference[1]}", user)
        await store.save_load_balancer(connection, place, stored, now)
        told = users if stored.model != base.model else ()
        return (stored, old is None), [await _tell(server, connection, user) for user in told]

    return await server.transact(work)


async def _tell(server: Server, connection: Connection, user: StoredScaleSet) -> Event:
    try:
        checked, spec = await _check(
            server, connection, user, await store.next_revision(connection)
        )
    except ModelError as error:
        raise ModelError(
            *(
                Failure(
                    code=fault.code,
                    message=f"{user.id} uses this load balancer: {fault.message}",
                    target=user.id,
                )
                for fault in error.faults
            )
        ) from error
    await store.save_warnings(connection, user.id.lower(), checked.warnings)
    return ScaleSetChanged(scale_set=user.id, spec=spec)


async def delete_group(
    server: Server, subscription: str, group: str, when: Conditions
) -> Operation | None:
    """Delete a resource group with all that is in it; return None where there is none.

    Raises ApiError where a set of another group uses one of its load balancers.
    """
    id = group_id(subscription, group)

    async def work(connection: Connection) -> tuple[Operation | None, list[Event]]:
        # First: a deployment in progress may wait for the lock on models.
        await deployments.delete_of_group(connection, subscription, group)
        await store.lock_models(connection)
        now = server.context.now()
        known = await resources.groups(
            connection, subscription, location=server.config.location, name=group
        )
        need(when, known[0].etag if known else None)
        events: list[Event] = []
        keys = {
            table: await resources.keys_in_group(connection, table, subscription, group)
            for table in ("scale_sets", "load_balancers", "resources")
        }
        had_row = await resources.delete_group(connection, id.lower())
        if not had_row and not any(keys.values()):
            return await progress.unfinished(connection, id, "DELETE", now), []
        sets: list[str] = []
        for key in keys["scale_sets"]:
            found = await store.delete_scale_set(connection, key)
            if found is not None:
                sets.append(found)
                revision = await store.next_revision(connection)
                events.append(ScaleSetDeleted(scale_set=found, revision=revision))
        for key in keys["load_balancers"]:
            for user in await store.scale_sets_behind(connection, key):
                raise _in_use("", key, user)
            await store.delete_load_balancer(connection, key)
        for key in keys["resources"]:
            await resources.delete_resource(connection, key)
        asked = progress.Asked(action="DELETE")
        operation = await progress.begin(connection, Kind.DELETION, id, asked, now, {"sets": sets})
        return operation, events

    return await server.transact(work)


async def delete_load_balancer(
    server: Server, place: ResourceId, when: Conditions
) -> Operation | None:
    """Delete a load balancer that no set uses; return None where there is none."""

    async def work(connection: Connection) -> tuple[Operation | None, list[Event]]:
        await store.lock_models(connection)
        old = await store.load_balancer(connection, place.key)
        need(when, None if old is None else old.etag)
        for user in await store.scale_sets_behind(connection, place.key):
            raise _in_use("", place.id, user)
        if not await store.delete_load_balancer(connection, place.key):
            return None, []
        asked = progress.Asked(action="DELETE")
        now = server.context.now()
        return await progress.begin(connection, Kind.NOTHING, place.id, asked, now), []

    return await server.transact(work)


def _in_use(part: str, id: str, user: StoredScaleSet) -> ApiError:
    return ApiError(
        400,
        f"LoadBalancer{part.capitalize()}InUseByVirtualMachineScaleSet",
        f"Cannot remove the load balancer {part + ' ' if part else ''}{id}, since the scale set "
        f"{user.id} uses it as its health probe. Take it out of the scale set's model first.",
        target=user.id,
    )
