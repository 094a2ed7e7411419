"""Resources in files, YAML or JSON, as the API writes them: for `rollcall apply`.

A document has the API's own shape. Which resource it is, its `id` says, or `type` and `name` with
`subscription` and `resourceGroup`; what `rollcall show -o yaml` prints can be applied again.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rollcall_cli.client import ClientError
from rollcall_cli.naming import near

GROUPS = "Microsoft.Resources/resourceGroups"
BALANCERS = "Microsoft.Network/loadBalancers"
SETS = "Microsoft.Compute/virtualMachineScaleSets"
KEPT = (
    *("virtualNetworks", "publicIPAddresses", "networkSecurityGroups", "networkInterfaces"),
    *("natGateways", "routeTables", "applicationSecurityGroups"),
)
# In the order in which they are applied: what others name comes first.
TYPES = (GROUPS, *(f"Microsoft.Network/{kind}" for kind in KEPT), BALANCERS, SETS)
_PLACE = ("id", "type", "name", "subscription", "resourceGroup", "etag")


class ResourceFileError(ClientError):
    """A file cannot be taken; the message names the file, the document and what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A document: which resource, and what it should be."""

    id: str
    type: str
    body: Mapping[str, Any]
    source: str  # for messages

    @property
    def name(self) -> str:
        """Return the last part of the id."""
        return self.id.rpartition("/")[2]

    @property
    def order(self) -> int:
        """Return when its turn is."""
        return TYPES.index(self.type)


class _Loader(yaml.SafeLoader):
    """YAML as JSON has it: a time is a text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_resources(
    text: str, source: str, *, subscription: str | None, group: str | None
) -> list[Resource]:
    """Return the resources of a text, in its order. Raises ResourceFileError."""
    documents = list(_documents(text, source))
    if not documents:
        raise ResourceFileError(f"{source}: there is no document in it")
    return [
        _resource(document, where, subscription, group)
        for number, document in enumerate(documents, start=1)
        for where in (source if len(documents) == 1 else f"{source}, document {number}",)
    ]


def _documents(text: str, source: str) -> Iterator[Any]:
    if text.lstrip()[:1] in ("{", "["):
        try:
            yield from _flat(json.loads(text))
            return
        except json.JSONDecodeError as error:
            fault = f"{source}: no JSON at line {error.lineno}: {error.msg}"
        raise ResourceFileError(fault)
    try:
        for document in yaml.load_all(text, Loader=_Loader):
            yield from _flat(document)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        what = getattr(error, "problem", None) or str(error)
        raise ResourceFileError(f"{source}: no YAML{where}: {what}") from error


def _flat(document: Any) -> Iterator[Any]:
    """Yield the documents of a list, as `rollcall sets -o yaml` prints one; of none, none."""
    if isinstance(document, Mapping) and isinstance(document.get("value"), list):
        document = document["value"]
    if isinstance(document, list):
        yield from document
    elif document is not None:
        yield document


def _resource(document: Any, source: str, subscription: str | None, group: str | None) -> Resource:
    if not isinstance(document, Mapping) or not all(isinstance(key, str) for key in document):
        raise ResourceFileError(f"{source}: must be an object with a name for each value")
    if "deploymentTemplate" in str(document.get("$schema")):
        raise ResourceFileError(
            f"{source}: is an ARM template: `az deployment group create` deploys those"
        )
    body = {key: value for key, value in document.items() if key not in _PLACE}
    if document.get("id") is not None:
        id = _text(document, "id", source)
        return Resource(id=id.rstrip("/"), type=_type_of(id, source), body=body, source=source)
    type = _known(_text(document, "type", source), source)
    name = _text(document, "name", source)
    subscription = document.get("subscription") or subscription
    if subscription is None:
        raise ResourceFileError(
            f"{source}: in which subscription? Give `subscription`, --subscription, or the `id`"
        )
    if type == GROUPS:
        id = f"/subscriptions/{subscription}/resourceGroups/{name}"
        return Resource(id=id, type=type, body=body, source=source)
    group = document.get("resourceGroup") or group
    if group is None:
        raise ResourceFileError(
            f"{source}: in which resource group? Give `resourceGroup`, --resource-group, or the "
            "`id`"
        )
    id = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{type}/{name}"
    return Resource(id=id, type=type, body=body, source=source)


def _text(document: Mapping[str, Any], key: str, source: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        others = " Or give its `id`." if key != "id" else ""
        raise ResourceFileError(f"{source}: `{key}` must say which resource this is.{others}")
    return value


def _type_of(id: str, source: str) -> str:
    parts = id.strip("/").split("/")
    words = [part.lower() for part in parts]
    if words[0::2][:2] == ["subscriptions", "resourcegroups"]:
        if len(parts) == 4:
            return GROUPS
        if len(parts) == 8 and words[4] == "providers":
            return _known(f"{parts[5]}/{parts[6]}", source)
    raise ResourceFileError(
        f"{source}: {id} is no id of a resource: it is /subscriptions/…/resourceGroups/…"
        "/providers/Microsoft.…/…/name"
    )


def _known(type: str, source: str) -> str:
    """Return a type as Azure spells it; its last word is enough. Raises ResourceFileError."""
    for each in TYPES:
        if type.lower() in (each.lower(), each.lower().rpartition("/")[2]):
            return each
    raise ResourceFileError(
        f"{source}: the type {type} is not known.{near(type, TYPES)} Known are: {', '.join(TYPES)}"
    )
