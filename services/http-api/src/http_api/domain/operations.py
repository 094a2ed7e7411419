"""Long-running operations: what each waits for, and when it has ended (azure-aws-gcp.md 2.4).

What the orchestrator and the agents do takes time; an operation says to a client, in ARM's words,
whether it is done. It is judged from facts alone whenever somebody asks.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from rollcall_contracts.model import FailureCode

from http_api.domain.present.scale_sets import STUCK, provisioning_state

PATIENCE = timedelta(seconds=30)  # for a lack of images or hosts to pass, and for a message
SETTLED = ("ready", "failed")


class Kind(StrEnum):
    """What an operation waits for."""

    NOTHING = "nothing"  # done with its request
    SET = "set"  # as many instances as the model says
    DELETION = "deletion"  # the instances of some sets are gone
    INSTANCES = "instances"  # these are brought to the model
    REIMAGE = "reimage"  # these get new OS disks
    POWER = "power"  # the power of these is as somebody wants it
    REMOVAL = "removal"  # these are gone
    PROTECTION = "protection"  # an instance is protected as somebody wants it
    START = "start"  # an upgrade that was asked for ends
    CANCEL = "cancel"  # the upgrade that runs ends


class Status(StrEnum):
    """ARM's words. Beware: an operation is `Canceled`, an upgrade `Cancelled`."""

    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation as it is kept."""

    id: str
    kind: Kind
    resource: str  # the ARM id that it is about
    goal: Mapping[str, Any] = field(default_factory=dict)
    status: Status = Status.IN_PROGRESS
    error: Mapping[str, Any] | None = None
    started_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an operation is now."""

    status: Status
    error: Mapping[str, Any] | None = None


RUNNING = Outcome(status=Status.IN_PROGRESS)
DONE = Outcome(status=Status.SUCCEEDED)


def _failed(code: str, message: str, status: Status = Status.FAILED) -> Outcome:
    return Outcome(status=status, error={"code": code, "message": message})


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFacts:
    """What is known of a scale set."""

    capacity: int
    revision: int  # of the model that the orchestrator has
    phases: Mapping[str, int] = field(default_factory=dict)
    broken: Mapping[str, Any] | None = None  # error of an instance that could not be made
    held: Mapping[str, Any] | None = None


def judge_set(operation: Operation, facts: SetFacts | None, now: datetime) -> Outcome:
    """Say whether a set has become what a PUT or PATCH made of it; None: it is deleted."""
    if facts is None:
        return _failed(
            "OperationPreempted", "The scale set was deleted meanwhile.", Status.CANCELED
        )
    if facts.revision < int(operation.goal["revision"]):
        return RUNNING
    state = provisioning_state(
        facts.capacity,
        facts.phases,
        broken=facts.broken is not None,
        stuck=facts.held is not None and facts.held.get("code") in STUCK,
    )
    if state == "Succeeded":
        return DONE
    if state != "Failed":
        return RUNNING
    if facts.broken is not None:
        return Outcome(status=Status.FAILED, error=_code_and_message(facts.broken))
    if now - operation.started_at < PATIENCE:
        return RUNNING
    return Outcome(status=Status.FAILED, error=_code_and_message(facts.held or {}))


def judge_deletion(instances_left: int) -> Outcome:
    """Say whether the instances of what was deleted are gone."""
    return RUNNING if instances_left else DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFacts:
    """What is known of one instance."""

    id: str
    attempt: int
    phase: str
    deploy: bool  # marked to be brought to the model, as soon as nothing else has a hand on it
    error: Mapping[str, Any] | None = None
    reimage: bool = False  # marked to get a new OS disk, when its turn comes
    reimage_number: int = 0  # of the newest reimage that the orchestrator knows of
    power_due: str | None = None  # what its agent is still to be asked for
    power_number: int = 0


def to_wait_for(instances: Sequence[tuple[str, int, bool]], ids: Collection[str]) -> dict[str, int]:
    """Return the attempts of those that a deployment of the model will change.

    `instances` are (id, attempt, at the model already); `ids` those named, `*` for all.
    """
    return {
        id: attempt
        for id, attempt, current in instances
        if ("*" in ids or id in ids) and not current
    }


def judge_instances(
    operation: Operation, instances: Mapping[str, InstanceFacts], now: datetime
) -> Outcome:
    """Say whether instances were brought to the model (M41); one that is gone is not waited for."""
    unheeded = now - operation.started_at >= PATIENCE  # found at the model already, so no request
    failed: list[InstanceFacts] = []
    attempts: Mapping[str, int] = operation.goal["attempts"]
    for id, attempt in attempts.items():
        instance = instances.get(id)
        if instance is None:
            continue
        begun = instance.attempt > attempt or (unheeded and not instance.deploy)
        if not begun or instance.phase not in SETTLED:
            return RUNNING
        if instance.phase == "failed":
            failed.append(instance)
    return _outcome(failed)


