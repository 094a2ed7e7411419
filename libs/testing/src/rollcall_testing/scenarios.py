"""The stories of `tests/unit/rollout/stories`: one function each, whose docstring opens it.

`make golden` writes them anew, after an intended change of a rule or of a reason's words.
"""

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    FailureCode,
    Health,
    HookAction,
    MaintenanceWindow,
    MetricOutcome,
    Power,
    PowerAction,
    Provisioning,
    RollingPolicy,
)

from rollcall_testing.fleets import (
    BEFORE_BATCH,
    BEFORE_UPGRADE,
    GATE,
    SET,
    START,
    World,
    credentials_failure,
    fleet,
    healthy,
    image,
    powered,
    spec,
)
from rollcall_testing.stories import PACE, Story

PUBLISHED = e.ImagePublished(image=image("1.1"))


def told(capacity: int = 10, policy: dict[str, Any] | None = None, **fields: Any) -> Story:
    """Return a story in which version 1.1 is published a minute after the beginning."""
    rolling = RollingPolicy.model_validate(policy or {})
    story = Story(fleet=fleet(capacity, policy=rolling, **fields))
    story.at(PUBLISHED, minutes=1)
    return story


def a_good_version() -> Story:
    """Ten healthy instances on two hosts follow `latest`. A good version is published.

    It reaches them by itself, two at a time.
    """
    return told().play()


def a_bad_version() -> Story:
    """A version whose application never becomes healthy: it reaches two of ten and is put back."""
    story = told()
    story.sick = lambda id, version: version == "1.1"
    return story.play()


def a_few_bad_instances() -> Story:
    """The application of two instances does not get on with the version. The policy tolerates 40 %
    of those upgraded so far, so that the others go on; the two keep what they had.
    """
    story = told(policy={"max_unhealthy_upgraded_instance_percent": 40})
    story.sick = lambda id, version: version == "1.1" and id in ("3", "6")
    return story.play()


def an_outage_of_other_causes() -> Story:
    """Three instances lose their power while the second batch runs. The batch ends, and no other
    starts.
    """
    story = told()
    story.at(*(powered(id, Power.STOPPED) for id in ("7", "8", "9")), minutes=7)
    story.pace = lambda answer: (
        240 if isinstance(answer, e.InstanceUpgraded) else PACE[type(answer)]
    )
    return story.play()


def refused_credentials() -> Story:
    """A storage account refuses the token in the model. The first batch is left failed; new
    credentials in the model and its deployment to all heal the set.
    """
    story = told(4)

    def fails(id: str, request: e.HostRequest) -> Failure | None:
        if not isinstance(request, e.InstancesUpgradeRequested):
            return None
        return credentials_failure() if request.provisioning.generation == 1 else None

    story.fails = fails
    renewed = spec(4, provisioning=Provisioning(generation=2), revision=1)
    story.at(
        e.ScaleSetChanged(scale_set=SET, spec=renewed),
        e.ModelDeployRequested(scale_set=SET, instance_ids=("*",)),
        minutes=30,
    )
    return story.play()


def an_image_not_to_be_trusted() -> Story:
    """One host fetches an image whose content is not what its feed said. Nothing is touched, and
    other sets keep off the version.
    """
    bad = Failure(
        code=FailureCode.IMAGE_VERIFICATION,
        message="sha256 is 5d41..., expected 0000...: the image was changed on its way",
        target="1.1",
    )
    story = told(4)
    story.fetch_fails = lambda host: bad if host == "host-2" else None
    return story.play()


def a_silent_host() -> Story:
    """The agent of host-2 dies while it replaces an OS disk, and never answers. Its instance is
    given up after the provisioning timeout, and so is its restore.
    """
    story = told(4, policy={"provisioning_timeout": 900})

    def pace(answer: e.Event) -> float | None:
        on_second = getattr(answer, "instance_id", "0") in ("1", "3")
        works = isinstance(answer, e.InstanceUpgraded | e.InstanceRestored)
        return None if on_second and works else PACE[type(answer)]

    story.pace = pace
    return story.play()


