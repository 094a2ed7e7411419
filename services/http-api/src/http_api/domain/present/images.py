"""Image lists (M22): bare JSON arrays, as Azure gives them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from rollcall_contracts.model import Image, ImageReference
from rollcall_contracts.versions import version_key

from http_api.domain.access import Principal, needed


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRow:
    """One row of the orchestrator's image_hold_view."""

    version: str
    image: Mapping[str, Any]
    by_set: str
    upgrade_id: str
    quarantine: bool
    error: Mapping[str, Any]
    held_at: datetime


def holds_for(principal: Principal, holds: Iterable[HoldRow]) -> list[HoldRow]:
    """Return holds as they are shown to somebody: that a version is held, and why.

    In which set that happened, and in which upgrade, is for those who may look at that set.
    """
    return [
        hold
        if principal.may(needed("GET", hold.by_set))
        else replace(hold, by_set="", upgrade_id="")
        for hold in holds
    ]


def hold_json(hold: HoldRow) -> dict[str, Any]:
    """Return a version that sets keep off, and why."""
    return {
        **{part: hold.image.get(part) for part in ("publisher", "offer", "sku", "version")},
        "bySet": hold.by_set,
        "upgradeId": hold.upgrade_id,
        "quarantine": hold.quarantine,
        "error": hold.error,
        "heldTime": hold.held_at.isoformat(),
    }


def names(images: Iterable[Image], part: Callable[[Image], str]) -> list[str]:
    """Return the different names of one part, in order; of two spellings the newest counts."""
    spelled: dict[str, Image] = {}
    for image in images:
        known = spelled.get(part(image).lower())
        if known is None or image.order > known.order:
            spelled[part(image).lower()] = image
    return sorted((part(image) for image in spelled.values()), key=str.lower)


def ordered(images: Iterable[Image], *, descending: bool, top: int | None) -> list[Image]:
    """Return versions in numeric order: 14.4.10 comes after 14.4.9 (M21)."""
    found = sorted(images, key=lambda image: version_key(image.version), reverse=descending)
    return found if top is None else found[:top]


def name_json(base: str, location: str, name: str) -> dict[str, Any]:
    """Return one item of a list; `base` is the list's own id."""
    return {"location": location, "name": name, "id": f"{base}/{name}"}


def version_json(
    base: str, location: str, image: Image, supports: Callable[[ImageReference], bool]
) -> dict[str, Any]:
    """Return one version with its properties."""
    reference = ImageReference(publisher=image.publisher, offer=image.offer, sku=image.sku)
    return {
        **name_json(base, location, image.version),
        "properties": {
            "osDiskImage": {"operatingSystem": image.os_type},
            "dataDiskImages": [],
            "automaticOSUpgradeProperties": {"automaticOSUpgradeSupported": supports(reference)},
            "imageDeprecationStatus": {"imageState": "Active"},
            "rollcall": {
                "sha256": image.sha256,
                "size": image.size,
                "excludeFromLatest": image.exclude_from_latest,
            },
        },
    }


def list_json(base: str, location: str, found: Sequence[str]) -> list[dict[str, Any]]:
    """Return a whole list."""
    return [name_json(base, location, name) for name in found]
