"""What each event does to the state of a scale set: the only place where state changes.

An event that does not fit the state (a late, repeated or foreign report) leaves it untouched; that
is expected, not an error. The working copy is made once for many events, so folding a report costs
the same in a large set as in a small one.
"""

from collections.abc import Iterable
from datetime import datetime

from rollcall_contracts import events as e

from rollcall_rollout import asked, powering
from rollcall_rollout.copying import replace
from rollcall_rollout.draft import Draft
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.hooks import apply_hook
from rollcall_rollout.progress import NOTHING_ASKED, apply_upgrade_event
from rollcall_rollout.reports import apply_report
from rollcall_rollout.requests import apply_request
from rollcall_rollout.state import MemberState, Upgrade


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
        case (
            e.HostRequest()
            | e.ImageFetchRequested()
            | e.ProbeRequested()
            | e.MetricQueryRequested()
        ):
            apply_request(draft, event, now)
        case e.LifecycleHookStarted() | e.LifecycleHookAnswered() | e.LifecycleHookCompleted():
            apply_hook(draft, event, now)
        case e.UpgradeEvent():
            apply_upgrade_event(draft, event, now)
        case e.ImageFetched() | e.ImageFetchFailed():
            _note_fetch(draft, event)
        case e.MetricQueried():
            _note_metric(draft, event)
        case e.ScaleSetHeld():
            draft.put(held=("", event.error))
        case e.UpgradeHeld():
            draft.put(held=(event.version, event.error), **NOTHING_ASKED)
        case _:
            _take(draft, event)


def _take(draft: Draft, event: e.Event) -> None:
    """Fold what people ask for, and what feeds bring."""
    match event:
        case e.ScaleSetChanged():
            asked.change_model(draft, event)
        case e.ScaleSetDeleted():
            if event.revision >= (spec := draft.get("spec")).revision:
                # With its number, so that the model before it, delivered again, is known as older.
                draft.put(deleted=True, spec=spec.model_copy(update={"revision": event.revision}))
        case e.ImagePublished() | e.ImageWithdrawn():
            asked.change_images(draft, event)
        case e.ImageHeld() | e.ImageReleased():
            asked.change_holds(draft, event)
        case e.ModelDeployRequested():
            asked.mark_for_deployment(draft, event)
        case e.PowerChangeRequested():
            powering.note_wish(draft, event)
        case e.InstanceProtectionChanged():
            asked.protect(draft, event)
        case _:
            asked.ask(draft, event)


def _note_fetch(draft: Draft, event: e.ImageFetched | e.ImageFetchFailed) -> None:
    upgrade = draft.upgrade
    if upgrade is None or upgrade.id != event.upgrade_id or event.host not in upgrade.fetches:
        return
    if isinstance(event, e.ImageFetched):
        if not upgrade.fetches[event.host]:
            draft.put_upgrade(fetches={**upgrade.fetches, event.host: True})
    elif upgrade.fetch_error is None and _lacks_image(draft, upgrade, event.host):
        draft.put_upgrade(fetch_error=event.error)


def _lacks_image(draft: Draft, upgrade: Upgrade, host: str) -> bool:
    """Say whether a host is still to fetch the image, for instances that wait for their turn."""
    if upgrade.fetches[host]:
        return False
    members = (draft.member(id) for id in upgrade.members)
    pending = (m for m in members if m is not None and m.state is MemberState.PENDING)
    waiting = (draft.instance(member.id) for member in pending)
    return any(instance is not None and instance.host == host for instance in waiting)


def _note_metric(draft: Draft, event: e.MetricQueried) -> None:
    upgrade = draft.upgrade
    if upgrade is None or upgrade.id != event.upgrade_id or upgrade.check is None:
        return
    if upgrade.check.number == event.check and upgrade.check.outcome is None:
        draft.put_upgrade(check=replace(upgrade.check, outcome=event.outcome, reason=event.reason))
