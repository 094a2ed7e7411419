"""Every message that crosses a boundary between services, as one class each.

Facts are in the past tense. Requests end in `Requested` and have exactly one consumer. A type's
name ends in its version; a change that is not a new optional field is a new class with the next.

Agents and the prober *report*: they use the same classes, published under the routing key
`report.<type>`. Only the orchestrator reads reports. Those that change a fleet become entries of
the event log, and are then published under their own type, numbered and chained.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, TypeAdapter

from rollcall_contracts.model import (
    Drain,
    Failure,
    Health,
    HookAction,
    Image,
    LifecycleHookType,
    MetricGate,
    MetricOutcome,
    Model,
    Power,
    PowerAction,
    Probe,
    Provisioning,
    RollingPolicy,
    ScaleSetSpec,
    StartedBy,
)


class EventBase(Model):
    """What all events share: the reason, for those that were decided, with the numbers compared."""

    reason: str = ""


class SetEvent(EventBase):
    """An event of one scale set; `scale_set` is its ARM resource id."""

    scale_set: str


class InstanceReport(SetEvent):
    """What an agent or a prober says of one instance; another attempt's reports are ignored."""

    instance_id: str
    attempt: int


# --- images -------------------------------------------------------------------------------------


class ImagePublished(EventBase):
    """A version appeared in a feed, was verified, and was recorded (M23)."""

    type: Literal["image.published.v1"] = "image.published.v1"
    image: Image


class ImageWithdrawn(EventBase):
    """A version left its feed, or its content changed in place: it is never rolled out again."""

    type: Literal["image.withdrawn.v1"] = "image.withdrawn.v1"
    image: Image


class ImageHeld(EventBase):
    """A version faulted in one set, or was rolled back there: other sets keep off it."""

    type: Literal["image.held.v1"] = "image.held.v1"
    image: Image
    by_set: str  # the scale set where that happened
    upgrade_id: str
    quarantine: bool = False  # rolled back: that set, too, keeps off it
    error: Failure


class ImageReleased(EventBase):
    """A person cleared a version: sets may go to it again."""

    type: Literal["image.released.v1"] = "image.released.v1"
    image: Image


class FeedRejected(EventBase):
    """A feed could not be trusted or read; nothing was taken from it."""

    type: Literal["feed.rejected.v1"] = "feed.rejected.v1"
    feed: str
    error: Failure


class FeedRecovered(EventBase):
    """A feed that had been rejected is read again."""

    type: Literal["feed.recovered.v1"] = "feed.recovered.v1"
    feed: str


# --- what people ask for, through the API --------------------------------------------------------


class ScaleSetChanged(SetEvent):
    """The model of a scale set was written."""

    type: Literal["scale_set.changed.v1"] = "scale_set.changed.v1"
    spec: ScaleSetSpec


class ScaleSetDeleted(SetEvent):
    """A scale set was deleted; its instances go too."""

    type: Literal["scale_set.deleted.v1"] = "scale_set.deleted.v1"
    revision: int


class ScaleSetHeld(SetEvent):
    """Instances are missing, and none can be made: no image, or no host."""

    type: Literal["scale_set.held.v1"] = "scale_set.held.v1"
    error: Failure


class UpgradeStartRequested(SetEvent):
    """A person asks for an upgrade to the latest version now (M52); `reason` is theirs.

    `override` brings it to a set that is too sick for the gates: unhealthy instances first, and a
    healthy one only when the limit allows it. Holds of the version do not count then, either.
    `reimage` includes the instances that run the latest version already.
    """

    type: Literal["upgrade.start_requested.v1"] = "upgrade.start_requested.v1"
    override: bool = False
    reimage: bool = False


class UpgradeCancelRequested(SetEvent):
    """A person asks the running upgrade to stop after its current batch (M52)."""

    type: Literal["upgrade.cancel_requested.v1"] = "upgrade.cancel_requested.v1"
    upgrade_id: str | None = None  # the one that is meant; none: whichever runs


