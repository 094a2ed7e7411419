"""When an upgrade cannot be started by hand (M52): so that nobody waits in vain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollcall_contracts.model import LATEST, Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a start is refused, and as which HTTP status: 409 may pass with time, 400 will not."""

    status: int
    message: str


def refusal_to_start(
    *,
    name: str,
    is_running: bool,
    version: str,
    images: Sequence[Image],
    versions: Mapping[str | None, int],
) -> Refusal | None:
    """Return why an upgrade of a scale set cannot start now, or None if it can.

    `images` are those published for its reference, `versions` counts its instances by theirs.
    """
    if is_running:
        return Refusal(
            status=409,
            message=f"A rolling upgrade of {name} is running already. Wait for its end, or stop it "
            "with POST rollingUpgrades/cancel.",
        )
    if version != LATEST:
        return Refusal(
            status=400,
            message="The OS Rolling Upgrade API cannot be used on a Virtual Machine Scale Set "
            "unless the Virtual Machine Scale Set has some unprotected instances which have "
            "imageReference.version set to latest.",
        )
    candidates = [image for image in images if not image.exclude_from_latest]
    if not candidates:
        return Refusal(status=409, message=f"No image is published that {name} could upgrade to.")
    if not sum(versions.values()):
        return Refusal(status=409, message=f"{name} has no instances to upgrade.")
    target = max(candidates, key=lambda image: image.order).version
    if set(versions) == {target}:
        return Refusal(
            status=409, message=f"Every instance of {name} runs the latest version {target}."
        )
    return None
