"""A working copy of a fleet, for folding many events at the cost of what they change."""

from collections.abc import Iterable
from typing import Any

from rollcall_rollout.census import Census
from rollcall_rollout.copying import replace
from rollcall_rollout.fleet import Fleet, Unsaved
from rollcall_rollout.state import Instance, Member, Upgrade


class Draft:
    """A fleet under change: its maps are copied when they are first written."""

    def __init__(self, fleet: Fleet) -> None:
        self._base = fleet
        self._fields: dict[str, Any] = {}
        self._instances: dict[str, Instance] | None = None
        self._members: dict[str, Member] | None = None
        self._touched: set[str] = set()  # instances
        self._moved: set[str] = set()  # members
        self.writes = 0  # counts up with each change

    def get(self, name: str) -> Any:
        return self._fields.get(name, getattr(self._base, name))

    def put(self, **fields: Any) -> None:
        for name, value in fields.items():
            if self.get(name) != value:
                self._fields[name] = value
                self.writes += 1

    @property
    def upgrade(self) -> Upgrade | None:
        upgrade: Upgrade | None = self.get("upgrade")
        return upgrade

    def instance(self, id: str) -> Instance | None:
        return (self._instances if self._instances is not None else self._base.instances).get(id)

    def instances(self) -> Iterable[Instance]:
        source = self._instances if self._instances is not None else self._base.instances
        return list(source.values())

    def put_instance(self, instance: Instance) -> None:
        if self._instances is None:
            self._instances = dict(self._base.instances)
        self._instances[instance.id] = instance
        self._touched.add(instance.id)
        self.writes += 1

    def drop_instance(self, id: str) -> None:
        if self._instances is None:
            self._instances = dict(self._base.instances)
        self._instances.pop(id, None)
        self._touched.add(id)
        self.writes += 1

    def member(self, id: str) -> Member | None:
        if self._members is not None:
            return self._members.get(id)
        return self.upgrade.members.get(id) if self.upgrade else None

    def put_member(self, member: Member) -> None:
        self._writable_members()[member.id] = member
        self._moved.add(member.id)
        self.writes += 1

    def drop_member(self, id: str) -> None:
        if self.member(id) is not None:
            del self._writable_members()[id]
            self._moved.add(id)
            self.writes += 1

    def _writable_members(self) -> dict[str, Member]:
        if self._members is None:
            self._members = dict(self.upgrade.members) if self.upgrade else {}
        return self._members

    def put_upgrade(self, **fields: Any) -> None:
        if self.upgrade is not None:
            self._fields["upgrade"] = replace(self.upgrade, **fields)
            self.writes += 1

    def start_upgrade(self, upgrade: Upgrade) -> None:
        self._members = None
        self._fields["upgrade"] = upgrade
        self.writes += 1

    def end_upgrade(self, **fields: Any) -> None:
        ended = replace(self._current_upgrade(), **fields)
        self._members = None
        self._fields["ended"] = (*self.get("ended"), ended)
        self._fields["upgrade"] = None
        self.writes += 1

    def _current_upgrade(self) -> Any:
        upgrade = self.upgrade
        if upgrade is not None and self._members is not None:
            return replace(upgrade, members=self._members)
        return upgrade

    def fleet(self) -> Fleet:
        fields = dict(self._fields)
        if self._instances is not None:
            fields["instances"] = self._instances
        if self._members is not None and self.upgrade is not None:
            fields["upgrade"] = self._current_upgrade()
        if not fields:
            return self._base
        fleet = replace(self._base, **fields)
        if self._base.has_census:
            fleet.carry(census=self._census(fleet))
        if (unsaved := self._base.unsaved) is not None:
            fleet.carry(
                unsaved=Unsaved(
                    instances=unsaved.instances | self._touched,
                    members=unsaved.members | self._moved,
                )
            )
        return fleet

    def _census(self, fleet: Fleet) -> Census:
        """Return the base's counts, brought up to date with what was written."""
        census = self._base.census.copy()
        stale = False
        for id in self._touched:
            if (before := self._base.instances.get(id)) is not None:
                stale |= census.remove_instance(before)
            if (after := fleet.instances.get(id)) is not None:
                census.add_instance(after)
        if stale:
            census.find_next_probe(fleet.instances.values())
        old, new = self._base.upgrade, fleet.upgrade
        if old is not None and new is not None and old.id == new.id:
            for id in self._moved:
                if (was := old.members.get(id)) is not None:
                    census.remove_member(was)
                if (now := new.members.get(id)) is not None:
                    census.add_member(now)
        elif old is not None or new is not None:
            census.forget_members()
            for member in new.members.values() if new is not None else ():
                census.add_member(member)
        return census
