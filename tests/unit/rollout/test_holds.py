"""Which version a set goes to: its minimum age, and holds after faults in other sets."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    FailureCode,
    Image,
    ImageReference,
    Probe,
    Provisioning,
    RollingPolicy,
)
from rollcall_rollout import Fleet, Instance, WaitCode, next_wake, waiting
from rollcall_rollout.state import Hold, UpgradeStatus
from rollcall_testing.fleets import SET, START, World, broken, fleet, healthy, image, spec

DAY = 86400.0
OTHER = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/db"
FAULT = Failure(code=FailureCode.METRIC_GATE, message="too many errors")


def seen(version: str, days_ago: float | None, **fields: Any) -> Image:
    """Return an image that the publisher saw so many days before START."""
    at = None if days_ago is None else START - timedelta(days=days_ago)
    return image(version, published_at=at, **fields)


def aged(*images: Image, age: float = 7 * DAY, **fields: Any) -> Fleet:
    """Return a fleet of three at 1.0 that wants images of a week."""
    return fleet(3, images=(seen("1.0", 100), *images), minimum_image_age=age, **fields)


def held_by(other: str = OTHER, version: str = "1.1", quarantine: bool = False) -> e.ImageHeld:
    """Return what another set says of a version that faulted there."""
    return e.ImageHeld(
        image=image(version), by_set=other, upgrade_id="u", error=FAULT, quarantine=quarantine
    )


def started(told: World) -> list[str]:
    """Return the versions to which upgrades started."""
    return [event.image.version for event in told.all(e.UpgradeStarted)]


# --- minimum image age ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "target", "wait"),
    [
        ([("1.1", 8.0)], "1.1", None),
        ([("1.1", 7.0)], "1.1", None),  # exactly old enough
        ([("1.1", 6.0)], None, WaitCode.IMAGE_TOO_YOUNG),
        ([("1.1", None)], "1.1", None),  # seen before anybody noted it
        ([("1.1", 9.0), ("1.2", 2.0)], "1.1", None),  # an older version that is ripe is taken
        ([("1.1", 5.0), ("1.2", 2.0)], None, WaitCode.IMAGE_TOO_YOUNG),
        ([("1.2", 9.0), ("1.1", 2.0)], "1.2", None),
    ],
)
def test_an_automatic_upgrade_goes_to_the_highest_version_that_is_old_enough(
    images: list[tuple[str, float | None]], target: str | None, wait: WaitCode | None
) -> None:
    told = World(fleet=aged(*(seen(version, days) for version, days in images)))
    told.tell()
    assert started(told) == ([target] if target else [])
    assert [held.error.code for held in told.all(e.UpgradeHeld)] == ([wait] if wait else [])


def test_the_upgrade_starts_at_the_moment_when_the_version_is_old_enough() -> None:
    told = World(fleet=aged(seen("1.1", 6.99)))
    told.tell()
    ripe = START + timedelta(days=0.01)
    told.now = ripe - timedelta(seconds=20)
    assert told.tell() == []
    assert next_wake(told.fleet, told.now) == ripe
    assert waiting(told.fleet, told.now).until == ripe
    told.now = ripe
    told.tell()
    assert started(told) == ["1.1"]


def test_after_the_older_version_the_younger_one_is_waited_for() -> None:
    told = World(fleet=aged(seen("1.1", 9), seen("1.2", 2)))
    told.run()
    assert waiting(told.fleet, told.now).code is WaitCode.IMAGE_TOO_YOUNG
    told.now = START + timedelta(days=5)
    told.run()
    assert started(told) == ["1.1", "1.2"]


def test_a_person_does_not_wait_for_the_age() -> None:
    told = World(fleet=aged(seen("1.1", 1)))
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    assert started(told) == ["1.1"]


def test_an_excluded_version_is_none_however_old() -> None:
    told = World(fleet=aged(seen("1.1", 50), seen("1.2", 50, exclude_from_latest=True)))
    told.tell()
    assert started(told) == ["1.1"]


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        ({}, "1.1"),  # 1.2 is too young
        ({"age": 0.0}, "1.2"),
        ({"age": 0.0, "barred_version": "1.2"}, "1.1"),
        ({"age": 0.0, "holds": {"1.2": Hold(by_set=OTHER, upgrade_id="u", error=FAULT)}}, "1.1"),
        ({"age": 30 * DAY, "barred_version": "1.0"}, "1.2"),  # none is good: the latest
        (
            {
                "image": ImageReference(
                    publisher="Contoso", offer="Web", sku="stable", version="1.2"
                )
            },
            "1.2",  # pinned: as the model says
        ),
    ],
)
def test_a_new_instance_is_made_from_the_latest_that_is_good(
    fields: dict[str, Any], version: str
) -> None:
    told = World(fleet=aged(seen("1.1", 9), seen("1.2", 2), automatic_os_upgrade=False, **fields))
    smaller = {"0": healthy("0", version="1.0")}
    told.fleet = Fleet(**{**vars_of(told.fleet), "instances": smaller, "next_id": 1})
    told.tell()
    assert told.last(e.InstancesCreateRequested).image.version == version


def vars_of(of: Fleet) -> dict[str, Any]:
    """Return a fleet's fields."""
    return {name: getattr(of, name) for name in Fleet.__dataclass_fields__ if name[0] != "_"}


