"""Builders of fleets, and a world in memory that answers what the rules ask for."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    FailureCode,
    Health,
    Image,
    ImageReference,
    Power,
    Probe,
    Provisioning,
    RollingPolicy,
    ScaleSetSpec,
)
from rollcall_rollout import Fleet, Instance, InstancePhase, fold, next_wake, settle

START = datetime(2026, 1, 1, tzinfo=UTC)
SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"
PROBE = Probe(protocol="Http", port=80, request_path="/health")


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


@dataclass(kw_only=True)
class World:
    """Agents and probers in memory: a random one of the waiting answers arrives at a time.

    `fails` says how an instance's operation ends, and `sick` which versions' application never
    becomes healthy. `doubled` is the chance that an answer arrives twice.
    """

    fleet: Fleet
    seed: int = 0
    now: datetime = START
    sick: Callable[[str, str], bool] = lambda id, version: False
    fails: Callable[[str, e.HostRequest], Failure | None] = lambda id, request: None
    fetch_fails: Callable[[str], Failure | None] = lambda host: None
    doubled: float = 0.0
    observe: Callable[["World"], None] = lambda world: None
    log: list[e.Event] = field(default_factory=list)
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
        folded, _ = fold(self.fleet, events, self.now)
        self.fleet, decided = settle(folded, self.now)
        self.log += decided
        for event in decided:
            self._ask(event)
        self.observe(self)
        return decided

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
                self.waiting.append(
                    e.ImageFetchFailed(**values, error=failure)
                    if failure
                    else e.ImageFetched(**values)
                )
            case e.ProbeRequested():
                for target in event.targets:
                    self._probe(event, target)

    def _work(self, event: e.HostRequest, order: e.InstanceOrder) -> None:
        id = order.instance_id
        disks = self.versions.setdefault(id, [])
        failure = self.fails(id, event)
        said = {"scale_set": SET, "instance_id": id, "attempt": order.attempt}
        place = {"address": "127.0.0.1", "port": 20000, "generation": 1}
        if failure is not None:
            self.waiting.append(e.InstanceFailed(**said, error=failure))
            return
        match event:
            case e.InstancesCreateRequested():
                disks[:] = [event.image.version]
                self.waiting.append(e.InstanceCreated(**said, version=disks[-1], **place))
            case e.InstancesUpgradeRequested():
                key = (id, order.attempt)
                self.swaps[key] = self.swaps.get(key, 0) + 1
                disks[:] = [*disks[-1:], event.image.version]
                self.waiting.append(e.InstanceUpgraded(**said, version=disks[-1], **place))
            case e.InstancesRestoreRequested():
                disks[:] = disks[:1]
                self.waiting.append(e.InstanceRestored(**said, version=disks[-1], **place))
            case e.InstancesCommitRequested():
                disks[:] = disks[-1:]
            case e.InstancesDeleteRequested():
                self.waiting.append(e.InstanceDeleted(**said))

    def _probe(self, event: e.ProbeRequested, target: e.ProbeTarget) -> None:
        version = self.versions[target.instance_id][-1]
        said = {
            "scale_set": SET,
            "instance_id": target.instance_id,
            "attempt": target.attempt,
            "lease": target.lease,
        }
        sick = self.sick(target.instance_id, version)
        self.waiting.append(e.InstanceUnhealthy(**said) if sick else e.InstanceHealthy(**said))

    def types(self, *prefixes: str) -> list[str]:
        """Return the decided events' types that begin so, without their version."""
        names = [event.type.rsplit(".", 1)[0] for event in self.log]
        return [n for n in names if n.startswith(prefixes)] if prefixes else names

    def last(self, cls: type[e.EventBase]) -> e.EventBase:
        """Return the last decided event of a class."""
        return next(event for event in reversed(self.log) if isinstance(event, cls))

    def down(self) -> int:
        """Count the instances that are not healthy now."""
        return sum(not instance.is_healthy for instance in self.fleet.instances.values())


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
