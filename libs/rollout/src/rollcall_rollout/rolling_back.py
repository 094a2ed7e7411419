"""Back to the version that the last upgrade found, when a person asks for it.

Under the same cap, by the same batches. It is never done by itself, and never in a loop: what was
rolled back has no previous version any more, and its bad version is held until a person clears it.
What stayed on the bad version goes back when a person asks again.
"""

from collections import Counter
from datetime import datetime

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode, Image, RollingPolicy, StartedBy
from rollcall_contracts.versions import version_key

from rollcall_rollout.fleet import Fleet
from rollcall_rollout.starting import upgrade_identity
from rollcall_rollout.state import Instance, InstancePhase

ROLLED_BACK = "RolledBack"
NOTHING_TO_UNDO = (
    "the last upgrade changed the version of no instance: there is nothing to undo. To go to a "
    "version of your choice, set imageReference.version to it and deploy the model"
)


def roll_back(fleet: Fleet, now: datetime) -> list[e.Event]:
    """Start the way back, or say why there is none."""
    if not fleet.rollback_requested:
        return []
    bad = fleet.last_version
    there = _there(fleet, bad)
    previous = _previous(there)
    if bad is None or previous is None:
        return _refuse(fleet, NOTHING_TO_UNDO)
    target = next((image for image in fleet.images if image.version == previous), None)
    if target is None:
        return _refuse(
            fleet,
            f"version {previous}, which the last upgrade found, is published no more: publish it "
            "again",
            FailureCode.IMAGE_NOT_FOUND,
        )
    leaving = [i for i in there if not (i.protect_from_scale_set_actions or i.is_parked)]
    if not leaving:
        ids = ", ".join(instance.id for instance in there)
        return _refuse(
            fleet,
            f"every instance that runs version {bad} is protected, or powered off: {ids}",
        )
    words = f": {fleet.start_reason}" if fleet.start_reason else ""
    upgrade_id = upgrade_identity(fleet, target, now)
    return [
        *_quarantine(fleet, bad, upgrade_id, words),
        e.UpgradeStarted(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade_id,
            image=target,
            policy=_policy_of_the_way_back(fleet.spec.policy),
            started_by=StartedBy.USER,
            restore_failed=False,
            instance_ids=tuple(instance.id for instance in there),
            rollback_of=bad,
            reason=f"{len(leaving)} instances go back from {bad} to {previous}{words}",
        ),
    ]


def _policy_of_the_way_back(policy: RollingPolicy) -> RollingPolicy:
    """Return the policy without what judges a new version: canary, bake times, metric gate.

    The version that the set goes back to has run there, and the bad one's metrics would stop the
    way out of it. Batches, limits and pauses are the same.
    """
    judges = ("canary_instance_count", "canary_bake_time", "bake_time", "metric_gate")
    defaults = {name: RollingPolicy.model_fields[name].default for name in judges}
    return policy.model_copy(update=defaults)


def _there(fleet: Fleet, bad: str | None) -> list[Instance]:
    """Return who is to go back: also those that a scale-out made from the bad version."""
    return sorted(
        (
            instance
            for instance in fleet.instances.values()
            if instance.version == bad and instance.phase is not InstancePhase.DELETING
        ),
        key=lambda instance: int(instance.id),
    )


def _previous(there: list[Instance]) -> str | None:
    """Return what most of them ran before; of equally many, the higher version."""
    counts = Counter(i.previous_version for i in there if i.previous_version is not None)
    return max(counts, key=lambda version: (counts[version], version_key(version)), default=None)


def _quarantine(fleet: Fleet, bad: str, upgrade_id: str, words: str) -> list[e.Event]:
    """Keep the set off the bad version, also when that was withdrawn: it may be published again."""
    known, image = fleet.holds.get(bad), fleet.last_image
    if image is None or image.version != bad or image.stream != fleet.spec.image.stream:
        image = next((image for image in fleet.images if image.version == bad), None)
    if image is None or (known is not None and known.quarantine):
        return []
    return [_held(fleet, image, upgrade_id, f"version {bad} was rolled back by a person{words}")]


def _held(fleet: Fleet, image: Image, upgrade_id: str, why: str) -> e.ImageHeld:
    return e.ImageHeld(
        image=image,
        by_set=fleet.spec.scale_set,
        upgrade_id=upgrade_id,
        quarantine=True,
        error=Failure(code=ROLLED_BACK, message=why),
        reason=why,
    )


def _refuse(fleet: Fleet, why: str, code: str = FailureCode.NOT_ALLOWED) -> list[e.Event]:
    return [
        e.UpgradeHeld(
            scale_set=fleet.spec.scale_set,
            version=fleet.last_version or "",
            error=Failure(code=code, message=why),
            reason=why,
        )
    ]
