"""What could stop an upgrade, or make it wait: seen in the fleet, the policy and the plan."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rollcall_contracts.model import HookAction, LifecycleHookType, RollingPolicy
from rollcall_rollout import Fleet, windows
from rollcall_rollout.gates import unhealthy_share

from rollcall_simulator.course import Course
from rollcall_simulator.pace import Pace

NEAR = 0.8  # of a time limit
NAMED = 10  # instances that a sentence names


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """One thing to know before it starts."""

    code: str
    message: str


def risks(fleet: Fleet, courses: Sequence[Course], pace: Pace, now: datetime) -> Sequence[Risk]:
    """Return what could stop or delay these upgrades."""
    policy = fleet.upgrade.policy if fleet.upgrade is not None else fleet.spec.policy
    return [
        *_health(fleet, policy),
        *_left_out(fleet, courses),
        *_holds(fleet, courses),
        *_times(policy, pace, courses),
        *_windows(fleet, courses, now),
        *_asked(fleet, policy),
    ]


def _health(fleet: Fleet, policy: RollingPolicy) -> Iterator[Risk]:
    share = unhealthy_share(fleet, policy)
    sick = [i.id for i in fleet.instances.values() if not i.is_healthy and not i.is_busy]
    now = f"{len(sick)} unhealthy now ({_ids(sick)}); " if sick else ""
    margin = share.allowed - share.count
    if margin < 0:
        yield Risk(code="UnhealthyInstances", message=f"{now}{share}: no batch starts.")
        return
    yield Risk(
        code="UnhealthyInstances",
        message=(
            f"{now}at most {share.allowed} of {share.total} may be unhealthy: no further batch "
            f"starts when {margin + 1} more are, for whatever cause."
        ),
    )


def _left_out(fleet: Fleet, courses: Sequence[Course]) -> Iterator[Risk]:
    skipped = sorted({id for course in courses for id in course.skipped}, key=int)
    if skipped:
        yield Risk(
            code="InstancesSkipped",
            message=f"{len(skipped)} instances are left out ({_ids(skipped)}): protected, or by "
            "their application's wish.",
        )
    if fleet.upgrade is not None and fleet.upgrade.pause_requested:
        yield Risk(
            code="Paused", message="A person paused the upgrade: it stands until it is resumed."
        )
    if fleet.upgrade is not None and fleet.upgrade.cancel_requested:
        yield Risk(
            code="Cancelled", message="A person cancelled the upgrade: it ends after its batch."
        )


def _holds(fleet: Fleet, courses: Sequence[Course]) -> Iterator[Risk]:
    latest = fleet.latest
    versions = {course.version for course in courses} | ({latest.version} if latest else set())
    for version in sorted(versions):
        hold = fleet.hold_on(version)
        if hold is not None:
            yield Risk(
                code="VersionHeld",
                message=f"Version {version} is held because of {hold.by_set} ({hold.error.code}) "
                "until a person releases it.",
            )


def _times(policy: RollingPolicy, pace: Pace, courses: Sequence[Course]) -> Iterator[Risk]:
    for what, name, estimate, limit in (
        ("become healthy", "healthTimeout", pace.healthy, policy.health_timeout),
        ("be provisioned", "provisioningTimeout", pace.provisioning, policy.provisioning_timeout),
    ):
        if estimate.samples and estimate.high >= NEAR * limit:
            yield Risk(
                code="NearTimeout",
                message=f"Instances took up to {estimate.high:.0f} s to {what}; {name} is "
                f"{limit:g} s.",
            )
    whole = policy.upgrade_timeout
    if whole is not None and courses and courses[0].end is not None:
        takes = (courses[0].end - courses[0].begin).total_seconds()
        if takes >= NEAR * whole:
            yield Risk(
                code="NearTimeout",
                message=f"The upgrade is expected to take {takes:.0f} s; upgradeTimeout is "
                f"{whole:g} s.",
            )


def _windows(fleet: Fleet, courses: Sequence[Course], now: datetime) -> Iterator[Risk]:
    schedule = fleet.spec.maintenance_windows
    if not schedule:
        return
    longest = windows.longest(schedule)
    planned = [
        (batch.end - batch.begin).total_seconds()
        for course in courses
        for batch in course.batches
        if batch.end is not None
    ]
    expected = max((*planned, *fleet.batch_seconds), default=0.0)
    if expected > longest:
        yield Risk(
            code="WindowTooShort",
            message=f"A batch takes about {expected:.0f} s, and the longest maintenance window "
            f"{longest:.0f} s: batches that do not fit are not started.",
        )
    if windows.open_until(schedule, now) is None and windows.next_opening(schedule, now) is None:
        yield Risk(code="NoMoreWindows", message="No maintenance window opens any more.")


def _asked(fleet: Fleet, policy: RollingPolicy) -> Iterator[Risk]:
    when = {
        LifecycleHookType.SCHEDULING: "before the upgrade",
        LifecycleHookType.BATCH_STARTING: "before each batch",
    }
    for hook in fleet.spec.lifecycle_hooks:
        silent = "it is rejected" if hook.default_action is HookAction.REJECT else "it goes on"
        yield Risk(
            code="LifecycleHook",
            message=f"{hook.type} is asked {when[hook.type]}, and is assumed to approve at once: "
            f"it may take up to {hook.wait_duration:g} s, and when nobody answers, {silent}.",
        )
    if fleet.spec.os_rolling_upgrade_deferral:
        yield Risk(
            code="ApprovalAwaited",
            message="Upgrades are deferred, and are assumed to be approved at once: they wait "
            "for as long as nobody does (approveRollingUpgrade).",
        )
    if policy.metric_gate is not None:
        yield Risk(
            code="MetricGate",
            message=f"The metric gate at {policy.metric_gate.server} is assumed to say yes.",
        )


def _ids(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + more
