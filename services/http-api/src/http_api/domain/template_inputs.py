"""What a deployment was made from, as it is kept (sealed), and the plan that it amounts to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollcall_templates.parameters import Parameters
from rollcall_templates.plan import Plan, make_plan
from rollcall_templates.secure import shown_template
from rollcall_templates.surroundings import Surroundings
from rollcall_templates.template import read_template

from http_api.domain.secrets import redacted


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A template with all that it depends on: from the same inputs comes the same plan."""

    template: Mapping[str, Any]
    parameters: Parameters
    surroundings: Surroundings

    def as_text(self) -> str:
        """Return the inputs as text; it holds secrets."""
        around = self.surroundings
        return json.dumps(
            {
                "template": self.template,
                "values": self.parameters.values,
                "types": self.parameters.types,
                "subscription": around.subscription,
                "group": around.group,
                "tenant": around.tenant,
                "deployment": {
                    key: value for key, value in around.deployment.items() if key != "properties"
                },
                "mode": around.deployment["properties"]["mode"],
                "environment": around.environment,
                "providers": around.providers,
            }
        )


def read_inputs(text: str) -> Inputs:
    """Return the inputs of `Inputs.as_text`."""
    kept = json.loads(text)
    return Inputs(
        template=kept["template"],
        parameters=Parameters(values=kept["values"], types=kept["types"]),
        surroundings=Surroundings(
            subscription=kept["subscription"],
            group=kept["group"],
            tenant=kept["tenant"],
            deployment=deployment_value(kept["deployment"], kept["template"], kept["mode"]),
            environment=kept["environment"],
            providers=kept["providers"],
        ),
    )


def deployment_value(
    names: Mapping[str, Any], template: Mapping[str, Any], mode: str
) -> dict[str, Any]:
    """Return what `deployment()` answers: of the template what may be shown, as outputs are."""
    shown = exported(template)
    return {
        **names,
        "properties": {"template": shown, "mode": mode, "provisioningState": "Accepted"},
    }


def exported(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return a template without passwords, and without the values of secure parameters."""
    shown: dict[str, Any] = redacted(shown_template(template))
    return shown


def plan_of(text: str) -> Plan:
    """Return the plan of what was kept. Raises TemplateError."""
    inputs = read_inputs(text)
    return make_plan(read_template(inputs.template), inputs.surroundings, inputs.parameters)
