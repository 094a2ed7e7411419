"""When an upgrade starts, and why it is held."""

from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from rollcall_contracts import events as e
from rollcall_contracts.model import (
    LATEST,
    Failure,
    FailureCode,
    HookAction,
    Image,
    LifecycleHookType,
    StartedBy,
)
from rollcall_contracts.versions import version_key

from rollcall_rollout import hooks
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.gates import unhealthy_share
from rollcall_rollout.holding import answer_awaited, closed_windows, held_version
from rollcall_rollout.state import Instance
from rollcall_rollout.waits import Wait, WaitCode

ALL_EXCLUDED = (
    "The OS Rolling Upgrade API cannot be used on a Virtual Machine Scale Set unless the Virtual "
    "Machine Scale Set has some unprotected instances which have imageReference.version set to "
    "latest."
)

PROTECTED = "protectFromScaleSetActions"
BY_WISH = "SkipUpgrade, says its application"
POWERED_OFF = "powered off by a person"


def start(fleet: Fleet, now: datetime) -> list[e.Event]:
    """Start an upgrade to the latest version when one is due (M01) or was asked for (M52)."""
    if fleet.start_requested:
        return _start_for_a_person(fleet, now)
    target = due(fleet, now)
    if target is None:
        return []
    wait = before_start(fleet, target, now)
    if wait is None:
        return _started(fleet, target, StartedBy.PLATFORM, now)
    if wait.asks:
        return list(wait.asks)
    return _hold(fleet, target.version, wait)


def due(fleet: Fleet, now: datetime) -> Image | None:
    """Return the version to which the set should go by itself, if nothing held it back (M01)."""
    if not fleet.spec.automatic_os_upgrade or fleet.spec.image.version != LATEST:
        return None
    barred = fleet.barred_version
    for target in (fleet.target(now), fleet.latest):  # the second may be too young yet
        if (
            target is not None
            and (barred is None or target.order > version_key(barred))
            and _included(fleet, target)
        ):
            return target
    return None


def before_start(fleet: Fleet, target: Image, now: datetime) -> Wait | None:
    """Return what an automatic upgrade waits for before it starts."""
    hold = fleet.hold_on(target.version)
    if hold is not None:
        return held_version(target.version, hold)
    ripe = fleet.ripe_at(target)
    if now < ripe:
        return Wait(
            code=WaitCode.IMAGE_TOO_YOUNG,
            message=(
                f"Version {target.version} was published less than the minimumImageAge of "
                f"{fleet.spec.minimum_image_age:g} s ago: it is old enough at "
                f"{ripe:%Y-%m-%d %H:%M:%S}Z."
            ),
            until=ripe,
        )
    closed = closed_windows(fleet, now)
    if closed is not None:
        return closed
    return _unfit(fleet) or _asked_of_hook(fleet, target, now)


def _unfit(fleet: Fleet) -> Wait | None:
    """Hold for what only an override by hand goes past."""
    return _too_sick(fleet) or _blindly_probed(fleet)


def _too_sick(fleet: Fleet) -> Wait | None:
    """Hold when more of the set are unhealthy than may be (M10)."""
    share = unhealthy_share(fleet, fleet.spec.policy)
    if not share.exceeded:
        return None
    return Wait(
        code=WaitCode.UNHEALTHY,
        message=(
            "Rolling Upgrade failed due to exceeding the MaxUnhealthyInstancePercent value before "
            f"any batch started: {share.percent}% of instances are in an unhealthy state - more "
            f"than the threshold of {share.limit}% ({share}). It starts when they are healthy; to "
            "bring a fix to them, start it by hand with an override."
        ),
    )


def _blindly_probed(fleet: Fleet) -> Wait | None:
    """Hold while the probe is content with guests that never booted: a bad image would pass."""
    probe = fleet.spec.probe
    if probe is None or probe.protocol != "Tcp" or not fleet.blind_hosts:
        return None
    blind = sorted({instance.host for instance in fleet.instances.values()} & fleet.blind_hosts)
    if not blind:
        return None
    more = f" and {len(blind) - 1} more" if len(blind) > 1 else ""
    return Wait(
        code=WaitCode.BLIND_PROBE,
        message=(
            f"The health probe is Tcp, and on {blind[0]}{more} connections are taken for guests "
            "that have not booted, so it proves nothing: give the set an Http or Https probe, or "
            "put its machines on a bridge (ROLLCALL_QEMU_NETWORK); to go without, start it by hand "
            "with an override."
        ),
    )


def _asked_of_hook(fleet: Fleet, target: Image, now: datetime) -> Wait | None:
    model = hooks.hook_of(fleet, LifecycleHookType.SCHEDULING)
    if model is None:
        return None
    hook = fleet.hook
    if hook is None or hook.version != target.version or hook.upgrade_id is not None:
        ask = hooks.ask(fleet, model, version=target.version, now=now)
        return Wait(code=WaitCode.HOOK, message="The lifecycle hook is asked.", asks=(ask,))
    if not hook.completed:
        return answer_awaited(hook)
    if hook.targets.get(hooks.SET) is HookAction.APPROVE:
        return None
    return Wait(
        code=WaitCode.HOOK_REJECTED,
        message=(
            f"The lifecycle hook {hook.type} rejected version {target.version}: a newer version, "
            "any model update, or a start by hand tries again."
        ),
    )


