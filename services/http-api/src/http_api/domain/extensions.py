"""Extensions as resources of their own, and the one that tells an application's health."""

from collections.abc import Mapping
from typing import Any

from rollcall_contracts.model import Probe

from http_api.domain.documents import Reader, at
from http_api.domain.merging import merge_patch, names, without
from http_api.domain.shape import SCALE_SET, canonical

_PROFILE = "properties.virtualMachineProfile"
_EXTENSIONS = f"{_PROFILE}.extensionProfile.extensions"
_PROTECTED = "properties.protectedSettings"
_READ_ONLY = ("id", "type", "etag", "properties.provisioningState")
HEALTH_PUBLISHER = "microsoft.managedservices"
HEALTH_TYPES = ("applicationhealthlinux", "applicationhealthwindows")
MAX_INTERVAL = 60  # seconds, as in Azure


def with_extension(
    model: Mapping[str, Any], name: str, body: Mapping[str, Any], *, patch: bool
) -> dict[str, Any]:
    """Return the patch of a model that adds an extension, or changes the one that it has.

    The patch has a null for protected settings that are taken away: by a null in a PATCH, or by the
    PUT of another publisher or type, which is another extension. Else a null says nothing in a PUT,
    as in that of a set.
    """
    found = _extensions(model)
    place = _index(found, name)
    given = _spelled(without(body, _READ_ONLY))
    clears = names(given, _PROTECTED) and at(given, _PROTECTED) is None
    if clears:
        given = without(given, (_PROTECTED,))
    if place is None:
        return _patch([*found, {**given, "name": name}])
    before = found[place]
    after = merge_patch(before, given) if patch else given
    if not patch:
        clears = kind_of(before) != kind_of(given) and at(given, _PROTECTED) is None
    if clears and isinstance(after.get("properties"), Mapping):
        after = {**after, "properties": {**after["properties"], "protectedSettings": None}}
    found[place] = {**after, "name": before["name"]}
    return _patch(found)


def kind_of(extension: Mapping[str, Any]) -> tuple[str, str]:
    """Return what an extension is, whatever its name: its publisher and its type."""
    publisher, type = at(extension, "properties.publisher"), at(extension, "properties.type")
    return str(publisher).lower(), str(type).lower()


def without_extension(model: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the patch of a model that takes an extension out."""
    found = _extensions(model)
    place = _index(found, name)
    return _patch([item for number, item in enumerate(found) if number != place])


def _spelled(extension: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an extension with its known properties spelled as Azure does."""
    whole = canonical(_patch([extension]), SCALE_SET)
    spelled: Mapping[str, Any] = at(whole, _EXTENSIONS)[0]
    return spelled


def _extensions(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = at(model, _EXTENSIONS)
    return list(found) if isinstance(found, list) else []


def _index(extensions: list[Mapping[str, Any]], name: str) -> int | None:
    names = [str(item.get("name")).lower() for item in extensions]
    return names.index(name.lower()) if name.lower() in names else None


def _patch(extensions: list[Mapping[str, Any]]) -> dict[str, Any]:
    profile = {"extensionProfile": {"extensions": extensions}}
    return {"properties": {"virtualMachineProfile": profile}}


# --- application health ---------------------------------------------------------------------------


def health_extension(model: Mapping[str, Any]) -> int | None:
    """Return which extension is the Application Health extension, if one is (M34)."""
    for index, item in enumerate(_extensions(model)):
        publisher = str(at(item, "properties.publisher") or "").lower()
        kind = str(at(item, "properties.type") or "").lower()
        if publisher == HEALTH_PUBLISHER and kind in HEALTH_TYPES:
            return index
    return None


def read_health_extension(reader: Reader, index: int) -> Probe | None:
    """Return the probe that the extension's settings amount to (azure-aws-gcp.md 1.6)."""
    place = f"{_EXTENSIONS}[{index}].properties.settings"
    extension = _extensions(reader.document)[index]
    settings = {
        key.lower(): value for key, value in (at(extension, "properties.settings") or {}).items()
    }
    protocol = str(settings.get("protocol") or "http").lower()
    path = settings.get("requestpath")
    if protocol not in ("http", "https", "tcp"):
        reader.fault(f"{place}.protocol", "protocol must be http, https or tcp")
        return None
    if protocol == "tcp" and path:
        reader.fault(f"{place}.requestPath", "requestPath must be left out where protocol is tcp")
        return None
    if protocol != "tcp" and not (isinstance(path, str) and path):
        reader.fault(f"{place}.requestPath", f"requestPath is needed where protocol is {protocol}")
        return None
    default = {"http": 80, "https": 443}.get(protocol)
    port = _whole(reader, f"{place}.port", settings.get("port"), default, 1, 65535)
    interval = _whole(
        reader, f"{place}.intervalInSeconds", settings.get("intervalinseconds"), 5, 5, MAX_INTERVAL
    )
    count = _whole(reader, f"{place}.numberOfProbes", settings.get("numberofprobes"), 1, 1, 24)
    if port is None or interval is None or count is None:
        return None
    request_path = None
    if isinstance(path, str) and protocol != "tcp":
        request_path = path if path.startswith("/") else f"/{path}"
    return Probe(
        protocol={"http": "Http", "https": "Https", "tcp": "Tcp"}[protocol],
        port=port,
        request_path=request_path,
        interval=interval,
        number_of_probes=count,
    )


def _whole(
    reader: Reader, place: str, value: Any, default: int | None, low: int, high: int
) -> int | None:
    if value is None:
        value = default
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        name = place.rpartition(".")[2]
        reader.fault(place, f"{name} must be a whole number from {low} to {high}")
        return None
    return value