def zones_phases_and_unhealthy_first() -> Story:
    """Eight instances in zones a and b. The application of 6 and 7 wants them in phase 0, before
    all others; 5 is ill. The policy puts the unhealthy first.
    """
    instances = {
        str(i): healthy(
            str(i),
            zone="ab"[i % 2],
            phase_order=0 if i in (6, 7) else None,
            health=Health.UNHEALTHY if i == 5 else Health.HEALTHY,
        )
        for i in range(8)
    }
    policy = {
        "max_batch_instance_percent": 25,
        "max_unhealthy_instance_percent": 40,
        "prioritize_unhealthy_instances": True,
    }
    return told(8, policy, instances=instances, zones=("a", "b")).play()


def update_domains() -> Story:
    """A Service Fabric set of six in three update domains: one domain at a time, though the policy
    would let three instances go at once.
    """
    policy = {"max_batch_instance_percent": 50, "max_unhealthy_instance_percent": 50}
    return told(6, policy, update_domains=3).play()


def left_out() -> Story:
    """Instance 1 is protected, and the application of 2 wants to be skipped. Instance 4 is
    protected while the upgrade runs; later its protection ends.
    """
    instances = {
        str(i): healthy(str(i), protect_from_scale_set_actions=i == 1, skip_upgrade=i == 2)
        for i in range(5)
    }
    story = told(5, instances=instances)
    protected = e.InstanceProtectionChanged(
        scale_set=SET, instance_id="4", protect_from_scale_set_actions=True
    )
    story.at(protected, minutes=2)
    story.at(e.InstanceProtectionChanged(scale_set=SET, instance_id="4"), minutes=60)
    return story.play()


def canary_and_bake() -> Story:
    """One canary, an hour to watch it, batches of at most three, and half an hour of baking at the
    end.
    """
    policy = {
        "canary_instance_count": 1,
        "canary_bake_time": 3600,
        "bake_time": 1800,
        "max_batch_instance_count": 3,
        "max_batch_instance_percent": 50,
        "max_unhealthy_instance_percent": 50,
    }
    story = told(7, policy)
    story.ask(minutes=30)
    story.ask(minutes=80)
    return story.play()


def a_maintenance_window() -> Story:
    """Batches may start between 02:00 and 02:05 in the night, on the clocks of Berlin (which are an
    hour ahead of the story's). What does not fit into one night goes on in the next.
    """
    night = MaintenanceWindow.model_validate(
        {"start": "2026-01-01T02:00", "time_zone": "Europe/Berlin", "duration": 300}
    )
    story = told(5, maintenance_windows=(night,))
    story.ask(minutes=30)
    story.ask(days=0.5)
    story.ask(days=1.25)
    return story.play()


def hooks_that_reject() -> Story:
    """Somebody is asked before the upgrade, and before each batch. Of the first batch, instance 1
    is rejected; about the second nobody answers in time.
    """
    story = told(
        5,
        {"max_batch_instance_percent": 40, "max_unhealthy_instance_percent": 40},
        lifecycle_hooks=(BEFORE_UPGRADE, BEFORE_BATCH),
    )
    answers: dict[tuple[str, ...], dict[str, HookAction] | None] = {
        (): {"*": HookAction.APPROVE},
        ("0", "1"): {"0": HookAction.APPROVE, "1": HookAction.REJECT},
        ("2", "3"): None,
        ("4",): {"*": HookAction.APPROVE},
    }
    story.hook = lambda asked: answers[asked.instance_ids]
    return story.play()


def a_deferred_upgrade() -> Story:
    """The upgrade is deferred: a program approves each instance when its work there is done."""
    story = told(3, os_rolling_upgrade_deferral=True)
    story.at(e.UpgradeApproveRequested(scale_set=SET, instance_ids=("2",)), minutes=30)
    story.ask(minutes=60)
    story.at(e.UpgradeApproveRequested(scale_set=SET, instance_ids=("*",)), minutes=90)
    return story.play()


