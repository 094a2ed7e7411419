"""Every message survives the wire, and says where it goes."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from rollcall_contracts.events import (
    EVENT_CLASSES,
    AgentSeen,
    EventBase,
    HostRequest,
    ImageFetchRequested,
    InstanceHealthy,
    InstanceOrder,
    InstancesUpgradeRequested,
    ProbeTarget,
    SetEvent,
    event_type,
    parse,
    report_key,
    routing_key,
    stream,
    subject,
)
from rollcall_contracts.model import (
    Drain,
    Extension,
    Failure,
    Health,
    HookAction,
    Image,
    ImageReference,
    LifecycleHookType,
    MetricGate,
    MetricOutcome,
    Power,
    PowerAction,
    Probe,
    Provisioning,
    RollingPolicy,
    ScaleSetSpec,
    StartedBy,
)

SET = "/subscriptions/S/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/Web"
IMAGE = Image(
    publisher="Canonical",
    offer="UbuntuServer",
    sku="18.04-LTS",
    version="18.04.202001010",
    url="https://images.example.com/a.tar.gz",
    sha256="ab" * 32,
    size=12,
)
PROBE = Probe(protocol="Http", port=8080, request_path="/health", number_of_probes=2)
PROVISIONING = Provisioning(
    generation=3,
    sealed_custom_data="gAAAA",
    extensions=(Extension(name="e", settings={"fileUris": ["https://a"], "deep": {"n": 1.5}}),),
    data_disks=(0, 1),
)

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
GATE = MetricGate(server="http://127.0.0.1:9090", query="rate(e[5m])", success_condition="< 0.01")

# A value for each field name that any event has; a new field needs one here.
VALUES: dict[str, Any] = {
    "action": HookAction.APPROVE,
    "actions": {"0": HookAction.APPROVE, "17": HookAction.REJECT},
    "address": "fd00::1",
    "approved": ("0",),
    "attempt": 4,
    "batch": 2,
    "by_set": SET,
    "capacity": 12,
    "change": PowerAction.RESTART,
    "check": 3,
    "code": "Paused",
    "default_action": HookAction.REJECT,
    "deferred": True,
    "drain": Drain(request_path="/drain", deadline=30),
    "driver": "process",
    "error": Failure(code="HealthTimeout", message="after 300 s — ü", target=SET),
    "failed": 1,
    "fast": True,
    "feed": "ubuntu",
    "gate": GATE,
    "generation": 3,
    "health": Health.INITIALIZING,
    "hook_id": "77aa",
    "hook_type": LifecycleHookType.BATCH_STARTING,
    "host": "host-1.example.com",
    "image": IMAGE,
    "instance_id": "17",
    "instance_ids": ("0", "17"),
    "instances": (InstanceOrder(instance_id="0", attempt=1),),
    "lease": 9,
    "max_wait_until": MOMENT,
    "number": 7,
    "outcome": MetricOutcome.INCONCLUSIVE,
    "override": True,
    "phase_ordering_number": 2,
    "phases": {"17": 1},
    "policy": RollingPolicy(max_batch_instance_percent=10, pause_time_between_batches=1.5),
    "port": 8080,
    "power": Power.STOPPED,
    "probe": PROBE,
    "protect_from_scale_in": True,
    "protect_from_scale_set_actions": True,
    "provisioning": PROVISIONING,
    "quarantine": True,
    "reason": "3 of 10 unhealthy, more than 20 %",
    "reimage": True,
    "rejected": ("17",),
    "replacements": {"0": "20"},
    "restore_failed": True,
    "revision": 5,
    "rollback_of": "18.04.202002020",
    "scale_set": SET,
    "skip_upgrade": True,
    "spec": ScaleSetSpec(
        scale_set=SET,
        location="local",
        capacity=10,
        zones=("1", "2"),
        image=ImageReference(publisher="Canonical", offer="UbuntuServer", sku="18.04-LTS"),
        automatic_os_upgrade=True,
        probe=PROBE,
        provisioning=PROVISIONING,
    ),
    "started_by": StartedBy.PLATFORM,
    "succeeded": 4,
    "targets": (ProbeTarget(instance_id="0", attempt=1, lease=2, address="::1", port=80),),
    "tcp_probe_proves_guest": False,
    "until": MOMENT,
    "upgrade_id": "5b0c",
    "value": 0.25,
    "version": "18.04.202001010",
    "wait_until": MOMENT,
}


def sample(cls: type[EventBase]) -> Any:
    """Return an event with a value in each of its fields."""
    return cls(**{name: VALUES[name] for name in cls.model_fields if name != "type"})


every_class = pytest.mark.parametrize("cls", EVENT_CLASSES, ids=lambda cls: cls.__name__)


@every_class
def test_an_event_survives_the_wire(cls: type[EventBase]) -> None:
    event = sample(cls)
    assert parse(event.model_dump_json()) == event
    assert parse(event.model_dump_json().encode()) == event


@every_class
def test_a_field_that_a_newer_peer_adds_is_ignored(cls: type[EventBase]) -> None:
    event = sample(cls)
    newer = event.model_dump_json()[:-1] + ', "added_later": {"x": 1}}'
    assert parse(newer) == event


@every_class
def test_an_event_cannot_be_changed(cls: type[EventBase]) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        sample(cls).reason = "another"


@every_class
def test_a_type_is_named_once_and_says_what_it_is(cls: type[EventBase]) -> None:
    type_ = event_type(cls)
    assert [event_type(other) for other in EVENT_CLASSES].count(type_) == 1
    family, action, version = type_.split(".")
    assert version == "v1"
    words = family.split("_") + action.split("_")
    assert cls.__name__ == "".join(word.capitalize() for word in words)
    assert cls.__doc__


@every_class
def test_an_event_says_where_it_goes(cls: type[EventBase]) -> None:
    event = sample(cls)
    to_host = isinstance(event, HostRequest | ImageFetchRequested)
    assert routing_key(event) == event.type + (".host-1.example.com" if to_host else "")
    assert report_key(event) == f"report.{event.type}"
    # A scale set's events are chained together, however its id is spelled.
    assert stream(event) == (SET.lower() if isinstance(event, SetEvent) else "images")
    assert subject(event)


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (InstanceHealthy, f"{SET}/virtualMachines/17"),
        (InstancesUpgradeRequested, SET),
        (AgentSeen, "hosts/host-1.example.com"),
        (EVENT_CLASSES[0], "images/canonical/ubuntuserver/18.04-lts/18.04.202001010"),
    ],
)
def test_subjects(cls: type[EventBase], expected: str) -> None:
    assert subject(sample(cls)) == expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{}", "type"),
        ('{"type": "instance.healthy.v2"}', "instance.healthy.v2"),
        ('{"type": "instance.healthy.v1", "scale_set": "s", "instance_id": "1"}', "attempt"),
        ("[1, 2", "JSON"),
    ],
)
def test_what_is_no_event_is_refused_by_name(body: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        parse(body)