class UpgradePauseRequested(SetEvent):
    """A person asks that no further batch starts until the upgrade is resumed."""

    type: Literal["upgrade.pause_requested.v1"] = "upgrade.pause_requested.v1"
    upgrade_id: str | None = None  # the one that is meant; none: whichever runs


class UpgradeResumeRequested(SetEvent):
    """A person lets a paused upgrade go on."""

    type: Literal["upgrade.resume_requested.v1"] = "upgrade.resume_requested.v1"
    upgrade_id: str | None = None  # the one that is meant; none: whichever runs


class UpgradeRollbackRequested(SetEvent):
    """A person asks to bring the set back to what its last upgrade found there."""

    type: Literal["upgrade.rollback_requested.v1"] = "upgrade.rollback_requested.v1"
    version: str | None = None  # the one to leave; none: whatever the last upgrade brought


class UpgradeApproveRequested(SetEvent):
    """A person or a program approves a deferred upgrade of these instances; `*` is all."""

    type: Literal["upgrade.approve_requested.v1"] = "upgrade.approve_requested.v1"
    instance_ids: tuple[str, ...]


class LifecycleHookAnswered(SetEvent):
    """A person or a program answered a hook, or asked for more time."""

    type: Literal["lifecycle_hook.answered.v1"] = "lifecycle_hook.answered.v1"
    hook_id: str
    actions: Mapping[str, HookAction] = Field(default_factory=dict)  # by instance; `*` is all
    wait_until: AwareDatetime | None = None


class InstanceProtectionChanged(SetEvent):
    """A person protected an instance, or no longer does (Azure's protectionPolicy)."""

    type: Literal["instance.protection_changed.v1"] = "instance.protection_changed.v1"
    instance_id: str
    protect_from_scale_in: bool = False
    protect_from_scale_set_actions: bool = False


class ModelDeployRequested(SetEvent):
    """A person asks for instances to be brought to the model now, failed ones too (M41).

    With `reimage` each of those named gets a new OS disk, also where it runs the model already, a
    few at a time. `number` is higher than that of any request before: asked twice, it acts once.
    """

    type: Literal["model.deploy_requested.v1"] = "model.deploy_requested.v1"
    instance_ids: tuple[str, ...]
    reimage: bool = False
    number: int = 0


class PowerChangeRequested(SetEvent):
    """A person asks to start, stop or restart instances; `number` as in `ModelDeployRequested`."""

    type: Literal["power.change_requested.v1"] = "power.change_requested.v1"
    instance_ids: tuple[str, ...]
    change: PowerAction
    number: int


# --- requests to agents: one message carries all of a host's instances ---------------------------


class InstanceOrder(Model):
    """One instance in a request, with the attempt that its report must carry."""

    instance_id: str
    attempt: int
    replaces: str | None = None  # the instance for which a surge makes it


class HostRequest(SetEvent):
    """A request to the agent of one host, meant as desired state: asked twice, it acts once."""

    host: str
    instances: tuple[InstanceOrder, ...]


class InstancesCreateRequested(HostRequest):
    """Make these instances: new OS disk from the image, new data disks."""

    type: Literal["instances.create_requested.v1"] = "instances.create_requested.v1"
    image: Image
    provisioning: Provisioning


class InstancesUpgradeRequested(HostRequest):
    """Replace these instances' OS disks by ones made from the image; keep data disks (M06)."""

    type: Literal["instances.upgrade_requested.v1"] = "instances.upgrade_requested.v1"
    upgrade_id: str | None = None
    image: Image
    provisioning: Provisioning
    drain: Drain | None = None


class InstancesRestoreRequested(HostRequest):
    """Put these instances' previous OS disks back (M43)."""

    type: Literal["instances.restore_requested.v1"] = "instances.restore_requested.v1"
    upgrade_id: str | None = None


class InstancesCommitRequested(HostRequest):
    """Health is confirmed: the previous OS disks may go."""

    type: Literal["instances.commit_requested.v1"] = "instances.commit_requested.v1"


class InstancesPowerRequested(HostRequest):
    """Start, stop or restart these instances, from the OS disks that they have."""

    type: Literal["instances.power_requested.v1"] = "instances.power_requested.v1"
    change: Literal[PowerAction.START, PowerAction.RESTART, PowerAction.POWER_OFF]
    drain: Drain | None = None