@pytest.mark.parametrize(
    ("versions", "target"),
    [(("1.9", "1.10"), "1.10"), (("1.10", "1.9"), "1.10"), (("1.1", "2.0-excluded"), "1.1")],
)
def test_a_start_by_hand_goes_to_the_highest_number_that_is_not_excluded(
    versions: tuple[str, ...], target: str
) -> None:
    images = [seen(version, 50, exclude_from_latest="excluded" in version) for version in versions]
    told = World(fleet=aged(*images, automatic_os_upgrade=False))
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    assert started(told) == [target]


def test_versions_of_another_line_are_none_of_this_set() -> None:
    told = World(fleet=fleet(3))
    before = told.fleet
    other = image("2.0", sku="beta")
    told.tell(e.ImagePublished(image=other), e.ImageWithdrawn(image=image("1.0", sku="beta")))
    assert told.fleet is before


# --- holds across sets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "starts"),
    [
        ({}, False),
        ({"hold_faulted_versions": False}, True),
    ],
)
def test_a_version_that_faulted_in_another_set_is_held_here(
    fields: dict[str, Any], starts: bool
) -> None:
    told = World(fleet=fleet(3, **fields))
    told.tell(held_by())
    told.tell(e.ImagePublished(image=image("1.1")))
    assert bool(started(told)) is starts
    if not starts:
        assert told.last(e.UpgradeHeld).error.code == WaitCode.VERSION_HELD
        assert "faulted in" in told.last(e.UpgradeHeld).error.message


def test_a_release_lets_the_upgrade_start() -> None:
    told = World(fleet=fleet(3, versions=("1.0", "1.1"), holds={"1.1": hold()}))
    told.tell()
    assert started(told) == []
    told.tell(e.ImageReleased(image=image("1.1")))
    assert started(told) == ["1.1"]


def hold(by: str = OTHER, quarantine: bool = False) -> Hold:
    """Return a hold by a set."""
    return Hold(by_set=by, upgrade_id="u", error=FAULT, quarantine=quarantine)


def test_a_newer_version_goes_on_without_a_release() -> None:
    told = World(fleet=fleet(3, versions=("1.0", "1.1"), holds={"1.1": hold()}))
    told.tell()
    told.tell(e.ImagePublished(image=image("1.2")))
    assert started(told) == ["1.2"]


@pytest.mark.parametrize(
    ("by", "quarantine", "follows", "applies"),
    [
        (OTHER, False, True, True),
        (OTHER, True, True, True),
        (OTHER, False, False, False),
        (OTHER, True, False, False),  # a set that ignores others ignores their rollbacks too
        (SET, False, True, False),  # its own fault is a bar, which a model update ends
        (SET.upper(), False, True, False),  # ids of resources know no case
        (SET, True, True, True),
        (SET, True, False, True),  # what it rolled back itself it keeps off all the same
    ],
)
def test_whom_a_hold_concerns(by: str, quarantine: bool, follows: bool, applies: bool) -> None:
    of = fleet(holds={"1.1": hold(by, quarantine)}, hold_faulted_versions=follows)
    assert (of.hold_on("1.1") is not None) is applies
    assert of.hold_on("1.0") is None


def test_a_running_upgrade_stops_at_its_next_batch_and_goes_on_after_a_release() -> None:
    told = World(fleet=fleet(3, versions=("1.0", "1.1")))
    told.until("batch.started")
    told.tell(held_by())
    told.answer()
    assert told.batches() == ["0"]
    assert told.last(e.BatchHeld).code == WaitCode.VERSION_HELD
    assert told.later(DAY) == []
    told.tell(e.ImageReleased(image=image("1.1")))
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED


TCP = Probe(protocol="Tcp", port=80)
HTTP = Probe(protocol="Http", port=80, request_path="/health")


@pytest.mark.parametrize(
    ("probe", "blind", "wait"),
    [
        (TCP, {"host-1"}, WaitCode.BLIND_PROBE),  # one host of two is enough
        (TCP, {"host-1", "host-2"}, WaitCode.BLIND_PROBE),
        (TCP, {"host-9"}, None),  # where the set has no instance
        (TCP, set(), None),
        (HTTP, {"host-1"}, None),
        (None, {"host-1"}, None),
    ],
)
def test_no_upgrade_starts_by_itself_where_a_connection_says_nothing_of_the_guest(
    probe: Probe | None, blind: set[str], wait: WaitCode | None
) -> None:
    told = World(fleet=fleet(3, versions=("1.0", "1.1"), probe=probe, blind_hosts=frozenset(blind)))
    told.tell()
    assert started(told) == ([] if wait else ["1.1"])
    assert [held.error.code for held in told.all(e.UpgradeHeld)] == ([wait] if wait else [])


