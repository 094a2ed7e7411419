"""A rollout as a story: what happened, in words, with virtual times."""

from collections.abc import Iterable

from rollcall_contracts import events as e

from rollcall_simulator.scenario import Scenario

NAMED = 12  # instances that a line names


def opening(scenario: Scenario) -> list[str]:
    """Return the lines that say what the story is about."""
    spec, policy = scenario.spec, scenario.spec.policy
    fields = policy.model_dump(exclude_defaults=True)
    values = ", ".join(f"{name} {_short(value)}" for name, value in fields.items()) or "defaults"
    extras = [
        f"zones {', '.join(spec.zones)}" if spec.zones else "",
        f"{spec.update_domains} update domains" if spec.update_domains else "",
        "no probe" if spec.probe is None else "",
        "deferred" if spec.os_rolling_upgrade_deferral else "",
        "no automatic upgrade" if not spec.automatic_os_upgrade else "",
        "no restore" if spec.disable_automatic_rollback else "",
        f"images of {spec.minimum_image_age:g} s or more" if spec.minimum_image_age else "",
        *(
            f"hook {h.type} ({h.wait_duration:g} s, then {h.default_action})"
            for h in spec.lifecycle_hooks
        ),
        *(
            f"window of {w.duration:g} s every {w.recur_every} from {w.start} {w.time_zone}"
            for w in spec.maintenance_windows
        ),
    ]
    chances = ", ".join(f"{fault} {chance:g}" for fault, chance in scenario.chances.items())
    coming = ", ".join(f"{h.fault} at {h.at:.0f} s" for h in scenario.happenings)
    return [
        f"Seed {scenario.seed}, {scenario.mood}: {spec.capacity} instances on "
        f"{len(scenario.hosts)} hosts.",
        f"Policy: {values}.",
        *([f"Model: {', '.join(extra for extra in extras if extra)}."] if any(extras) else []),
        f"Work takes about {scenario.work:.0f} s, a boot {scenario.boot:.0f} s; "
        f"{scenario.ill_at_start} are ill at the start.",
        f"Faults: {chances or 'none'}. To come: {coming or 'nothing'}.",
    ]


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{k} {v}" for k, v in value.items() if v is not None) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def line(seconds: float, what: str | e.Event) -> str:
    """Return one line of the story."""
    text = what if isinstance(what, str) else _told(what)
    return f"{_clock(seconds)}  {text}"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:2}:{whole // 60 % 60:02}:{whole % 60:02}.{int(seconds * 10) % 10}"


def _told(event: e.Event) -> str:
    name, reason = type(event).__name__, f" - {event.reason}" if event.reason else ""
    return f"{name}{_of_hosts(event) or _of_people(event) or _of_upgrade(event)}{reason}"


def _of_hosts(event: e.Event) -> str:
    match event:
        case e.ProbeRequested():
            return " " + _names(f"{t.instance_id} (lease {t.lease})" for t in event.targets)
        case e.HostRequest():
            orders = _names(f"{o.instance_id}/{o.attempt}" for o in event.instances)
            return f" of {event.host}: {orders}"
        case e.ImageFetchRequested() | e.ImageFetched():
            return f": {event.host}"
        case e.ImageFetchFailed():
            return f": {event.host}: {event.error.message}"
        case e.InstanceFailed():
            return f" {event.instance_id}/{event.attempt}: {event.error.code}"
        case e.HealthReport():
            return f" {event.instance_id}/{event.attempt} (lease {event.lease})"
        case e.InstancePowerChanged():
            return f" {event.instance_id}/{event.attempt}: {event.power}"
        case e.InstanceReport():
            return f" {event.instance_id}/{event.attempt} {getattr(event, 'version', '')}"
    return ""


def _of_people(event: e.Event) -> str:
    match event:
        case e.ScaleSetChanged():
            return f": revision {event.spec.revision}, capacity {event.spec.capacity}"
        case e.ImagePublished() | e.ImageWithdrawn() | e.ImageReleased():
            return f" {event.image.version}"
        case e.ImageHeld():
            return f" {event.image.version} by {event.by_set.rsplit('/', 1)[-1]}"
        case e.LifecycleHookAnswered():
            answers = ", ".join(f"{id}: {action}" for id, action in event.actions.items())
            return f" {answers}{event.wait_until or ''}"
        case e.InstanceProtectionChanged():
            return f" {event.instance_id}: {event.protect_from_scale_set_actions}"
        case e.ModelDeployRequested():
            how = " anew" if event.reimage else ""
            return f"{how} {_names(event.instance_ids)}"
        case e.PowerChangeRequested():
            return f" {event.change} {_names(event.instance_ids)}"
        case e.UpgradeStartRequested():
            return " with override" if event.override else ""
    return ""


def _of_upgrade(event: e.Event) -> str:
    match event:
        case e.BatchStarted():
            taken = (
                f"{id} by {event.replacements[id]}" if id in event.replacements else id
                for id in event.instance_ids
            )
            return f" {event.batch}: {_names(taken)}"
        case e.BatchCompleted():
            return f" {event.batch}"
        case e.UpgradeStarted():
            return f" to {event.image.version} by {event.started_by}"
        case e.LifecycleHookStarted() | e.InstancesSkipped() | e.UpgradeApproveRequested():
            return f" {_names(event.instance_ids)}"
        case e.BatchHeld():
            return f" {event.code}"
        case e.MetricQueried():
            return f" {event.check}: {event.outcome}"
    return ""


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
