"""What must hold at each decision, each a function whose docstring is the promise in a sentence.

They are asked with the checker's own account (`ledger`) as it is just before the decided event is
entered. A function returns nothing while its promise is kept, else the numbers that break it.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from rollcall_contracts import events as e
from rollcall_contracts.model import (
    LATEST,
    FailureCode,
    GateAnswer,
    LifecycleHookType,
    MaintenanceWindow,
    MetricGate,
    MetricOutcome,
    StartedBy,
)
from rollcall_contracts.versions import version_key

from rollcall_simulator.ledger import (
    BAD,
    BOOTING,
    DELETING,
    GOOD,
    IN_FLIGHT,
    PENDING,
    POWERING,
    READY,
    RETURNED,
    SKIPPED,
    SURGING,
    UPGRADING,
    WORKING,
    Known,
    Ledger,
    Rollout,
)

Invariant = Callable[[Ledger, e.Event, datetime], str | None]

DECIDED: dict[type[e.EventBase], list[Invariant]] = {}
"""The promises by the class of decided event at which they are checked."""


class Violation(Exception):
    """A promise was broken."""

    def __init__(self, sentence: str, detail: str) -> None:
        super().__init__(f"{sentence} {detail}")
        self.sentence = sentence
        self.detail = detail


def sentence_of(function: Callable[..., object]) -> str:
    """Return a function's docstring as the one sentence that it is."""
    return " ".join((function.__doc__ or "").split())


def _at(*classes: type[e.EventBase]) -> Callable[[Invariant], Invariant]:
    def register(invariant: Invariant) -> Invariant:
        for cls in classes:
            DECIDED.setdefault(cls, []).append(invariant)
        return invariant

    return register


def check_decided(ledger: Ledger, event: e.Event, now: datetime) -> None:
    """Raise Violation when an event that was decided breaks a promise."""
    for invariant in DECIDED.get(type(event), ()):
        detail = invariant(ledger, event, now)
        if detail is not None:
            raise Violation(sentence_of(invariant), detail)


# --- how many may be down -------------------------------------------------------------------------


def unhealthy(members: Iterable[Known]) -> set[str]:
    """Return the ids of those that do not count as healthy."""
    return {instance.id for instance in members if not instance.is_healthy}


def within(count: int, n: int, percent: int, always: int) -> bool:
    """Say whether so many of n are within a limit; exactly at the limit is (M16)."""
    return count <= always or count * 100 <= percent * n


def down_after(ledger: Ledger, upgrade: Rollout, batch: e.BatchStarted) -> tuple[set[str], int]:
    """Return who is down once the batch is taken, and how many may be."""
    members = ledger.members()
    flight = {id for id in upgrade.in_flight() if upgrade.parts[id].state != SURGING}
    taken = set() if batch.replacements else set(batch.instance_ids)
    down = unhealthy(members) | (flight & ledger.instances.keys()) | taken
    return down, ledger.limit(upgrade.policy, len(members))


