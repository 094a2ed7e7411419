"""Deployments of templates: what is kept of them, what clients see, and what comes next (M53)."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from rollcall_templates.ids import type_of
from rollcall_templates.plan import Plan, Planned

from http_api.domain.durations import format_duration
from http_api.domain.parts import CHILDREN
from http_api.domain.present.catalog import API_VERSIONS, KEPT_TYPES, TYPES
from http_api.domain.resource_ids import LOAD_BALANCERS, SCALE_SETS

DEPLOYMENTS = "Microsoft.Resources/deployments"
AUTOSCALE = "Microsoft.Insights/autoscaleSettings"
# Types that are written with a PUT of their own.
_WHOLE = (SCALE_SETS, LOAD_BALANCERS, AUTOSCALE, DEPLOYMENTS)
_KEPT = tuple(f"Microsoft.Network/{name}" for name in KEPT_TYPES)


def _parts() -> tuple[str, ...]:
    kept = {each.lower(): each for each in _KEPT}
    return tuple(
        f"{kept[type]}/{part}" for type, parts in CHILDREN.items() if type in kept for part in parts
    )


DEPLOYABLE = (
    *_WHOLE,
    *_KEPT,
    *_parts(),
    f"{SCALE_SETS}/extensions",
    f"{LOAD_BALANCERS}/inboundNatRules",
)


class State(StrEnum):
    """How far a deployment, or one of its operations, is; ARM's words."""

    ACCEPTED = "Accepted"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One deployment as it is kept, without what is sealed."""

    id: str
    correlation: str
    shown: Mapping[str, Any]
    state: State = State.ACCEPTED
    outputs: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    cancel_requested: bool = False
    started_at: datetime
    changed_at: datetime
    ended_at: datetime | None = None

    @property
    def name(self) -> str:
        """Return the last part of the id."""
        return self.id.rpartition("/")[2]

    @property
    def is_open(self) -> bool:
        """Say whether it still goes on."""
        return self.ended_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What became of one resource of a deployment; ARM calls it a deployment operation."""

    id: str
    resource: str  # empty: the outputs
    type: str
    name: str
    state: State
    status_code: str | None = None
    error: Mapping[str, Any] | None = field(default=None)
    asks: str | None = None  # where to ask whether it is done
    started_at: datetime
    ended_at: datetime | None = None