def _start_for_a_person(fleet: Fleet, now: datetime) -> list[e.Event]:
    """Start now, or say once why not: a person does not wait for a window or an image's age."""
    target, why = fleet.latest, None
    code: str = FailureCode.NOT_ALLOWED
    if fleet.spec.image.version != LATEST:
        why = "the model pins a version: set imageReference.version to 'latest'"
    elif target is None:
        why = "no version is published for the set's image reference"
    elif not _to_upgrade(fleet, target):
        why = _none_to_upgrade(fleet, target)
    elif all(instance.is_excluded for instance in _to_upgrade(fleet, target)):
        why = ALL_EXCLUDED
    elif not fleet.start_override:
        hold = fleet.hold_on(target.version)
        wait = held_version(target.version, hold) if hold is not None else _unfit(fleet)
        if wait is not None:
            why, code = wait.message, wait.code
    if target is not None and why is None:
        return _started(fleet, target, StartedBy.USER, now)
    return [
        e.UpgradeHeld(
            scale_set=fleet.spec.scale_set,
            version=target.version if target is not None else "",
            error=Failure(code=code, message=why or ""),
            reason=why or "",
        )
    ]


def _none_to_upgrade(fleet: Fleet, target: Image) -> str:
    """Return why a person's upgrade has no instance to include."""
    below = [
        i
        for i in fleet.instances.values()
        if i.version is not None and version_key(i.version) < target.order
    ]
    if below:
        return (
            f"{len(below)} instances are below version {target.version}, and all of them are "
            "restarted, changed or deleted at the moment: ask again when that is done"
        )
    return f"every instance is at the latest version, {target.version}"


def _started(fleet: Fleet, target: Image, by: StartedBy, now: datetime) -> list[e.Event]:
    behind = _to_upgrade(fleet, target)
    share = unhealthy_share(fleet, fleet.spec.policy)
    words = f"; asked for: {fleet.start_reason}" if fleet.start_reason else ""
    upgrade_id = upgrade_identity(fleet, target, now)
    started = e.UpgradeStarted(
        scale_set=fleet.spec.scale_set,
        upgrade_id=upgrade_id,
        image=target,
        policy=fleet.spec.policy,
        started_by=by,
        restore_failed=by is StartedBy.PLATFORM and not fleet.spec.disable_automatic_rollback,
        instance_ids=tuple(instance.id for instance in behind),
        phases={i.id: i.phase_order for i in behind if i.phase_order is not None},
        deferred=by is StartedBy.PLATFORM and fleet.spec.os_rolling_upgrade_deferral,
        override=fleet.start_override,
        reimage=fleet.start_reimage,
        reason=(
            f"{len(behind)} of {len(fleet.instances)} instances "
            f"{'get a new OS disk of' if fleet.start_reimage else 'are below'} version "
            f"{target.version}; {share}{', overridden' if fleet.start_override else ''}{words}"
        ),
    )
    return [started, *_skipped_at_start(fleet, upgrade_id, behind)]


def upgrade_identity(fleet: Fleet, target: Image, now: datetime) -> str:
    """Return the id of an upgrade: the same whenever the same decision is taken again."""
    identity = f"{fleet.spec.scale_set.lower()}|{target.version}|{now.isoformat()}"
    return str(uuid5(NAMESPACE_URL, identity))


def _skipped_at_start(fleet: Fleet, upgrade_id: str, instances: list[Instance]) -> list[e.Event]:
    """Leave out what is protected or powered off, and what asks for it (read only now, METR)."""
    ids: dict[str, list[str]] = {}
    for why in (PROTECTED, BY_WISH, POWERED_OFF):
        ids[why] = [i.id for i in instances if _left_out_for(i) == why]
    return [
        e.InstancesSkipped(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade_id,
            instance_ids=tuple(named),
            reason=why,
        )
        for why, named in ids.items()
        if named
    ]


def _left_out_for(instance: Instance) -> str | None:
    """Return why an upgrade leaves an instance out from its start, if it does."""
    if instance.protect_from_scale_set_actions:
        return PROTECTED
    if instance.skip_upgrade:
        return BY_WISH
    return POWERED_OFF if instance.is_parked else None


def _to_upgrade(fleet: Fleet, target: Image) -> list[Instance]:
    """Return whom an upgrade includes: those below the target, or all when a person says so."""
    if not fleet.start_reimage:
        return _behind(fleet, target)
    there = (i for i in fleet.instances.values() if i.version is not None and not i.is_busy)
    return sorted(there, key=lambda instance: int(instance.id))


def _behind(fleet: Fleet, target: Image) -> list[Instance]:
    """Return the instances below the target, in order of their ids."""
    if not any(version_key(version) < target.order for version in fleet.census.versions):
        return []
    return sorted(
        (
            instance
            for instance in fleet.instances.values()
            if instance.version is not None
            and not instance.is_busy
            and not instance.deploy
            and version_key(instance.version) < target.order
        ),
        key=lambda instance: int(instance.id),
    )


def _included(fleet: Fleet, target: Image) -> bool:
    """Say whether an upgrade would touch any instance."""
    return any(not instance.is_excluded for instance in _behind(fleet, target))


def _hold(fleet: Fleet, version: str, wait: Wait) -> list[e.Event]:
    """Say why an upgrade does not start, once for each cause."""
    if fleet.held is not None and (fleet.held[0], fleet.held[1].code) == (version, wait.code):
        return []
    return [
        e.UpgradeHeld(
            scale_set=fleet.spec.scale_set,
            version=version,
            error=Failure(code=wait.code, message=wait.message),
            reason=wait.message,
        )
    ]
