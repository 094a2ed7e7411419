"""The documents of the API as JSON Schemas, for its OpenAPI document.

What is read is made from the tables that the readers use, and what is a contract's from its model:
neither can say anything else than the code does.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel
from rollcall_contracts.model import Failure, Image

from http_api.domain.access import Role
from http_api.domain.deployments import State
from http_api.domain.operations import Status
from http_api.domain.shape import LOAD_BALANCER, SCALE_SET, Leaf, Shape

Schema: TypeAlias = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
ANY: Schema = {}
OBJECT: Schema = {"type": "object"}


def ref(name: str) -> Schema:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def maybe(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def many(schema: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": schema}


def record(
    required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, **more: Any
) -> Schema:
    """Return the schema of an object; it may have more members than these."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        **({"required": list(required)} if required else {}),
        **more,
    }


def page_of(name: str) -> Schema:
    """Return the schema of a list in Azure's form; `nextLink` is the URL of what follows."""
    return record({"value": many(ref(name))}, {"nextLink": {"type": "string", "format": "uri"}})


def shape_schema(shape: Shape) -> Schema:
    """Return what a body of a shape may be: any member may be absent, null, or unknown here.

    Names match without regard to case, and numbers and booleans may be texts, as templates write
    them; a schema has no words for that.
    """
    if isinstance(shape, Mapping):
        members = {name: maybe(shape_schema(inner)) for name, inner in shape.items()}
        return {"type": "object", "properties": members}
    if isinstance(shape, tuple):
        return many(shape_schema(shape[0]))
    match shape:
        case Leaf.FLAG:
            return FLAG
        case Leaf.WHOLE:
            return WHOLE
        case Leaf.DURATION:
            return {"type": "string", "description": "ISO 8601, such as PT5M"}
    return ANY


def model_schema(model: type[BaseModel]) -> Schema:
    """Return the schema of a contract's model as it is written, with what it refers to inside."""
    schema: Schema = model.model_json_schema(
        mode="serialization", ref_template=f"#/components/schemas/{model.__name__}/$defs/{{model}}"
    )
    return schema


_RESOURCE = {"id": TEXT, "name": TEXT, "type": TEXT}
_STATE = {
    "provisioningState": {
        "enum": ["Creating", "Updating", "Deleting", "Succeeded", "Failed", "Canceled"]
    }
}
_STATUS = record({"code": TEXT, "level": TEXT, "displayStatus": TEXT}, {"message": TEXT})
_PROGRESS = record(
    {f"{word}InstanceCount": WHOLE for word in ("successful", "failed", "inProgress", "pending")}
)
_ROLLED_BACK = record(
    {f"{word}RolledbackInstanceCount": WHOLE for word in ("successfully", "failed")}
)
_IMAGE_REFERENCE = record({part: maybe(TEXT) for part in ("publisher", "offer", "sku", "version")})
_UPGRADE_STATUS = {"enum": ["RollingForward", "Completed", "Cancelled", "Faulted", "RollingBack"]}
_BY = {"enum": ["Unknown", "User", "Platform"]}
_ROLE = record({"role": {"enum": [role.word for role in Role]}}, {"scope": maybe(TEXT)})
_OWN = {
    "override": FLAG,
    "rollbackOf": maybe(TEXT),
    "deferred": FLAG,
    "skippedInstanceCount": WHOLE,
}
_INSTANCE_VIEW = record({"computerName": TEXT, "vmHealth": OBJECT, "statuses": many(_STATUS)})
_RUNNING = {"code": _UPGRADE_STATUS, "startTime": TIME}
_ACCOUNT = {
    "clientId": TEXT,
    "tenantId": TEXT,
    "name": TEXT,
    "createdTime": TIME,
    "secretTime": TIME,
    "roles": many(_ROLE),
}

