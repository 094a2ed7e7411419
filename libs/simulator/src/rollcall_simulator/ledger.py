"""The checker's own account of a set, kept from messages alone: what anyone could know of it.

Nothing here asks the rules. What was delivered and what was decided is read as the contracts
describe it, and counted anew. `Ledger.read` takes one event; the invariants look at the account
just before a decided event is entered, and just after.
"""

from dataclasses import dataclass, field
from datetime import datetime

from rollcall_contracts import events as e
from rollcall_contracts.model import (
    LATEST,
    Failure,
    FailureCode,
    Health,
    HookAction,
    Image,
    MetricOutcome,
    Power,
    PowerAction,
    PowerWish,
    Probe,
    RollingPolicy,
    ScaleSetSpec,
    StartedBy,
)

CREATING, READY, UPGRADING, POWERING = "creating", "ready", "upgrading", "powering"
RESTORING, DELETING, FAILED = "restoring", "deleting", "failed"

PENDING, SKIPPED, WORKING, SURGING = "pending", "skipped", "working", "surging"
BOOTING, GOOD, BAD, RETURNING, RETURNED = "booting", "good", "bad", "returning", "returned"
IN_FLIGHT = frozenset({WORKING, SURGING, BOOTING, RETURNING})


@dataclass(slots=True)
class Known:
    """One instance, as far as messages tell."""

    id: str
    host: str
    zone: str
    attempt: int
    phase: str
    first: bool = True  # never made before
    lease: int = 0
    power: Power = Power.RUNNING
    health: Health = Health.UNKNOWN
    version: str | None = None
    replaces: str | None = None
    keeps_previous: bool = False  # its previous OS disk
    protected: bool = False
    protected_from_scale_in: bool = False
    wish: PowerWish = PowerWish.RUNNING  # a person's
    due: str = ""  # start, stop or restart: wanted, and not asked of the agent yet
    power_number: int = 0
    reimage: bool = False  # wanted, and not asked of the agent yet
    reimage_number: int = 0
    deploy: bool = False  # may be asked for by the model's deployment
    booting: bool = False  # taken down for a person, and not healthy since
    lasting: bool = False  # an operation failed that a start does not undo
    timed_out: bool = False  # said not to be healthy in time, and not heard of since
    taken: bool = (
        False  # an upgrade, a reimage or a deployment took it, and it is not healthy since
    )
    started: bool = False  # a person starts it, since it was taken last

    @property
    def is_healthy(self) -> bool:
        """Say whether it counts as healthy."""
        return self.phase == READY and self.power is Power.RUNNING and self.health is Health.HEALTHY

    @property
    def is_busy(self) -> bool:
        """Say whether an agent was asked for something and has not answered."""
        return self.phase not in (READY, FAILED)

    @property
    def is_elsewhere(self) -> bool:
        """Say whether it is no part of the set yet, or any more, or powered off by a person."""
        coming = self.phase == CREATING and self.first
        return self.phase == DELETING or coming or self.is_parked

    @property
    def is_parked(self) -> bool:
        """Say whether a person has it down."""
        wanted = self.wish is not PowerWish.RUNNING and not self.due
        there = self.version is not None and self.phase in (READY, POWERING, FAILED)
        return wanted and there

    @property
    def is_failing(self) -> bool:
        """Say whether it is unhealthy for another reason than a person's wish."""
        wanted = self.is_parked or self.booting or self.phase == POWERING
        return not self.is_healthy and not wanted


@dataclass(slots=True)
class Part:
    """One instance's part in an upgrade."""

    state: str = PENDING
    batch: int = 0
    phase: float = float("inf")  # PhaseOrderingNumber
    approved: bool = False
    successor: str | None = None
    failure: Failure | None = None
    rejected: bool = False


