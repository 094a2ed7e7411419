"""What is drawn from a seed: a set with its policy, its surroundings, and what will happen."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from rollcall_contracts.model import (
    Drain,
    GateAnswer,
    HookAction,
    Image,
    ImageReference,
    LifecycleHook,
    LifecycleHookType,
    MaintenanceWindow,
    MetricGate,
    Probe,
    Provisioning,
    RollingPolicy,
    ScaleSetSpec,
)

from rollcall_simulator.agenda import START
from rollcall_simulator.faults import TWIN, Fault

SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"
OTHER_SET = SET.replace("/web", "/mail")
LINE = ImageReference(publisher="Contoso", offer="Web", sku="stable")
OTHER_LINE = ImageReference(publisher="Contoso", offer="Web", sku="edge")
OLD, NEW, NEWER = "1.0", "1.1", "1.2"
OTHER = "2.0"  # of the other line


class Mood(StrEnum):
    """How much goes wrong."""

    TWIN = "twin"  # messages come twice and in any order; people ask for one thing at most
    MILD = "mild"
    ORDINARY = "ordinary"
    BRUTAL = "brutal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a scenario is narrowed to; a failure is made small by narrowing."""

    without: frozenset[Fault] = frozenset()
    only: frozenset[Fault] | None = None
    instances: int | None = None  # at most
    happenings: int | None = None  # only the first so many

    def allow(self, fault: Fault) -> bool:
        """Say whether a kind of fault may happen."""
        return fault not in self.without and (self.only is None or fault in self.only)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something that comes from outside at a time, in seconds; `chance` decides its details."""

    at: float
    fault: Fault
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that a simulation is a function of."""

    seed: int
    mood: Mood
    spec: ScaleSetSpec
    from_nothing: bool  # the set's instances are made first
    ill_at_start: int  # instances whose application does not work
    hosts: tuple[str, ...]
    room: Mapping[str, int]
    chances: Mapping[Fault, float]
    happenings: Sequence[Happening]
    work: float  # seconds that an agent needs for an operation, usually
    boot: float  # seconds until an application is healthy, usually
    published_at: float  # seconds
    active: float  # seconds; then no more faults, and people tidy up
    tidy: bool  # they do tidy up: resume, approve, release


def image(version: str, published_at: datetime | None = None) -> Image:
    """Return a version of the line that the set follows at first, or the one of the other."""
    line = OTHER_LINE if version == OTHER else LINE
    return Image.model_construct(
        publisher=line.publisher,
        offer=line.offer,
        sku=line.sku,
        version=version,
        os_type="Linux",
        url=f"file:///images/{version}.tar.gz",
        sha256="0" * 64,
        size=1,
        exclude_from_latest=False,
        published_at=published_at,
    )


def draw(seed: int, options: Options | None = None) -> Scenario:
    """Return the scenario of a seed."""
    options = options or Options()
    rng = random.Random(seed)
    mood = rng.choices(list(Mood), (10, 40, 35, 15))[0]
    size = _size(rng, mood)
    hosts = tuple(f"host-{number + 1}" for number in range(rng.choice((1, 2, 2, 3, 4, 6))))
    spec = _spec(rng, size, mood)
    if options.instances is not None and options.instances < size:
        size = options.instances
        spec = spec.model_copy(update={"capacity": size})
    drawn = _chances(rng, mood) | _of_the_model(rng, mood, spec)
    chances = {fault: p for fault, p in drawn.items() if options.allow(fault)}
    active = rng.uniform(600, 5400)
    asked = _one_request(rng, spec) if mood is Mood.TWIN else _happenings(rng, mood, active)
    happenings = [h for h in asked if options.allow(h.fault)]
    policy = spec.policy
    slowest = min(policy.provisioning_timeout, 150.0) / 3
    scenario = Scenario(
        seed=seed,
        mood=mood,
        spec=spec,
        from_nothing=rng.random() < 0.08 and mood is not Mood.TWIN,
        ill_at_start=_ill_at_start(rng, size) if mood in (Mood.ORDINARY, Mood.BRUTAL) else 0,
        hosts=hosts,
        room={},
        chances=chances,
        happenings=happenings[: options.happenings],
        work=rng.uniform(2, slowest),
        boot=rng.uniform(0.5, min(policy.health_timeout / 3, 60)),
        published_at=rng.uniform(0, 60),
        active=active,
        tidy=rng.random() < 0.7,
    )
    return _with_room(scenario, rng) if Fault.ROOM in chances else scenario


