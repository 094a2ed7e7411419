"""Protecting instances from what is done to their set (azure-aws-gcp.md 1.8)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from http_api.domain.documents import Reader
from http_api.domain.shape import Leaf, Shape, canonical

_POLICY = "properties.protectionPolicy"
_FIELDS: Shape = {"protectFromScaleIn": Leaf.FLAG, "protectFromScaleSetActions": Leaf.FLAG}
_INSTANCE: Shape = {"properties": {"protectionPolicy": _FIELDS}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """From what an instance is protected; from the set's actions means from scale-in too."""

    scale_in: bool = False
    set_actions: bool = False


def read_protection(body: Mapping[str, Any]) -> Protection | None:
    """Return the protection in an instance's PUT, or None where it does not name one.

    The policy is one value: what it leaves out is false. Raises ModelError.
    """
    document = canonical(body, _INSTANCE)
    reader = Reader(document)
    set_actions = reader.flag(f"{_POLICY}.protectFromScaleSetActions")
    scale_in = reader.flag(f"{_POLICY}.protectFromScaleIn", default=set_actions)
    if set_actions and not scale_in:
        reader.fault(
            f"{_POLICY}.protectFromScaleIn",
            "protectFromScaleIn cannot be false where protectFromScaleSetActions is true: that "
            "protects from scale-in too",
        )
    reader.finish()
    properties = document.get("properties") or {}
    if "protectionPolicy" not in properties:
        return None
    return Protection(scale_in=scale_in, set_actions=set_actions)
