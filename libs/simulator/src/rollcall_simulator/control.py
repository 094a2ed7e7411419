"""The control plane: a broker that loses and doubles, two orchestrators, and the relay.

An orchestrator does what the real one does, in its order: load, fold what came, amend the
surroundings, settle, save what changed, append to the log, commit, acknowledge. It can be killed
between any two of these. The relay publishes what is in the log, some time later.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from rollcall_contracts import events as e
from rollcall_rollout import Fleet
from rollcall_rollout import fold as real_fold
from rollcall_rollout import next_wake as real_next_wake
from rollcall_rollout import settle as real_settle

from rollcall_simulator.agenda import Agenda
from rollcall_simulator.faults import Chaos, Fault
from rollcall_simulator.store import Store

TICK = 0.1  # seconds between looks for what is due
IDLE = 15.0  # seconds between looks that find nothing to decide: the others' sets come first

REPORTS = (e.InstanceReport, e.ImageFetched, e.ImageFetchFailed, e.MetricQueried)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is put to the test; others than the real ones are for testing the checker."""

    fold: Callable[[Fleet, Sequence[e.Event], datetime], tuple[Fleet, list[e.Event]]] = real_fold
    settle: Callable[[Fleet, datetime], tuple[Fleet, list[e.Event]]] = real_settle
    next_wake: Callable[[Fleet, datetime], datetime] = real_next_wake


RULES = Rules()


class Auditor(Protocol):
    """Who looks at each transaction."""

    def committed(self, step: "Transaction") -> None:
        """Check what a transaction did."""

    def published(self, number: int) -> None:
        """Check that this entry of the log may be published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One transaction of an orchestrator, after its commit."""

    now: datetime
    before: Fleet | None  # as it was loaded
    folded: Fleet
    deliveries: Sequence[e.Event]
    accepted: Sequence[e.Event]
    settled: Fleet
    kept: Fleet  # in memory, for the next time
    decided: Sequence[e.Event]
    wake_at: datetime
    store: Store


@dataclass(slots=True)
class Copy:
    """One copy of the orchestrator: what it keeps in memory is lost when it is killed."""

    name: str
    skew: float = 0.0  # seconds that its clock is ahead
    cache: tuple[int, Fleet] | None = None
    inbox: list[e.Event] = field(default_factory=list)
    awake: bool = False  # it will look into its inbox soon
    up: bool = True


class Broker:
    """Carries messages; which arrive late, twice or never is drawn for each.

    With `in_order` those of probers come once and in their order: reports of one lease do not say
    which is the newer one, so that the other order tells another health.
    """

    def __init__(self, agenda: Agenda, chaos: Chaos, *, in_order: bool) -> None:
        self._in_order = in_order
        self._agenda = agenda
        self._chaos = chaos

    def carry(self, event: e.Event, to: Callable[[e.Event], None]) -> None:
        """Carry a message to its consumer."""
        agenda, chaos = self._agenda, self._chaos
        if chaos.strikes(Fault.LOST):
            return
        delay = 0.002 + 0.03 * chaos.random.random()
        if self._in_order and isinstance(event, e.HealthReport):
            agenda.after(delay, partial(to, event))
            return
        if chaos.strikes(Fault.REORDERED):
            delay += chaos.stream(Fault.REORDERED).uniform(0.05, 3)
        if chaos.strikes(Fault.DELAYED):
            delay += chaos.stream(Fault.DELAYED).uniform(3, 900)
        agenda.after(delay, partial(to, event))
        if chaos.strikes(Fault.DOUBLED):
            again = delay + chaos.stream(Fault.DOUBLED).uniform(0, 5)
            agenda.after(again, partial(to, event))