def a_metric_gate() -> Story:
    """A metric gate is asked before each batch. Its server does not answer at first; later the rate
    of errors is too high.
    """
    story = told(5, {"metric_gate": GATE})
    outcomes = [MetricOutcome.UNREACHABLE, MetricOutcome.SUCCESS, MetricOutcome.FAILURE]
    story.metric = lambda asked: outcomes[asked.check - 1]
    return story.play()


def a_surge() -> Story:
    """New instances first: the hosts have room for one more, then for none, then for one again."""
    story = told(3, {"max_surge": True})
    story.room = {"host-1": 3, "host-2": 2}

    def observe(world: World) -> None:
        passed = world.now - START
        full = timedelta(minutes=2) < passed < timedelta(minutes=4)
        world.room = {"host-1": 2 if full else 4, "host-2": 1 if full else 4}

    story.observe = observe
    return story.play()


def a_surge_that_fails() -> Story:
    """The new instance does not become healthy: it is deleted, and the old one serves on."""
    story = told(5, {"max_surge": True})
    story.sick = lambda id, version: version == "1.1"
    return story.play()


def sliding_batches() -> Story:
    """No barrier between batches: of ten instances two are in flight at any time, and a slow one
    keeps nobody waiting.
    """
    story = told(policy={"sliding_batches": True})

    def pace(answer: e.Event) -> float:
        slow = isinstance(answer, e.InstanceHealthy) and answer.instance_id == "1"
        return 200 if slow else PACE[type(answer)]

    story.pace = pace
    return story.play()


def pause_resume_cancel() -> Story:
    """A person pauses the upgrade, looks around, resumes it, and cancels it after all. Hours later
    another one starts it again by hand.
    """
    story = told(6)
    story.at(e.UpgradePauseRequested(scale_set=SET), minutes=2)
    story.ask(minutes=30)
    story.at(e.UpgradeResumeRequested(scale_set=SET), minutes=60)
    story.at(e.UpgradeCancelRequested(scale_set=SET), minutes=61)
    story.ask(minutes=90)
    again = e.UpgradeStartRequested(scale_set=SET, reason="the release note is read now")
    story.at(again, minutes=240)
    return story.play()


def a_rollback() -> Story:
    """The version works, but leaks memory: a day later a person brings the set back. The next
    version mends it.
    """
    story = told(5)
    story.at(e.UpgradeRollbackRequested(scale_set=SET, reason="1.1 leaks memory"), days=1)
    story.ask(days=1.5)
    story.at(e.ImagePublished(image=image("1.2")), days=2)
    return story.play()


def a_fix_for_a_sick_set() -> Story:
    """Half of the set is ill, and a version is published that heals it. By itself it does not
    start: a person brings it with an override.
    """
    instances = {
        str(i): healthy(str(i), health=Health.UNHEALTHY if i % 2 else Health.HEALTHY)
        for i in range(10)
    }
    story = told(instances=instances)
    story.at(
        e.UpgradeStartRequested(scale_set=SET, override=True, reason="1.1 fixes the outage"),
        minutes=10,
    )
    return story.play()


def a_small_set() -> Story:
    """Two instances, of which one is ill: with `maxUnhealthyInstanceCount` 1 the ill one goes
    first, and the other only when it serves again.
    """
    instances = {
        "0": healthy("0"),
        "1": healthy("1", health=Health.UNHEALTHY),
    }
    return told(2, {"max_unhealthy_instance_count": 1}, instances=instances).play()


def held_for_another_set() -> Story:
    """The version faults in another set while it is rolled out here. It waits for a person, who
    clears it the next morning.
    """
    fault = Failure(code=FailureCode.METRIC_GATE, message="too many errors")
    elsewhere = e.ImageHeld(
        image=image("1.1"), by_set=SET.replace("web", "db"), upgrade_id="u", error=fault
    )
    story = told(3)
    story.at(elsewhere, minutes=2)
    story.ask(minutes=60)
    story.at(e.ImageReleased(image=image("1.1")), days=0.4)
    return story.play()