def step_id(deployment: str, resource: str) -> str:
    """Return the id of the operation that writes a resource, always the same."""
    return hashlib.sha256(f"{deployment.lower()}\n{resource.lower()}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """What a deployment does now: resources to write, or its end."""

    ready: tuple[Planned, ...] = ()
    has_ended: bool = False


def what_is_next(resources: Sequence[Planned], steps: Mapping[str, Step]) -> Next:
    """Return the resources whose turn it is; `steps` are by resource id in lower case.

    What needs a resource that failed is never written; all else is, as in ARM.
    """
    done = {key for key, step in steps.items() if step.state is State.SUCCEEDED}
    running = any(step.state is State.RUNNING for step in steps.values())
    ready = tuple(
        each
        for each in resources
        if each.id.lower() not in steps and _are_in(each.depends_on, done)
    )
    return Next(ready=ready, has_ended=not ready and not running)


def _are_in(ids: Sequence[str], done: Collection[str]) -> bool:
    return all(id.lower() in done for id in ids)


def failure_of(steps: Sequence[Step]) -> dict[str, Any] | None:
    """Return the error of a deployment some of whose resources could not be written."""
    failed = [step for step in steps if step.state is State.FAILED]
    if not failed:
        return None
    return {
        "code": "DeploymentFailed",
        "target": None,
        "message": "At least one resource deployment operation failed. Please list deployment "
        "operations for details.",
        "details": [_detail(step) for step in failed],
    }


def _detail(step: Step) -> dict[str, Any]:
    error = dict(step.error or {"code": "Unknown", "message": "it failed without a reason"})
    return {**error, "target": error.get("target") or step.resource or None}


def status_word(status: int) -> str:
    """Return an HTTP status in a word, as ARM gives it: OK, Created, BadRequest."""
    if status == HTTPStatus.OK:
        return "OK"
    return HTTPStatus(status).phrase.replace(" ", "")


def shown_of(plan: Plan, *, mode: str, template_hash: str) -> dict[str, Any]:
    """Return what GET shows of a deployment from its beginning."""
    return {
        "templateHash": template_hash,
        "parameters": plan.parameters.shown(),
        "mode": mode,
        "providers": _providers(plan),
        "dependencies": [_dependency(plan, each) for each in plan.resources if each.depends_on],
        "validatedResources": [{"id": each.id} for each in plan.resources],
    }


def _providers(plan: Plan) -> list[dict[str, Any]]:
    location = str(plan.surroundings.group.get("location", ""))
    kinds: dict[str, list[str]] = {}
    for each in plan.resources:
        namespace, _, kind = each.type.partition("/")
        if kind not in kinds.setdefault(namespace, []):
            kinds[namespace].append(kind)
    return [
        {
            "namespace": namespace,
            "resourceTypes": [{"resourceType": kind, "locations": [location]} for kind in found],
        }
        for namespace, found in kinds.items()
    ]


def _dependency(plan: Plan, resource: Planned) -> dict[str, Any]:
    return {
        **_named(resource.id),
        "dependsOn": [_named(id) for id in resource.depends_on],
    }


def _named(id: str) -> dict[str, str]:
    type, name = type_of(id)
    return {"id": id, "resourceType": type, "resourceName": name}


# Kept beside what is shown: of a validation only, beside the properties, and of ours.
_NOT_SHOWN = ("validatedResources", "tags", "digest")


def deployment_json(deployment: Deployment, steps: Sequence[Step] = ()) -> dict[str, Any]:
    """Return a deployment as GET shows it; `steps` only where it has succeeded."""
    shown = {key: value for key, value in deployment.shown.items() if key not in _NOT_SHOWN}
    properties: dict[str, Any] = {
        **shown,
        "provisioningState": deployment.state,
        "timestamp": deployment.changed_at.isoformat(),
        "duration": _duration(deployment.changed_at - deployment.started_at),
        "correlationId": deployment.correlation,
    }
    if deployment.outputs is not None:
        properties["outputs"] = deployment.outputs
    written = [
        {"id": step.resource} for step in steps if step.resource and step.state is State.SUCCEEDED
    ]
    if written:
        properties["outputResources"] = written
    if deployment.error is not None:
        properties["error"] = deployment.error
    document = {
        "id": deployment.id,
        "name": deployment.name,
        "type": DEPLOYMENTS,
        "properties": properties,
    }
    if "tags" in deployment.shown:
        document["tags"] = deployment.shown["tags"]
    return document


def _duration(length: timedelta) -> str:
    return format_duration(max(length.total_seconds(), 0))


def step_json(deployment: Deployment, step: Step) -> dict[str, Any]:
    """Return one operation of a deployment."""
    ended = step.ended_at or deployment.changed_at
    properties: dict[str, Any] = {
        "provisioningOperation": "Create" if step.resource else "EvaluateDeploymentOutput",
        "provisioningState": step.state,
        "timestamp": ended.isoformat(),
        "duration": _duration(ended - step.started_at),
        "trackingId": deployment.correlation,
        "serviceRequestId": deployment.correlation,
    }
    if step.status_code is not None:
        properties["statusCode"] = step.status_code
    if step.error is not None:
        properties["statusMessage"] = {"status": "Failed", "error": step.error}
    if step.resource:
        properties["targetResource"] = {
            "id": step.resource,
            "resourceType": step.type,
            "resourceName": step.name,
        }
    return {
        "id": f"{deployment.id}/operations/{step.id}",
        "operationId": step.id,
        "properties": properties,
    }


def status_json(deployment: Deployment) -> dict[str, Any]:
    """Return the status document that clients poll."""
    document: dict[str, Any] = {
        "name": deployment.correlation,
        "status": deployment.state,
        "startTime": deployment.started_at.isoformat(),
    }
    if deployment.ended_at is not None:
        document["endTime"] = deployment.ended_at.isoformat()
    if deployment.error is not None:
        document["error"] = deployment.error
    return document


def providers_here() -> dict[str, dict[str, Sequence[str]]]:
    """Return what `providers()` answers: types by provider, with their api-versions."""
    return {namespace: dict.fromkeys(kinds, API_VERSIONS) for namespace, kinds in TYPES.items()}


def unsupported(plan: Plan) -> tuple[Planned, str] | None:
    """Return the first resource of a type that cannot be deployed here, and what to say of it."""
    known = {each.lower() for each in DEPLOYABLE}
    for each in plan.resources:
        if each.type.lower() not in known:
            return each, (
                f"The resource type '{each.type}' cannot be deployed here: Rollcall acts on "
                f"{SCALE_SETS} and {LOAD_BALANCERS}, and keeps {', '.join((AUTOSCALE, *_KEPT))}. "
                "Take the resource out of the template, or give it a condition that is false"
            )
    return None