def _outcome(failed: Sequence[InstanceFacts]) -> Outcome:
    """Return success, or the error of the first instance that failed."""
    if not failed:
        return DONE
    first = failed[0]
    error = first.error or {"code": "VMProvisioningError", "message": "it could not be provisioned"}
    others = f" ({len(failed)} instances failed)" if len(failed) > 1 else ""
    return _failed(str(error.get("code")), f"Instance {first.id}: {error.get('message')}{others}")


def judge_reimage(operation: Operation, instances: Mapping[str, InstanceFacts]) -> Outcome:
    """Say whether each instance got its new OS disk; one that is gone is not waited for.

    A person who cancels gives up those that have not begun.
    """
    number = int(operation.goal["number"])
    failed: list[InstanceFacts] = []
    given_up = False
    for id, attempt in operation.goal["attempts"].items():
        instance = instances.get(id)
        if instance is None:
            continue
        if instance.reimage_number < number or instance.reimage:
            return RUNNING
        if instance.attempt == attempt:
            given_up = True
        elif instance.phase not in SETTLED:
            return RUNNING
        elif instance.phase == "failed":
            failed.append(instance)
    if given_up and not failed:
        message = "A person cancelled it before every instance had its new OS disk."
        return _failed("Canceled", message, Status.CANCELED)
    return _outcome(failed)


def judge_power(operation: Operation, instances: Mapping[str, InstanceFacts]) -> Outcome:
    """Say whether the power of instances is as somebody wants it."""
    number = int(operation.goal["number"])
    failed: list[InstanceFacts] = []
    for id in operation.goal["ids"]:
        instance = instances.get(id)
        if instance is None:
            continue
        is_known = instance.power_number >= number and instance.power_due is None
        if not is_known or instance.phase not in SETTLED:
            return RUNNING
        if (instance.error or {}).get("code") == FailureCode.POWER:
            failed.append(instance)
    return _outcome(failed)


def judge_removal(operation: Operation, facts: SetFacts | None, left: Collection[str]) -> Outcome:
    """Say whether deleted instances are gone; `left` are those of them that are there."""
    if facts is None:
        return RUNNING if left else DONE
    known = facts.revision >= int(operation.goal["revision"])
    return DONE if known and not left else RUNNING


def judge_protection(
    operation: Operation, protection: tuple[bool, bool] | None, now: datetime
) -> Outcome:
    """Say whether an instance's protection has taken effect; `protection` None: it is gone.

    Until then a deletion of the instance would not be refused. It is not waited for beyond
    `PATIENCE`, since a later change may have taken its place.
    """
    wanted = (operation.goal["scale_in"], operation.goal["set_actions"])
    is_over = now - operation.started_at >= PATIENCE
    return DONE if protection in (None, wanted) or is_over else RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeFacts:
    """What became of a request to start an upgrade, or of the upgrade that runs."""

    held: Mapping[str, Any] | None = None  # why none was started
    status: str | None = None  # of the upgrade, when one was
    error: Mapping[str, Any] | None = None


def judge_start(facts: UpgradeFacts) -> Outcome:
    """Say whether an upgrade has ended, and how: the operation lasts as long as it does."""
    if facts.held is not None:
        return Outcome(status=Status.FAILED, error=_code_and_message(facts.held))
    match facts.status:
        case None | "RollingForward":
            return RUNNING
        case "Completed":
            return DONE
        case "Cancelled":
            return _failed("Canceled", "The Rolling Upgrade was cancelled.", Status.CANCELED)
    fault = {"code": "RollingUpgradeFaulted", "message": "The Rolling Upgrade faulted."}
    return Outcome(status=Status.FAILED, error=_code_and_message(facts.error or fault))


def judge_cancel(status: str | None) -> Outcome:
    """Say whether an upgrade that was asked to stop has ended."""
    return RUNNING if status == "RollingForward" else DONE


def _code_and_message(error: Mapping[str, Any]) -> dict[str, Any]:
    return {name: error.get(name) for name in ("code", "message", "target") if error.get(name)}


def operation_json(operation: Operation, id: str) -> dict[str, Any]:
    """Return the status document that clients poll; `id` is its own ARM id."""
    document: dict[str, Any] = {
        "id": id,
        "name": operation.id,
        "status": operation.status,
        "startTime": operation.started_at.isoformat(),
    }
    if operation.ended_at is not None:
        document["endTime"] = operation.ended_at.isoformat()
    if operation.status is Status.SUCCEEDED:
        document["percentComplete"] = 100
    if operation.error is not None:
        document["error"] = dict(operation.error)
    return document