class InstancesDeleteRequested(HostRequest):
    """Delete these instances with all their disks."""

    type: Literal["instances.delete_requested.v1"] = "instances.delete_requested.v1"
    drain: Drain | None = None


class ImageFetchRequested(SetEvent):
    """Fetch and verify an image ahead of the first batch."""

    type: Literal["image.fetch_requested.v1"] = "image.fetch_requested.v1"
    host: str
    upgrade_id: str
    image: Image


# --- requests to probers -------------------------------------------------------------------------


class ProbeTarget(Model):
    """Where one instance's application listens, and what it said last."""

    instance_id: str
    attempt: int
    lease: int
    address: str
    port: int
    health: Health = Health.UNKNOWN
    phase_ordering_number: int | None = None
    skip_upgrade: bool = False


class ProbeRequested(SetEvent):
    """Probe these instances until `until`, and report each change of health.

    The prober keeps the delivery unacknowledged meanwhile, so the broker gives the work to another
    prober when this one dies.
    """

    type: Literal["probe.requested.v1"] = "probe.requested.v1"
    probe: Probe
    targets: tuple[ProbeTarget, ...]
    until: AwareDatetime
    fast: bool = False  # a batch waits for these: probe at a faster rate until they are healthy


class MetricQueryRequested(SetEvent):
    """Ask a metric gate's server once, and report what came of it."""

    type: Literal["metric.query_requested.v1"] = "metric.query_requested.v1"
    upgrade_id: str
    check: int  # counts the questions of the upgrade
    gate: MetricGate


# --- reports of agents ---------------------------------------------------------------------------


class AgentSeen(EventBase):
    """An agent is there and takes requests for its host; repeated as a heartbeat."""

    type: Literal["agent.seen.v1"] = "agent.seen.v1"
    host: str
    driver: str
    capacity: int | None = None  # instances that the host has room for; none: not known
    # False: connections are taken there for a guest that has not booted, or never will.
    tcp_probe_proves_guest: bool = True


class InstanceCreated(InstanceReport):
    """An instance was made, and its scripts succeeded; its application may not be healthy yet."""

    type: Literal["instance.created.v1"] = "instance.created.v1"
    version: str
    generation: int
    address: str
    port: int


class InstanceUpgraded(InstanceReport):
    """The OS disk was replaced, and custom data and extensions ran with success (M12)."""

    type: Literal["instance.upgraded.v1"] = "instance.upgraded.v1"
    version: str
    generation: int
    address: str
    port: int


class InstanceRestored(InstanceReport):
    """The previous OS disk is back and started (M43)."""

    type: Literal["instance.restored.v1"] = "instance.restored.v1"
    version: str
    generation: int
    address: str
    port: int


class InstancePowered(InstanceReport):
    """The instance was started, stopped or restarted, as it was asked to."""

    type: Literal["instance.powered.v1"] = "instance.powered.v1"
    power: Power
    address: str
    port: int


class InstanceDeleted(InstanceReport):
    """The instance and its disks are gone."""

    type: Literal["instance.deleted.v1"] = "instance.deleted.v1"


class InstanceFailed(InstanceReport):
    """What was asked for did not succeed, or was not seen to in time."""

    type: Literal["instance.failed.v1"] = "instance.failed.v1"
    error: Failure
    version: str | None = None  # of the OS disk now in place, where the agent knows


class InstancePowerChanged(InstanceReport):
    """The instance stopped or started without having been asked to."""

    type: Literal["instance.power_changed.v1"] = "instance.power_changed.v1"
    power: Power


class ImageFetched(SetEvent):
    """A host holds the verified image."""

    type: Literal["image.fetched.v1"] = "image.fetched.v1"
    host: str
    upgrade_id: str


class ImageFetchFailed(SetEvent):
    """A host could not get the image, or did not trust it; no instance was touched."""

    type: Literal["image.fetch_failed.v1"] = "image.fetch_failed.v1"
    host: str
    upgrade_id: str
    error: Failure