@_at(e.BatchStarted)
def never_more_down(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """A batch, what the upgrade still has down, and what is unhealthy otherwise stay within
    maxUnhealthyInstancePercent or maxUnhealthyInstanceCount; but one healthy instance may go alone
    where nothing is on its way back (M11), or where a person overrode the gates only when nothing
    else is down; and unhealthy ones may always go."""
    upgrade = ledger.upgrade
    if not isinstance(event, e.BatchStarted) or upgrade is None or event.replacements:
        return None
    down, allowed = down_after(ledger, upgrade, event)
    healthy = [id for id in event.instance_ids if ledger.instances[id].is_healthy]
    if len(down) <= allowed or not healthy:
        return None
    coming = [
        i.id for i in ledger.members() if i.booting and i.phase in (UPGRADING, POWERING, READY)
    ]
    alone = len(event.instance_ids) == 1 and not upgrade.in_flight() and not coming
    if alone and (not upgrade.forced or len(down) == 1):
        return None
    return f"Batch {event.batch} makes {len(down)} down of {len(ledger.members())}: {allowed} may."


@_at(e.BatchStarted)
def never_a_larger_batch(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """Never more instances are in flight than a batch may have: maxBatchInstancePercent of the
    set, rounded down but at least one, maxBatchInstanceCount, and in the first batch
    canaryInstanceCount (M11)."""
    upgrade = ledger.upgrade
    if not isinstance(event, e.BatchStarted) or upgrade is None:
        return None
    policy, n = upgrade.policy, len(ledger.members())
    size = max(1, n * policy.max_batch_instance_percent // 100)
    if policy.max_batch_instance_count is not None:
        size = min(size, policy.max_batch_instance_count)
    if upgrade.batches == 0 and policy.canary_instance_count:
        size = min(size, policy.canary_instance_count)
    count = len(set(event.instance_ids) | set(upgrade.in_flight()))
    return f"{count} of {n} are in flight: {size} may be." if count > size else None


@_at(e.BatchStarted)
def one_batch_at_a_time(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """A batch starts when the one before has ended, unless batches slide; batches are numbered
    from one without gaps, and none is empty."""
    upgrade = ledger.upgrade
    if not isinstance(event, e.BatchStarted) or upgrade is None:
        return "There is no upgrade."
    if event.batch != upgrade.batches + 1 or not event.instance_ids:
        return f"Batch {event.batch} of {len(event.instance_ids)} comes after {upgrade.batches}."
    if upgrade.open and not upgrade.policy.sliding_batches:
        return f"Batch {event.batch} starts while {sorted(upgrade.open)} is open."
    return None


# --- gates ----------------------------------------------------------------------------------------


@_at(e.UpgradeStarted)
def set_is_healthy_before_the_start(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """An upgrade starts only when no more of the set are unhealthy than
    maxUnhealthyInstancePercent or maxUnhealthyInstanceCount allow, unless a person overrides that
    or asks for the version before (M10)."""
    if not isinstance(event, e.UpgradeStarted) or event.override or event.rollback_of:
        return None
    members, policy = ledger.members(), event.policy
    sick = len(unhealthy(members))
    percent, always = policy.max_unhealthy_instance_percent, policy.max_unhealthy_instance_count
    if within(sick, len(members), percent, always):
        return None
    return f"{sick} of {len(members)} are unhealthy: {percent} % or {always} may be."


@_at(e.BatchStarted)
def set_is_healthy_before_each_batch(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """A batch starts only when no more of the set, without those in flight, are unhealthy than
    maxUnhealthyInstancePercent or maxUnhealthyInstanceCount allow, unless a person overrode that
    or asked for the version before (M15)."""
    upgrade = ledger.upgrade
    if upgrade is None or upgrade.forced:
        return None
    members, policy = ledger.members(), upgrade.policy
    ours = {
        id
        for id, part in upgrade.parts.items()
        if part.state in IN_FLIGHT or (part.state == RETURNED and part.batch in upgrade.open)
    }
    sick = len(unhealthy(members) - ours)
    percent, always = policy.max_unhealthy_instance_percent, policy.max_unhealthy_instance_count
    if within(sick, len(members), percent, always):
        return None
    return f"{sick} of {len(members)} are unhealthy: {percent} % or {always} may be."


def upgraded(ledger: Ledger, upgrade: Rollout) -> tuple[int, int]:
    """Return how many of those upgraded so far are bad, and how many they are.

    One that is put back, or was, is bad.
    """
    bad = total = 0
    for id, part in upgrade.parts.items():
        if part.state in (PENDING, SKIPPED, WORKING, SURGING, BOOTING):
            continue
        total += 1
        instance = ledger.instances.get(part.successor or id)
        bad += part.state != GOOD or instance is None or instance.is_failing
    return bad, total


@_at(e.BatchStarted, e.UpgradeCompleted)
def upgraded_are_healthy_after_each_batch(
    ledger: Ledger, event: e.Event, now: datetime
) -> str | None:
    """After each batch, of the instances upgraded so far no more have failed or are unhealthy than
    maxUnhealthyUpgradedInstancePercent or maxUnhealthyUpgradedInstanceCount allow, else no batch
    follows, and the upgrade is not completed (M42)."""
    upgrade = ledger.upgrade
    if upgrade is None:
        return None
    policy = upgrade.policy
    bad, total = upgraded(ledger, upgrade)
    percent = policy.max_unhealthy_upgraded_instance_percent
    always = policy.max_unhealthy_upgraded_instance_count
    if within(bad, total, percent, always):
        return None
    return f"{bad} of {total} upgraded are bad: {percent} % or {always} may be."


@_at(e.BatchStarted, e.UpgradeCompleted)
def metrics_allow_it(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """With a metric gate, a batch starts, and an upgrade completes, only on an answer that was
    asked for since the last batch and lets it go on."""
    upgrade = ledger.upgrade
    gate = upgrade.policy.metric_gate if upgrade is not None else None
    if upgrade is None or gate is None:
        return None
    if isinstance(event, e.UpgradeCompleted) and upgrade.batches == 0:
        return None
    if upgrade.asked is None or upgrade.outcome is None:
        return "The gate has not answered."
    if _meaning(gate, upgrade.outcome) is not GateAnswer.PROCEED:
        return f"The gate answered {upgrade.outcome}."
    last = upgrade.last_end
    if last is not None and not upgrade.policy.sliding_batches and upgrade.asked < last:
        return "The gate was asked before the last batch ended."
    return None


def _meaning(gate: MetricGate, outcome: MetricOutcome) -> GateAnswer:
    return {
        MetricOutcome.SUCCESS: GateAnswer.PROCEED,
        MetricOutcome.FAILURE: GateAnswer.FAULT,
        MetricOutcome.INCONCLUSIVE: gate.on_inconclusive,
        MetricOutcome.UNREACHABLE: gate.on_unreachable,
    }[outcome]


# --- who may be touched ---------------------------------------------------------------------------


@_at(e.BatchStarted)
def only_those_that_wait(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """A batch takes only instances that wait for their turn in the upgrade: none twice, none that
    was skipped or rejected, none at which an agent is at work, none that a person powered off, and,
    when the upgrade is deferred, only approved ones."""
    upgrade = ledger.upgrade
    if not isinstance(event, e.BatchStarted) or upgrade is None:
        return None
    for id in event.instance_ids:
        part, instance = upgrade.parts.get(id), ledger.instances.get(id)
        if part is None or instance is None:
            return f"Instance {id} is no part of it."
        if part.state != PENDING or part.batch:
            return f"Instance {id} is {part.state}, of batch {part.batch}."
        if instance.is_busy:
            return f"Instance {id} is {instance.phase}."
        if upgrade.deferred and not part.approved:
            return f"Instance {id} is not approved."
        if instance.is_parked:
            return f"Instance {id} was powered off by a person."
    return None


@_at(e.BatchStarted)
def protected_ones_are_not_touched(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """An instance with protectFromScaleSetActions is in no batch."""
    if not isinstance(event, e.BatchStarted):
        return None
    touched = [id for id in event.instance_ids if ledger.instances[id].protected]
    return f"Protected are {', '.join(touched)}." if touched else None


@_at(e.InstancesUpgradeRequested)
def no_instance_is_swapped_twice(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """An upgrade asks for each of its instances once, in its batch, and for a version above the one
    that is there, or when a person asked for that below it, or the same."""
    upgrade = ledger.upgrade
    if not isinstance(event, e.InstancesUpgradeRequested) or event.upgrade_id is None:
        return None
    if upgrade is None or upgrade.id != event.upgrade_id:
        return "Its upgrade does not run."
    for order in event.instances:
        part = upgrade.parts.get(order.instance_id)
        if part is None or part.state != PENDING or part.batch not in upgrade.open:
            return f"Instance {order.instance_id} is {part.state if part else 'no part of it'}."
        before = ledger.instances[order.instance_id].version
        higher = before is None or version_key(before) < event.image.order
        if not higher and upgrade.rollback_of is None and not upgrade.reimage:
            return f"Instance {order.instance_id} goes from {before} to {event.image.version}."
    return None


@_at(
    e.InstancesUpgradeRequested,
    e.InstancesRestoreRequested,
    e.InstancesDeleteRequested,
    e.InstancesPowerRequested,
    e.InstancesCreateRequested,
)
def never_two_hands(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """No instance is in two hands: one that an agent was asked to change, and that has neither
    answered nor been given up, is asked for nothing else than to go; and each request has an
    attempt of its own."""
    if not isinstance(event, e.HostRequest):
        return None
    for order in event.instances:
        instance = ledger.instances.get(order.instance_id)
        if instance is None:
            continue
        if order.attempt <= instance.attempt:
            return f"Instance {instance.id} has attempt {order.attempt} after {instance.attempt}."
        if instance.is_busy and not isinstance(event, e.InstancesDeleteRequested):
            return f"Instance {instance.id} is {instance.phase}."
    return None


@_at(e.InstancesPowerRequested)
def power_changes_as_a_person_wants(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """Power is changed only as a person wants it, once for each request, and never of an instance
    that a batch has in hand."""
    if not isinstance(event, e.InstancesPowerRequested):
        return None
    for order in event.instances:
        instance, part = ledger.instances[order.instance_id], ledger.part(order.instance_id)
        if instance.due != event.change:
            return f"Instance {instance.id} is to {instance.due or 'stay as it is'}."
        if part is not None and part.state in IN_FLIGHT:
            return f"Instance {instance.id} is in flight."
    return None


@_at(
    e.InstancesUpgradeRequested,
    e.InstancesRestoreRequested,
    e.InstancesCreateRequested,
    e.ProbeRequested,
    e.InstanceFailed,
    e.InstanceUnhealthy,
)
def what_a_person_stopped_is_left_alone(
    ledger: Ledger, event: e.Event, now: datetime
) -> str | None:
    """What a person powered off gets no OS disk, is not probed, and is not said to be unhealthy,
    until a person starts it."""
    match event:
        case e.HostRequest():
            ids = [order.instance_id for order in event.instances]
        case e.ProbeRequested():
            ids = [target.instance_id for target in event.targets]
        case e.InstanceFailed() if event.error.code == FailureCode.PROVISIONING_TIMEOUT:
            return None  # its agent does not answer
        case e.InstanceReport():
            ids = [event.instance_id]
        case _:
            return None
    parked = [id for id in ids if id in ledger.instances and ledger.instances[id].is_parked]
    return f"Powered off are {', '.join(parked)}." if parked else None


@_at(e.InstancesUpgradeRequested)
def reimages_keep_the_caps(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """Outside of upgrades a person's request gives an OS disk once, and reimages take down no more
    than a batch may have, within maxUnhealthyInstancePercent or maxUnhealthyInstanceCount; but one
    healthy instance may go alone where nothing is unhealthy, and unhealthy ones may always go."""
    if not isinstance(event, e.InstancesUpgradeRequested) or event.upgrade_id is not None:
        return None
    if ledger.upgrade is not None:
        return "An upgrade runs."
    asked = [ledger.instances[order.instance_id] for order in event.instances]
    for instance in asked:
        if not instance.reimage and not instance.deploy:
            return f"Nobody asked for a new OS disk of instance {instance.id}."
    if any(instance.deploy for instance in asked):
        return None  # the model's deployment has no caps (M41)
    policy, members = ledger.spec.policy, ledger.members()
    down = unhealthy(members)
    after = down | {instance.id for instance in asked}
    healthy = [instance.id for instance in asked if instance.is_healthy]
    allowed = ledger.limit(policy, len(members))
    alone = len(after) == 1
    if healthy and len(after) > allowed and not alone:
        return f"{len(after)} of {len(members)} are down then: {allowed} may be."
    size = max(1, len(members) * policy.max_batch_instance_percent // 100)
    if policy.max_batch_instance_count is not None:
        size = min(size, policy.max_batch_instance_count)
    working = {i.id for i in members if i.booting and i.phase in (UPGRADING, READY)}
    count = len(working | {instance.id for instance in asked})
    return f"{count} of {len(members)} are in work: {size} may be." if count > size else None


@_at(e.InstancesRestoreRequested)
def healthy_ones_stay(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """A previous OS disk is put back only where the upgrade failed, where it is still kept, and
    never where the instance is healthy (M43)."""
    upgrade = ledger.upgrade
    if not isinstance(event, e.InstancesRestoreRequested) or upgrade is None:
        return "No upgrade runs."
    for order in event.instances:
        instance, part = ledger.instances[order.instance_id], upgrade.parts.get(order.instance_id)
        if part is None or part.state != BAD:
            return f"Instance {instance.id} is {part.state if part else 'no part of it'}."
        if instance.is_healthy:
            return f"Instance {instance.id} is healthy."
        if not instance.keeps_previous:
            return f"Instance {instance.id} keeps no previous OS disk."
    return None


@_at(e.InstancesCommitRequested)
def previous_disks_are_kept_until_health(
    ledger: Ledger, event: e.Event, now: datetime
) -> str | None:
    """The previous OS disk goes only when the instance is healthy and its batch has ended."""
    if not isinstance(event, e.InstancesCommitRequested):
        return None
    for order in event.instances:
        instance, part = ledger.instances[order.instance_id], ledger.part(order.instance_id)
        if not instance.is_healthy or instance.attempt != order.attempt:
            return f"Instance {instance.id} is {instance.phase} and {instance.health}."
        if part is not None and ledger.upgrade is not None and part.batch in ledger.upgrade.open:
            return f"Instance {instance.id} is in batch {part.batch}, which has not ended."
    return None


@_at(e.InstancesCreateRequested)
def data_disks_are_never_replaced(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """Data disks are never replaced: no instance that was there is made anew, no id is given twice,
    and none with data disks is replaced by another instance."""
    if not isinstance(event, e.InstancesCreateRequested):
        return None
    for order in event.instances:
        id, known = order.instance_id, ledger.instances.get(order.instance_id)
        if known is not None and known.version is not None:
            return f"Instance {id} is there, on version {known.version}."
        if known is None and id in ledger.ever:
            return f"Instance {id} was another one once."
        if order.replaces is not None and ledger.spec.provisioning.data_disks:
            return f"Instance {id} takes the place of {order.replaces}, which has data disks."
    return None


@_at(e.InstancesDeleteRequested)
def no_instance_goes_without_a_reason(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """Instances are deleted when the set is, when a person deleted these very ones, when they are
    more than the capacity and neither protected nor in flight, or when a surge's new instance is
    healthy or came to nothing."""
    if not isinstance(event, e.InstancesDeleteRequested) or ledger.deleted:
        return None
    leaving = ledger.spec.leaving
    staying = [
        instance
        for instance in ledger.instances.values()
        if instance.phase != DELETING and instance.replaces is None and instance.id not in leaving
    ]
    surplus = len(staying) - ledger.spec.capacity
    for order in event.instances:
        instance, part = ledger.instances[order.instance_id], ledger.part(order.instance_id)
        if instance.phase == DELETING or instance.replaces is not None or instance.id in leaving:
            continue
        successor = ledger.instances.get(part.successor or "") if part is not None else None
        if part is not None and part.state == SURGING and successor and successor.is_healthy:
            continue
        surplus -= 1
        if surplus < 0:
            return f"Instance {instance.id} goes, of {len(staying)} for {ledger.spec.capacity}."
        if instance.protected or instance.protected_from_scale_in:
            return f"Instance {instance.id} is protected."
        if part is not None and part.state in IN_FLIGHT:
            return f"Instance {instance.id} is in flight."
    return None


# --- when -----------------------------------------------------------------------------------------


@_at(e.BatchStarted)
def batches_start_inside_windows(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """A batch of an upgrade that the platform started begins only inside a maintenance window."""
    upgrade, windows = ledger.upgrade, ledger.spec.maintenance_windows
    if upgrade is None or upgrade.by is not StartedBy.PLATFORM or not windows:
        return None
    inside = any(_is_open(window, now) for window in windows)
    return None if inside else f"At {now:%a %H:%M:%S}Z none is open."


def _is_open(window: MaintenanceWindow, now: datetime) -> bool:
    """Say whether a window is open; right for zones whose clocks never change."""
    local = now.astimezone(ZoneInfo(window.time_zone)).replace(tzinfo=None)
    for days in range(9):
        day = local.date() - timedelta(days=days)
        begin = datetime.combine(day, window.start.time())
        if begin < window.start or (window.expires is not None and begin >= window.expires):
            continue
        passed = (day - window.start.date()).days
        if window.recur_every == "Day":
            recurs = passed % window.interval == 0
        else:
            weekdays = window.weekdays or (window.start.weekday(),)
            monday = window.start.date() - timedelta(days=window.start.weekday())
            recurs = day.weekday() in weekdays and (day - monday).days // 7 % window.interval == 0
        if recurs and begin <= local < begin + timedelta(seconds=window.duration):
            return True
    return False


@_at(e.BatchStarted, e.UpgradeStarted)
def hooks_are_asked_first(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """With a lifecycle hook, what the platform starts begins only when the hook approved it: an
    upgrade to its version, a batch of its instances."""
    kinds = {hook.type for hook in ledger.spec.lifecycle_hooks}
    if isinstance(event, e.UpgradeStarted):
        platform = event.started_by is StartedBy.PLATFORM
        if platform and LifecycleHookType.SCHEDULING in kinds:
            ok = ledger.scheduled == event.image.version
            return None if ok else f"Version {event.image.version} is not approved."
        return None
    upgrade = ledger.upgrade
    if not isinstance(event, e.BatchStarted) or upgrade is None:
        return None
    if upgrade.by is not StartedBy.PLATFORM or LifecycleHookType.BATCH_STARTING not in kinds:
        return None
    if ledger.approved is None or ledger.approved[0] != upgrade.id:
        return "No batch is approved."
    missing = set(event.instance_ids) - ledger.approved[1]
    return f"Not approved are {', '.join(sorted(missing))}." if missing else None


@_at(e.BatchStarted)
def groups_follow_one_another(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """A batch, with what is in flight beside it, is of one phase, one zone (unless cross-zone
    upgrades are enabled) and one update domain; and no instance of an earlier phase waits."""
    upgrade = ledger.upgrade
    if not isinstance(event, e.BatchStarted) or upgrade is None:
        return None
    ids = [*event.instance_ids, *(id for id in upgrade.in_flight() if id in ledger.instances)]
    phases = {upgrade.parts[id].phase for id in ids}
    if len(phases) > 1:
        return f"Phases {phases} are mixed."
    if not upgrade.policy.enable_cross_zone_upgrade:
        zones = {ledger.instances[id].zone for id in ids}
        if len(zones) > 1:
            return f"Zones {', '.join(sorted(zones))} are mixed."
    domains = ledger.spec.update_domains
    if domains and len({int(id) % domains for id in ids}) > 1:
        return f"Update domains are mixed: {', '.join(ids)}."
    phase = phases.pop()
    for id, part in upgrade.parts.items():
        instance = ledger.instances.get(id)
        free = instance is not None and not instance.is_busy and not instance.protected
        # A deferred one may be approved while a hook is asked about those of a later phase.
        if part.state == PENDING and part.phase < phase and free and not upgrade.deferred:
            return f"Instance {id} of phase {part.phase:.0f} waits."
    return None


@_at(e.BatchStarted)
def pauses_are_kept(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """No batch starts while the upgrade is paused by a person, before pauseTimeBetweenBatches or
    canaryBakeTime is over, or after upgradeTimeout."""
    upgrade = ledger.upgrade
    if upgrade is None:
        return None
    policy, last = upgrade.policy, upgrade.last_end
    if upgrade.paused:
        return "A person paused it."
    wait = 0.0 if policy.sliding_batches else policy.pause_time_between_batches
    if upgrade.batches == 1 and policy.canary_instance_count:
        wait = max(wait, policy.canary_bake_time)
    if last is not None and now < last + timedelta(seconds=wait):
        return f"{(now - last).total_seconds():.0f} s after the last one, not {wait:g}."
    limit = policy.upgrade_timeout
    if limit is not None and now >= upgrade.started + timedelta(seconds=limit):
        return f"{(now - upgrade.started).total_seconds():.0f} s after the start."
    return None


@_at(e.BatchStarted, e.UpgradeStarted)
def held_versions_wait(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """A version that is held because of another set, or was rolled back, is not begun by the
    platform, and no further batch brings it."""
    by: StartedBy | None = None
    if isinstance(event, e.UpgradeStarted):
        by, image = event.started_by, event.image
    elif ledger.upgrade is not None:
        by, image = ledger.upgrade.by, ledger.upgrade.image
    if by is not StartedBy.PLATFORM:
        return None
    if not ledger.is_held(image.version):
        return None
    return f"Version {image.version} is held by {ledger.holds[image.version].by_set}."


@_at(e.InstancesCreateRequested, e.InstancesUpgradeRequested, e.BatchStarted)
def held_versions_come_to_nobody(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """No new instance, deployment, new OS disk or batch brings a version that is held, or was
    rolled back in the set, while another one is published; unless a person overrode that, asked for
    the version before, or pinned the version."""
    upgrade = ledger.upgrade
    if not ledger.follows_latest() or (upgrade is not None and upgrade.forced):
        return None
    if isinstance(event, e.InstancesCreateRequested | e.InstancesUpgradeRequested):
        version = event.image.version
    elif upgrade is not None:
        version = upgrade.image.version
    else:
        return None
    free = [
        image.version
        for image in ledger.published
        if not image.exclude_from_latest and not ledger.is_held(image.version)
    ]
    if not free or not ledger.is_held(version):
        return None
    return f"Version {version} is held, and {', '.join(free)} is not."


@_at(e.UpgradeCompleted)
def a_rollback_leaves_nobody_behind(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """A rollback that is completed leaves no instance on the version that it leads away from, but
    those that it named as left out, and those that failed on the way."""
    upgrade = ledger.upgrade
    if upgrade is None or upgrade.rollback_of is None:
        return None
    behind = []
    for id in upgrade.leaving & ledger.instances.keys():
        instance, part = ledger.instances[id], upgrade.parts.get(id)
        named = part is not None and part.state in (SKIPPED, BAD)
        if instance.version == upgrade.rollback_of and instance.phase != DELETING and not named:
            behind.append(id)
    return f"Left are {', '.join(sorted(behind))}." if behind else None


@_at(e.UpgradeStarted)
def upgrades_start_by_the_model(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """The platform starts an upgrade only of a set that is there, follows the latest version and
    upgrades automatically, to a version that was not withdrawn, is old enough, and above one that
    did not succeed there; and no upgrade starts while another runs."""
    if not isinstance(event, e.UpgradeStarted):
        return None
    if ledger.upgrade is not None or ledger.deleted:
        return "An upgrade runs." if ledger.upgrade is not None else "The set was deleted."
    if event.image.version in ledger.withdrawn:
        return f"Version {event.image.version} was withdrawn."
    if event.started_by is not StartedBy.PLATFORM:
        return None
    spec, barred = ledger.spec, ledger.barred
    if not spec.automatic_os_upgrade or spec.image.version != LATEST:
        return "The model does not ask for it."
    if barred is not None and event.image.order <= barred.order:
        return f"Version {barred.version} did not succeed."
    published = event.image.published_at
    if published is not None and now < published + timedelta(seconds=spec.minimum_image_age):
        return f"Version {event.image.version} is too young."
    return None


@_at(e.UpgradeCompleted, e.UpgradeFaulted, e.UpgradeCancelled)
def upgrades_end_between_batches(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """An upgrade ends between batches, unless the set is deleted; it is completed when no instance
    waits any more and bakeTime is over."""
    upgrade = ledger.upgrade
    if upgrade is None:
        return "No upgrade runs."
    flight = upgrade.in_flight()
    if not ledger.deleted and (flight or upgrade.open):
        return f"In flight are {', '.join(flight)}; open is {sorted(upgrade.open)}."
    if not isinstance(event, e.UpgradeCompleted):
        return None
    waiting = [id for id, part in upgrade.parts.items() if part.state == PENDING]
    if waiting:
        return f"Waiting are {', '.join(waiting)}."
    last = upgrade.last_end
    if last is not None and now < last + timedelta(seconds=upgrade.policy.bake_time):
        return f"{(now - last).total_seconds():.0f} s after the last batch."
    return None


@_at(e.UpgradeFaulted)
def time_limits_stop_what_remains(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """An upgrade is too long only after its upgradeTimeout, and while instances wait."""
    upgrade = ledger.upgrade
    if not isinstance(event, e.UpgradeFaulted) or upgrade is None:
        return None
    if event.error.code != FailureCode.UPGRADE_TIMEOUT:
        return None
    limit = upgrade.policy.upgrade_timeout
    if limit is None or now < upgrade.started + timedelta(seconds=limit):
        return f"{(now - upgrade.started).total_seconds():.0f} s after the start."
    waits = any(part.state == PENDING for part in upgrade.parts.values())
    return None if waits else "No instance waits any more."


@_at(e.ImageHeld)
def overrides_blame_no_version(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """What a person brought to a sick set, or back, holds no version in other sets when it
    fails."""
    if not isinstance(event, e.ImageHeld) or event.quarantine or not ledger.endings:
        return None
    upgrade = ledger.endings[-1][0]
    return f"Version {event.image.version} is held." if upgrade.forced else None


@_at(e.BatchCompleted)
def batches_end_when_all_are_done(ledger: Ledger, event: e.Event, now: datetime) -> str | None:
    """A batch ends when each of its instances is healthy, put back, or has failed."""
    upgrade = ledger.upgrade
    if not isinstance(event, e.BatchCompleted) or upgrade is None:
        return None
    undone = [
        id
        for id, part in upgrade.parts.items()
        if part.batch == event.batch
        and (part.state in IN_FLIGHT or part.state in (PENDING, BOOTING))
    ]
    return f"Instance {', '.join(undone)} is not done." if undone else None
