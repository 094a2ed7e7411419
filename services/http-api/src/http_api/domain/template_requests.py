"""What a client sends to have a template deployed, and how its faults are told (M53)."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollcall_contracts.model import Failure
from rollcall_templates import jsonc
from rollcall_templates.errors import Path, TemplateError, dotted
from rollcall_templates.parameters import read_parameters
from rollcall_templates.plan import Plan, make_plan
from rollcall_templates.surroundings import Fresh, Surroundings
from rollcall_templates.template import read_template

from http_api.domain.deployments import unsupported
from http_api.domain.documents import ModelError, parse_body
from http_api.domain.template_inputs import Inputs, deployment_value

_TEMPLATE: Path = ("properties", "template")
_FAILED = "Deployment template validation failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateRequest:
    """The body of a request to deploy, validate or preview a template."""

    template: Mapping[str, Any]
    parameters: Any
    mode: str
    tags: Mapping[str, Any] | None
    result_format: str  # of a preview
    text: str  # as it was sent: for lines and columns


def read_request(raw: bytes) -> TemplateRequest:
    """Return what a client asks. Raises ModelError and TemplateError.

    az puts the file of a template into its request as it is, with comments and all.
    """
    document = _document(raw)
    properties = document.get("properties")
    if not isinstance(properties, Mapping):
        raise ModelError(_fault("the request needs 'properties' with a 'template'", "properties"))
    for name in ("templateLink", "parametersLink"):
        if properties.get(name):
            raise ModelError(
                _fault(
                    f"'{name}' is not fetched here: put what it links to into the request "
                    "(az: --template-file instead of --template-uri)",
                    f"properties.{name}",
                )
            )
    if properties.get("onErrorDeployment"):
        raise ModelError(
            _fault(
                "'onErrorDeployment' is not possible here: deploy the former template yourself "
                "when this one fails",
                "properties.onErrorDeployment",
            )
        )
    template = properties.get("template")
    if not isinstance(template, Mapping):
        raise ModelError(_fault("properties.template must be an object", "properties.template"))
    tags = document.get("tags")
    return TemplateRequest(
        template=template,
        parameters=properties.get("parameters"),
        mode=_mode(properties.get("mode", "Incremental")),
        tags=tags if isinstance(tags, Mapping) else None,
        result_format=_format(properties.get("whatIfSettings")),
        text=raw.decode(),
    )


def _document(raw: bytes) -> dict[str, Any]:
    try:
        return parse_body(raw)
    except ModelError:
        pass_on = _tolerant(raw)
    if not isinstance(pass_on, dict):
        raise ModelError(_fault("the body must be a JSON object", None))
    return pass_on


def _tolerant(raw: bytes) -> Any:
    try:
        return jsonc.loads(raw.decode())
    except ValueError as error:  # also of the decoding
        raise ModelError(_fault(f"the body is not usable JSON: {error}", None)) from error


def _mode(given: Any) -> str:
    if isinstance(given, str) and given.lower() == "incremental":
        return "Incremental"
    if isinstance(given, str) and given.lower() == "complete":
        raise ModelError(
            _fault(
                "the mode Complete is not possible here: nothing is deleted by a template. Use "
                "Incremental, and delete what is too much",
                "properties.mode",
            )
        )
    raise ModelError(_fault("mode must be Incremental", "properties.mode"))


def _format(settings: Any) -> str:
    given = settings.get("resultFormat") if isinstance(settings, Mapping) else None
    return "ResourceIdOnly" if str(given).lower() == "resourceidonly" else "FullResourcePayloads"


def _fault(message: str, target: str | None) -> Failure:
    return Failure(code="InvalidRequestContent", message=message, target=target)


def plan_request(
    asked: TemplateRequest,
    *,
    names: Mapping[str, Any],
    subscription: Mapping[str, Any],
    group: Mapping[str, Any],
    tenant: Mapping[str, Any],
    environment: Mapping[str, Any],
    providers: Mapping[str, Any],
    now: datetime,
    guid: uuid.UUID,
) -> tuple[Plan, Inputs]:
    """Return what a request amounts to, and what of it is to be kept. Raises TemplateError."""
    template = read_template(asked.template)
    surroundings = Surroundings(
        subscription=subscription,
        group=group,
        tenant=tenant,
        deployment=deployment_value(names, asked.template, asked.mode),
        environment=environment,
        providers=providers,
    )
    parameters = read_parameters(
        template, asked.parameters, surroundings, Fresh(now=now, guid=str(guid))
    )
    plan = make_plan(template, surroundings, parameters)
    refused = unsupported(plan)
    if refused is not None:
        resource, message = refused
        raise TemplateError(message, path=(*resource.path, "type"), code="InvalidResourceType")
    return plan, Inputs(template=asked.template, parameters=parameters, surroundings=surroundings)


def template_error_json(error: TemplateError, asked: TemplateRequest) -> dict[str, Any]:
    """Return a template's fault as ARM tells it: which, where, and in which line and column."""
    message = f"{_FAILED}: '{error.message}'."
    if not error.path:
        return {"code": error.code, "message": message}
    line, column = jsonc.locate(asked.text, (*_TEMPLATE, *error.path))
    place = dotted(error.path)
    return {
        "code": error.code,
        "message": f"{_FAILED}: '{error.message}' at line '{line}' and column '{column}' "
        f"({place}).",
        "target": place,
        "additionalInfo": [
            {
                "type": "TemplateViolation",
                "info": {
                    "lineNumber": line,
                    "linePosition": column,
                    "path": f"properties.template.{place}",
                },
            }
        ],
    }