# --- reports of probers (and decisions, where the set has no probe) ------------------------------


class HealthReport(InstanceReport):
    """What a prober saw; only the newest lease of an instance counts.

    The last two are what the application says of its part in upgrades (Azure's custom metrics).
    """

    lease: int = 0
    phase_ordering_number: int | None = None
    skip_upgrade: bool = False


class InstanceHealthy(HealthReport):
    """The application says that it is healthy."""

    type: Literal["instance.healthy.v1"] = "instance.healthy.v1"


class InstanceUnhealthy(HealthReport):
    """The application is not healthy; `health` says how (never `Healthy`)."""

    type: Literal["instance.unhealthy.v1"] = "instance.unhealthy.v1"
    health: Health = Health.UNHEALTHY


class MetricQueried(SetEvent):
    """What a metric gate's question came to; `reason` has the numbers, or the server's error."""

    type: Literal["metric.queried.v1"] = "metric.queried.v1"
    upgrade_id: str
    check: int
    outcome: MetricOutcome
    value: float | None = None


# --- decisions about an upgrade ------------------------------------------------------------------


class UpgradeEvent(SetEvent):
    """An event of one upgrade."""

    upgrade_id: str


class UpgradeHeld(SetEvent):
    """An upgrade would start, but a gate says no; asked again whenever something changes (M10)."""

    type: Literal["upgrade.held.v1"] = "upgrade.held.v1"
    version: str
    error: Failure


class UpgradeStarted(UpgradeEvent):
    """An upgrade began: its target and a snapshot of its policy."""

    type: Literal["upgrade.started.v1"] = "upgrade.started.v1"
    image: Image
    policy: RollingPolicy
    started_by: StartedBy
    restore_failed: bool  # put the previous OS disk back where an instance does not become healthy
    instance_ids: tuple[str, ...]
    phases: Mapping[str, int] = Field(default_factory=dict)  # by instance, of those that name one
    deferred: bool = False  # each instance waits for its approval
    override: bool = False  # a person brings it to a sick set on purpose
    rollback_of: str | None = None  # the version that the set is brought back from
    reimage: bool = False  # also of instances that run the target already


class UpgradeBreached(UpgradeEvent):
    """A limit was exceeded; failed instances are put back before the upgrade faults."""

    type: Literal["upgrade.breached.v1"] = "upgrade.breached.v1"
    error: Failure


class LifecycleHookStarted(SetEvent):
    """A hook asks: before an upgrade starts (no instances), or before a batch of these."""

    type: Literal["lifecycle_hook.started.v1"] = "lifecycle_hook.started.v1"
    hook_id: str
    hook_type: LifecycleHookType
    upgrade_id: str | None = None
    version: str
    instance_ids: tuple[str, ...] = ()
    wait_until: AwareDatetime
    max_wait_until: AwareDatetime
    default_action: HookAction


class LifecycleHookCompleted(SetEvent):
    """A hook was answered, or its time is up and the default action taken."""

    type: Literal["lifecycle_hook.completed.v1"] = "lifecycle_hook.completed.v1"
    hook_id: str
    approved: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    action: HookAction  # what it came to: Approve when any target may go on


class InstancesSkipped(UpgradeEvent):
    """These instances are left out of the upgrade: protected, powered off, unwilling, rejected."""

    type: Literal["instances.skipped.v1"] = "instances.skipped.v1"
    instance_ids: tuple[str, ...]


class BatchHeld(UpgradeEvent):
    """The next batch waits; said once for each cause."""

    type: Literal["batch.held.v1"] = "batch.held.v1"
    code: str
    until: AwareDatetime | None = None  # when it is known


class BatchStarted(UpgradeEvent):
    """A batch of instances is being upgraded together (M11, M12)."""

    type: Literal["batch.started.v1"] = "batch.started.v1"
    batch: int  # counts from 1
    instance_ids: tuple[str, ...]
    # By instance, the new one that a surge puts in its place; empty: OS disks are replaced.
    replacements: Mapping[str, str] = Field(default_factory=dict)


