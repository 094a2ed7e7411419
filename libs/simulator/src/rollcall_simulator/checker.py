"""The independent check: after every transaction, and whenever something physically happens."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime

from rollcall_contracts import events as e
from rollcall_contracts.model import ScaleSetSpec
from rollcall_rollout import Fleet, InstancePhase, fold
from rollcall_rollout.census import Census

from rollcall_simulator.control import Transaction
from rollcall_simulator.invariants import Violation, check_decided, down_after, sentence_of
from rollcall_simulator.ledger import Ledger
from rollcall_simulator.site import Machine, Site

OURS = frozenset({"upgrade", "deployment"})  # why we take instances down, but for what people want


@dataclass(slots=True)
class Peak:
    """The largest share of a set that was really down at once because of us, and the limit then.

    Under limits below 100 %, which say something.
    """

    down: int = 0
    allowed: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        """Return how much of the set was down."""
        return self.down / self.total if self.total else 0.0

    def __lt__(self, other: "Peak") -> bool:
        return (self.share, self.down, -self.allowed) < (other.share, other.down, -other.allowed)


class Checker:
    """Keeps the account, and asks the promises."""

    def __init__(self, spec: ScaleSetSpec) -> None:
        self.ledger = Ledger(spec)
        self.site: Site | None = None  # set when the hosts are there
        self.peak = Peak()
        self.alone = 0  # batches of one healthy instance beyond the limit (M11)
        self.alone_ours = 0  # of these, where others were down because of us
        self._limit = 0  # of the policy, as of the last batch
        self._allowed = 0  # that may be down because of us: the limit, or what M11 adds
        self._data: dict[str, int] = {}  # by instance: its data disks, as they were at first
        self._counted: Fleet | None = None  # as of the last step
        self._published = 0

    # --- transactions -----------------------------------------------------------------------------

    def committed(self, step: Transaction) -> None:
        """Check a transaction; raises Violation."""
        ledger = self.ledger
        for delivery in step.deliveries:
            ledger.deliver(delivery, step.now)
        ledger.published = step.folded.images
        for decided in step.decided:
            check_decided(ledger, decided, step.now)
            if isinstance(decided, e.BatchStarted):
                self._note_limits(decided)
            ledger.decide(decided, step.now)
            if isinstance(decided, e.InstancesUpgradeRequested) and decided.upgrade_id is None:
                # What a person had deployed keeps no limit (M41); the next batch makes it anew.
                self._allowed = max(self._allowed, len(ledger.taken()))
        what_is_stored_is_what_was_decided(step)
        nothing_is_due_at_once(step)
        hosts_are_not_overfilled(step)
        if step.store.buried:
            ledger.barred = None
        if not self._is_counted(step.settled):
            counts_are_right(step.settled)
        the_set_believes_what_it_was_told(step.settled, ledger)
        every_decided_event_changes_the_state(step)

    def _is_counted(self, fleet: Fleet) -> bool:
        """Say whether nothing of a set has changed since its counts were checked last."""
        before, self._counted = self._counted, fleet
        return (
            before is not None
            and fleet.instances is before.instances
            and fleet.upgrade is before.upgrade
            and fleet.census is before.census
        )

    def _note_limits(self, batch: e.BatchStarted) -> None:
        """Note how many may really be down until the next batch."""
        upgrade = self.ledger.upgrade
        if upgrade is None:
            return
        down, self._limit = down_after(self.ledger, upgrade, batch)
        ours = self.ledger.taken()
        taken = set() if batch.replacements else set(batch.instance_ids)
        self._allowed = max(self._limit, len(ours | taken))
        healthy = any(self.ledger.instances[id].is_healthy for id in taken)
        if len(down) > self._limit and healthy:
            self.alone += 1
            self.alone_ours += bool(ours - taken)

    def published(self, number: int) -> None:
        """Check that entry `number` of the log may be published now."""
        if number > self._published:
            raise Violation(sentence_of(self.published_gapless), f"{number} > {self._published}.")
        self._published = max(self._published, number + 1)

    def published_gapless(self) -> None:
        """Events are appended to the log, and published, in order and without gaps."""

    # --- what physically happens ------------------------------------------------------------------

    def about_to_stop(self, machine: Machine, why: str) -> None:
        """Never more instances are really down because of an upgrade, a reimage or a deployment
        than the policy allowed when the upgrade's last batch began, or by one where that went
        alone (M11)."""
        if why != "upgrade" or self.site is None:
            return
        members = {instance.id for instance in self.ledger.members()}
        down = 1 + sum(
            other.down_for in OURS
            and not other.believed
            and other.id in members
            and not self.ledger.instances[other.id].started
            for other in self.site.machines.values()
            if other is not machine
        )
        total = len(members)
        if self._limit < total and down <= self._limit:
            self.peak = max(self.peak, Peak(down, self._limit, total))
        if down > self._allowed:
            detail = f"{down} of {total} are down: {self._allowed} may be."
            raise Violation(sentence_of(self.about_to_stop), detail)

    def swapped(self, machine: Machine) -> None:
        """No instance gets two OS disks for one attempt."""
        if machine.swaps[machine.attempt] > 1:
            detail = f"Instance {machine.id} got {machine.swaps[machine.attempt]}."
            raise Violation(sentence_of(self.swapped), detail)
        self.changed(machine)

    def changed(self, machine: Machine) -> None:
        """The data disks of an instance are the same ones for as long as it is there."""
        first = self._data.setdefault(machine.id, machine.data)
        if machine.data != first:
            detail = f"Instance {machine.id} has {machine.data}, and had {first}."
            raise Violation(sentence_of(self.changed), detail)

    def dropped(self, machine: Machine) -> None:
        """The previous OS disk is there until the instance was healthy on the new one."""
        if machine.down_for == "upgrade" and not machine.believed:
            detail = f"Instance {machine.id} has not been healthy."
            raise Violation(sentence_of(self.dropped), detail)

    def at_the_end(self, fleet: Fleet | None, now: datetime) -> None:
        """What the set says of a healthy instance is true of its OS disk, and what a person powered
        off does not run."""
        if fleet is None or self.site is None:
            return
        for there in self.site.machines.values():
            self.changed(there)
        for instance in fleet.instances.values():
            machine = self.site.machines.get(instance.id)
            stopped = instance.is_parked and instance.phase is InstancePhase.READY
            if stopped and machine is not None and machine.running:
                detail = f"Instance {instance.id} runs, and was powered off."
                raise Violation(sentence_of(self.at_the_end), detail)
            if not instance.is_healthy or machine is None or machine.host in self.site.dead:
                continue
            disk = machine.disk.version if machine.disk is not None else None
            if disk != instance.version and machine.is_healthy:
                detail = (
                    f"Instance {instance.id} is on {disk}, and said to be on {instance.version}."
                )
                raise Violation(sentence_of(self.at_the_end), detail)


# --- promises about the state itself --------------------------------------------------------------


def what_is_stored_is_what_was_decided(step: Transaction) -> None:
    """A set that is read back after a crash is the same as the one in memory."""
    kept = step.kept
    if kept.unsaved is None or kept.unsaved.instances or kept.unsaved.members or kept.ended:
        raise Violation(sentence_of(what_is_stored_is_what_was_decided), "Saved is not saved.")
    difference = step.store.difference(kept)
    if difference is not None:
        raise Violation(sentence_of(what_is_stored_is_what_was_decided), difference)


def nothing_is_due_at_once(step: Transaction) -> None:
    """After a decision the next one is due later: what is due now has been decided."""
    if step.wake_at <= step.now and not step.store.buried:
        raise Violation(sentence_of(nothing_is_due_at_once), f"At {step.now} it is due again.")


def hosts_are_not_overfilled(step: Transaction) -> None:
    """A host that says how much room it has is asked for no more new instances than that."""
    if not step.folded.room:
        return
    new: Counter[str] = Counter()
    for event in step.decided:
        if isinstance(event, e.InstancesCreateRequested):
            new[event.host] += sum(order.attempt == 1 for order in event.instances)
    for host, count in new.items():
        if count > step.folded.room.get(host, count):
            detail = f"{host} has room for {step.folded.room[host]} and is asked for {count}."
            raise Violation(sentence_of(hosts_are_not_overfilled), detail)


def counts_are_right(fleet: Fleet) -> None:
    """The counts that a set carries along are those that a fresh look gives."""
    carried, fresh = fleet.census, replace(fleet).census
    for name in Census.__slots__:
        if getattr(carried, name) != getattr(fresh, name):
            raise Violation(
                sentence_of(counts_are_right),
                f"{name}: {getattr(carried, name)} is not {getattr(fresh, name)}.",
            )


def the_set_believes_what_it_was_told(fleet: Fleet, ledger: Ledger) -> None:
    """What the set believes of each instance is what messages told, counted independently."""
    if fleet.instances.keys() != ledger.instances.keys():
        both = fleet.instances.keys() ^ ledger.instances.keys()
        raise Violation(
            sentence_of(the_set_believes_what_it_was_told), f"Instances {sorted(both)} differ."
        )
    for id, instance in fleet.instances.items():
        known = ledger.instances[id]
        if (
            instance.phase == known.phase
            and instance.attempt == known.attempt
            and instance.version == known.version
            and instance.is_healthy == known.is_healthy
        ):
            continue
        believed = (instance.phase.value, instance.attempt, instance.is_healthy, instance.version)
        told = (known.phase, known.attempt, known.is_healthy, known.version)
        raise Violation(
            sentence_of(the_set_believes_what_it_was_told),
            f"Instance {id} is {believed}, and was told to be {told}.",
        )


def every_decided_event_changes_the_state(step: Transaction) -> None:
    """Every decided event changes the state, and all of them together make the state that is
    saved."""
    if not step.decided:
        return
    state, changing = fold(step.folded, step.decided, step.now)
    if len(changing) < len(step.decided):
        idle = next(ev for ev in step.decided if not any(ev is other for other in changing))
        raise Violation(sentence_of(every_decided_event_changes_the_state), f"{idle!r} does not.")
    if state != step.settled:
        raise Violation(
            sentence_of(every_decided_event_changes_the_state), "They make another one."
        )