# What clients send.
BODIES: Mapping[str, Schema] = {
    "ScaleSetBody": shape_schema(SCALE_SET),
    "LoadBalancerBody": shape_schema(LOAD_BALANCER),
    "GroupBody": record({}, {"location": maybe(TEXT), "tags": ANY}),
    "KeptBody": record({}, {"properties": maybe(OBJECT), "location": ANY, "tags": ANY}),
    "PartBody": OBJECT,
    "TemplateBody": OBJECT,
    "DeploymentBody": record(
        {
            "properties": record(
                {"template": record({"$schema": TEXT, "contentVersion": TEXT, "resources": ANY})},
                {"parameters": maybe(OBJECT), "mode": {"enum": ["Incremental"]}},
            )
        },
        {"location": maybe(TEXT), "tags": maybe(OBJECT)},
    ),
    "AnyBody": OBJECT,
    "InstanceBody": record(
        {},
        {
            "properties": maybe(
                record(
                    {},
                    {
                        "protectionPolicy": maybe(
                            record(
                                {},
                                {
                                    "protectFromScaleIn": maybe(FLAG),
                                    "protectFromScaleSetActions": maybe(FLAG),
                                },
                            )
                        )
                    },
                )
            )
        },
    ),
    "InstanceIdsBody": record({"instanceIds": {**many(TEXT), "description": '["*"] names all'}}),
    "MaybeInstanceIdsBody": record({}, {"instanceIds": maybe(many(TEXT))}),
    "WishBody": record({}, {"reason": maybe(TEXT), "override": maybe(FLAG)}),
    "HookAnswerBody": record({}, {"properties": OBJECT}),
    "RotateBody": record({}, {"revoke": maybe(FLAG)}),
    "AccountBody": record({"name": TEXT, "roles": many(_ROLE)}),
    "RolesBody": record({"roles": many(_ROLE)}),
    "TokenForm": record(
        {"grant_type": {"const": "client_credentials"}},
        {
            "client_id": TEXT,
            "client_secret": {**TEXT, "writeOnly": True},
            "scope": TEXT,
            "resource": TEXT,
        },
    ),
}

