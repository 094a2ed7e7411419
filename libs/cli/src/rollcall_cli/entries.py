"""Entries of the event log: chosen, checked, and told in a line. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from rich.text import Text
from rollcall_contracts.chain import GENESIS, entry_hash

from rollcall_cli.moments import local

Entry = Mapping[str, Any]
DATA = '"data": '
MANY = 6  # instances that a line names
# What an entry's line says beside its type, in this order.
SAID = ("batch", "version", "instance_id", "host", "code", "reason")
COLOURS = {
    "faulted": "red",
    "failed": "red",
    "unhealthy": "red",
    "rejected": "red",
    "cancelled": "yellow",
    "held": "yellow",
    "completed": "green",
    "healthy": "green",
    "recovered": "green",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries somebody wants to see."""

    types: tuple[str, ...] = ()  # patterns; none: all
    instance: str | None = None
    upgrade: str | None = None

    @property
    def is_narrow(self) -> bool:
        """Say whether some entries are left out."""
        return bool(self.types or self.instance or self.upgrade)

    def takes(self, entry: Entry) -> bool:
        """Say whether an entry is wanted."""
        data = entry["data"]
        if self.types and not any(_is_type(entry["type"], pattern) for pattern in self.types):
            return False
        if self.upgrade is not None and entry.get("correlationid") != self.upgrade:
            return False
        return self.instance is None or self.instance in instances_of(data)


def _is_type(type: str, pattern: str) -> bool:
    """Say whether a type is meant; `batch.started` means every version of it."""
    without_version = type.rpartition(".")[0]
    return fnmatchcase(type, pattern) or fnmatchcase(without_version, pattern)


def instances_of(data: Mapping[str, Any]) -> list[str]:
    """Return the ids of the instances that an event names."""
    found = [str(data["instance_id"])] if data.get("instance_id") is not None else []
    found += [str(id) for id in data.get("instance_ids") or ()]
    for item in data.get("instances") or ():
        if isinstance(item, Mapping) and "instance_id" in item:
            found.append(str(item["instance_id"]))
    return list(dict.fromkeys(found))


def line(entry: Entry, now: datetime) -> Text:
    """Return an entry for a person: number, time, type, and what it says."""
    data = entry["data"]
    name = entry["type"].rpartition(".")[0]
    text = Text.assemble(
        (f"{entry['sequence']:>6} ", "dim"),
        f"{local(datetime.fromisoformat(entry['time']), now)} ",
        (f"{name:<27} ", COLOURS.get(name.rpartition(".")[2], "bold")),
    )
    words = [_said(key, data[key]) for key in SAID if data.get(key) not in (None, "", [])]
    several = instances_of(data)
    if "instance_id" not in data and several:
        more = f" and {len(several) - MANY} more" if len(several) > MANY else ""
        words.insert(0, f"instances {', '.join(several[:MANY])}{more}")
    error = data.get("error")
    if isinstance(error, Mapping):
        words.append(f"{error.get('code')}: {error.get('message')}")
    image = data.get("image")
    if isinstance(image, Mapping):
        parts = ("publisher", "offer", "sku", "version")
        words.insert(0, ":".join(str(image.get(part)) for part in parts))
    return text.append("; ".join(words))


def _said(key: str, value: object) -> str:
    match key:
        case "reason":
            return str(value)
        case "instance_id":
            return f"instance {value}"
        case _:
            return f"{key} {value}"


def exact_body(text: str) -> str:
    """Return the event's exact text in a CloudEvent's JSON, which its hash was made from.

    `data` comes last, and a quoted one in a text before it would have a backslash.
    """
    return text[text.index(DATA) + len(DATA) : -1]


class Chain:
    """What was verified of a stream so far (docs/auditing.md)."""

    def __init__(self, after: int = 0) -> None:
        self.first = self.last = after
        self._hash = GENESIS if after == 0 else None
        self.count = 0

    def fault(self, entry: Entry, body: str) -> str | None:
        """Return what is wrong with the next entry; nothing where it fits."""
        number = int(entry["sequence"])
        if number != self.last + 1:
            return f"entries {self.last + 1} to {number - 1} are missing"
        if self._hash is not None and entry["previoushash"] != self._hash:
            return f"an entry before {number} was changed, or {number} is of another chain"
        expected = entry_hash(
            stream=entry["stream"],
            sequence=number,
            id=entry["id"],
            type=entry["type"],
            source=entry["source"],
            time=datetime.fromisoformat(entry["time"]),
            body=body,
            previous_hash=entry["previoushash"],
        )
        if entry["hash"] != expected:
            return f"entry {number} was changed"
        self.last, self._hash = number, entry["hash"]
        self.count += 1
        return None

    def words(self) -> str:
        """Return what was found."""
        if not self.count:
            return "no entry to verify"
        return f"verified {self.first + 1} to {self.last}: nothing is missing, nothing was changed"


def newest_sequence(has_after: Callable[[int], bool]) -> int:
    """Return the number of the newest entry, 0 where there is none.

    Asks as few times as it can whether there is an entry after a number: first ever farther, then
    in the middle.
    """
    if not has_after(0):
        return 0
    low, high = 0, 1  # there is one after `low`
    while has_after(high):
        low, high = high, high * 4
    while high - low > 1:
        middle = (low + high) // 2
        if has_after(middle):
            low = middle
        else:
            high = middle
    return high
