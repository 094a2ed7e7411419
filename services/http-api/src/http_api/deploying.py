"""Deployments in the background: each resource in its turn, and on after a restart.

A copy of the service has a deployment in hand for one step at a time, and any may take the next
one. A step that is cut off is done again: every write is a PUT of the whole resource, and one of a
scale set has a name, so that what was written already is not written, and told, twice.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import asyncpg
import structlog
from rollcall_kit.database import DATABASE_AWAY
from rollcall_kit.outbox import Connection
from rollcall_kit.secrets import SealError, unseal
from rollcall_templates.errors import TemplateError
from rollcall_templates.evaluate import Missing, Request
from rollcall_templates.plan import Plan, Planned
from rollcall_templates.values import Value

from http_api import deployments
from http_api.domain.access import Principal
from http_api.domain.deployments import (
    Deployment,
    State,
    Step,
    failure_of,
    status_word,
    step_id,
    what_is_next,
)
from http_api.domain.template_inputs import plan_of
from http_api.inside import Answer, Inside
from http_api.writes import Server

log = structlog.get_logger()

IDLE = 0.5  # seconds between two looks for what is to be done
BUSY = 0.1  # seconds, while something is
AT_ONCE = 20  # resources that one step begins
PLANS = 20  # that are kept in memory
FAULTS = 10  # of ours, until a deployment is given up
_LATER = (429, 503)


class Deployer:
    """Carries deployments on until they end."""

    def __init__(self, server: Server, inside: Inside) -> None:
        self._server = server
        self._inside = inside
        self._plans: dict[str, Plan] = {}  # by correlation
        self._faults: dict[str, int] = {}  # by correlation

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            is_busy = False
            try:
                is_busy = await self.round()
            except DATABASE_AWAY as error:
                log.warning("database_unavailable", error=str(error) or type(error).__name__)
            except Exception:  # to stop would leave every deployment where it is
                log.exception("deployments_failed")
            await asyncio.sleep(BUSY if is_busy else IDLE)

    async def round(self) -> bool:
        """Take each open deployment one step further; return whether there was one."""
        async with self._server.context.database.acquire() as connection:
            keys = await deployments.open_keys(connection)
        for key in keys:
            try:
                await self._take(key)
            except DATABASE_AWAY:
                raise
            except Exception:  # one that cannot even be read must not hold up those behind it
                log.exception("deployment_failed", deployment=key)
        return bool(keys)

    async def _take(self, key: str) -> None:
        async with self._server.context.database.acquire() as connection:
            if not await deployments.lock(connection, key):
                return  # another copy of the service is at it
            try:
                await self._advance(connection, key)
            finally:
                await deployments.unlock(connection, key)

    async def _advance(self, connection: Connection, key: str) -> None:
        found = await deployments.find(connection, key)
        if found is None or not found.is_open:
            return
        try:
            moved = await self._step(connection, found)
            await self._save(connection, found, moved)
        except asyncpg.ForeignKeyViolationError:
            return  # it was deleted meanwhile, with its resource group
        except DATABASE_AWAY:
            raise
        except Exception:  # one that cannot go on must not hold up the others
            log.exception("deployment_step_failed", deployment=key)
            moved = self._after_fault(found)
            await self._save(connection, found, moved)
        if not moved.is_open:
            self._plans.pop(moved.correlation, None)
            self._faults.pop(moved.correlation, None)
            log.info("deployment_ended", deployment=moved.id, state=moved.state)

    async def _save(self, connection: Connection, before: Deployment, after: Deployment) -> None:
        if after != before:
            await deployments.save(connection, after)

    def _after_fault(self, deployment: Deployment) -> Deployment:
        """Return a deployment that something went wrong with here; it is tried a few times."""
        faults = self._faults[deployment.correlation] = (
            self._faults.get(deployment.correlation, 0) + 1
        )
        if faults < FAULTS:
            return deployment
        failure = {
            "code": "InternalServerError",
            "message": "Something went wrong here; the log of http-api has it under "
            "deployment_step_failed.",
        }
        return _ended(deployment, State.FAILED, self._server.context.now(), error=failure)

    async def _step(self, connection: Connection, deployment: Deployment) -> Deployment:
        key, now = deployment.id.lower(), self._server.context.now()
        steps = {each.resource.lower(): each for each in await deployments.steps(connection, key)}
        if deployment.cancel_requested:
            return await self._cancel(connection, deployment, steps, now)
        try:
            plan = await self._plan(connection, deployment)
            principal = await _deployer(connection, key)
        except (TemplateError, SealError, _Gone) as error:
            failure = {"code": "DeploymentFailed", "message": str(error)}
            return _ended(deployment, State.FAILED, now, error=failure)
        run = _Run(self._inside, plan, principal, deployment)
        for name, step in steps.items():
            if step.state is State.RUNNING:
                steps[name] = await run.look(step, self._server.context.now())
                await deployments.save_step(connection, key, steps[name])
        following = what_is_next(plan.resources, steps)
        for resource in following.ready[:AT_ONCE]:
            began = await run.begin(resource, self._server.context.now())
            if began is not None:
                await deployments.save_step(connection, key, began)
        if not following.has_ended:
            return replace(deployment, state=State.RUNNING, changed_at=now)
        return await self._finish(connection, deployment, run, steps)

    async def _finish(
        self,
        connection: Connection,
        deployment: Deployment,
        run: "_Run",
        steps: Mapping[str, Step],
    ) -> Deployment:
        now = self._server.context.now()
        failure = failure_of(list(steps.values()))
        if failure is not None:
            return _ended(deployment, State.FAILED, now, error=failure)
        try:
            outputs = await run.outputs()
        except _Later:
            return replace(deployment, changed_at=now)
        except _Refused as refused:
            step = run.failed_outputs(refused, now)
            await deployments.save_step(connection, deployment.id.lower(), step)
            return _ended(deployment, State.FAILED, now, error=failure_of([step]))
        return _ended(deployment, State.SUCCEEDED, now, outputs=outputs)

    async def _cancel(
        self,
        connection: Connection,
        deployment: Deployment,
        steps: Mapping[str, Step],
        now: datetime,
    ) -> Deployment:
        """End a deployment; what it has written stays, and what is on its way goes on."""
        for step in steps.values():
            if step.state is State.RUNNING:
                stopped = replace(step, state=State.CANCELED, ended_at=now)
                await deployments.save_step(connection, deployment.id.lower(), stopped)
        return _ended(
            deployment,
            State.CANCELED,
            now,
            error={"code": "DeploymentCanceled", "message": "The deployment was canceled."},
        )

    async def _plan(self, connection: Connection, deployment: Deployment) -> Plan:
        found = self._plans.get(deployment.correlation)
        if found is None:
            sealed = await deployments.sealed_of(connection, deployment.id.lower())
            text = unseal(self._server.settings.secrets_key, sealed)
            found = await asyncio.to_thread(plan_of, text)
            if len(self._plans) >= PLANS:
                self._plans.pop(next(iter(self._plans)))
            self._plans[deployment.correlation] = found
        return found


def _ended(
    deployment: Deployment,
    state: State,
    now: datetime,
    *,
    error: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
) -> Deployment:
    return replace(
        deployment, state=state, changed_at=now, ended_at=now, error=error, outputs=outputs
    )


class _Gone(Exception):
    """Whoever deploys has no account any more."""


async def _deployer(connection: Connection, key: str) -> Principal:
    """Return who deploys, with the rights of this moment. Raises _Gone."""
    found = await deployments.deployer_of(connection, key)
    if found is None:
        raise _Gone(
            "The account that began the deployment was removed, so it writes nothing more: what it "
            "has written stays. Deploy the template again with another account."
        )
    return found


class _Refused(Exception):
    """A resource cannot be written, or asked about."""

    def __init__(self, error: Mapping[str, Any], status: int = 400) -> None:
        super().__init__(str(error.get("message")))
        self.error = error
        self.status = status


class _Later(Exception):
    """The database or something else is away: the same is tried again."""


class _Run:
    """One step of one deployment; it remembers the documents that it asked for."""

    def __init__(
        self, inside: Inside, plan: Plan, principal: Principal, deployment: Deployment
    ) -> None:
        self._inside = inside
        self._plan = plan
        self._principal = principal
        self._deployment = deployment
        self._known: dict[tuple[str, str | None], Value] = {}

    async def begin(self, resource: Planned, now: datetime) -> Step | None:
        """Write a resource; None where that must be tried again."""
        step = Step(
            id=step_id(self._deployment.id, resource.id),
            resource=resource.id,
            type=resource.type,
            name=resource.name,
            state=State.RUNNING,
            started_at=now,
        )
        try:
            body = await self._body(resource)
            once = f"{self._deployment.correlation} {step.id}"
            answer = await self._ask("PUT", resource.id, resource.api_version, body, once)
        except _Later:
            return None
        except _Refused as refused:
            return _failed(step, refused, now)
        asks = answer.asks
        if asks is None and _state_in(answer) not in (None, *_FINAL):
            asks = f"{resource.id}?api-version={resource.api_version}"
        step = replace(step, status_code=status_word(answer.status), asks=asks)
        if asks is not None:
            return step
        return _by_state(step, _state_in(answer) or "Succeeded", answer, now)

    async def look(self, step: Step, now: datetime) -> Step:
        """Ask whether a resource is there."""
        if step.asks is None:
            return replace(step, state=State.SUCCEEDED, ended_at=now)
        try:
            answer = await self._ask("GET", step.asks, None)
        except _Later:
            return step
        except _Refused as refused:
            return _failed(step, refused, now)
        document = answer.document if isinstance(answer.document, dict) else {}
        state = document.get("status") or _state_in(answer) or "Succeeded"
        return _by_state(step, str(state), answer, now)

    async def outputs(self) -> dict[str, Any]:
        """Return the outputs. Raises _Refused and _Later."""
        while True:
            try:
                return self._plan.outputs(self._known)
            except Missing as missing:
                await self._learn(missing.request)
            except TemplateError as error:
                raise _refused(error) from error

    def failed_outputs(self, refused: _Refused, now: datetime) -> Step:
        """Return the operation that could not evaluate the outputs."""
        step = Step(
            id=step_id(self._deployment.id, ""),
            resource="",
            type="",
            name="",
            state=State.RUNNING,
            started_at=now,
        )
        return _failed(step, refused, now)

    async def _body(self, resource: Planned) -> dict[str, Any]:
        while True:
            try:
                return self._plan.body(resource, self._known)
            except Missing as missing:
                await self._learn(missing.request)
            except TemplateError as error:
                raise _refused(error) from error

    async def _learn(self, request: Request) -> None:
        """Get the document of a deployed resource."""
        if request.api_version is None:
            raise _Refused(
                {
                    "code": "InvalidTemplate",
                    "message": f"reference() of {request.id}, which is not in the template, needs "
                    "an api-version as its second argument",
                }
            )
        answer = await self._ask("GET", request.id, request.api_version)
        self._known[request.key] = answer.document

    async def _ask(
        self,
        method: str,
        path: str,
        version: str | None,
        body: Any = None,
        once: str | None = None,
    ) -> Answer:
        answer = await self._inside.ask(
            method, path, self._principal, version=version or "", body=body, once=once
        )
        if answer.status in _LATER:
            raise _Later
        if answer.status >= 300:
            raise _Refused(answer.error, answer.status)
        return answer


_FINAL = ("Succeeded", "Failed", "Canceled")


def _refused(error: TemplateError) -> _Refused:
    return _Refused({"code": error.code, "message": error.message})


def _state_in(answer: Answer) -> str | None:
    document = answer.document if isinstance(answer.document, dict) else {}
    properties = document.get("properties")
    state = properties.get("provisioningState") if isinstance(properties, dict) else None
    return str(state) if state else None


def _by_state(step: Step, state: str, answer: Answer, now: datetime) -> Step:
    if state == "Succeeded":
        return replace(step, state=State.SUCCEEDED, status_code="OK", ended_at=now)
    if state in _FINAL:
        error = answer.error if isinstance(answer.document, dict) else {}
        if "error" not in (answer.document or {}):
            error = {
                "code": "ResourceDeploymentFailure",
                "message": f"The resource operation completed with terminal provisioning state "
                f"'{state}'.",
            }
        return replace(step, state=State.FAILED, status_code="Conflict", error=error, ended_at=now)
    return step


def _failed(step: Step, refused: _Refused, now: datetime) -> Step:
    return replace(
        step,
        state=State.FAILED,
        status_code=status_word(refused.status),
        error=refused.error,
        ended_at=now,
        asks=None,
    )
