"""The independent check: after every transaction, and whenever something physically happens."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime

from rollcall_contracts import events as e
from rollcall_contracts.model import ScaleSetSpec
from rollcall_rollout import Fleet, InstancePhase, evolve
from rollcall_rollout.census import Census

from rollcall_simulator.control import Transaction
from rollcall_simulator.invariants import Violation, check_decided, down_after, sentence_of
from rollcall_simulator.ledger import GOOD, PENDING, SKIPPED, Ledger, Rollout
from rollcall_simulator.site import Machine, Site


@dataclass(slots=True)
class Peak:
    """The most that were really down at once because of an upgrade, against what was allowed."""

    down: int = 0
    allowed: int = 1
    total: int = 0

    @property
    def ratio(self) -> float:
        """Return how much of the allowed was used."""
        return self.down / self.allowed

    def __lt__(self, other: "Peak") -> bool:
        return (self.ratio, self.down, self.total) < (other.ratio, other.down, other.total)


class Checker:
    """Keeps the account, and asks the promises."""

    def __init__(self, spec: ScaleSetSpec) -> None:
        self.ledger = Ledger(spec)
        self.site: Site | None = None  # set when the hosts are there
        self.peak = Peak()
        self.alone = 0  # batches of one healthy instance beyond the limit (M11)
        self.alone_ours = 0  # of these, where what the upgrade itself has down is beyond it
        self._allowed = 1  # that may be down for the upgrade
        self._beyond = False  # the last batch was one of those
        self._steps = 0
        self._published = 0

    # --- transactions -----------------------------------------------------------------------------

    def committed(self, step: Transaction) -> None:
        """Check a transaction; raises Violation."""
        self._steps += 1
        ledger = self.ledger
        for delivery in step.deliveries:
            ledger.deliver(delivery, step.now)
        for decided in step.decided:
            check_decided(ledger, decided, step.now)
            if isinstance(decided, e.BatchStarted):
                self._note_limits(decided)
            ledger.decide(decided, step.now)
        what_is_stored_is_what_was_decided(step)
        nothing_is_due_at_once(step)
        hosts_are_not_overfilled(step)
        if step.store.buried:
            ledger.barred = None
        rest = 1 + len(step.settled.instances) // 5
        if self._steps % rest == 0:
            counts_are_right(step.settled)
            the_set_believes_what_it_was_told(step.settled, ledger)
        if step.decided and self._steps % 4 == 0:
            every_decided_event_changes_the_state(step)

    def _note_limits(self, batch: e.BatchStarted) -> None:
        """Note how many may really be down until the next batch."""
        upgrade = self.ledger.upgrade
        if upgrade is None:
            return
        down, allowed = down_after(self.ledger, upgrade, batch)
        healthy = [id for id in batch.instance_ids if self.ledger.instances[id].is_healthy]
        self._beyond = len(down) > allowed and bool(healthy) and not batch.replacements
        self._allowed = max(allowed, len(down))
        if self._beyond:
            ours = {id for id in down if self._is_ours(upgrade, id)} | set(healthy)
            self.alone += 1
            self.alone_ours += len(ours) > allowed

    def _is_ours(self, upgrade: Rollout, id: str) -> bool:
        """Say whether the upgrade took an instance and has not brought it back to health."""
        part = upgrade.parts.get(id)
        return part is not None and part.state not in (PENDING, SKIPPED, GOOD)

    def published(self, number: int) -> None:
        """Check that entry `number` of the log may be published now."""
        if number > self._published:
            raise Violation(sentence_of(self.published_gapless), f"{number} > {self._published}.")
        self._published = max(self._published, number + 1)

    def published_gapless(self) -> None:
        """Events are appended to the log, and published, in order and without gaps."""

    # --- what physically happens ------------------------------------------------------------------

    def about_to_stop(self, machine: Machine, why: str) -> None:
        """Never more instances are really down because of an upgrade than the policy allowed when
        its last batch began."""
        if why != "upgrade" or self.site is None:
            return
        members = {instance.id for instance in self.ledger.members()}
        down = 1 + sum(
            other.down_for == "upgrade" and not other.believed and other.id in members
            for other in self.site.machines.values()
            if other is not machine
        )
        total = len(members)
        if not self._beyond:
            self.peak = max(self.peak, Peak(down, self._allowed, total))
        if down > self._allowed:
            detail = f"{down} of {total} are down: {self._allowed} may be."
            raise Violation(sentence_of(self.about_to_stop), detail)

    def swapped(self, machine: Machine) -> None:
        """No instance gets two OS disks for one attempt."""
        if machine.swaps[machine.attempt] > 1:
            detail = f"Instance {machine.id} got {machine.swaps[machine.attempt]}."
            raise Violation(sentence_of(self.swapped), detail)

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
        believed = (instance.phase.value, instance.attempt, instance.is_healthy, instance.version)
        told = (known.phase, known.attempt, known.is_healthy, known.version)
        if believed != told:
            raise Violation(
                sentence_of(the_set_believes_what_it_was_told),
                f"Instance {id} is {believed}, and was told to be {told}.",
            )


def every_decided_event_changes_the_state(step: Transaction) -> None:
    """Every decided event changes the state, and all of them together make the state that is
    saved."""
    state = step.folded
    for event in step.decided:
        after = evolve(state, [event], step.now)
        if after is state:
            raise Violation(
                sentence_of(every_decided_event_changes_the_state), f"{event!r} does not."
            )
        state = after
    if state != step.settled:
        raise Violation(
            sentence_of(every_decided_event_changes_the_state), "They make another one."
        )
