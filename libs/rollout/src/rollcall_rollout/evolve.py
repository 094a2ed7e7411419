"""What each event does to the state of a scale set: the only place where state changes.

An event that does not fit the state (a late, repeated or foreign report) leaves it untouched; that
is expected, not an error. The working copy is made once for many events, so folding a report costs
the same in a large set as in a small one.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from rollcall_contracts import events as e
from rollcall_contracts.model import FailureCode, Health, Probe, ScaleSetSpec

from rollcall_rollout.draft import Draft
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.reports import apply_report, error_but_no_timeout
from rollcall_rollout.requests import apply_request
from rollcall_rollout.state import InstancePhase, Member, MemberState, Upgrade, UpgradeStatus


def evolve(fleet: Fleet, events: Iterable[e.Event], now: datetime) -> Fleet:
    """Return the state after these events; the same object when none of them changes anything."""
    return fold(fleet, events, now)[0]


def fold(fleet: Fleet, events: Iterable[e.Event], now: datetime) -> tuple[Fleet, list[e.Event]]:
    """Return the state after these events, and those of them that changed it."""
    draft = Draft(fleet)
    accepted = []
    for event in events:
        before = draft.writes
        _apply(draft, event, now)
        if draft.writes != before:
            accepted.append(event)
    return draft.fleet(), accepted


def _apply(draft: Draft, event: e.Event, now: datetime) -> None:
    match event:
        case e.InstanceReport():
            apply_report(draft, event, now)
        case e.HostRequest() | e.ImageFetchRequested() | e.ProbeRequested():
            apply_request(draft, event, now)
        case e.ScaleSetChanged():
            _change_model(draft, event)
        case e.ScaleSetDeleted():
            if event.revision >= (spec := draft.get("spec")).revision:
                # With its number, so that the model before it, delivered again, is known as older.
                draft.put(deleted=True, spec=spec.model_copy(update={"revision": event.revision}))
        case e.UpgradeStartRequested():
            draft.put(start_requested=draft.upgrade is None)
        case e.UpgradeCancelRequested():
            draft.put_upgrade(cancel_requested=True)
        case e.ModelDeployRequested():
            _mark_for_deployment(draft, event)
        case e.ImagePublished() | e.ImageWithdrawn():
            _change_images(draft, event)
        case e.ImageFetched() | e.ImageFetchFailed():
            _note_fetch(draft, event)
        case e.ScaleSetHeld():
            draft.put(held=("", event.error))
        case e.UpgradeHeld():
            draft.put(held=(event.version, event.error), start_requested=False)
        case _:
            _apply_upgrade(draft, event, now)


def _apply_upgrade(draft: Draft, event: e.Event, now: datetime) -> None:
    if isinstance(event, e.UpgradeStarted):
        _start_upgrade(draft, event, now)
        return
    upgrade = draft.upgrade
    if upgrade is None or getattr(event, "upgrade_id", None) != upgrade.id:
        return
    barred = upgrade.image.version
    match event:
        case e.BatchStarted():
            draft.put_upgrade(batch=event.batch, batch_open=True, paused_since=None)
            for id in event.instance_ids:
                if (member := draft.member(id)) is not None:
                    draft.put_member(replace(member, batch=event.batch, reason=event.reason))
        case e.BatchCompleted():
            draft.put_upgrade(batch_open=False, paused_since=now)
        case e.UpgradeCompleted():
            draft.end_upgrade(status=UpgradeStatus.COMPLETED, ended_at=now, reason=event.reason)
            if any(m.state is not MemberState.SUCCEEDED for m in upgrade.members.values()):
                draft.put(barred_version=barred)  # or those put back would be tried for ever
        case e.UpgradeFaulted():
            draft.end_upgrade(
                status=UpgradeStatus.FAULTED, ended_at=now, error=event.error, reason=event.reason
            )
            draft.put(barred_version=barred)
            if (
                event.error.code != FailureCode.CREDENTIALS
            ):  # there the deployment is the cure (M41)
                _drop_deployments(draft)
        case e.UpgradeCancelled():
            draft.end_upgrade(status=UpgradeStatus.CANCELLED, ended_at=now, reason=event.reason)
            draft.put(barred_version=barred)


def _start_upgrade(draft: Draft, event: e.UpgradeStarted, now: datetime) -> None:
    members = {}
    for id in event.instance_ids:
        instance = draft.instance(id)
        members[id] = Member(
            id=id,
            state=MemberState.PENDING,
            since=now,
            from_version=instance.version if instance else None,
        )
    draft.start_upgrade(
        Upgrade(
            id=event.upgrade_id,
            image=event.image,
            policy=event.policy,
            started_by=event.started_by,
            restore_failed=event.restore_failed,
            started_at=now,
            reason=event.reason,
            members=members,
        )
    )
    draft.put(held=None, start_requested=False)


# --- the model ------------------------------------------------------------------------------------


def _change_model(draft: Draft, event: e.ScaleSetChanged) -> None:
    before, after = draft.get("spec"), event.spec
    if after.revision < before.revision:
        return  # overtaken by a newer one
    if after == before and not draft.get("deleted"):
        return  # delivered again: not a change, so it does not try a barred version again
    draft.put(spec=after, held=None, deleted=False)
    if not _differs_in_size_only(before, after):
        draft.put(barred_version=None)
    if before.image.stream != after.image.stream:
        draft.put(images=())  # the other line's versions; the caller loads this one's
    if before.probe == after.probe:
        return
    asks_the_same = _endpoint(before.probe) == _endpoint(after.probe)
    for instance in draft.instances():
        if not asks_the_same:
            instance = replace(
                instance, health=Health.UNKNOWN, error=error_but_no_timeout(instance)
            )
        draft.put_instance(replace(instance, probed_until=None))


def _differs_in_size_only(before: ScaleSetSpec, after: ScaleSetSpec) -> bool:
    """Say whether the set was only scaled: no reason to try a version again that did not work."""
    size = {"capacity": after.capacity, "revision": after.revision}
    return before.capacity != after.capacity and before.model_copy(update=size) == after


def _endpoint(probe: Probe | None) -> tuple[object, ...] | None:
    return (probe.protocol, probe.port, probe.request_path) if probe else None


def _change_images(draft: Draft, event: e.ImagePublished | e.ImageWithdrawn) -> None:
    if event.image.stream != draft.get("spec").image.stream:
        return
    others = tuple(i for i in draft.get("images") if i.version != event.image.version)
    published = isinstance(event, e.ImagePublished)
    draft.put(images=(*others, event.image) if published else others)


def _mark_for_deployment(draft: Draft, event: e.ModelDeployRequested) -> None:
    generation = draft.get("spec").provisioning.generation
    latest = draft.fleet().wanted_image
    for instance in draft.instances():
        named = "*" in event.instance_ids or instance.id in event.instance_ids
        current = (
            instance.phase is InstancePhase.READY
            and instance.generation == generation
            and (latest is None or instance.version == latest.version)
        )
        if named and not current and instance.phase is not InstancePhase.DELETING:
            draft.put_instance(replace(instance, deploy=True))


def _drop_deployments(draft: Draft) -> None:
    """Drop what was asked for during an upgrade that faulted.

    It would bring all that were named to the very version that has just failed, at once and past
    every gate. Whoever knows of the fault may ask again.
    """
    for instance in draft.instances():
        if instance.deploy and instance.version is not None:
            draft.put_instance(replace(instance, deploy=False))


def _note_fetch(draft: Draft, event: e.ImageFetched | e.ImageFetchFailed) -> None:
    upgrade = draft.upgrade
    if upgrade is None or upgrade.id != event.upgrade_id or event.host not in upgrade.fetches:
        return
    if isinstance(event, e.ImageFetched):
        if not upgrade.fetches[event.host]:
            draft.put_upgrade(fetches={**upgrade.fetches, event.host: True})
    elif upgrade.fetch_error is None and not upgrade.fetches[event.host]:
        draft.put_upgrade(fetch_error=event.error)
