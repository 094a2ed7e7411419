"""The probers: leases, verdicts, and the metric gate's answers."""

from collections.abc import Callable
from dataclasses import dataclass

from rollcall_contracts import events as e
from rollcall_contracts.model import Health, MetricOutcome

from rollcall_simulator.agenda import Agenda
from rollcall_simulator.faults import Chaos, Fault
from rollcall_simulator.site import Machine, Site


@dataclass(slots=True)
class Watch:
    """One instance under a lease."""

    target: e.ProbeTarget
    until: float
    pause: float  # seconds from a change to its verdict
    said: bool | None = None  # whether the last verdict under this lease was healthy


class Probers:
    """Every prober; a lease goes to another one when its prober dies."""

    def __init__(
        self, *, agenda: Agenda, chaos: Chaos, site: Site, report: Callable[[e.Event], None]
    ) -> None:
        self._agenda = agenda
        self._chaos = chaos
        self._site = site
        self._report = report
        self._watches: dict[str, Watch] = {}
        self.wishes: dict[str, tuple[int | None, bool]] = {}  # by instance: phase, skip

    def receive(self, event: e.ProbeRequested) -> None:
        """Take a lease for each target that no newer one has."""
        until = self._agenda.at(event.until)
        pause = event.probe.interval * event.probe.number_of_probes
        for target in event.targets:
            held = self._watches.get(target.instance_id)
            if held is not None and held.target.lease >= target.lease:
                continue
            watch = Watch(target=target, until=until, pause=pause)
            self._watch(watch, 0.3 if event.fast else pause)
            if self._chaos.strikes(Fault.PROBER):
                self._lose(watch)

    def _watch(self, watch: Watch, soon: float) -> None:
        self._watches[watch.target.instance_id] = watch
        delay = soon * self._chaos.random.uniform(0.1, 1)
        self._agenda.after(delay, lambda: self._judge(watch))

    def _lose(self, watch: Watch) -> None:
        """Let the prober die, and another begin the same lease anew."""
        stream = self._chaos.stream(Fault.PROBER)
        dies = stream.uniform(0, max(1.0, watch.until - self._agenda.seconds))
        again = dies + stream.uniform(1, 30)
        id, target = watch.target.instance_id, watch.target

        def die() -> None:
            watch.until = 0.0

        def begin_again() -> None:
            if self._watches.get(id) is watch:
                until = self._agenda.seconds + 600
                self._watch(Watch(target=target, until=until, pause=watch.pause), watch.pause)

        self._agenda.after(dies, die)
        self._agenda.after(again, begin_again)

    def changed(self, machine: Machine) -> None:
        """Notice a change of an instance's health, after as many probes as it takes."""
        watch = self._watches.get(machine.id)
        if watch is not None and self._agenda.seconds < watch.until:
            delay = watch.pause * self._chaos.random.uniform(0.5, 1)
            self._agenda.after(delay, lambda: self._judge(watch))

    def _judge(self, watch: Watch) -> None:
        id = watch.target.instance_id
        if self._watches.get(id) is not watch or self._agenda.seconds >= watch.until:
            return
        machine = self._site.machines.get(id)
        healthy = machine is not None and machine.is_healthy
        if machine is not None and not healthy and self._chaos.strikes(Fault.LIE):
            healthy = machine.believed = True
        if watch.said is healthy:
            return
        watch.said = healthy
        phase, skip = self.wishes.get(id, (None, False))
        said = {
            "scale_set": self._site.scale_set,
            "instance_id": id,
            "attempt": watch.target.attempt,
            "lease": watch.target.lease,
            "phase_ordering_number": phase,
            "skip_upgrade": skip,
        }
        if healthy:
            self._report(e.InstanceHealthy.model_validate(said))
        else:
            unknown = machine is None or not machine.running
            health = Health.UNKNOWN if unknown else Health.UNHEALTHY
            self._report(e.InstanceUnhealthy.model_validate({**said, "health": health}))

    def ask_gate(self, event: e.MetricQueryRequested) -> None:
        """Ask the metric gate's server once."""
        outcome, value = MetricOutcome.SUCCESS, 0.001
        if self._chaos.strikes(Fault.METRIC):
            bad = (*MetricOutcome, None)
            chosen = self._chaos.stream(Fault.METRIC).choice(bad)
            if chosen is None:
                return  # nobody answers
            outcome, value = chosen, 0.5
        report = e.MetricQueried(
            scale_set=event.scale_set,
            upgrade_id=event.upgrade_id,
            check=event.check,
            outcome=outcome,
            value=value,
            reason=f"the answer was {value}",
        )
        self._agenda.after(self._chaos.random.uniform(0.05, 2), lambda: self._report(report))
