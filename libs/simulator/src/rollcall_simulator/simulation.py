"""One simulation: a scenario is run to its end, and every promise is checked on the way."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from rollcall_contracts import events as e
from rollcall_contracts.model import Health
from rollcall_rollout import Fleet, Instance, InstancePhase, Wait, WaitCode, waiting

from rollcall_simulator.agenda import START, Agenda
from rollcall_simulator.checker import Checker, Peak
from rollcall_simulator.control import REPORTS, RULES, Broker, Control, Rules, Transaction
from rollcall_simulator.faults import Chaos, Fault
from rollcall_simulator.invariants import Violation, sentence_of
from rollcall_simulator.ledger import Known
from rollcall_simulator.people import People
from rollcall_simulator.probers import Probers
from rollcall_simulator.scenario import NEW, OLD, OTHER, SET, Mood, Options, Scenario, draw, image
from rollcall_simulator.site import Machine, Pace, Site
from rollcall_simulator.store import Store

PATIENCE = 6 * 3600.0  # seconds after the last fault in which an upgrade must come to its end
HOST_SILENT = 30.0  # seconds until a host whose agent is away is given no new instances
QUIET = 130.0  # seconds without anything decided, after which all is over

Tell = Callable[[float, str | e.Event], None]

# What a set may wait for as long as nobody does anything.
_PEOPLE = frozenset(
    {
        WaitCode.PAUSED,
        WaitCode.VERSION_HELD,
        WaitCode.APPROVAL,
        WaitCode.OUTSIDE_WINDOWS,
        WaitCode.METRIC_GATE,
        WaitCode.NO_CANDIDATE,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one scenario."""

    seed: int
    mood: Mood
    struck: Mapping[Fault, int]
    endings: tuple[str, ...]  # of each upgrade, and what the set waits for at last
    upgrades: int
    transactions: int
    peak: Peak
    alone: int
    alone_ours: int
    versions: tuple[str, ...]  # of the instances at last
    took: float  # virtual seconds
    violation: tuple[str, str] | None = None  # the promise, and what broke it


def simulate(
    seed: int, options: Options | None = None, *, rules: Rules = RULES, tell: Tell | None = None
) -> Outcome:
    """Run the scenario of a seed; the same arguments give the same outcome and the same story."""
    scenario = draw(seed, options)
    outcome = Simulation(scenario, rules, tell).run()
    if scenario.mood is not Mood.TWIN or outcome.violation is not None:
        return outcome
    plain = Simulation(replace(scenario, chances={}), rules, None).run()
    same = (plain.endings, plain.versions) == (outcome.endings, outcome.versions)
    if same and plain.violation is None:
        return outcome
    detail = (
        f"With them it is {_count(outcome)}, without {_count(plain)}."
        if plain.violation is None
        else f"Without them: {plain.violation[0]} {plain.violation[1]}"
    )
    return replace(outcome, violation=(sentence_of(twin), detail))


def twin() -> None:
    """Messages that come twice, or in another order, do not change how a rollout ends."""


def _count(outcome: Outcome) -> str:
    versions = ", ".join(f"{n} x {v}" for v, n in sorted(Counter(outcome.versions).items()))
    return f"{'; '.join(outcome.endings)} with {versions}"


