"""What a person asks of an upgrade: what the request says, and when it cannot be done.

A request that would come to nothing is refused at once, so that nobody waits in vain.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollcall_contracts.model import LATEST, Image

from http_api.domain.documents import Reader
from http_api.domain.shape import Leaf, Shape, canonical

MAX_REASON = 1000  # characters
_START: Shape = {"override": Leaf.FLAG, "reason": Leaf.ANY, "forceReimage": Leaf.FLAG}
_IDS: Shape = {"instanceIds": Leaf.ANY}

ALL_EXCLUDED = (
    "The OS Rolling Upgrade API cannot be used on a Virtual Machine Scale Set unless the Virtual "
    "Machine Scale Set has some unprotected instances which have imageReference.version set to "
    "latest."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Why somebody asks for something, and whether against the gates."""

    reason: str = ""
    override: bool = False
    force_reimage: bool = False  # also of instances that run the latest version already


def read_wish(body: Mapping[str, Any]) -> Wish:
    """Return what a request says beside its path; an override needs a reason. Raises ModelError."""
    reader = Reader(canonical(body, _START))
    override = reader.flag("override")
    force_reimage = reader.flag("forceReimage")
    reason = reader.text("reason", "") or ""
    if len(reason) > MAX_REASON:
        reader.fault("reason", f"reason must not be longer than {MAX_REASON} characters")
    if override and not reason.strip():
        reader.fault(
            "reason",
            "an override needs a reason, which the record keeps: it goes on past the health of the "
            "set and the holds of the version",
        )
    reader.finish()
    return Wish(reason=reason, override=override, force_reimage=force_reimage)


def read_instance_ids(body: Mapping[str, Any], *, required: bool) -> tuple[str, ...]:
    """Return the instances that a request names; `*` is all of them. Raises ModelError."""
    reader = Reader(canonical(body, _IDS))
    ids = reader.value("instanceIds")
    if ids is None and not required:
        return ("*",)
    if not isinstance(ids, list) or not ids or not all(isinstance(each, str) for each in ids):
        reader.fault("instanceIds", 'instanceIds must be a list of instance ids, or ["*"] for all.')
        reader.finish()
        return ()
    return ("*",) if "*" in ids else tuple(dict.fromkeys(ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request is refused, and as which HTTP status: 409 may pass with time, 400 will not."""

    status: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How many instances run a version, and whether an upgrade may touch them."""

    version: str | None
    protected: bool  # protectFromScaleSetActions
    skips: bool  # SkipUpgrade, says their application
    count: int


def refusal_to_start(
    *,
    name: str,
    is_running: bool,
    version: str,
    images: Sequence[Image],
    standings: Sequence[Standing],
    reimage: bool = False,
) -> Refusal | None:
    """Return why an upgrade of a scale set cannot start now (M52), or None if it can.

    `images` are those published for its reference.
    """
    if is_running:
        return Refusal(
            status=409,
            message=f"A rolling upgrade of {name} is running already. Wait for its end, or stop it "
            "with POST rollingUpgrades/cancel.",
        )
    if version != LATEST or (standings and all(each.protected for each in standings)):
        return Refusal(status=400, message=ALL_EXCLUDED)
    candidates = [image for image in images if not image.exclude_from_latest]
    if not candidates:
        return Refusal(status=409, message=f"No image is published that {name} could upgrade to.")
    if not standings:
        return Refusal(status=409, message=f"{name} has no instances to upgrade.")
    target = max(candidates, key=lambda image: image.order).version
    behind = [
        each for each in standings if (reimage or each.version != target) and not each.protected
    ]
    if not behind:
        return Refusal(
            status=409,
            message=f"Every unprotected instance of {name} runs the latest version {target}.",
        )
    if all(each.skips for each in behind):
        return Refusal(
            status=409,
            message=f"Each of the {sum(each.count for each in behind)} instances of {name} that "
            f"could go to {target} asks to be left out (SkipUpgrade). Have their applications stop "
            "asking for that, or bring them to the model with POST manualupgrade.",
        )
    return None


def refusal_to_pause(*, is_running: bool, is_cancelled: bool) -> Refusal | None:
    """Return why there is nothing to pause."""
    if not is_running:
        return Refusal(
            status=409,
            message="There is no ongoing Rolling Upgrade to pause. To keep one from starting by "
            "itself, set enableAutomaticOSUpgrade to false.",
        )
    if is_cancelled:
        return Refusal(
            status=409,
            message="The Rolling Upgrade is being cancelled: it ends after its current batch, and "
            "cannot be paused.",
        )
    return None


def refusal_to_resume(*, is_running: bool, is_paused: bool) -> Refusal | None:
    """Return why there is nothing to resume."""
    if not is_running:
        return Refusal(
            status=409,
            message="There is no ongoing Rolling Upgrade to resume. Start one with POST "
            "osRollingUpgrade.",
        )
    if not is_paused:
        return Refusal(
            status=409,
            message="The Rolling Upgrade is not paused. GET explain says what it waits for.",
        )
    return None


def refusal_to_roll_back(
    *, name: str, is_running: bool, is_rollback: bool, can_return: bool
) -> Refusal | None:
    """Return why a set cannot be brought back.

    `is_rollback` says so of the upgrade that runs; `can_return`, whether any instance remembers
    what the last upgrade found there.
    """
    if is_running and is_rollback:
        return Refusal(
            status=409,
            message=f"{name} is being rolled back already. GET rollingUpgrades/latest shows how "
            "far it is.",
        )
    if not is_running and not can_return:
        return Refusal(
            status=409,
            message=f"No unprotected instance of {name} runs what its last upgrade brought and "
            "remembers what ran before: there is nothing to roll back. To go to a version of your "
            "choice, set imageReference.version to it and POST manualupgrade.",
        )
    return None


def refusal_to_approve(
    *, is_running: bool, is_deferred: bool, ids: Sequence[str], members: Collection[str]
) -> Refusal | None:
    """Return why there is nothing to approve; `members` are the upgrade's instances."""
    if not is_running:
        return Refusal(
            status=409,
            message="There is no ongoing Rolling Upgrade to approve. An upgrade starts by itself "
            "when there is a newer image, and then waits for the approvals.",
        )
    if not is_deferred:
        return Refusal(
            status=409,
            message="The Rolling Upgrade is not deferred, and needs no approval. Set "
            "automaticOSUpgradePolicy.osRollingUpgradeDeferral to true to approve the next ones.",
        )
    others = [id for id in ids if id != "*" and id not in members]
    if others:
        return Refusal(
            status=409,
            message=f"The Rolling Upgrade does not include the instance {', '.join(others[:10])}: "
            "GET explain says why.",
        )
    return None
