"""What each route takes and answers, by its module and function: a table for the OpenAPI document.

Statuses that follow from what a route depends on (a token, an api-version, a path, a body, etags)
are not listed; a route without a row makes a test fail, and so does an answer that is not here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from http_api.openapi.schemas import FLAG, Schema

NOTHING = ""  # an answer without a body


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What one route takes and answers."""

    answers: Mapping[int, str]  # the schema's name by status; '' without a body
    errors: tuple[int, ...] = ()
    body: str = "AnyBody"  # of routes that take one
    query: Mapping[str, Schema] = field(default_factory=dict)  # what it reads by itself
    media: str = "application/json"


def _gives(name: str) -> Route:
    return Route(answers={200: name})


def _writes(name: str, body: str, *errors: int) -> Route:
    return Route(answers={200: name, 201: name}, body=body, errors=errors)


def _begins(body: str = "AnyBody") -> Route:
    """Return an action: 202 with where to ask, or why it would come to nothing now."""
    return Route(answers={202: NOTHING}, errors=(409,), body=body)


ANYTHING = Route(answers={200: "Anything"})  # of a route that nobody described yet
_DELETES = Route(answers={202: NOTHING, 204: NOTHING})

ROUTES: Mapping[str, Route] = {
    "scale_sets.put": _writes("ScaleSet", "ScaleSetBody", 409),
    "scale_sets.patch": Route(answers={200: "ScaleSet"}, errors=(409,), body="ScaleSetBody"),
    "scale_sets.get": _gives("ScaleSet"),
    "scale_sets.delete": _DELETES,
    "scale_sets.list_all": _gives("ScaleSets"),
    "scale_sets.list_skus": _gives("Skus"),
    "scale_sets.get_view": _gives("ScaleSetView"),
    "extensions.list_extensions": _gives("Extensions"),
    "extensions.get_extension": _gives("Extension"),
    "extensions.put": _writes("Extension", "AnyBody", 409),
    "extensions.patch": Route(answers={200: "Extension"}, errors=(409,)),
    "extensions.delete": Route(answers={202: NOTHING, 204: NOTHING}, errors=(409,)),
    "upgrades.history": _gives("PastUpgrades"),
    "upgrades.latest": _gives("LatestUpgrade"),
    "upgrades.full_history": _gives("Upgrades"),
    "upgrades.one_upgrade": _gives("Upgrade"),
    "upgrades.events_of_upgrade": _gives("CloudEvents"),
    "steering.start": Route(
        answers={202: NOTHING}, errors=(409,), body="WishBody", query={"forceReimage": FLAG}
    ),
    "steering.cancel": _begins("WishBody"),
    "steering.pause": _begins("WishBody"),
    "steering.resume": _begins("WishBody"),
    "steering.roll_back": _begins("WishBody"),
    "steering.approve": _begins("MaybeInstanceIdsBody"),
    "steering.approve_one": _begins(),
    "hooks.list_all": _gives("HookEvents"),
    "hooks.get": _gives("HookEvent"),
    "hooks.answer": Route(answers={200: "HookEvent"}, errors=(409,), body="HookAnswerBody"),
    "explain.explain": _gives("Explanation"),
    "explain.state": _gives("State"),
    "instances.list_all": _gives("Instances"),
    "instances.get": _gives("Instance"),
    "instances.put": Route(answers={200: "Instance"}, body="InstanceBody"),
    "instances.get_view": _gives("InstanceView"),
    "instances.deploy_model": _begins("InstanceIdsBody"),
    "actions.reimage": _begins("MaybeInstanceIdsBody"),
    "actions.reimage_one": _begins(),
    "actions.change": _begins("MaybeInstanceIdsBody"),
    "actions.change_one": _begins(),
    "actions.delete_some": Route(
        answers={202: NOTHING},
        errors=(409,),
        body="InstanceIdsBody",
        query={"forceDeletion": FLAG},
    ),
    "actions.delete_one": Route(
        answers={202: NOTHING, 204: NOTHING}, errors=(409,), query={"forceDeletion": FLAG}
    ),
    "instances.refuse": Route(answers={}, errors=(405, 409)),
    "load_balancers.put": _writes("Resource", "LoadBalancerBody"),
    "load_balancers.patch": Route(answers={200: "Resource"}, body="LoadBalancerBody"),
    "load_balancers.get": _gives("Resource"),
    "load_balancers.delete": _DELETES,
    "load_balancers.list_all": _gives("Resources"),
    "load_balancers.list_parts": _gives("Parts"),
    "load_balancers.get_part": _gives("Part"),
    "load_balancers.put_rule": _writes("Part", "PartBody"),
    "load_balancers.delete_rule": _DELETES,
    "images.publishers": _gives("ImageNames"),
    "images.offers": _gives("ImageNames"),
    "images.skus": _gives("ImageNames"),
    "images.versions": _gives("ImageNames"),
    "images.one_version": _gives("ImageVersion"),
    "networks.put": _writes("Resource", "KeptBody"),
    "networks.patch": Route(answers={200: "Resource"}, body="KeptBody"),
    "networks.get": _gives("Resource"),
    "networks.delete": _DELETES,
    "networks.list_all": _gives("Resources"),
    "networks.list_parts": _gives("Parts"),
    "networks.get_part": _gives("Part"),
    "networks.put_part": _writes("Part", "PartBody"),
    "networks.delete_part": _DELETES,
    "holds.list_all": _gives("Holds"),
    "holds.release": Route(answers={202: NOTHING}, body="WishBody"),
    "events.list_events": _gives("CloudEvents"),
    "events.stream_events": Route(answers={200: "EventStream"}, media="text/event-stream"),
    "operations.health": _gives("Facts"),
    "operations.healthz": _gives("Health"),
    "operations.readyz": _gives("Health"),
    "operations.metrics": Route(answers={200: "Metrics"}, media="text/plain"),
    "operations.feeds": _gives("Feeds"),
    "operations.scale_sets": _gives("Names"),
    "operations.hosts": _gives("Hosts"),
    "status.get": _gives("Operation"),
    "status.get_result": Route(answers={202: NOTHING, 204: NOTHING}, errors=(409,)),
    "existence.head": Route(answers={204: NOTHING}),
    "groups.put": _writes("Group", "GroupBody"),
    "groups.patch": Route(answers={200: "Group"}, body="GroupBody"),
    "groups.get": _gives("Group"),
    "groups.head": Route(answers={204: NOTHING}),
    "groups.delete": Route(answers={202: NOTHING}),
    "groups.list_all": _gives("Groups"),
    "groups.list_resources": _gives("ListedResources"),
    "subscriptions.subscriptions": _gives("Subscriptions"),
    "subscriptions.subscription": _gives("Subscription"),
    "subscriptions.tenants": _gives("Tenants"),
    "subscriptions.locations": _gives("Locations"),
    "subscriptions.providers": _gives("Providers"),
    "subscriptions.provider": _gives("Provider"),
    "subscriptions.register": _gives("Provider"),
    "subscriptions.operations": _gives("ProviderOperations"),
    "deployments.put": _writes("Deployment", "DeploymentBody", 409),
    "deployments.get": _gives("Deployment"),
    "deployments.head": Route(answers={204: NOTHING}),
    "deployments.delete": Route(answers={202: NOTHING, 204: NOTHING}, errors=(409,)),
    "deployments.list_all": _gives("Deployments"),
    "deployments.get_status": _gives("DeploymentStatus"),
    "deployments.list_operations": _gives("DeploymentOperations"),
    "deployments.get_operation": _gives("DeploymentOperation"),
    "deployments.cancel": Route(answers={204: NOTHING}, errors=(409,)),
    "deployments.validate": Route(answers={200: "Deployment"}, body="DeploymentBody"),
    "deployments.what_if": Route(answers={200: "Changes"}, body="DeploymentBody"),
    "deployments.export_template": _gives("ExportedTemplate"),
    "deployments.calculate_hash": Route(answers={200: "TemplateHash"}, body="TemplateBody"),
    "autoscale.put": _writes("Resource", "KeptBody"),
    "autoscale.patch": Route(answers={200: "Resource"}, body="KeptBody"),
    "autoscale.get": _gives("Resource"),
    "autoscale.delete": _DELETES,
    "autoscale.list_all": _gives("Resources"),
    "accounts.list_all": _gives("Accounts"),
    "accounts.add": Route(answers={201: "NewAccount"}, body="AccountBody"),
    "accounts.get": _gives("Account"),
    "accounts.put_roles": Route(answers={200: "Account"}, body="RolesBody"),
    "accounts.renew": _gives("NewSecret"),
    "accounts.remove": Route(answers={204: NOTHING}),
    "keys.list_all": _gives("SigningKeys"),
    "keys.rotate": Route(answers={200: "SigningKeys"}, body="RotateBody"),
    "login.endpoints": _gives("Endpoints"),
    "login.openid_configuration": _gives("OpenIdConfiguration"),
    "login.keys": _gives("KeySet"),
    "login.token": Route(answers={200: "Token"}, errors=(401, 429), body="TokenForm"),
}
