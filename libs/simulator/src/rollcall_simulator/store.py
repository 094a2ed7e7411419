"""The database of the orchestrator, as plain maps: written as the real one is, and read back.

After a decision only what is noted as changed is written. So a change that nobody noted is lost
with the process that knew of it, and the next read shows that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rollcall_contracts import events as e
from rollcall_contracts.model import Image, ImageReference
from rollcall_rollout import Fleet, Instance, Member, Upgrade
from rollcall_rollout.state import Hold

# What a fleet has beside its instances and members: written whole each time.
_SURROUNDINGS = frozenset({"images", "hosts", "holds", "room"})
_APART = _SURROUNDINGS | {"instances", "upgrade", "ended"}
_WHOLE = tuple(f.name for f in fields(Fleet) if f.init and f.name not in _APART)


@dataclass(slots=True)
class Store:
    """One set's rows, the versions and holds of its line, and the event log."""

    token: int = 0
    wake_at: float = 0.0
    whole: dict[str, Any] | None = None  # None: the set is not known
    instances: dict[str, Instance] = field(default_factory=dict)
    upgrade: Upgrade | None = None  # without its members
    members: dict[str, Member] = field(default_factory=dict)
    _saved: Upgrade | None = None  # what `upgrade` was made from
    buried: bool = False  # deleted, and all of its instances are
    ended: list[Upgrade] = field(default_factory=list)
    images: dict[str, Image] = field(default_factory=dict)  # of all lines; no two share a version
    _held: dict[str, tuple[Image, Hold]] = field(default_factory=dict)  # by version
    log: list[tuple[float, e.Event]] = field(default_factory=list)

    def load(self) -> Fleet | None:
        """Return the set as its rows say; what changed since is then not known."""
        if self.whole is None:
            return None
        upgrade = self.upgrade
        if upgrade is not None:
            upgrade = replace(upgrade, members=dict(self.members))
        return Fleet(
            **self.whole,
            instances=dict(self.instances),
            upgrade=upgrade,
            images=self.images_of(self.whole["spec"].image),
            holds=self.holds_of(self.whole["spec"].image),
        )

    def images_of(self, line: ImageReference) -> tuple[Image, ...]:
        """Return the published versions of a line."""
        return tuple(image for image in self.images.values() if image.stream == line.stream)

    def holds_of(self, line: ImageReference) -> dict[str, Hold]:
        """Return the holds on the versions of a line."""
        return {
            version: hold
            for version, (image, hold) in self._held.items()
            if image.stream == line.stream
        }

    def difference(self, fleet: Fleet) -> str | None:
        """Return in what a set that is read back differs from this one; None when in nothing."""
        if self.whole is None:
            return "It is not there."
        if self.buried:
            return None
        if self.instances != fleet.instances:
            return _difference("Instance", self.instances, fleet.instances)
        for name, value in self.whole.items():
            if value != getattr(fleet, name):
                return f"{name} is {value}, not {getattr(fleet, name)}."
        upgrade = fleet.upgrade
        if upgrade is None or self.upgrade is None:
            same = upgrade is self.upgrade
            return None if same else f"The upgrade is {self.upgrade}, not {upgrade}."
        if self.members != upgrade.members:
            return _difference("Member", self.members, upgrade.members)
        if upgrade is not self._saved and self.upgrade != replace(upgrade, members={}):
            return f"The upgrade is {self.upgrade}, not {upgrade}."
        return None

    def save(self, before: Fleet | None, after: Fleet) -> None:
        """Write what changed."""
        self.token += 1
        self.buried = after.deleted and not after.instances
        if self.buried:  # nothing stays but its revision and the numbers that it has used
            self.ended += after.ended
            after = Fleet(spec=after.spec, deleted=True, next_id=after.next_id)
            self.instances, self.upgrade, self.members = {}, None, {}
            before = None
        self.whole = {name: getattr(after, name) for name in _WHOLE}
        unsaved = after.unsaved
        old = before.instances if before is not None else {}
        touched = {*old, *after.instances} if unsaved is None else unsaved.instances
        for id in touched:
            if id in after.instances:
                self.instances[id] = after.instances[id]
            else:
                self.instances.pop(id, None)
        self._save_upgrades(before, after)

    def _save_upgrades(self, before: Fleet | None, after: Fleet) -> None:
        self.ended += after.ended
        running, upgrade = before.upgrade if before is not None else None, after.upgrade
        if after.ended:
            running = None
        if upgrade is None:
            self.upgrade, self.members = None, {}
            return
        if upgrade is running:
            return
        self.upgrade, self._saved = replace(upgrade, members={}), upgrade
        moved = after.unsaved.members if after.unsaved is not None else None
        if running is None or running.id != upgrade.id:
            self.members, moved = {}, None
        changed = {*self.members, *upgrade.members} if moved is None else moved
        for id in changed:
            if id in upgrade.members:
                self.members[id] = upgrade.members[id]
            else:
                self.members.pop(id, None)

    def note(self, event: e.Event) -> None:
        """Record which versions are held."""
        match event:
            case e.ImageHeld():
                known = self._held.get(event.image.version)
                if known is None or (event.quarantine and not known[1].quarantine):
                    hold = Hold(
                        by_set=event.by_set,
                        upgrade_id=event.upgrade_id,
                        error=event.error,
                        quarantine=event.quarantine,
                    )
                    self._held[event.image.version] = (event.image, hold)
            case e.ImageReleased():
                self._held.pop(event.image.version, None)


def _difference(what: str, stored: Mapping[str, object], kept: Mapping[str, object]) -> str:
    ids = (id for id in {**stored, **kept} if stored.get(id) != kept.get(id))
    return "".join(f"{what} {id} is {stored.get(id)}, not {kept.get(id)}. " for id in ids)