class BatchCompleted(UpgradeEvent):
    """Each instance of the batch is healthy, restored, or failed."""

    type: Literal["batch.completed.v1"] = "batch.completed.v1"
    batch: int
    succeeded: int
    failed: int


class UpgradeCompleted(UpgradeEvent):
    """No instance remains (M14)."""

    type: Literal["upgrade.completed.v1"] = "upgrade.completed.v1"


class UpgradeFaulted(UpgradeEvent):
    """A limit was exceeded, or the target cannot be trusted: no further batch starts."""

    type: Literal["upgrade.faulted.v1"] = "upgrade.faulted.v1"
    error: Failure


class UpgradeCancelled(UpgradeEvent):
    """The upgrade stopped after its batch because a person asked for that (M05, M52)."""

    type: Literal["upgrade.cancelled.v1"] = "upgrade.cancelled.v1"


Event = Annotated[
    ImagePublished
    | ImageWithdrawn
    | ImageHeld
    | ImageReleased
    | FeedRejected
    | FeedRecovered
    | ScaleSetChanged
    | ScaleSetDeleted
    | ScaleSetHeld
    | UpgradeStartRequested
    | UpgradeCancelRequested
    | UpgradePauseRequested
    | UpgradeResumeRequested
    | UpgradeRollbackRequested
    | UpgradeApproveRequested
    | LifecycleHookAnswered
    | InstanceProtectionChanged
    | ModelDeployRequested
    | PowerChangeRequested
    | InstancesCreateRequested
    | InstancesUpgradeRequested
    | InstancesRestoreRequested
    | InstancesCommitRequested
    | InstancesPowerRequested
    | InstancesDeleteRequested
    | ImageFetchRequested
    | ProbeRequested
    | MetricQueryRequested
    | AgentSeen
    | InstanceCreated
    | InstanceUpgraded
    | InstanceRestored
    | InstancePowered
    | InstanceDeleted
    | InstanceFailed
    | InstancePowerChanged
    | ImageFetched
    | ImageFetchFailed
    | InstanceHealthy
    | InstanceUnhealthy
    | MetricQueried
    | UpgradeHeld
    | UpgradeStarted
    | UpgradeBreached
    | LifecycleHookStarted
    | LifecycleHookCompleted
    | InstancesSkipped
    | BatchHeld
    | BatchStarted
    | BatchCompleted
    | UpgradeCompleted
    | UpgradeFaulted
    | UpgradeCancelled,
    Field(discriminator="type"),
]

_adapter: TypeAdapter[Event] = TypeAdapter(Event)
EVENT_CLASSES: tuple[type[EventBase], ...] = Event.__origin__.__args__  # type: ignore[attr-defined]  # typing gives no public way to list a union inside Annotated


def parse(body: bytes | str) -> Event:
    """Return a message's event. Raises pydantic.ValidationError, which names the field."""
    return _adapter.validate_json(body)


def event_type(cls: type[EventBase]) -> str:
    """Return the type's name on the wire, such as `instance.healthy.v1`."""
    return str(cls.model_fields["type"].default)


def routing_key(event: Event) -> str:
    """Return the key under which an event is published: its type, and the host for an agent's."""
    match event:
        case HostRequest() | ImageFetchRequested():
            return f"{event.type}.{event.host}"
        case _:
            return event.type


def report_key(event: Event) -> str:
    """Return the key under which an agent or a prober reports."""
    return f"report.{event.type}"


def subject(event: Event) -> str:
    """Return what the event is about: a scale set, an instance, an image or a feed."""
    match event:
        case InstanceReport():
            return f"{event.scale_set}/virtualMachines/{event.instance_id}"
        case SetEvent():
            return event.scale_set
        case ImagePublished() | ImageWithdrawn() | ImageHeld() | ImageReleased():
            return "/".join(("images", *event.image.stream, event.image.version))
        case FeedRejected() | FeedRecovered():
            return f"feeds/{event.feed}"
        case AgentSeen():
            return f"hosts/{event.host}"


def stream(event: Event) -> str:
    """Return the log that numbers and chains the event: its scale set's, or the images'."""
    return event.scale_set.lower() if isinstance(event, SetEvent) else "images"
