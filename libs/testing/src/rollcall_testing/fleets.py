"""Builders of fleets, and a world in memory that answers what the rules ask for."""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    FailureCode,
    Health,
    HookAction,
    Image,
    ImageReference,
    LifecycleHook,
    LifecycleHookType,
    MetricGate,
    MetricOutcome,
    Power,
    PowerAction,
    Probe,
    Provisioning,
    RollingPolicy,
    ScaleSetSpec,
)
from rollcall_rollout import Fleet, Instance, InstancePhase, Upgrade, fold, next_wake, settle

START = datetime(2026, 1, 1, tzinfo=UTC)
SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"
PROBE = Probe(protocol="Http", port=80, request_path="/health")
BEFORE_UPGRADE = LifecycleHook(type=LifecycleHookType.SCHEDULING, wait_duration=3600)
BEFORE_BATCH = LifecycleHook(type=LifecycleHookType.BATCH_STARTING, wait_duration=3600)
GATE = MetricGate(
    server="http://127.0.0.1:9090", query="sum(rate(errors[5m]))", success_condition="<= 0.01"
)


def image(version: str, **fields: object) -> Image:
    """Return an image of the line that the built fleets follow."""
    values = {
        "publisher": "Contoso",
        "offer": "Web",
        "sku": "stable",
        "version": version,
        "url": f"file:///images/{version}.tar.gz",
        "sha256": "0" * 64,
        "size": 1,
        **fields,
    }
    return Image.model_validate(values)


def spec(capacity: int = 10, **fields: object) -> ScaleSetSpec:
    """Return the model of a set that upgrades by itself."""
    values: dict[str, object] = {
        "scale_set": SET,
        "location": "local",
        "capacity": capacity,
        "image": ImageReference(publisher="Contoso", offer="Web", sku="stable"),
        "automatic_os_upgrade": True,
        "probe": PROBE,
        "provisioning": Provisioning(generation=1),
        "policy": RollingPolicy(),
        **fields,
    }
    return ScaleSetSpec.model_validate(values)


def healthy(id: str, version: str | None = "1.0", **fields: object) -> Instance:
    """Return a healthy instance; hosts alternate."""
    values: dict[str, object] = {
        "id": id,
        "host": f"host-{int(id) % 2 + 1}",
        "attempt": 1,
        "phase": InstancePhase.READY,
        "since": START,
        "created_at": START,
        "version": version,
        "generation": 1,
        "address": "127.0.0.1",
        "port": 20000 + int(id),
        "health": Health.HEALTHY,
        "probed_until": START + timedelta(days=1000),
        **fields,
    }
    return Instance(**values)  # type: ignore[arg-type]  # built from a table of fields


def fleet(capacity: int = 10, versions: Iterable[str] = ("1.0",), **fields: object) -> Fleet:
    """Return a fleet of healthy instances at version 1.0, with these versions published."""
    own = {"images": tuple(image(version) for version in versions)}
    spec_fields = {k: v for k, v in fields.items() if k in ScaleSetSpec.model_fields}
    rest = {k: v for k, v in fields.items() if k not in ScaleSetSpec.model_fields}
    values: dict[str, object] = {
        "spec": spec(capacity, **spec_fields),
        "instances": {str(i): healthy(str(i)) for i in range(capacity)},
        "hosts": ("host-1", "host-2"),
        "next_id": capacity,
        **own,
        **rest,
    }
    return Fleet(**values)  # type: ignore[arg-type]  # built from a table of fields


Decided = TypeVar("Decided", bound=e.EventBase)