# What clients get.
ANSWERS: Mapping[str, Schema] = {
    "Error": record(
        {
            "error": record(
                {"code": TEXT, "message": TEXT},
                {"target": TEXT, "details": many(ref("Failure"))},
            )
        },
        additionalProperties=False,
    ),
    "OAuthError": record({"error": TEXT, "error_description": TEXT}),
    "Failure": model_schema(Failure),
    "ScaleSet": record(
        {
            **_RESOURCE,
            "etag": TEXT,
            "location": TEXT,
            "sku": record({"capacity": WHOLE}),
            "properties": record(
                {
                    **_STATE,
                    "upgradePolicy": record({"automaticOSUpgradePolicy": OBJECT}),
                    "uniqueId": TEXT,
                    "timeCreated": TIME,
                    "rollcall": record({"generation": WHOLE, "warnings": many(ref("Failure"))}),
                }
            ),
        }
    ),
    "ScaleSets": page_of("ScaleSet"),
    "Skus": page_of("Sku"),
    "Sku": record({"resourceType": TEXT, "sku": OBJECT, "capacity": OBJECT}),
    "Extension": record({**_RESOURCE}, {"properties": OBJECT}),
    "Extensions": page_of("Extension"),
    "ScaleSetView": record(
        {
            "virtualMachine": record(
                {"statusesSummary": many(record({"code": TEXT, "count": WHOLE}))}
            ),
            "extensions": many(OBJECT),
            "statuses": many(_STATUS),
        }
    ),
    "Instance": record(
        {
            **_RESOURCE,
            "location": TEXT,
            "instanceId": TEXT,
            "properties": record(
                {
                    **_STATE,
                    "latestModelApplied": FLAG,
                    "storageProfile": OBJECT,
                    "protectionPolicy": OBJECT,
                    "rollcall": OBJECT,
                },
                {"instanceView": _INSTANCE_VIEW},
            ),
        }
    ),
    "Instances": page_of("Instance"),
    "InstanceView": _INSTANCE_VIEW,
    "PastUpgrade": record(
        {
            "type": TEXT,
            "location": TEXT,
            "properties": record(
                {
                    "runningStatus": record(_RUNNING, {"endTime": TIME, "completedTime": TIME}),
                    "progress": _PROGRESS,
                    "startedBy": _BY,
                    "targetImageReference": _IMAGE_REFERENCE,
                    "rollbackInfo": _ROLLED_BACK,
                    "rollcall": record({"upgradeId": TEXT, **_OWN}),
                },
                {"error": ref("Failure")},
            ),
        }
    ),
    "PastUpgrades": page_of("PastUpgrade"),
    "LatestUpgrade": record(
        {
            **_RESOURCE,
            "location": TEXT,
            "properties": record(
                {
                    "policy": OBJECT,
                    "runningStatus": record(
                        {
                            **_RUNNING,
                            "lastAction": {"enum": ["Start", "Cancel"]},
                            "lastActionTime": TIME,
                        }
                    ),
                    "progress": _PROGRESS,
                    "rollcall": record({"upgradeId": TEXT, **_OWN}),
                },
                {"error": ref("Failure")},
            ),
        }
    ),
    "Upgrade": record(
        {
            "id": TEXT,
            "status": _UPGRADE_STATUS,
            "startedBy": _BY,
            "startTime": TIME,
            "endTime": maybe(TIME),
            "reason": TEXT,
            "error": maybe(ref("Failure")),
            "cancelRequested": FLAG,
            "pauseRequested": FLAG,
            **_OWN,
            "targetImageReference": _IMAGE_REFERENCE,
            "policy": OBJECT,
            "progress": _PROGRESS,
            "rollbackInfo": _ROLLED_BACK,
            "batches": many(
                record({"number": WHOLE, "size": WHOLE, "startTime": TIME, "reason": TEXT})
            ),
        },
        {"instances": many(record({"instanceId": TEXT, "state": TEXT, "reason": TEXT}))},
    ),
    "Upgrades": page_of("Upgrade"),
    "HookEvent": record({"id": TEXT, "name": TEXT, "type": TEXT, "properties": OBJECT}),
    "HookEvents": page_of("HookEvent"),
    "Explanation": record(
        {
            "waitingFor": record({"code": TEXT, "message": TEXT, "details": OBJECT}),
            "sentence": TEXT,
            "upgrade": maybe(ref("Upgrade")),
            "decisions": many(
                record({"sequence": WHOLE, "time": TIME, "type": TEXT, "reason": TEXT})
            ),
            "instances": many(record({"id": TEXT, "reason": TEXT})),
        }
    ),
    "Image": model_schema(Image),
    "State": record(
        {
            "time": TIME,
            "spec": OBJECT,
            "instances": many(OBJECT),
            "images": many(ref("Image")),
            "upgrade": maybe(OBJECT),
            "holds": many(OBJECT),
            "durations": OBJECT,
        }
    ),
    "Resource": record({**_RESOURCE, "etag": TEXT, "properties": record(_STATE)}),
    "Resources": page_of("Resource"),
    "Parts": record({"value": many(ANY)}),
    "Part": OBJECT,
    "ListedResource": record({**_RESOURCE, "location": TEXT}),
    "ListedResources": page_of("ListedResource"),
    "ImageName": record({"location": TEXT, "name": TEXT, "id": TEXT}, {"properties": OBJECT}),
    "ImageNames": {**many(ref("ImageName")), "description": "A bare array, as Azure has it"},
    "ImageVersion": record(
        {"location": TEXT, "name": TEXT, "id": TEXT, "properties": record({"osDiskImage": OBJECT})}
    ),
    "Group": record({**_RESOURCE, "location": TEXT, "properties": record(_STATE)}),
    "Groups": page_of("Group"),
    "Operation": record(
        {
            "id": TEXT,
            "name": TEXT,
            "status": {"enum": [status.value for status in Status]},
            "startTime": TIME,
        },
        {"endTime": TIME, "error": ref("Failure")},
    ),
    "Deployment": record(
        {
            **_RESOURCE,
            "properties": record(
                {
                    "provisioningState": ref("DeploymentState"),
                    "correlationId": TEXT,
                    "timestamp": TIME,
                    "duration": TEXT,
                    "mode": TEXT,
                    "parameters": OBJECT,
                    "templateHash": TEXT,
                },
                {"outputs": OBJECT, "outputResources": many(OBJECT), "error": OBJECT},
            ),
        }
    ),
    "Deployments": page_of("Deployment"),
    "DeploymentState": {"enum": [state.value for state in State]},
    "DeploymentStatus": record(
        {"name": TEXT, "status": ref("DeploymentState"), "startTime": TIME},
        {"endTime": TIME, "error": OBJECT},
    ),
    "DeploymentOperation": record(
        {
            "id": TEXT,
            "operationId": TEXT,
            "properties": record(
                {"provisioningState": ref("DeploymentState"), "timestamp": TIME, "duration": TEXT},
                {"statusCode": TEXT, "statusMessage": OBJECT, "targetResource": OBJECT},
            ),
        }
    ),
    "DeploymentOperations": page_of("DeploymentOperation"),
    "Changes": record(
        {
            "status": TEXT,
            "properties": record(
                {"changes": many(record({"resourceId": TEXT, "changeType": TEXT}))}
            ),
        }
    ),
    "ExportedTemplate": record({"template": OBJECT}),
    "TemplateHash": record({"minifiedTemplate": TEXT, "templateHash": TEXT}),
    "Subscription": record({"id": TEXT, "subscriptionId": TEXT, "tenantId": TEXT, "state": TEXT}),
    "Subscriptions": page_of("Subscription"),
    "Tenant": record({"id": TEXT, "tenantId": TEXT}),
    "Tenants": page_of("Tenant"),
    "Location": record({"id": TEXT, "name": TEXT, "displayName": TEXT}),
    "Locations": page_of("Location"),
    "Provider": record(
        {
            "id": TEXT,
            "namespace": TEXT,
            "registrationState": TEXT,
            "resourceTypes": many(record({"resourceType": TEXT, "apiVersions": many(TEXT)})),
        }
    ),
    "Providers": page_of("Provider"),
    "ProviderOperation": record({"name": TEXT, "isDataAction": FLAG, "display": OBJECT}),
    "ProviderOperations": page_of("ProviderOperation"),
    "CloudEvent": record(
        {
            "specversion": {"const": "1.0"},
            "id": TEXT,
            "type": TEXT,
            "source": TEXT,
            "subject": TEXT,
            "time": TIME,
            "stream": TEXT,
            "sequence": TEXT,
            "hash": TEXT,
            "previoushash": TEXT,
            "data": OBJECT,
        }
    ),
    "CloudEvents": page_of("CloudEvent"),
    "Hold": record({**_IMAGE_REFERENCE["properties"], "bySet": TEXT, "heldTime": TIME}),
    "Holds": page_of("Hold"),
    "Feed": record({"name": TEXT, "url": TEXT, "up": FLAG, "errors": many(OBJECT)}),
    "Feeds": page_of("Feed"),
    "Name": record({"id": TEXT, "name": TEXT}),
    "Names": page_of("Name"),
    "Host": record({"host": TEXT, "driver": TEXT, "seenTime": TIME, "instances": WHOLE}),
    "Hosts": page_of("Host"),
    "Anything": ANY,
    "Facts": record(
        {
            "version": TEXT,
            "time": TIME,
            "broker": record({"up": FLAG}),
            "database": record({"up": FLAG, "time": maybe(TIME)}),
            "hosts": maybe(many(ref("Host"))),
            "feeds": maybe(many(ref("Feed"))),
            "unpublished": maybe(WHOLE),
            "missingViews": many(TEXT),
        }
    ),
    "Health": record({"status": TEXT}),
    "SigningKey": record(
        {"kid": TEXT, "createdTime": TIME, "signs": FLAG, "publishedUntil": maybe(TIME)}
    ),
    "SigningKeys": page_of("SigningKey"),
    "Account": record(_ACCOUNT),
    "Accounts": page_of("Account"),
    "NewAccount": record({**_ACCOUNT, "clientSecret": TEXT}),
    "NewSecret": record({"clientId": TEXT, "clientSecret": TEXT}),
    "Endpoints": {
        "anyOf": [ref("Cloud"), many(ref("Cloud"))],
        "description": "A list for api-versions from 2018-05-01 to before 2022-09-01",
    },
    "Cloud": record({"name": TEXT, "authentication": OBJECT, "resourceManager": TEXT}),
    "OpenIdConfiguration": record({"issuer": TEXT, "token_endpoint": TEXT, "jwks_uri": TEXT}),
    "KeySet": record({"keys": many(record({"kty": TEXT, "kid": TEXT, "use": TEXT, "alg": TEXT}))}),
    "Token": record({"token_type": TEXT, "access_token": TEXT, "expires_in": ANY}),
}
