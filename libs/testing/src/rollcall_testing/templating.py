"""Templates in tests: surroundings to evaluate them in, and what they come to."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rollcall_templates.evaluate import Frame, Known
from rollcall_templates.parameters import read_parameters
from rollcall_templates.plan import Plan, make_plan
from rollcall_templates.surroundings import Fresh, Surroundings
from rollcall_templates.template import read_template

GROUP = "/subscriptions/sub-1/resourceGroups/group-1"
AROUND = Surroundings(
    subscription={
        "id": "/subscriptions/sub-1",
        "subscriptionId": "sub-1",
        "tenantId": "tenant-1",
        "displayName": "Rollcall",
    },
    group={
        "id": GROUP,
        "name": "group-1",
        "type": "Microsoft.Resources/resourceGroups",
        "location": "local",
        "tags": {"team": "web"},
        "properties": {"provisioningState": "Succeeded"},
    },
    tenant={"tenantId": "tenant-1"},
    deployment={"name": "main", "properties": {"mode": "Incremental"}},
    environment={"name": "Rollcall", "suffixes": {}},
    providers={"Microsoft.Network": {"virtualNetworks": ("2020-06-01",)}},
)
FRESH = Fresh(now=datetime(2020, 4, 7, 14, 53, 14, tzinfo=UTC), guid="fresh")


def template(*resources: Mapping[str, Any], **sections: Any) -> dict[str, Any]:
    """Return a template of some resources."""
    return {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/"
        "deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "resources": list(resources),
        **sections,
    }


def resource(name: str, type: str = "Microsoft.Network/virtualNetworks", **more: Any) -> Any:
    """Return a resource of a template."""
    return {"type": type, "apiVersion": "2020-06-01", "name": name, **more}


def planned(document: Any, **parameters: Any) -> Plan:
    """Return what a template amounts to, with these parameters. Raises TemplateError."""
    read = read_template(document)
    given = {name: {"value": value} for name, value in parameters.items()}
    return make_plan(read, AROUND, read_parameters(read, given, AROUND, FRESH))


def value_of(
    expression: Any,
    *,
    known: Known | None = None,
    frame: Frame | None = None,
    **sections: Any,
) -> Any:
    """Return what an expression comes to in a template of these sections. Raises TemplateError."""
    plan = planned(template(**sections))
    evaluator = plan.evaluator(known)
    return evaluator.document(expression, frame or Frame(runtime=known is not None), ("value",))