@dataclass(slots=True)
class Rollout:
    """One upgrade."""

    id: str
    image: Image
    policy: RollingPolicy
    by: StartedBy
    override: bool
    rollback_of: str | None
    reimage: bool
    deferred: bool
    started: datetime
    parts: dict[str, Part]
    leaving: frozenset[str] = frozenset()  # who ran the version that a rollback leads away from
    batches: int = 0
    open: set[int] = field(default_factory=set)
    last_end: datetime | None = None  # of a batch
    paused: bool = False
    cancelled: bool = False
    breached: bool = False
    check: int = 0  # number of the last question to the metric gate
    asked: datetime | None = None
    outcome: MetricOutcome | None = None
    fetch_error: bool = False
    allowed: int = 1  # that may be down for the upgrade, as of the last batch

    @property
    def forced(self) -> bool:
        """Say whether a person wants it whatever the gates say."""
        return self.override or self.rollback_of is not None

    def in_flight(self) -> list[str]:
        """Return the instances that a batch is at work on."""
        return [id for id, part in self.parts.items() if part.state in IN_FLIGHT]


class Ledger:
    """What is known of one set."""

    def __init__(self, spec: ScaleSetSpec) -> None:
        self.spec = spec
        self.deleted = False
        self.instances: dict[str, Known] = {}
        self.ever: set[str] = set()  # ids that were ever given
        self.upgrade: Rollout | None = None
        self.endings: list[tuple[Rollout, e.Event]] = []
        self.holds: dict[str, e.ImageHeld] = {}
        self.barred: Image | None = None
        self.hook: e.LifecycleHookStarted | None = None
        self.approved: tuple[str, frozenset[str]] | None = None  # hook's version or upgrade, ids
        self.scheduled: str | None = None  # version that the scheduling hook let go
        self.withdrawn: set[str] = set()
        self.published: tuple[Image, ...] = ()  # of the model's line, as the set may see them

    # --- counts -----------------------------------------------------------------------------------

    def members(self) -> list[Known]:
        """Return the instances that count as the set's."""
        return [i for i in self.instances.values() if not i.is_elsewhere and i.replaces is None]

    def taken(self) -> set[str]:
        """Return the set's instances that are down because of us, whatever else is."""
        return {instance.id for instance in self.members() if instance.taken}

    def limit(self, policy: RollingPolicy, n: int) -> int:
        """Return how many of n may be unhealthy: the percent, rounded down, or the count."""
        percent = n * policy.max_unhealthy_instance_percent // 100
        return max(percent, policy.max_unhealthy_instance_count)

    def is_held(self, version: str) -> bool:
        """Say whether the set is to keep off a version: held for others, or rolled back in it."""
        hold = self.holds.get(version)
        if hold is None:
            return False
        own = hold.by_set.lower() == self.spec.scale_set.lower()
        return hold.quarantine if own else self.spec.hold_faulted_versions

    # --- what is delivered ------------------------------------------------------------------------

    def deliver(self, event: e.Event, now: datetime) -> None:
        """Enter a report, or what a person asked for."""
        match event:
            case e.InstanceReport():
                self._report(event)
            case e.ScaleSetChanged():
                self._model(event.spec)
            case e.ScaleSetDeleted():
                if event.revision >= self.spec.revision:
                    self.deleted = True
                    self.spec = self.spec.model_copy(update={"revision": event.revision})
            case e.ImageReleased() | e.ImageHeld() | e.ImageWithdrawn() | e.ImagePublished():
                self._image(event)
            case e.InstanceProtectionChanged():
                if (instance := self.instances.get(event.instance_id)) is not None:
                    instance.protected = event.protect_from_scale_set_actions
                    instance.protected_from_scale_in = event.protect_from_scale_in
            case e.PowerChangeRequested() | e.ModelDeployRequested():
                self._wish(event)
            case e.UpgradeCancelRequested(upgrade_id=None) if self.upgrade is None:
                for instance in self.instances.values():
                    instance.reimage = False
            case _:
                if self.upgrade is not None:
                    self._to_upgrade(self.upgrade, event)

    def _image(self, event: e.Event) -> None:
        match event:
            case e.ImageReleased():
                self.holds.pop(event.image.version, None)
                if self.barred is not None and self.barred.version == event.image.version:
                    self.barred = None
            case e.ImageHeld():
                self._hold(event)
            case e.ImageWithdrawn():
                self.withdrawn.add(event.image.version)
            case e.ImagePublished():
                self.withdrawn.discard(event.image.version)

    def _wish(self, event: e.PowerChangeRequested | e.ModelDeployRequested) -> None:
        """Enter what a person wants of instances; what is older than known is late."""
        named = event.instance_ids
        for instance in self.instances.values():
            if (instance.id not in named and "*" not in named) or instance.phase == DELETING:
                continue
            if isinstance(event, e.PowerChangeRequested):
                if event.number > instance.power_number:
                    instance.power_number = event.number
                    self._power_wish(instance, event.change)
            elif not event.reimage:
                instance.deploy = True
            elif event.number > instance.reimage_number:
                instance.reimage, instance.reimage_number = True, event.number

    def _power_wish(self, instance: Known, change: PowerAction) -> None:
        was_parked = instance.is_parked
        runs = instance.phase == READY and instance.power is Power.RUNNING and not was_parked
        match change:
            case PowerAction.RESTART | PowerAction.REDEPLOY:
                instance.wish, instance.due = PowerWish.RUNNING, "restart"
            case PowerAction.START:
                instance.wish = PowerWish.RUNNING
                if instance.due != "restart":
                    instance.due = "" if runs or instance.version is None else "start"
            case _:
                off = instance.phase == READY and instance.power is Power.STOPPED
                instance.due = "" if was_parked and off else "powerOff"
                instance.wish = PowerWish.STOPPED
                if change is PowerAction.DEALLOCATE:
                    instance.wish = PowerWish.DEALLOCATED

    def _to_upgrade(self, upgrade: Rollout, event: e.Event) -> None:
        if getattr(event, "upgrade_id", None) not in (None, upgrade.id):
            return  # what a person, a host or a prober says of another one
        match event:
            case e.UpgradePauseRequested():
                upgrade.paused = True
            case e.UpgradeResumeRequested():
                upgrade.paused = False
            case e.UpgradeCancelRequested():
                upgrade.cancelled = True
            case e.UpgradeApproveRequested():
                for id, part in upgrade.parts.items():
                    if "*" in event.instance_ids or id in event.instance_ids:
                        part.approved = True
            case e.ImageFetchFailed():
                upgrade.fetch_error = True
            case e.MetricQueried(check=upgrade.check):
                upgrade.outcome = upgrade.outcome or event.outcome

    def _hold(self, event: e.ImageHeld) -> None:
        known = self.holds.get(event.image.version)
        if known is None or (event.quarantine and not known.quarantine):
            self.holds[event.image.version] = event

    def _model(self, spec: ScaleSetSpec) -> None:
        before = self.spec
        if spec.revision < before.revision or (spec == before and not self.deleted):
            return
        self.spec, self.deleted = spec, False
        names = ("capacity", "leaving", "revision")
        sized = before.model_copy(update={name: getattr(spec, name) for name in names})
        if before.capacity == spec.capacity or sized != spec:
            self.barred = None
        if _asks(before.probe) != _asks(spec.probe):
            for instance in self.instances.values():
                instance.health = Health.UNKNOWN
                instance.timed_out = False

    def _report(self, event: e.InstanceReport) -> None:
        instance = self.instances.get(event.instance_id)
        if instance is None or instance.attempt != event.attempt:
            return
        match event:
            case e.InstanceCreated() | e.InstanceUpgraded() | e.InstanceRestored():
                self._provisioned(instance, event)
            case e.InstancePowered():
                if instance.phase in (POWERING, FAILED):
                    instance.phase = FAILED if instance.lasting else READY
                    instance.power, instance.health = event.power, Health.UNKNOWN
                    instance.timed_out = False
            case e.InstanceDeleted():
                if instance.phase == DELETING:
                    del self.instances[instance.id]
            case e.InstanceFailed():
                self._failed(instance, event)
            case e.InstancePowerChanged():
                if event.power is Power.RUNNING and instance.power is not Power.RUNNING:
                    instance.timed_out = False
                instance.power = event.power
                self._succeed(instance)
            case e.InstanceHealthy() | e.InstanceUnhealthy():
                if instance.phase == READY and event.lease == instance.lease:
                    healthy = isinstance(event, e.InstanceHealthy)
                    instance.health = Health.HEALTHY if healthy else Health.UNHEALTHY
                    instance.timed_out = instance.timed_out and not healthy
                    instance.booting = instance.booting and not healthy
                    instance.taken = instance.taken and not healthy
                    self._succeed(instance)

    def _provisioned(
        self,
        instance: Known,
        event: e.InstanceCreated | e.InstanceUpgraded | e.InstanceRestored,
    ) -> None:
        expected = {
            e.InstanceCreated: CREATING,
            e.InstanceUpgraded: UPGRADING,
            e.InstanceRestored: RESTORING,
        }[type(event)]
        if instance.phase not in (expected, FAILED):
            return
        in_time = instance.phase == expected
        instance.phase, instance.version = READY, event.version
        instance.power, instance.health = Power.RUNNING, Health.UNKNOWN
        instance.timed_out = instance.lasting = False
        if isinstance(event, e.InstanceRestored):
            instance.keeps_previous = False
        part = self.part(instance.id)
        if part is not None and in_time:
            part.state = {WORKING: BOOTING, RETURNING: RETURNED}.get(part.state, part.state)

    def _failed(self, instance: Known, event: e.InstanceFailed) -> None:
        if event.error.code == FailureCode.HEALTH_TIMEOUT:
            instance.health, instance.timed_out = Health.UNHEALTHY, True
            instance.booting = False
        elif instance.phase == DELETING:
            return
        elif instance.is_busy:
            instance.booting = False
            instance.lasting = instance.lasting or instance.phase != POWERING
            instance.phase = FAILED
            instance.version = event.version or instance.version
        else:
            return
        part = self.part(instance.replaces or instance.id)
        if part is not None and part.state in IN_FLIGHT:
            part.state, part.failure = BAD, event.error

    def _succeed(self, instance: Known) -> None:
        part = self.part(instance.id)
        if part is not None and part.state == BOOTING and instance.is_healthy:
            part.state = GOOD

    def part(self, id: str) -> Part | None:
        """Return an instance's part in the running upgrade."""
        return self.upgrade.parts.get(id) if self.upgrade is not None else None

    # --- what is decided --------------------------------------------------------------------------

    def decide(self, event: e.Event, now: datetime) -> None:
        """Enter a decided event."""
        match event:
            case e.HostRequest():
                for order in event.instances:
                    self._order(event, order)
            case e.ProbeRequested():
                for target in event.targets:
                    if (instance := self.instances.get(target.instance_id)) is not None:
                        instance.lease = target.lease
            case e.InstanceReport():
                self._report(event)
            case e.UpgradeStarted():
                self._start(event, now)
            case e.ImageHeld():
                self._hold(event)
            case e.LifecycleHookStarted():
                self.hook = event
            case e.LifecycleHookCompleted():
                self._complete_hook(event)
            case _:
                if self.upgrade is not None:
                    self._advance(self.upgrade, event, now)

    def _order(self, event: e.HostRequest, order: e.InstanceOrder) -> None:
        id = order.instance_id
        instance = self.instances.get(id)
        if isinstance(event, e.InstancesCreateRequested):
            self._create(event, order)
            return
        if instance is None:
            return
        if isinstance(event, e.InstancesCommitRequested):
            instance.keeps_previous = False
            return
        instance.attempt, instance.timed_out = order.attempt, False
        instance.health, instance.first = Health.UNKNOWN, False
        instance.booting = False
        if isinstance(event, e.InstancesPowerRequested):
            instance.phase, instance.due = POWERING, ""
            instance.booting = event.change is not PowerAction.POWER_OFF
            if event.change is PowerAction.START:
                instance.taken, instance.started = False, True
            return
        instance.lasting = False
        part = self.part(id)
        if not isinstance(event, e.InstancesDeleteRequested):
            instance.taken, instance.started = True, False
        match event:
            case e.InstancesUpgradeRequested():
                instance.phase, instance.keeps_previous = UPGRADING, True
                instance.booting = event.upgrade_id is None
                instance.reimage = instance.deploy = False
                if part is not None and event.upgrade_id is not None:
                    part.state = WORKING
            case e.InstancesRestoreRequested():
                instance.phase = RESTORING
                if part is not None:
                    part.state = RETURNING
            case e.InstancesDeleteRequested():
                instance.phase = DELETING
                replaced = self.part(instance.replaces) if instance.replaces else None
                if replaced is not None and replaced.state == SURGING:
                    replaced.state = SKIPPED  # its successor goes
                self._leave(id, part)

    def _leave(self, id: str, part: Part | None) -> None:
        if part is None or self.upgrade is None:
            return
        successor = self.instances.get(part.successor) if part.successor else None
        if part.state == SURGING and successor is not None and successor.is_healthy:
            part.state, successor.replaces = GOOD, None
            old = self.instances[id]
            successor.protected |= old.protected
            successor.protected_from_scale_in |= old.protected_from_scale_in
        else:
            del self.upgrade.parts[id]

    def _create(self, event: e.InstancesCreateRequested, order: e.InstanceOrder) -> None:
        id, known = order.instance_id, self.instances.get(order.instance_id)
        zones, old = self.spec.zones, self.instances.get(order.replaces or "")
        zone = zones[int(id) % len(zones)] if zones else ""
        self.ever.add(id)
        self.instances[id] = Known(
            id=id,
            host=event.host,
            zone=old.zone if old is not None else zone,  # a successor is where the old one was
            attempt=order.attempt,
            phase=CREATING,
            first=known is None,
            replaces=order.replaces,
            protected=known.protected if known else False,
            protected_from_scale_in=known.protected_from_scale_in if known else False,
        )
        if known is not None:
            made = self.instances[id]
            made.wish, made.power_number = known.wish, known.power_number
            made.reimage_number = known.reimage_number
            made.due = "" if known.wish is PowerWish.RUNNING else "powerOff"
        part = self.part(order.replaces) if order.replaces else None
        if part is not None:
            part.state = SURGING

    def _start(self, event: e.UpgradeStarted, now: datetime) -> None:
        self.upgrade = Rollout(
            id=event.upgrade_id,
            image=event.image,
            policy=event.policy,
            by=event.started_by,
            override=event.override,
            rollback_of=event.rollback_of,
            reimage=event.reimage,
            deferred=event.deferred,
            started=now,
            parts={id: Part(phase=event.phases.get(id, float("inf"))) for id in event.instance_ids},
            leaving=frozenset(
                instance.id
                for instance in self.instances.values()
                if event.rollback_of is not None and instance.version == event.rollback_of
            ),
        )

    def _complete_hook(self, event: e.LifecycleHookCompleted) -> None:
        hook = self.hook
        if hook is None or hook.hook_id != event.hook_id:
            return
        self.hook = None
        if hook.upgrade_id is None:
            self.scheduled = hook.version if event.action is HookAction.APPROVE else None
            return
        self.approved = (hook.upgrade_id, frozenset(event.approved))
        for id in event.rejected:
            part = self.part(id)
            if part is not None and part.state == PENDING:
                part.state, part.rejected = SKIPPED, True

    def _advance(self, upgrade: Rollout, event: e.Event, now: datetime) -> None:
        if getattr(event, "upgrade_id", None) != upgrade.id:
            return
        match event:
            case e.InstancesSkipped():
                for id in event.instance_ids:
                    upgrade.parts[id].state = SKIPPED
            case e.BatchStarted():
                upgrade.batches += 1
                upgrade.open.add(event.batch)
                self.approved = None
                for id in event.instance_ids:
                    part = upgrade.parts[id]
                    part.batch, part.successor = event.batch, event.replacements.get(id)
            case e.BatchCompleted():
                upgrade.open.discard(event.batch)
                upgrade.last_end = now
            case e.MetricQueryRequested():
                upgrade.check, upgrade.asked, upgrade.outcome = event.check, now, None
            case e.UpgradeBreached():
                upgrade.breached = True
            case e.UpgradeCompleted() | e.UpgradeFaulted() | e.UpgradeCancelled():
                self._end(upgrade, event)

    def _end(self, upgrade: Rollout, event: e.Event) -> None:
        self.endings.append((upgrade, event))
        self.upgrade, self.hook, self.approved, self.scheduled = None, None, None, None
        bad = any(
            part.rejected or part.state not in (GOOD, SKIPPED) for part in upgrade.parts.values()
        )
        if bad or not isinstance(event, e.UpgradeCompleted):
            self.barred = upgrade.image

    def follows_latest(self) -> bool:
        """Say whether the model asks for the latest version."""
        return self.spec.image.version == LATEST


def _asks(probe: Probe | None) -> tuple[object, ...] | None:
    return (probe.protocol, probe.port, probe.request_path) if probe else None
