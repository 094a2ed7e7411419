"""What people do with single instances: who is meant, and when it cannot be done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollcall_contracts.model import PowerAction

# The last word of the path, in lower case.
POWER_ACTIONS: Mapping[str, PowerAction] = {action.lower(): action for action in PowerAction}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An instance that a request names, or one of all."""

    id: str
    attempt: int
    phase: str
    wish: str  # a person's, of its power
    protect_from_scale_in: bool = False
    protect_from_scale_set_actions: bool = False
    replaces: str | None = None  # the instance whose place it takes

    @property
    def is_parked(self) -> bool:
        """Say whether a person powered it off."""
        return self.wish != "running"

    @property
    def is_protected(self) -> bool:
        """Say whether it is not to go with a scale-in."""
        return self.protect_from_scale_in or self.protect_from_scale_set_actions


def refusal_while_upgrading(operation: str, scale_set: str, *, upgrade: str, version: str) -> str:
    """Return why an operation has to wait for the end of an upgrade (azure-aws-gcp.md 1.10)."""
    name = scale_set.rpartition("/")[2]
    return (
        f"Operation '{operation}' is not allowed on Virtual Machine Scale Set '{name}' since the "
        f"rolling upgrade {upgrade} to version {version} is in progress. Wait for its end, or stop "
        f"it after its current batch with POST {scale_set}/rollingUpgrades/cancel."
    )


def refusal_to_delete(
    chosen: Sequence[Chosen], *, scale_set: str, forced: bool
) -> tuple[str, str] | None:
    """Return why these instances cannot be deleted, and the first one that is in the way.

    `forced` deletes the protected ones, too.
    """
    successors = [each for each in chosen if each.replaces is not None]
    if successors:
        first = successors[0]
        return first.id, (
            f"Instance {first.id} of {scale_set} takes the place of instance {first.replaces} in "
            "the running upgrade: delete that one, or wait for the end of its batch."
        )
    kept = [each.id for each in chosen if each.is_protected]
    if kept and not forced:
        return kept[0], (
            f"Instance {', '.join(kept[:10])} of {scale_set} is protected from scale-in "
            "(protectionPolicy.protectFromScaleIn). Take the protection away, or add "
            "forceDeletion=true to the request."
        )
    return None


def refusal_to_reimage(
    chosen: Sequence[Chosen], *, scale_set: str, named: bool
) -> tuple[str, str] | None:
    """Return why these instances cannot get new OS disks, and the first one that is in the way."""
    parked = [each.id for each in chosen if each.is_parked]
    if not named or not parked:
        return None
    return parked[0], (
        f"Instance {', '.join(parked[:10])} of {scale_set} is powered off: what runs on a new OS "
        "disk needs it to run. POST start first."
    )


def of_the_set(chosen: Sequence[Chosen]) -> list[Chosen]:
    """Return whom an action on the whole set means: those that are not protected from it."""
    return [each for each in chosen if not each.protect_from_scale_set_actions]