@dataclass(kw_only=True)
class World:
    """Agents, probers and people in memory: a random one of the waiting answers arrives at a time.

    `fails` says how an instance's operation ends, and `sick` which versions' application never
    becomes healthy. `doubled` is the chance that an answer arrives twice. What `metric` or `hook`
    answer with None is never answered. `room` is how many instances of the set a host can hold.
    """

    fleet: Fleet
    seed: int = 0
    now: datetime = START
    sick: Callable[[str, str], bool] = lambda id, version: False
    fails: Callable[[str, e.HostRequest], Failure | None] = lambda id, request: None
    fetch_fails: Callable[[str], Failure | None] = lambda host: None
    metric: Callable[[e.MetricQueryRequested], MetricOutcome | None] = lambda asked: (
        MetricOutcome.SUCCESS
    )
    hook: Callable[[e.LifecycleHookStarted], Mapping[str, HookAction] | None] = lambda asked: None
    room: Mapping[str, int] = field(default_factory=dict)
    doubled: float = 0.0
    observe: Callable[["World"], None] = lambda world: None
    log: list[e.Event] = field(default_factory=list)
    logged_at: list[datetime] = field(default_factory=list)  # by entry of the log
    most_down: int = 0
    versions: dict[str, list[str]] = field(
        default_factory=dict
    )  # by instance: OS disks, newest last
    swaps: dict[tuple[str, int], int] = field(default_factory=dict)
    waiting: list[e.Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        for id, instance in self.fleet.instances.items():
            if instance.version is not None:
                self.versions[id] = [instance.version]

    def tell(self, *events: e.Event) -> list[e.Event]:
        """Fold events, settle, and hand the requests among the decisions to agents and probers."""
        folded, accepted = fold(self.fleet, events, self.now)
        self.fleet, decided = settle(self._with_room(folded), self.now)
        self.log += decided
        self.logged_at += [self.now] * len(decided)
        self.note(accepted, decided)
        for event in decided:
            self._ask(event)
        self.most_down = max(self.most_down, self.down())
        self.observe(self)
        return decided

    def note(self, accepted: list[e.Event], decided: list[e.Event]) -> None:
        """Take note of what changed the state, and of what was decided then: nothing, here."""

    def _with_room(self, fleet: Fleet) -> Fleet:
        """Say what is free on the hosts that have a limit, as their agents' heartbeats do."""
        if not self.room:
            return fleet
        used = [instance.host for instance in fleet.instances.values()]
        return fleet.amended(room={h: max(0, n - used.count(h)) for h, n in self.room.items()})

    def until(self, name: str) -> None:
        """Let what waits answer in order, until one more event of this type is decided.

        Raises IndexError when nothing more is to answer.
        """
        count = self.types().count(name)
        self.tell()
        while self.types().count(name) == count:
            self.tell(self.waiting.pop(0))

    def answer(self, *but: type[e.EventBase]) -> list[e.Event]:
        """Let all that waits answer in order, while the clock stands; return what was kept."""
        kept: list[e.Event] = []
        while self.waiting:
            answer = self.waiting.pop(0)
            if isinstance(answer, but):
                kept.append(answer)
            else:
                self.tell(answer)
        return kept

    def later(self, seconds: float) -> list[e.Event]:
        """Let time pass while nobody answers; return what is decided then, but probes."""
        self.now += timedelta(seconds=seconds)
        return [event for event in self.tell() if not isinstance(event, e.ProbeRequested)]

    def run(self, *, until: timedelta = timedelta(days=2)) -> None:
        """Let answers arrive, and time pass when none is due, until nothing happens any more."""
        end = self.now + until
        self.tell()
        while self.now < end:
            if self.waiting:
                index = self._random.randrange(len(self.waiting))
                answer = self.waiting.pop(index)
                if self._random.random() < self.doubled:
                    self.waiting.append(answer)
                self.now += timedelta(milliseconds=self._random.randrange(1, 200))
                self.tell(answer)
            elif self.fleet.upgrade is None and not any(
                i.is_busy for i in self.fleet.instances.values()
            ):
                return
            else:
                self.now = max(next_wake(self.fleet, self.now), self.now + timedelta(seconds=1))
                self.tell()

    def reply(self, answer: e.Event) -> None:
        """Let an answer come, at some time."""
        self.waiting.append(answer)

    def _ask(self, event: e.Event) -> None:
        match event:
            case e.HostRequest():
                for order in event.instances:
                    self._work(event, order)
            case e.ImageFetchRequested():
                failure = self.fetch_fails(event.host)
                values = {
                    "scale_set": event.scale_set,
                    "host": event.host,
                    "upgrade_id": event.upgrade_id,
                }
                self.reply(
                    e.ImageFetchFailed(**values, error=failure)
                    if failure
                    else e.ImageFetched(**values)
                )
            case e.ProbeRequested():
                for target in event.targets:
                    self._probe(event, target)
            case e.MetricQueryRequested():
                if (outcome := self.metric(event)) is not None:
                    self.reply(measured(event, outcome))
            case e.LifecycleHookStarted():
                if (actions := self.hook(event)) is not None:
                    self.reply(
                        e.LifecycleHookAnswered(
                            scale_set=event.scale_set, hook_id=event.hook_id, actions=actions
                        )
                    )

    def _work(self, event: e.HostRequest, order: e.InstanceOrder) -> None:
        id = order.instance_id
        disks = self.versions.setdefault(id, [])
        failure = self.fails(id, event)
        about = {"scale_set": SET, "instance_id": id, "attempt": order.attempt}
        place = {"address": "127.0.0.1", "port": 20000, "generation": 1}
        if failure is not None:
            self.reply(e.InstanceFailed(**about, error=failure))
            return
        match event:
            case e.InstancesCreateRequested():
                disks[:] = [event.image.version]
                self.reply(e.InstanceCreated(**about, version=disks[-1], **place))
            case e.InstancesUpgradeRequested():
                key = (id, order.attempt)
                self.swaps[key] = self.swaps.get(key, 0) + 1
                disks[:] = [*disks[-1:], event.image.version]
                self.reply(e.InstanceUpgraded(**about, version=disks[-1], **place))
            case e.InstancesRestoreRequested():
                disks[:] = disks[:1]
                self.reply(e.InstanceRestored(**about, version=disks[-1], **place))
            case e.InstancesCommitRequested():
                disks[:] = disks[-1:]
            case e.InstancesDeleteRequested():
                self.reply(e.InstanceDeleted(**about))
            case e.InstancesPowerRequested():
                off = event.change is PowerAction.POWER_OFF
                power = Power.STOPPED if off else Power.RUNNING
                self.reply(e.InstancePowered(**about, power=power, address="127.0.0.1", port=20000))

    def _probe(self, event: e.ProbeRequested, target: e.ProbeTarget) -> None:
        id = target.instance_id
        sick = self.sick(id, self.versions[id][-1])
        health = Health.UNHEALTHY if sick else Health.HEALTHY
        asked = {"attempt": target.attempt, "lease": target.lease}
        self.reply(said(self.fleet.instances[id], health, **asked))

    def types(self, *prefixes: str) -> list[str]:
        """Return the decided events' types that begin so, without their version."""
        names = [event.type.rsplit(".", 1)[0] for event in self.log]
        return [n for n in names if n.startswith(prefixes)] if prefixes else names

    def last(self, cls: type[Decided]) -> Decided:
        """Return the last decided event of a class."""
        return self.all(cls)[-1]

    def all(self, cls: type[Decided]) -> list[Decided]:
        """Return the decided events of a class."""
        return [event for event in self.log if isinstance(event, cls)]

    def times(self, cls: type[e.EventBase]) -> list[datetime]:
        """Return when the events of a class were decided."""
        pairs = zip(self.log, self.logged_at, strict=True)
        return [at for event, at in pairs if isinstance(event, cls)]

    def batches(self) -> list[str]:
        """Return the instances of each batch that was started, as `0 1`."""
        return [" ".join(event.instance_ids) for event in self.all(e.BatchStarted)]

    @property
    def upgrade(self) -> Upgrade:
        """Return the upgrade that runs, or the last one that ended."""
        return self.fleet.upgrade or self.fleet.ended[-1]

    def versions_now(self) -> dict[str, str | None]:
        """Return the version of each instance's OS disk, as the rules know it."""
        return {id: instance.version for id, instance in self.fleet.instances.items()}

    def down(self) -> int:
        """Count the instances that are not healthy now."""
        return sum(not instance.is_healthy for instance in self.fleet.instances.values())


_MEASURED: dict[MetricOutcome, tuple[float | None, str]] = {
    MetricOutcome.SUCCESS: (0.002, "0.002 <= 0.01"),
    MetricOutcome.FAILURE: (0.5, "0.5 <= 0.01 is not so"),
    MetricOutcome.INCONCLUSIVE: (None, "the query gives no sample; one is needed"),
    MetricOutcome.UNREACHABLE: (None, "connection refused"),
}


def measured(asked: e.MetricQueryRequested, outcome: MetricOutcome) -> e.MetricQueried:
    """Return a prober's report of what a metric gate's question came to."""
    value, reason = _MEASURED[outcome]
    return e.MetricQueried(
        scale_set=asked.scale_set,
        upgrade_id=asked.upgrade_id,
        check=asked.check,
        outcome=outcome,
        value=value,
        reason=reason,
    )


def said(
    instance: Instance, health: Health, **wishes: object
) -> e.InstanceHealthy | e.InstanceUnhealthy:
    """Return a prober's report of an instance as it is now, with its application's wishes."""
    values = {
        "scale_set": SET,
        "instance_id": instance.id,
        "attempt": instance.attempt,
        "lease": instance.lease,
        **wishes,
    }
    if health is Health.HEALTHY:
        return e.InstanceHealthy.model_validate(values)
    return e.InstanceUnhealthy.model_validate({**values, "health": health})


def broken(id: str = "") -> Failure:
    """Return what an agent says when an instance does not start."""
    return Failure(code=FailureCode.START, message="init exited with 1", target=id)


def credentials_failure() -> Failure:
    """Return what an agent says when a storage account refuses an extension's token."""
    return Failure(
        code=FailureCode.CREDENTIALS,
        message="https://account.example/script.sh answered 403",
        target="https://account.example/script.sh",
    )


def powered(id: str, power: Power, attempt: int = 1) -> e.InstancePowerChanged:
    """Return an agent's report that an instance stopped or started by itself."""
    return e.InstancePowerChanged(scale_set=SET, instance_id=id, attempt=attempt, power=power)
