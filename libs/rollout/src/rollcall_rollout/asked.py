"""What people and feeds bring: requests, the model, images and the holds on them."""

from rollcall_contracts import events as e
from rollcall_contracts.model import Health, Probe, ScaleSetSpec

from rollcall_rollout import reimaging
from rollcall_rollout.copying import replace
from rollcall_rollout.draft import Draft
from rollcall_rollout.reports import error_but_no_timeout
from rollcall_rollout.state import Hold, InstancePhase


def ask(draft: Draft, event: e.Event) -> None:
    """Note what a person asks of an upgrade; what was said of another one comes too late."""
    upgrade = draft.upgrade
    match event:
        case e.UpgradeStartRequested():
            if upgrade is None:
                draft.put(
                    start_requested=True,
                    start_override=event.override,
                    start_reimage=event.reimage,
                    start_reason=event.reason,
                )
        case e.UpgradeCancelRequested() | e.UpgradePauseRequested() | e.UpgradeResumeRequested():
            if event.upgrade_id in (None, upgrade.id if upgrade is not None else None):
                _steer(draft, event)
        case e.UpgradeRollbackRequested():
            bad = draft.get("last_version") if upgrade is None else upgrade.image.version
            goes_back = upgrade is not None and upgrade.rollback_of is not None
            if not goes_back and event.version in (None, bad):
                draft.put(rollback_requested=True, start_reason=event.reason)
        case e.UpgradeApproveRequested():
            for id in upgrade.members if upgrade is not None else ():
                member = draft.member(id)
                named = "*" in event.instance_ids or id in event.instance_ids
                if named and member is not None and not member.approved:
                    draft.put_member(replace(member, approved=True))


def _steer(
    draft: Draft,
    event: e.UpgradeCancelRequested | e.UpgradePauseRequested | e.UpgradeResumeRequested,
) -> None:
    """Note how the running upgrade is to go on; where none runs, give the waiting reimages up."""
    upgrade = draft.upgrade
    if upgrade is None:
        if isinstance(event, e.UpgradeCancelRequested):
            reimaging.forget(draft)
        return
    match event:
        case e.UpgradeCancelRequested() if not upgrade.cancel_requested:
            draft.put_upgrade(cancel_requested=True)
        case e.UpgradePauseRequested() if not upgrade.pause_requested:
            draft.put_upgrade(pause_requested=True)
        case e.UpgradeResumeRequested() if upgrade.pause_requested:
            draft.put_upgrade(pause_requested=False, held=None)


def protect(draft: Draft, event: e.InstanceProtectionChanged) -> None:
    """Note an instance's protection (azure-aws-gcp.md 1.8)."""
    instance = draft.instance(event.instance_id)
    if instance is None:
        return
    after = replace(
        instance,
        protect_from_scale_in=event.protect_from_scale_in,
        protect_from_scale_set_actions=event.protect_from_scale_set_actions,
    )
    if after != instance:
        draft.put_instance(after)


def change_model(draft: Draft, event: e.ScaleSetChanged) -> None:
    """Take a newer model over."""
    before, after = draft.get("spec"), event.spec
    if after.revision < before.revision:
        return  # overtaken by a newer one
    if after == before and not draft.get("deleted"):
        return  # delivered again: not a change, so it does not try a barred version again
    draft.put(spec=after, held=None, deleted=False)
    if not _differs_in_size_only(before, after) and not _is_only_sealed_anew(before, after):
        draft.put(barred_version=None)
        if draft.upgrade is None:
            draft.put(hook=None)  # a version that was rejected is asked about again
    if _paces_differ(before, after):
        draft.put(batch_seconds=())  # how long a batch takes is to be measured anew
    if before.image.stream != after.image.stream:
        draft.put(images=(), holds={})  # the other line's; the caller loads this one's
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
    size = {
        "capacity": after.capacity,
        "leaving": after.leaving,
        "revision": after.revision,
    }
    return before.capacity != after.capacity and before.model_copy(update=size) == after


def _is_only_sealed_anew(before: ScaleSetSpec, after: ScaleSetSpec) -> bool:
    """Say whether only the key of its secrets was changed: a new content is a new generation."""
    same = {"provisioning": after.provisioning, "revision": after.revision}
    is_sealed_anew = (
        before.provisioning != after.provisioning
        and before.provisioning.generation == after.provisioning.generation
    )
    return is_sealed_anew and before.model_copy(update=same) == after


def _paces_differ(before: ScaleSetSpec, after: ScaleSetSpec) -> bool:
    """Say whether batches may take another time than before: by the policy, or what is made."""
    generations = (before.provisioning.generation, after.provisioning.generation)
    return before.policy != after.policy or generations[0] != generations[1]


def _endpoint(probe: Probe | None) -> tuple[object, ...] | None:
    return (probe.protocol, probe.port, probe.request_path) if probe else None


def change_images(draft: Draft, event: e.ImagePublished | e.ImageWithdrawn) -> None:
    """Take note of a version of the model's line."""
    if event.image.stream != draft.get("spec").image.stream:
        return
    others = tuple(i for i in draft.get("images") if i.version != event.image.version)
    published = isinstance(event, e.ImagePublished)
    draft.put(images=(*others, event.image) if published else others)


def change_holds(draft: Draft, event: e.ImageHeld | e.ImageReleased) -> None:
    """Keep off a version, or no longer; what a person clears is tried again."""
    if event.image.stream != draft.get("spec").image.stream:
        return
    version, holds = event.image.version, draft.get("holds")
    if isinstance(event, e.ImageReleased):
        draft.put(holds={v: hold for v, hold in holds.items() if v != version})
        if draft.get("barred_version") == version:
            draft.put(barred_version=None)
        return
    known = holds.get(version)
    if known is None or (event.quarantine and not known.quarantine):
        hold = Hold(
            by_set=event.by_set,
            upgrade_id=event.upgrade_id,
            error=event.error,
            quarantine=event.quarantine,
        )
        draft.put(holds={**holds, version: hold})


def mark_for_deployment(draft: Draft, event: e.ModelDeployRequested) -> None:
    """Note who is to be brought to the model (M41), or to get a new OS disk whatever it has."""
    if event.reimage:
        reimaging.mark(draft, event)
        return
    generation = draft.get("spec").provisioning.generation
    image = draft.fleet().image_to_deploy
    for instance in draft.instances():
        named = "*" in event.instance_ids or instance.id in event.instance_ids
        current = (
            instance.phase is InstancePhase.READY
            and instance.generation == generation
            and (image is None or instance.version == image.version)
        )
        if named and not current and instance.phase is not InstancePhase.DELETING:
            draft.put_instance(replace(instance, deploy=True))