def an_image_that_must_age() -> Story:
    """Versions are taken when they are a day old: 1.1 is, 1.2 is not yet."""
    story = Story(fleet=fleet(3, minimum_image_age=86400))
    story.at(
        e.ImagePublished(image=image("1.1", published_at=START - timedelta(days=2))),
        e.ImagePublished(image=image("1.2", published_at=START - timedelta(hours=20))),
        minutes=1,
    )
    story.ask(minutes=60)
    story.ask(minutes=250)
    return story.play()


def a_withdrawn_image() -> Story:
    """The version leaves its feed while its second batch runs."""
    story = told(6)
    story.at(e.ImageWithdrawn(image=image("1.1")), minutes=3)
    return story.play()


def growing_meanwhile() -> Story:
    """The set is doubled while it is upgraded: new instances are made of the target, are no part of
    the upgrade, and no batch starts while they boot.
    """
    story = told(5)
    story.at(e.ScaleSetChanged(scale_set=SET, spec=spec(10, revision=1)), minutes=2)
    return story.play()


def breach_with_rollback() -> Story:
    """A start by hand restores nothing by itself; with `rollbackFailedInstancesOnPolicyBreach` the
    failed instances are put back when a limit is exceeded, before the upgrade faults.
    """
    story = Story(
        fleet=fleet(
            10,
            automatic_os_upgrade=False,
            policy=RollingPolicy(rollback_failed_instances_on_policy_breach=True),
        )
    )
    story.sick = lambda id, version: version == "1.1" and id in ("2", "3")
    story.at(PUBLISHED, minutes=1)
    story.at(e.UpgradeStartRequested(scale_set=SET), minutes=2)
    return story.play()


def powered_off_meanwhile() -> Story:
    """A person powers off instance 3 before its batch, and instance 0 in the middle of its own;
    hours later both are started, and follow by an upgrade of their own.
    """
    story = told(5)
    ids = {"scale_set": SET, "instance_ids": ("0", "3")}
    off = e.PowerChangeRequested(**ids, change=PowerAction.POWER_OFF, number=1)
    story.at(off, minutes=2)
    story.ask(minutes=90)
    story.at(e.PowerChangeRequested(**ids, change=PowerAction.START, number=2), minutes=120)
    return story.play()


def new_disks_for_all() -> Story:
    """A person asks for new OS disks of all instances, which run the latest version already."""
    story = Story(fleet=fleet(7))
    ids = tuple(str(number) for number in range(7))
    story.at(
        e.ModelDeployRequested(scale_set=SET, instance_ids=ids, reimage=True, number=1), minutes=1
    )
    return story.play()


SCENARIOS: tuple[Callable[[], Story], ...] = (
    a_good_version,
    a_bad_version,
    a_few_bad_instances,
    an_outage_of_other_causes,
    refused_credentials,
    an_image_not_to_be_trusted,
    a_silent_host,
    zones_phases_and_unhealthy_first,
    update_domains,
    left_out,
    canary_and_bake,
    a_maintenance_window,
    hooks_that_reject,
    a_deferred_upgrade,
    a_metric_gate,
    a_surge,
    a_surge_that_fails,
    sliding_batches,
    pause_resume_cancel,
    a_rollback,
    a_fix_for_a_sick_set,
    a_small_set,
    held_for_another_set,
    an_image_that_must_age,
    a_withdrawn_image,
    growing_meanwhile,
    breach_with_rollback,
    powered_off_meanwhile,
    new_disks_for_all,
)


def file_name(scenario: Callable[[], Story]) -> str:
    """Return the name of the file that a scenario's story is kept in."""
    return scenario.__name__.replace("_", "-") + ".txt"


def tell(scenario: Callable[[], Story]) -> str:
    """Return a scenario's story."""
    opening = " ".join((inspect.getdoc(scenario) or "").split())
    return scenario().text(opening)
