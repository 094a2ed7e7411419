"""What can go wrong, and what people can do: each kind by name, with its own seeded chance."""

import random
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum


class Fault(StrEnum):
    """A kind of trouble; the values are those of `--without` and `--only-faults`."""

    # Hosts and their agents.
    SLOW = "slow"
    LATE = "late"
    DEAD = "dead"
    AGENT = "agent"
    FETCH = "fetch"
    ROOM = "room"
    # Instances on the new image.
    SICK = "sick"
    BROKEN = "broken"
    EXTENSION = "extension"
    CREDENTIALS = "credentials"
    # Instances whatever their image.
    OUTAGE = "outage"
    MASS = "mass"
    # Probers.
    LIE = "lie"
    FLAP = "flap"
    PROBER = "prober"
    METRIC = "metric"
    # Messages.
    LOST = "lost"
    DOUBLED = "doubled"
    REORDERED = "reordered"
    DELAYED = "delayed"
    # The orchestrator and its relay.
    CRASH = "crash"
    RELAY = "relay"
    SKEW = "skew"
    # People, and the feed.
    SCALE = "scale"
    MODEL = "model"
    CANCEL = "cancel"
    PAUSE = "pause"
    ROLLBACK = "rollback"
    START = "start"
    DEPLOY = "deploy"
    REIMAGE = "reimage"
    POWER = "power"
    REMOVE = "remove"
    PROTECT = "protect"
    WISH = "wish"
    HOOK = "hook"
    APPROVAL = "approval"
    HOLD = "hold"
    WITHDRAW = "withdraw"
    NEWER = "newer"
    DELETE = "delete"


MEANING: Mapping[Fault, str] = {
    Fault.SLOW: "an agent takes several times as long",
    Fault.LATE: "an operation outlasts its time limit, and then succeeds",
    Fault.DEAD: "a host dies with all on it, and comes back later or never",
    Fault.AGENT: "an agent is killed in the middle, and goes on from its journal",
    Fault.FETCH: "a host cannot fetch the image",
    Fault.ROOM: "hosts have little room for more instances",
    Fault.SICK: "an instance never becomes healthy on the new image",
    Fault.BROKEN: "an instance does not start from the new image",
    Fault.EXTENSION: "an extension fails on the new OS disk",
    Fault.CREDENTIALS: "an extension's address refuses its credentials",
    Fault.OUTAGE: "an instance stops, or its application fails, for a while",
    Fault.MASS: "many instances fail at once",
    Fault.LIE: "a prober says healthy of an application that is not",
    Fault.FLAP: "an application's health changes back and forth",
    Fault.PROBER: "a prober dies, and another takes its leases",
    Fault.METRIC: "the metric gate answers badly, or not at all",
    Fault.LOST: "a message is lost with the process that had it",
    Fault.DOUBLED: "a message is delivered twice",
    Fault.REORDERED: "a message is overtaken by later ones",
    Fault.DELAYED: "a message is minutes late",
    Fault.CRASH: "an orchestrator is killed between two effects",
    Fault.RELAY: "the relay is killed after publishing, and publishes again",
    Fault.SKEW: "the clock of one orchestrator is up to two seconds off",
    Fault.SCALE: "the capacity changes in the middle",
    Fault.MODEL: "the model changes in the middle",
    Fault.CANCEL: "a person cancels the upgrade",
    Fault.PAUSE: "a person pauses the upgrade, and resumes it or not",
    Fault.ROLLBACK: "a person asks for the version before",
    Fault.START: "a person starts an upgrade, with override or without",
    Fault.DEPLOY: "a person deploys the model to instances",
    Fault.REIMAGE: "a person asks for new OS disks",
    Fault.POWER: "a person stops, starts or restarts instances",
    Fault.REMOVE: "a person deletes an instance",
    Fault.PROTECT: "a person protects an instance, or no longer does",
    Fault.WISH: "applications name their phase, or ask to be skipped",
    Fault.HOOK: "a lifecycle hook is rejected, delayed, or not answered",
    Fault.APPROVAL: "a deferred upgrade is approved late, in parts, or never",
    Fault.HOLD: "another set holds the version, and it is released or not",
    Fault.WITHDRAW: "the image is withdrawn",
    Fault.NEWER: "a newer image is published in the middle",
    Fault.DELETE: "the set is deleted",
}

TWIN = frozenset({Fault.DOUBLED, Fault.REORDERED, Fault.RELAY})
"""The kinds that must not change how a rollout ends."""


class Chaos:
    """Draws from each kind's own stream, so that leaving one out does not change the others."""

    def __init__(self, seed: int, chances: Mapping[Fault, float]) -> None:
        self.seed = seed
        self.chances = dict(chances)
        self.struck: Counter[Fault] = Counter()
        self.random = random.Random(seed)  # of durations, which are no faults
        self._streams: dict[Fault, random.Random] = {}

    def stream(self, fault: Fault) -> random.Random:
        """Return the kind's own source of chance."""
        if fault not in self._streams:
            self._streams[fault] = random.Random(f"{self.seed} {fault}")
        return self._streams[fault]

    def strikes(self, fault: Fault) -> bool:
        """Say whether a fault of this kind happens here, and count it."""
        chance = self.chances.get(fault)
        if not chance or self.stream(fault).random() >= chance:
            return False
        self.struck[fault] += 1
        return True

    def calm(self) -> None:
        """Let no more faults happen."""
        self.chances.clear()