def _size(rng: random.Random, mood: Mood) -> int:
    low, high = rng.choices(((1, 10), (11, 30), (31, 60), (100, 150)), (62, 31, 6, 1))[0]
    size = rng.randint(low, high)
    return min(size, 40) if mood is Mood.TWIN else size


def _with_room(scenario: Scenario, rng: random.Random) -> Scenario:
    each = scenario.spec.capacity // len(scenario.hosts) + 1
    room = {host: each + rng.randint(0, 3) for host in scenario.hosts if rng.random() < 0.8}
    values = {name: getattr(scenario, name) for name in Scenario.__slots__}
    return Scenario(**{**values, "room": room})


def _ill_at_start(rng: random.Random, size: int) -> int:
    return rng.choice((0, 0, 0, 1, 1, max(1, size // 10), max(1, size // 4)))


# --- the model ------------------------------------------------------------------------------------


def _spec(rng: random.Random, size: int, mood: Mood) -> ScaleSetSpec:
    policy = draw_policy(rng, mood)
    return ScaleSetSpec(
        scale_set=SET,
        revision=1,
        location="local",
        capacity=size,
        zones=rng.choice(((), (), (), ("1", "2"), ("1", "2", "3"))),
        image=LINE,
        automatic_os_upgrade=rng.random() < 0.95,
        disable_automatic_rollback=rng.random() < 0.2,
        os_rolling_upgrade_deferral=rng.random() < 0.08,
        minimum_image_age=rng.choice((300, 1800)) if rng.random() < 0.06 else 0,
        hold_faulted_versions=rng.random() < 0.7,
        policy=policy,
        lifecycle_hooks=_hooks(rng),
        maintenance_windows=() if mood is Mood.TWIN else _windows(rng),
        update_domains=rng.choice((2, 3, 5)) if rng.random() < 0.12 else 0,
        probe=_probe(rng),
        provisioning=Provisioning(
            generation=1,
            data_disks=() if policy.max_surge else rng.choice(((0,), (0,), (0, 1), ())),
        ),
    )


def draw_policy(rng: random.Random, mood: Mood) -> RollingPolicy:
    """Return a policy over all of its fields; a mild one leaves most as they are by default."""
    often = 0.25 if mood in (Mood.ORDINARY, Mood.BRUTAL) else 0.12
    batch = rng.choice((5, 10, 20, 20, 20, 25, 34, 50, 100))
    values: dict[str, Any] = {
        "max_batch_instance_percent": batch,
        "max_unhealthy_instance_percent": rng.choice(
            [p for p in (5, 10, 20, 20, 34, 50, 100) if p >= batch] or [100]
        ),
        "max_unhealthy_upgraded_instance_percent": rng.choice((0, 20, 20, 20, 50, 100)),
        "health_timeout": rng.choice((60, 120, 300, 300)),
        "provisioning_timeout": rng.choice((300, 600, 2400)),
        "enable_cross_zone_upgrade": rng.random() < 0.3,
        "prioritize_unhealthy_instances": rng.random() < 0.3,
        "rollback_failed_instances_on_policy_breach": rng.random() < 0.3,
    }

    def sometimes(name: str, *choices: object) -> None:
        if rng.random() < often:
            values[name] = rng.choice(choices)

    sometimes("pause_time_between_batches", 10, 60, 300)
    sometimes("max_batch_instance_count", 1, 2, 5)
    sometimes("max_unhealthy_instance_count", 1, 2, 5)
    sometimes("max_unhealthy_upgraded_instance_count", 1, 3)
    sometimes("canary_instance_count", 1, 2)
    sometimes("canary_bake_time", 60, 600)
    sometimes("bake_time", 60, 600)
    if mood is not Mood.TWIN:  # a message that is seconds late may then decide
        sometimes("upgrade_timeout", 600, 3600, 86400)
    sometimes("sliding_batches", True)
    sometimes("drain", Drain(request_path="/drain", deadline=30))
    sometimes("metric_gate", _metric_gate(rng))
    if rng.random() < often and not values.get("sliding_batches"):
        values["max_surge"] = True
    return RollingPolicy.model_validate(values)


def _metric_gate(rng: random.Random) -> MetricGate:
    return MetricGate(
        server="http://metrics:9090",
        query="rate(errors[5m])",
        success_condition="<= 0.01",
        on_inconclusive=rng.choice(list(GateAnswer)),
        on_unreachable=rng.choice(list(GateAnswer)),
        interval=rng.choice((10, 60)),
        timeout=10,
    )


def _hooks(rng: random.Random) -> tuple[LifecycleHook, ...]:
    return tuple(
        LifecycleHook(
            type=kind,
            wait_duration=rng.choice((60, 600)),
            default_action=rng.choice(list(HookAction)),
        )
        for kind in LifecycleHookType
        if rng.random() < 0.08
    )


def _windows(rng: random.Random) -> tuple[MaintenanceWindow, ...]:
    """Return windows in zones whose clocks never change, so that a recount is plain."""
    if rng.random() >= 0.08:
        return ()
    zone, offset = rng.choice((("UTC", 0), ("Asia/Tokyo", 9), ("America/Phoenix", -7)))
    opens = START + timedelta(hours=offset, seconds=rng.uniform(-3600, 1800))
    weekly = rng.random() < 0.3
    return (
        MaintenanceWindow(
            start=opens.replace(tzinfo=None, microsecond=0)
            - timedelta(days=rng.choice((0, 7, 14))),
            time_zone=zone,
            duration=rng.choice((900, 3600, 4 * 3600)),
            recur_every="Week" if weekly else "Day",
            weekdays=tuple(range(7)) if weekly and rng.random() < 0.5 else (),
        ),
    )


def _probe(rng: random.Random) -> Probe | None:
    if rng.random() < 0.12:
        return None
    return Probe(
        protocol="Http",
        port=80,
        request_path="/health",
        interval=rng.choice((1, 5, 5, 15)),
        number_of_probes=rng.choice((1, 1, 2)),
    )


# --- what goes wrong ------------------------------------------------------------------------------

# Chances of one occasion: an operation, a message, a transaction, a lease.
_CHANCES: Mapping[Fault, tuple[float, ...]] = {
    Fault.SLOW: (0.05, 0.3),
    Fault.LATE: (0.03, 0.15),
    Fault.AGENT: (0.05, 0.2),
    Fault.FETCH: (0.02, 0.3),
    Fault.ROOM: (1.0,),
    Fault.SICK: (0.05, 0.2, 0.5, 1.0),
    Fault.BROKEN: (0.05, 0.2, 1.0),
    Fault.EXTENSION: (0.05, 0.2, 1.0),
    Fault.CREDENTIALS: (0.05, 1.0),
    Fault.LIE: (0.05, 0.3),
    Fault.PROBER: (0.05, 0.3),
    Fault.LOST: (0.01, 0.05),
    Fault.DOUBLED: (0.05, 0.3),
    Fault.REORDERED: (0.05, 0.3),
    Fault.DELAYED: (0.01, 0.05),
    Fault.CRASH: (0.02, 0.1),
    Fault.SKEW: (1.0,),
    Fault.RELAY: (0.02, 0.1),
    Fault.WISH: (0.2, 0.8),
}
# So many of them happen within a scenario that has them.
_TIMES: Mapping[Fault, tuple[int, ...]] = {
    Fault.DEAD: (1, 1, 2),
    Fault.OUTAGE: (1, 2, 5),
    Fault.MASS: (1,),
    Fault.FLAP: (2, 5),
    Fault.SCALE: (1, 2, 3),
    Fault.MODEL: (1, 2),
    Fault.CANCEL: (1,),
    Fault.PAUSE: (1, 2),
    Fault.ROLLBACK: (1,),
    Fault.START: (1, 2),
    Fault.DEPLOY: (1, 2),
    Fault.REIMAGE: (1, 1, 2),
    Fault.POWER: (1, 2, 4),
    Fault.REMOVE: (1, 1, 3),
    Fault.PROTECT: (1, 3),
    Fault.HOLD: (1, 2),
    Fault.WITHDRAW: (1,),
    Fault.NEWER: (1, 1, 2),
    Fault.DELETE: (1,),
}
_KINDS_OF_FAULT: Mapping[Mood, tuple[int, int]] = {
    Mood.MILD: (0, 4),
    Mood.ORDINARY: (3, 9),
    Mood.BRUTAL: (8, 20),
}
_RARE = frozenset({Fault.DELETE, Fault.CREDENTIALS, Fault.WITHDRAW, Fault.CANCEL})


def _chances(rng: random.Random, mood: Mood) -> dict[Fault, float]:
    if mood is Mood.TWIN:
        return {fault: 0.3 for fault in sorted(TWIN)}
    chosen = _choose(rng, mood, tuple(_CHANCES))
    brutal = mood is Mood.BRUTAL
    return {
        fault: _CHANCES[fault][0] if not brutal else rng.choice(_CHANCES[fault]) for fault in chosen
    }


def _of_the_model(rng: random.Random, mood: Mood, spec: ScaleSetSpec) -> dict[Fault, float]:
    """Return the troubles that only a model with such a part can have."""
    chances: dict[Fault, float] = {}
    if mood is Mood.TWIN:
        return chances
    if spec.lifecycle_hooks and rng.random() < 0.5:
        chances[Fault.HOOK] = 0.5
    if spec.os_rolling_upgrade_deferral and rng.random() < 0.5:
        chances[Fault.APPROVAL] = 0.7
    if spec.policy.metric_gate is not None and rng.random() < 0.5:
        chances[Fault.METRIC] = rng.choice((0.1, 0.4))
    return chances


# What a person may ask once the upgrade runs, and how: some seconds more or less change no end.
_AT_ANY_TIME: Mapping[Fault, tuple[float, float]] = {
    Fault.PAUSE: (0.02, 0.08),  # resumed soon
    Fault.REIMAGE: (0.0, 0.89),  # not given up
    Fault.POWER: (0.03, 0.0499),  # a restart of all
    Fault.START: (0.0, 1.0),
}


def _one_request(rng: random.Random, spec: ScaleSetSpec) -> list[Happening]:
    """Return what a person asks in a scenario whose end must not change by when it comes."""
    fault = rng.choice((None, *_AT_ANY_TIME))
    if fault is None or spec.minimum_image_age:  # the upgrade may start at that moment
        return []
    chance = rng.uniform(*_AT_ANY_TIME[fault])
    return [Happening(at=rng.uniform(200, 500), fault=fault, chance=chance)]


def _happenings(rng: random.Random, mood: Mood, active: float) -> list[Happening]:
    drawn = [
        Happening(at=rng.uniform(0, active) ** 2 / active, fault=fault, chance=rng.random())
        for fault in _choose(rng, mood, tuple(_TIMES))
        for _ in range(rng.choice(_TIMES[fault]))
    ]
    return sorted(drawn, key=lambda happening: happening.at)


def _choose(rng: random.Random, mood: Mood, kinds: Sequence[Fault]) -> list[Fault]:
    low, high = _KINDS_OF_FAULT[mood]
    count = rng.randint(low, high) // 2 + rng.randint(0, 1) * (low > 0)
    drawn = rng.sample(kinds, min(count, len(kinds)))
    return [fault for fault in drawn if fault not in _RARE or rng.random() < 0.4]