def test_a_blind_probe_holds_a_start_by_hand_but_not_an_override_nor_another_probe() -> None:
    blind = fleet(3, versions=("1.0", "1.1"), probe=TCP, blind_hosts=frozenset({"host-1"}))
    told = World(fleet=blind)
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    assert told.all(e.UpgradeHeld)[-1].error.code == WaitCode.BLIND_PROBE
    assert started(told) == []
    told.tell(e.UpgradeStartRequested(scale_set=SET, override=True))
    assert started(told) == ["1.1"]
    told = World(fleet=blind)
    told.tell()
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(3, revision=1, probe=HTTP)))
    told.run()  # once the other probe has been asked
    assert started(told) == ["1.1"]


def test_a_start_by_hand_of_a_held_version_is_refused_and_an_override_is_not() -> None:
    told = World(fleet=fleet(3, versions=("1.0", "1.1"), holds={"1.1": hold()}))
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    assert told.all(e.UpgradeHeld)[-1].error.code == WaitCode.VERSION_HELD
    assert started(told) == []
    told.tell(e.UpgradeStartRequested(scale_set=SET, override=True))
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert told.types("batch.held") == []


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (held_by(), False),  # held already: the first word stands
        (held_by("/another"), False),
        (held_by(quarantine=True), True),  # a rollback says more
        (held_by(version="2.0"), True),
        (e.ImageReleased(image=image("1.2")), False),
        (
            e.ImageHeld(image=image("1.1", sku="beta"), by_set=OTHER, upgrade_id="u", error=FAULT),
            False,
        ),
    ],
)
def test_what_is_said_of_holds_is_taken_once(event: e.Event, changes: bool) -> None:
    told = World(fleet=fleet(3, holds={"1.1": hold()}))
    before = told.fleet.holds
    told.tell(event)
    assert (told.fleet.holds != before) is changes


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({"sick": lambda id, version: version == "1.1"}, True),  # too many upgraded ones unhealthy
        (
            {
                "fetch_fails": lambda host: Failure(
                    code=FailureCode.IMAGE_VERIFICATION, message="sha256 differs"
                )
            },
            True,
        ),
        (
            {"fetch_fails": lambda host: Failure(code=FailureCode.IMAGE_UNSAFE, message="../x")},
            True,
        ),
        ({"fetch_fails": lambda host: broken()}, False),  # says nothing of the version
        (
            {
                "fetch_fails": lambda host: Failure(
                    code=FailureCode.IMAGE_UNAVAILABLE, message="connection refused"
                )
            },
            False,
        ),
    ],
)
def test_which_faults_other_sets_are_told_of(fields: dict[str, Any], holds: bool) -> None:
    told = World(fleet=fleet(3, versions=("1.0", "1.1")), **fields)
    told.run()
    assert told.upgrade.status is UpgradeStatus.FAULTED
    assert bool(told.all(e.ImageHeld)) is holds


def test_a_fault_of_its_own_holds_nothing_here_after_a_model_update() -> None:
    told = World(fleet=fleet(3, versions=("1.0", "1.1")), sick=lambda id, v: v == "1.1")
    told.run()
    assert [h.by_set for h in told.all(e.ImageHeld)] == [SET]
    told.sick = lambda id, version: False
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(3, revision=1)))
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED


def test_a_hold_is_said_once_and_again_for_the_next_cause() -> None:
    told = World(fleet=fleet(3, versions=("1.0", "1.1"), holds={"1.1": hold()}))
    told.tell()
    assert told.later(DAY) == []
    sick = RollingPolicy(max_unhealthy_instance_percent=20)
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(3, policy=sick, revision=1)))
    assert [h.error.code for h in told.all(e.UpgradeHeld)] == [WaitCode.VERSION_HELD] * 2


def test_another_line_of_images_knows_nothing_of_the_holds_of_this_one() -> None:
    told = World(fleet=fleet(3, versions=("1.0", "1.1"), holds={"1.1": hold()}))
    beta = ImageReference(publisher="Contoso", offer="Web", sku="beta")
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(3, image=beta, revision=1)))
    assert told.fleet.holds == {}
    assert told.fleet.images == ()


# --- new instances and deployments ----------------------------------------------------------------

DEPLOY = e.ModelDeployRequested(scale_set=SET, instance_ids=("*",))


