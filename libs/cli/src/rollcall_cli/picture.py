"""A scale set and its upgrade at a moment: what `watch` shows and `--wait` goes by. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rollcall_cli.exits import Exit
from rollcall_cli.tables import at

Document = Mapping[str, Any]
NAMED = 12  # instances that a line names
RUNNING = "RollingForward"
ENDS = {"Completed": Exit.DONE, "Faulted": Exit.FAULTED, "Cancelled": Exit.CANCELLED}


class Mark(Enum):
    """How an instance is, at a glance: a sign, one for terminals with ASCII alone, a colour."""

    DONE = ("●", "*", "green")
    WAITS = ("○", "o", "cyan")
    BUSY = ("◌", "~", "yellow")
    SICK = ("✗", "x", "red")

    def sign(self, *, ascii_only: bool) -> str:
        """Return the sign."""
        return str(self.value[1 if ascii_only else 0])

    @property
    def colour(self) -> str:
        """Return the colour, which says nothing that the sign does not."""
        return str(self.value[2])


_WORDS = {"Unhealthy": "unhealthy", "Initializing": "starting", "Unknown": "starting"}
_IN_FLIGHT = ("upgrading", "surging", "provisioned", "restoring")
_RESULTS = {"failed": "failed", "restore_failed": "failed", "restored": "put back"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One instance."""

    id: str
    name: str
    version: str
    phase: str
    health: str
    result: str | None  # its state in the upgrade; none: it is no part of it
    batch: int | None

    @property
    def mark(self) -> Mark:
        """Return how it is; one that boots is not sick yet."""
        if self.phase == "failed" or (self.health == "Unhealthy" and not self.in_flight):
            return Mark.SICK
        if self.phase != "ready" or self.health != "Healthy":
            return Mark.BUSY
        return Mark.WAITS if self.result in ("pending", "skipped", "restored") else Mark.DONE

    @property
    def in_flight(self) -> bool:
        """Say whether the upgrade has it at work."""
        return self.result in _IN_FLIGHT

    @property
    def word(self) -> str:
        """Return what it does, or how it is, in a word of at most nine letters."""
        if self.phase != "ready":
            return self.phase
        if self.health != "Healthy" and self.in_flight:
            return "booting"
        if self.health != "Healthy":
            return _WORDS.get(self.health, self.health.lower())
        return _RESULTS.get(self.result or "", "healthy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A set, its instances, and the upgrade that runs, or the last one."""

    name: str
    cells: Sequence[Cell]
    upgrade: Document | None
    waiting_code: str
    waiting: str  # what it waits for, a sentence

    @property
    def is_running(self) -> bool:
        """Say whether an upgrade runs."""
        return self.upgrade is not None and self.upgrade["status"] == RUNNING

    @property
    def counts(self) -> Mapping[str, int]:
        """Return the upgrade's four counts, by Azure's names; all 0 where there is none."""
        names = ("successful", "failed", "inProgress", "pending")
        keys = tuple(f"{name}InstanceCount" for name in names)
        progress = at(self.upgrade, "progress") or {}
        return {name: int(progress.get(key, 0)) for name, key in zip(names, keys, strict=True)}

    @property
    def version(self) -> str:
        """Return what the upgrade brings."""
        return str(at(self.upgrade, "targetImageReference.version"))

    def of_batch(self, number: int) -> list[str]:
        """Return the names of the instances of a batch."""
        return [cell.name for cell in self.cells if cell.batch == number]


def picture(name: str, explanation: Document, instances: Iterable[Document]) -> Picture:
    """Return what `GET SET/explain` and the list of instances show together."""
    parts = {item["id"]: item for item in explanation["instances"]}
    return Picture(
        name=name,
        cells=tuple(_cell(item, parts.get(item["instanceId"], {})) for item in instances),
        upgrade=explanation["upgrade"],
        waiting_code=explanation["waitingFor"]["code"],
        waiting=explanation["waitingFor"]["message"],
    )


def _cell(item: Document, part: Document) -> Cell:
    own = item["properties"]["rollcall"]
    return Cell(
        id=item["instanceId"],
        name=str(at(item, "properties.osProfile.computerName") or item["name"]),
        version=str(at(item, "properties.storageProfile.imageReference.exactVersion") or "-"),
        phase=own["phase"],
        health=own["health"],
        result=part.get("state"),
        batch=part.get("batch"),
    )


def named(names: Sequence[str]) -> str:
    """Return names for a line; of many, the first."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def changes(before: Picture | None, after: Picture) -> Iterator[str]:
    """Yield what is new in a picture, a line each, for where there is no terminal."""
    upgrade = after.upgrade
    old = before.upgrade if before is not None else None
    is_same = upgrade is not None and old is not None and old["id"] == upgrade["id"]
    if before is None and not after.is_running:
        yield f"{after.name}: {len(after.cells)} instances; no upgrade runs. {after.waiting}"
    elif upgrade is not None:
        if not is_same:
            yield (
                f"{after.name}: upgrade to {after.version}, started by {upgrade['startedBy']}, "
                f"{sum(after.counts.values())} instances"
            )
        yield from _batches(old if is_same else None, after)
    yield from _instances(before, after)
    if after.is_running and (before is None or before.waiting_code != after.waiting_code):
        yield after.waiting


def _batches(old: Document | None, after: Picture) -> Iterator[str]:
    known = {batch["number"]: batch for batch in (old or {}).get("batches", ())}
    for batch in (after.upgrade or {}).get("batches", ()):
        was = known.get(batch["number"])
        if was is None:
            names = named(after.of_batch(batch["number"]))
            yield f"batch {batch['number']}: {batch['size']} instances ({names})"
        if batch["endTime"] is not None and (was is None or was["endTime"] is None):
            yield (
                f"batch {batch['number']} done: {batch['succeeded']} healthy, "
                f"{batch['failed']} failed"
            )


def _instances(before: Picture | None, after: Picture) -> Iterator[str]:
    if before is None:
        return
    known = {cell.id: cell for cell in before.cells}
    for cell in after.cells:
        was = known.pop(cell.id, None)
        if was is None or (was.word, was.version) != (cell.word, cell.version):
            yield f"{cell.name} {cell.version} {cell.word}"
    for gone in known.values():
        yield f"{gone.name} is gone"
