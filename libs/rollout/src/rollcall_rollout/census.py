"""A fleet's counts at one look, kept up to date with what changes instead of taken anew."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from rollcall_rollout.state import IN_FLIGHT, Instance, InstancePhase, Member, MemberState


class Census:
    """What rules ask of all instances or members, so that none has to look at each of them again.

    A report of one instance then costs the same in a set of ten thousand as in one of ten.
    """

    __slots__ = (
        "awaited",
        "booting",
        "deploying",
        "failed",
        "in_flight",
        "next_probe",
        "parked",
        "pending",
        "power_due",
        "reimaging",
        "restored",
        "surging",
        "uncommitted",
        "unhealthy",
        "versions",
        "working",
    )

    def __init__(self) -> None:
        self.unhealthy = 0
        self.versions: Counter[str] = Counter()
        self.working: dict[str, Instance] = {}  # in any phase but READY
        self.uncommitted: dict[str, Instance] = {}
        self.deploying: dict[str, Instance] = {}
        self.reimaging: dict[str, Instance] = {}
        self.power_due: dict[str, Instance] = {}
        self.parked: dict[str, Instance] = {}  # of those in phase READY, like the next
        self.booting: dict[str, Instance] = {}
        self.surging: dict[str, Instance] = {}  # they take others' places, not yet taken
        self.next_probe: datetime | None = None  # when the first lease ends; past: none was given
        self.awaited: dict[str, Member] = {}  # provisioned, not healthy yet
        self.failed: dict[str, Member] = {}  # neither restored nor being restored
        self.restored: dict[str, Member] = {}
        self.pending: dict[str, Member] = {}
        self.in_flight: dict[str, Member] = {}  # those that a batch is at work on

    def copy(self) -> "Census":
        """Return a census that can change on its own."""
        other = Census()
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(other, name, value.copy() if isinstance(value, dict) else value)
        return other

    def add_instance(self, instance: Instance) -> None:
        """Count an instance."""
        self.unhealthy += not instance.is_healthy
        if instance.version is not None:
            self.versions[instance.version] += 1
        if instance.uncommitted:
            self.uncommitted[instance.id] = instance
        if instance.deploy:
            self.deploying[instance.id] = instance
        if instance.reimage:
            self.reimaging[instance.id] = instance
        if instance.power_due is not None:
            self.power_due[instance.id] = instance
        if instance.replaces is not None:
            self.surging[instance.id] = instance
        if instance.phase is not InstancePhase.READY:
            self.working[instance.id] = instance
            return
        if instance.is_parked:
            self.parked[instance.id] = instance
            return
        if instance.booting:
            self.booting[instance.id] = instance
        due = probe_due(instance)
        if self.next_probe is None or due < self.next_probe:
            self.next_probe = due

    def remove_instance(self, instance: Instance) -> bool:
        """Take an instance out; True when the first end of a lease must be looked for again."""
        self.unhealthy -= not instance.is_healthy
        if instance.version is not None:
            self.versions[instance.version] -= 1
            if not self.versions[instance.version]:
                del self.versions[instance.version]
        self.uncommitted.pop(instance.id, None)
        for marked in (self.deploying, self.reimaging, self.power_due, self.parked, self.booting):
            marked.pop(instance.id, None)
        self.surging.pop(instance.id, None)
        self.working.pop(instance.id, None)
        return is_probed(instance) and probe_due(instance) == self.next_probe

    def find_next_probe(self, instances: Iterable[Instance]) -> None:
        """Look for the first end of a lease."""
        probed = (probe_due(i) for i in instances if is_probed(i))
        self.next_probe = min(probed, default=None)

    def add_member(self, member: Member) -> None:
        """Count one instance's part in the upgrade."""
        if member.state in IN_FLIGHT:
            self.in_flight[member.id] = member
        match member.state:
            case MemberState.PENDING:
                self.pending[member.id] = member
            case MemberState.PROVISIONED:
                self.awaited[member.id] = member
            case MemberState.FAILED:
                self.failed[member.id] = member
            case MemberState.RESTORED:
                self.restored[member.id] = member

    def remove_member(self, member: Member) -> None:
        """Take one instance's part in the upgrade out."""
        self.in_flight.pop(member.id, None)
        self.pending.pop(member.id, None)
        self.awaited.pop(member.id, None)
        self.failed.pop(member.id, None)
        self.restored.pop(member.id, None)

    def forget_members(self) -> None:
        """Begin again with the members: another upgrade, or none."""
        self.pending, self.in_flight = {}, {}
        self.awaited, self.failed, self.restored = {}, {}, {}


def is_probed(instance: Instance) -> bool:
    """Say whether its health is asked for: it is provisioned, and nobody has powered it off."""
    return instance.phase is InstancePhase.READY and not instance.is_parked


def probe_due(instance: Instance) -> datetime:
    """Return when a provisioned instance's lease of probing ends; it has none at first."""
    return instance.probed_until or instance.since