def test_a_new_instance_is_made_from_one_that_did_not_work_rather_than_from_a_held_one() -> None:
    told = World(fleet=fleet(3, versions=("1.0", "1.1"), barred_version="1.0"))
    told.tell(held_by(quarantine=True))
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(4, revision=1)))
    told.fleet = replace(told.fleet, barred_version="1.0")
    told.run()
    assert told.versions_now()["3"] == "1.0"


def test_a_new_instance_is_made_from_one_that_is_too_young_rather_than_from_a_held_one() -> None:
    told = World(fleet=replace(aged(seen("1.1", 9.0)), images=(seen("1.0", 1), seen("1.1", 9))))
    told.tell(held_by())
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(4, revision=1, minimum_image_age=7 * DAY)))
    told.run()
    assert told.versions_now()["3"] == "1.0"


def test_a_new_instance_is_not_made_from_a_target_that_is_held_meanwhile() -> None:
    told = World(fleet=fleet(10, versions=("1.0", "1.1")))
    told.until("batch.started")
    told.tell(held_by())
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(11, revision=1)))
    told.answer()
    assert told.last(e.BatchHeld).code == WaitCode.VERSION_HELD
    assert told.versions_now()["10"] == "1.0"


def test_during_an_override_to_a_held_version_new_instances_get_it_too() -> None:
    told = World(fleet=fleet(10, versions=("1.0", "1.1")))
    told.tell(held_by())
    told.tell(e.UpgradeStartRequested(scale_set=SET, override=True))
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(11, revision=1)))
    told.answer()
    assert told.versions_now()["10"] == "1.1"


@pytest.mark.parametrize("quarantine", [False, True])
def test_a_deployment_of_the_model_never_brings_a_held_version(quarantine: bool) -> None:
    told = World(fleet=fleet(10, versions=("1.0", "1.1", "1.2")))
    told.tell(held_by(version="1.2", quarantine=quarantine))
    told.run()
    told.tell(DEPLOY)
    told.run()
    assert set(told.versions_now().values()) == {"1.1"}
    assert told.tell(DEPLOY) == []  # all have the model, and the version, now


def test_a_deployment_goes_to_a_version_that_is_young_or_did_not_work_but_is_not_held() -> None:
    """A person waits for no age, and a deployment is the cure for refused credentials (M41)."""
    told = World(fleet=aged(seen("1.1", 1.0), barred_version="1.1"))
    told.tell(DEPLOY)
    told.run()
    assert set(told.versions_now().values()) == {"1.1"}


def test_a_deployment_takes_instances_off_a_held_version() -> None:
    told = World(fleet=fleet(3, versions=("1.0", "1.1"), instances=_mixed()))
    told.tell(held_by(quarantine=True))
    told.tell(DEPLOY)
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}


def test_where_all_are_held_only_those_on_the_latest_get_the_model_anew() -> None:
    told = World(fleet=fleet(3, versions=("1.0", "1.1"), instances=_mixed()))
    told.tell(held_by(version="1.0"), held_by(version="1.1"))
    after = spec(3, revision=1, provisioning=Provisioning(generation=2))
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=after))
    told.tell(DEPLOY)
    told.run()
    assert told.versions_now() == {"0": "1.0", "1": "1.0", "2": "1.1"}
    assert {id: i.generation for id, i in told.fleet.instances.items()} == {"0": 1, "1": 1, "2": 1}
    (asked,) = told.all(e.InstancesUpgradeRequested)
    assert [order.instance_id for order in asked.instances] == ["2"]
    wait = waiting(told.fleet, told.now)
    assert wait.code == WaitCode.DEPLOYING
    assert wait.message.startswith(
        f"The model is to be deployed to 0, 1. Version 1.1 faulted in {OTHER}"
    )
    told.tell(e.ImageReleased(image=image("1.0")))
    told.run()
    assert told.versions_now() == {"0": "1.0", "1": "1.0", "2": "1.1"}


def test_who_pins_a_held_version_deploys_that_one() -> None:
    reference = ImageReference(publisher="Contoso", offer="Web", sku="stable", version="1.1")
    told = World(fleet=fleet(3, versions=("1.0", "1.1"), image=reference))
    told.tell(held_by())
    told.tell(DEPLOY)
    told.run()
    assert set(told.versions_now().values()) == {"1.1"}


def _mixed() -> dict[str, Instance]:
    """Return three instances, the last of which is at 1.1."""
    return {str(i): healthy(str(i), version="1.1" if i == 2 else "1.0") for i in range(3)}


def test_time_is_an_argument_here_too() -> None:
    """A version's age is counted by the publisher's clock at the time that is passed in."""
    of = aged(seen("1.1", 6))
    moment: datetime = START + timedelta(days=1)
    assert of.target(START) == of.images[0]
    assert of.target(moment) == of.images[1]