class Simulation:
    """All parts of one run."""

    def __init__(self, scenario: Scenario, rules: Rules, tell: Tell | None) -> None:
        self._scenario = scenario
        self._rules = rules
        self._tell = tell
        self.agenda = Agenda(START)
        self.chaos = Chaos(scenario.seed, scenario.chances)
        self.checker = Checker(scenario.spec)
        self.store = Store()
        self._broker = Broker(self.agenda, self.chaos, in_order=scenario.mood is Mood.TWIN)
        self._last_decision = 0.0
        self._look_at = 0.0  # when to look whether all is over
        self._to_come = len(scenario.happenings) + 1
        policy = scenario.spec.policy
        self.site = Site(
            agenda=self.agenda,
            chaos=self.chaos,
            watcher=self.checker,
            report=self._report,
            changed=self._changed,
            tell=self._told,
            hosts=scenario.hosts,
            pace=Pace(work=scenario.work, boot=scenario.boot, late=policy.provisioning_timeout),
            scale_set=SET,
            bad_version=NEW,
            probed=scenario.spec.probe is not None,
        )
        self.checker.site = self.site
        self.probers = Probers(
            agenda=self.agenda, chaos=self.chaos, site=self.site, report=self._report
        )
        self.control = Control(
            agenda=self.agenda,
            chaos=self.chaos,
            rules=rules,
            store=self.store,
            auditor=self,
            publish=self._publish,
            surroundings=self._surroundings,
        )
        self.people = People(
            agenda=self.agenda,
            chaos=self.chaos,
            site=self.site,
            probers=self.probers,
            store=self.store,
            spec=scenario.spec,
            ask=self._ask,
        )

    # --- the run ----------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run to the end, or to the first broken promise."""
        violation = None
        try:
            self._begin()
            self._until(self._scenario.active)
            self._calm_down()
            self._until_quiet()
            self._check_the_end()
        except Violation as broken:
            violation = (broken.sentence, broken.detail)
        except Exception as error:  # the rules raise: that, too, is a broken promise
            violation = (sentence_of(no_error), f"{type(error).__name__}: {error}")
        return self._outcome(violation)

    def _begin(self) -> None:
        scenario = self._scenario
        if scenario.room:
            self.chaos.struck[Fault.ROOM] += 1
        self.store.images[OLD] = image(OLD, START - timedelta(days=30))
        self.store.images[OTHER] = image(OTHER, START - timedelta(days=30))
        if scenario.from_nothing:
            self._ask(e.ScaleSetChanged(scale_set=SET, spec=scenario.spec))
        else:
            self._install()
        for id in range(scenario.spec.capacity):
            if self.chaos.strikes(Fault.WISH):
                stream = self.chaos.stream(Fault.WISH)
                wish = stream.choice(((0, False), (1, False), (2, False), (None, True)))
                self.probers.wishes[str(id)] = wish
        self._plan(scenario.published_at, lambda: self.people.publish(NEW))
        for happening in scenario.happenings:
            self._plan(happening.at, partial(self.people.happen, happening))

    def _plan(self, at: float, do: Callable[[], None]) -> None:
        def happen() -> None:
            self._to_come -= 1
            do()

        self.agenda.after(at, happen)

    def _install(self) -> None:
        """Put a set there that has been there before, healthy as far as anyone knows."""
        scenario, spec = self._scenario, self._scenario.spec
        instances = {}
        for number in range(spec.capacity):
            id, host = str(number), scenario.hosts[number % len(scenario.hosts)]
            zone = spec.zones[number % len(spec.zones)] if spec.zones else None
            self.site.install(id, host, OLD, ill=number < scenario.ill_at_start)
            instances[id] = Instance(
                id=id,
                host=host,
                attempt=1,
                phase=InstancePhase.READY,
                since=START - timedelta(days=1),
                created_at=START - timedelta(days=1),
                zone=zone,
                version=OLD,
                generation=1,
                address="127.0.0.1",
                port=80,
                health=Health.HEALTHY,
            )
            known = Known(id, host, zone or "", 1, "ready", first=False, version=OLD)
            known.health = Health.HEALTHY
            self.checker.ledger.instances[id] = known
            self.checker.ledger.ever.add(id)
        fleet = Fleet(spec=spec, instances=instances, next_id=spec.capacity)
        self.store.save(None, fleet)
        self.control.wake()

    def _until(self, seconds: float) -> None:
        """Go on until a time, or until nothing goes on any more and nothing is to come."""
        agenda = self.agenda
        while (due := agenda.next()) is not None and due <= seconds:
            agenda.step()
            if agenda.seconds > self._look_at and not self._to_come and self._is_quiet():
                return
        agenda.seconds = max(agenda.seconds, seconds)

    def _calm_down(self) -> None:
        """End the troubles: what remains is what the rules must come to an end with."""
        self._told("no more faults")
        stream = self.chaos.stream(Fault.DEAD)
        for host in list(self.site.dead):
            if stream.random() < 0.7:
                self.site.revive_host(host)
        self.chaos.calm()
        if self._scenario.tidy:
            self.people.tidy_up()

    def _until_quiet(self) -> None:
        """Go on until nothing was decided for a while, and nothing runs that will end by itself."""
        self._to_come = 0
        self._look_at = self.agenda.seconds + QUIET
        self._until(self.agenda.seconds + PATIENCE)

    def _is_quiet(self) -> bool:
        """Say whether nothing was decided for a while, and nothing is under way."""
        self._look_at = self.agenda.seconds + QUIET / 4
        if self.agenda.seconds < self._last_decision + QUIET:
            return False
        fleet = self.control.kept
        if fleet is None or self.store.buried:
            return True
        if any(instance.is_busy for instance in fleet.instances.values()):
            return False
        if self._rules.settle(fleet, self.agenda.now)[1]:
            return False  # its time has come this moment
        wait = waiting(fleet, self.agenda.now)
        if wait.until is not None and wait.until <= self.agenda.now + timedelta(hours=5):
            return False
        return fleet.upgrade is None or wait.code in _PEOPLE

    def _check_the_end(self) -> None:
        fleet, now = self._fleet(), self.agenda.now
        self.checker.at_the_end(fleet, now)
        if fleet is None or fleet.upgrade is None:
            return
        wait = waiting(self._rules.settle(fleet, now)[0], now)
        if self.agenda.seconds - self._last_decision < 3600 or self._is_excused(wait, fleet):
            return
        raise Violation(
            sentence_of(every_upgrade_ends), f"It waits for {wait.code}: {wait.message}"
        )

    def _is_excused(self, wait: Wait, fleet: Fleet) -> bool:
        """Say whether what the set says that it waits for is so, by the checker's account."""
        upgrade, spec = self.checker.ledger.upgrade, fleet.spec
        if upgrade is None:
            return False
        match wait.code:
            case WaitCode.PAUSED:
                return upgrade.paused
            case WaitCode.VERSION_HELD:
                return upgrade.image.version in self.checker.ledger.holds
            case WaitCode.APPROVAL:
                return upgrade.deferred
            case WaitCode.OUTSIDE_WINDOWS:
                return bool(spec.maintenance_windows)
            case WaitCode.METRIC_GATE:
                return upgrade.policy.metric_gate is not None
            case WaitCode.NO_CANDIDATE:
                return upgrade.forced or upgrade.deferred
        return False

    def _fleet(self) -> Fleet | None:
        """Return the set as it is stored, in its surroundings of now."""
        fleet = self.store.load()
        hosts, room = self._surroundings()
        return None if fleet is None else fleet.amended(hosts=hosts, room=room)

    # --- between the parts ------------------------------------------------------------------------

    def _told(self, text: str) -> None:
        if self._tell is not None:
            self._tell(self.agenda.seconds, text)

    def _report(self, event: e.Event) -> None:
        """Carry an agent's or a prober's report to the orchestrator."""
        self._broker.carry(event, self.control.deliver)

    def _ask(self, event: e.Event) -> None:
        """Carry what a person, the feed or another set says to the orchestrator."""
        if self._tell is not None:
            self._tell(self.agenda.seconds, event)
        self._broker.carry(event, self.control.deliver)

    def _changed(self, machine: Machine) -> None:
        self.checker.changed(machine)
        self.probers.changed(machine)

    def _publish(self, event: e.Event) -> None:
        match event:
            case e.HostRequest() | e.ImageFetchRequested():
                self._broker.carry(event, self.site.receive)
            case e.ProbeRequested():
                self._broker.carry(event, lambda ev: self.probers.receive(event))
            case e.MetricQueryRequested():
                self._broker.carry(event, lambda ev: self.probers.ask_gate(event))
            case e.ImageHeld():
                self._broker.carry(event, self.control.deliver)
            case e.LifecycleHookStarted():
                self._broker.carry(event, lambda ev: self.people.answer_hook(event))
            case e.UpgradeStarted() if event.deferred:
                self._broker.carry(event, lambda ev: self.people.approve(event))

    def _surroundings(self) -> tuple[tuple[str, ...], dict[str, int]]:
        """Return the hosts that answered lately, and the room of those that have a limit."""
        now = self.agenda.seconds
        dead = self.site.dead
        hosts = tuple(h for h in self._scenario.hosts if now - dead.get(h, now) <= HOST_SILENT)
        room = {}
        if self._scenario.room:
            used = Counter(instance.host for instance in self.store.instances.values())
            room = {h: max(0, n - used[h]) for h, n in self._scenario.room.items() if h in hosts}
        return hosts, room

    def committed(self, step: Transaction) -> None:
        """Look at a transaction: check it, and tell of it."""
        if any(not isinstance(ev, e.ProbeRequested) for ev in step.decided):
            self._last_decision = self.agenda.seconds
        if self._tell is not None:
            reports = (event for event in step.accepted if isinstance(event, REPORTS))
            for event in (*reports, *step.decided):
                self._tell(self.agenda.seconds, event)
        self.checker.committed(step)

    def published(self, number: int) -> None:
        """Check that this entry of the log may be published."""
        self.checker.published(number)

    # --- what came of it --------------------------------------------------------------------------

    def _outcome(self, violation: tuple[str, str] | None) -> Outcome:
        ended = self.checker.ledger.endings
        fleet = self._fleet()
        versions = sorted(i.version or "none" for i in fleet.instances.values()) if fleet else []
        endings = [_ending(event) for _, event in ended]
        if violation is None:
            endings += self._waits_for(fleet, bool(ended))
        return Outcome(
            seed=self._scenario.seed,
            mood=self._scenario.mood,
            struck=dict(self.chaos.struck),
            endings=tuple(endings),
            upgrades=len(ended) + (fleet is not None and fleet.upgrade is not None),
            transactions=self.control.transactions,
            peak=self.checker.peak,
            alone=self.checker.alone,
            alone_ours=self.checker.alone_ours,
            versions=tuple(versions),
            took=self.agenda.seconds,
            violation=violation,
        )

    def _waits_for(self, fleet: Fleet | None, any_ended: bool) -> list[str]:
        """Return what is waited for at last: by a running upgrade, or by one that never began."""
        if fleet is None or (fleet.upgrade is None and any_ended):
            return []
        wait = waiting(fleet, self.agenda.now)
        what = "Running, waits for" if fleet.upgrade is not None else "None started:"
        return [f"{what} {wait.code}"]


def _ending(event: e.Event) -> str:
    match event:
        case e.UpgradeCompleted():
            return "Completed"
        case e.UpgradeFaulted():
            return f"Faulted: {event.error.code}"
        case e.UpgradeCancelled():
            return "Cancelled"
    return type(event).__name__


def every_upgrade_ends() -> None:
    """Every upgrade comes to its end, or the set names what it waits for, and that is so."""


def no_error() -> None:
    """The rules never raise, and their decisions come to an end."""