class Control:
    """Two orchestrators over one store."""

    def __init__(
        self,
        *,
        agenda: Agenda,
        chaos: Chaos,
        rules: Rules,
        store: Store,
        auditor: Auditor,
        publish: Callable[[e.Event], None],
        surroundings: Callable[[], tuple[tuple[str, ...], dict[str, int]]],
    ) -> None:
        self._agenda = agenda
        self._chaos = chaos
        self._rules = rules
        self.store = store
        self._auditor = auditor
        self._publish = publish
        self._surroundings = surroundings
        self.copies = (Copy("a"), Copy("b"))
        if chaos.strikes(Fault.SKEW):
            self.copies[1].skew = chaos.stream(Fault.SKEW).uniform(-2, 2)
        self._turn = 0
        self._published = 0
        self._relaying = False
        self._alarm = 0
        self.transactions = 0
        self.kept: Fleet | None = None  # the set as it was last saved, by whichever copy

    # --- deliveries -------------------------------------------------------------------------------

    def deliver(self, event: e.Event) -> None:
        """Give a message to one of the copies.

        For a while it is the same one, so that what it keeps is used, and then becomes stale.
        """
        if self._chaos.random.random() < 0.1:
            self._turn += 1
        copy = self._chosen()
        copy.inbox.append(event)
        self._rouse(copy)

    def _chosen(self) -> Copy:
        up = [copy for copy in self.copies if copy.up] or self.copies
        return up[self._turn % len(up)]

    def _rouse(self, copy: Copy) -> None:
        if copy.up and not copy.awake and copy.inbox:
            copy.awake = True
            # A larger set takes longer, and more of its reports wait by then.
            pause = 0.02 + 0.004 * len(self.store.instances)
            self._agenda.after(pause * self._chaos.random.random(), partial(self._consume, copy))

    def _consume(self, copy: Copy) -> None:
        copy.awake = False
        if copy.up and copy.inbox:
            deliveries, copy.inbox = copy.inbox, []
            self._transact(copy, deliveries)

    def wake(self, pause: float = 0.0) -> None:
        """Let a copy decide when its time has come, and not before the pause is over."""
        self._alarm += 1
        alarm = self._alarm
        delay = max(pause, self.store.wake_at - self._agenda.seconds)
        delay += TICK * self._chaos.random.random()

        def ring() -> None:
            if alarm != self._alarm or self.store.whole is None or self.store.buried:
                return
            copy = self._chosen()
            if copy.up:
                self._transact(copy, ())
            else:
                self.wake(1.0)

        self._agenda.after(delay, ring)

    # --- a transaction ----------------------------------------------------------------------------

    def _transact(self, copy: Copy, deliveries: Sequence[e.Event]) -> None:
        store, rules = self.store, self._rules
        now = self._agenda.now + timedelta(seconds=copy.skew)
        loaded = self._load(copy)
        before = loaded
        if loaded is None:
            created = next((ev for ev in deliveries if isinstance(ev, e.ScaleSetChanged)), None)
            if created is None:
                return
            loaded = Fleet(spec=created.spec)
        folded, accepted = rules.fold(loaded, deliveries, now)
        hosts, room = self._surroundings()
        moved = before is None or folded.spec.image.stream != before.spec.image.stream
        if moved or not deliveries:  # by time: also what changed without an event
            images, holds = store.images_of(folded.spec.image), store.holds_of(folded.spec.image)
            folded = folded.amended(images=images, holds=holds, hosts=hosts, room=room)
        elif hosts != folded.hosts or room != folded.room:
            folded = folded.amended(hosts=hosts, room=room)
        settled, decided = rules.settle(folded, now)
        wake_at = rules.next_wake(settled, now)
        crash = self._crash()
        if crash == "before":
            self._die(copy, deliveries)
            return
        if crash == "refused":  # the transaction failed; the process lives, and tries again
            copy.cache = (store.token + 1_000_000, settled.saved())
            self._again(deliveries)
            return
        for event in (*deliveries, *decided):
            store.note(event)
        store.save(before, settled)
        seconds = self._agenda.seconds
        store.log += [(seconds, ev) for ev in accepted if isinstance(ev, REPORTS)]
        store.log += [(seconds, ev) for ev in decided]
        store.wake_at = self._agenda.at(wake_at)
        self.kept = kept = settled.saved()
        copy.cache = None if store.buried else (store.token, kept)
        self.transactions += 1
        self._auditor.committed(
            Transaction(
                now=now,
                before=before,
                folded=folded,
                deliveries=deliveries,
                accepted=accepted,
                settled=settled,
                kept=kept,
                decided=decided,
                wake_at=wake_at,
                store=store,
            )
        )
        self.wake(0.0 if deliveries or decided else IDLE)
        self._relay_soon()
        if crash == "after":
            self._die(copy, deliveries)

    def _load(self, copy: Copy) -> Fleet | None:
        if copy.cache is not None and copy.cache[0] == self.store.token:
            return copy.cache[1]
        return self.store.load()

    def _crash(self) -> str:
        if not self._chaos.strikes(Fault.CRASH):
            return ""
        return self._chaos.stream(Fault.CRASH).choice(("before", "refused", "after", "after"))

    def _die(self, copy: Copy, deliveries: Sequence[e.Event]) -> None:
        """Lose what the copy had in memory; what it had not acknowledged comes again."""
        copy.up, copy.cache = False, None
        waiting, copy.inbox = [*deliveries, *copy.inbox], []
        self._again(waiting)
        if not deliveries:
            self.wake()
        back = self._chaos.stream(Fault.CRASH).uniform(0.5, 20)

        def return_() -> None:
            copy.up = True
            self._rouse(copy)

        self._agenda.after(back, return_)

    def _again(self, deliveries: Sequence[e.Event]) -> None:
        delay = self._chaos.stream(Fault.CRASH).uniform(0.01, 2)
        for event in deliveries:
            self._agenda.after(delay, partial(self.deliver, event))
        if not deliveries:
            self.wake()

    # --- the relay --------------------------------------------------------------------------------

    def _relay_soon(self) -> None:
        if self._published < len(self.store.log) and not self._relaying:
            self._relaying = True
            self._agenda.after(0.02 * self._chaos.random.random(), self._relay)

    def _relay(self) -> None:
        self._relaying = False
        end = len(self.store.log)
        for number in range(self._published, end):
            self._auditor.published(number)
            self._publish(self.store.log[number][1])
        if self._chaos.strikes(Fault.RELAY):  # killed before it noted how far it came
            again = self._chaos.stream(Fault.RELAY).uniform(0.5, 30)
            self._relaying = True
            self._agenda.after(again, self._relay)
            return
        self._published = end
        self._relay_soon()
