"""The hosts: what is physically there, and the agents that change it. This is the ground truth.

An agent follows its journal as the real one does: orders of older attempts are stale, the same one
asked again is answered again, a newer one ends the work on the older, and the disk that was never
confirmed does not become the one to go back to.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode, Power, PowerAction

from rollcall_simulator.agenda import Agenda
from rollcall_simulator.faults import Chaos, Fault

CREATE, UPGRADE, RESTORE, DELETE = "create", "upgrade", "restore", "delete"
START, STOP, RESTART = "start", "stop", "restart"
POWER = {
    PowerAction.START: START,
    PowerAction.POWER_OFF: STOP,
    PowerAction.RESTART: RESTART,
}

# What an operation has done: nothing yet, stopped the instance, started it, said so.
BEGUN, STOPPED, STARTED, DONE = range(4)


@dataclass(frozen=True, slots=True)
class Disk:
    """One OS disk; no two have the same number."""

    number: int
    version: str
    generation: int


@dataclass(slots=True)
class Machine:
    """One instance as it is, with its page of the agent's journal."""

    id: str
    host: str
    data: int  # number of its data disks' content
    probed: bool = True  # else running is all that is known of it
    disk: Disk | None = None
    previous: Disk | None = None
    running: bool = False
    ready: bool = False  # its application has booted
    ill: bool = False  # it works no more, for a while
    sick: bool = False  # it never works on this disk
    down_for: str = ""  # why it is not healthy; empty: it is
    believed: bool = False  # a prober lied about it
    # The journal.
    attempt: int = 0
    operation: str = ""
    target: Disk | None = None
    step: int = DONE
    report: e.Event | None = None
    swaps: dict[int, int] = field(default_factory=dict)  # by attempt
    power_told: bool = True
    turn: int = 0  # counts up: what was planned for an earlier turn does not happen

    @property
    def is_healthy(self) -> bool:
        """Say whether its application works now."""
        works = self.ready and not self.ill and not self.sick
        return self.running and (works or not self.probed)


class Watcher(Protocol):
    """Who is told of what physically happens."""

    def about_to_stop(self, machine: Machine, why: str) -> None:
        """Tell that an operation is about to stop an instance that serves."""

    def swapped(self, machine: Machine) -> None:
        """Tell that another OS disk is in place."""

    def dropped(self, machine: Machine) -> None:
        """Tell that the previous OS disk is about to go."""


@dataclass(slots=True, kw_only=True)
class Pace:
    """How long things take, usually; seconds."""

    work: float
    boot: float
    late: float  # longer than any time limit


class Site:
    """All hosts with their agents and instances."""

    def __init__(
        self,
        *,
        agenda: Agenda,
        chaos: Chaos,
        watcher: Watcher,
        report: Callable[[e.Event], None],
        changed: Callable[[Machine], None],
        tell: Callable[[str], None],
        hosts: Iterable[str],
        pace: Pace,
        scale_set: str,
        bad_version: str,
        probed: bool,
    ) -> None:
        self.machines: dict[str, Machine] = {}
        self.dead: dict[str, float] = {}  # by host: since when
        self._buried: dict[tuple[str, str], int] = {}  # by host and id: attempt of the deletion
        self._agenda = agenda
        self._chaos = chaos
        self._watcher = watcher
        self._report = report
        self._changed = changed
        self._tell = tell
        self.hosts = tuple(hosts)
        self._waiting: dict[str, list[e.Event]] = {host: [] for host in self.hosts}
        self._down_agents: set[str] = set()
        self._orders: dict[str, e.HostRequest] = {}  # by instance: the last one taken up
        self._pace = pace
        self.scale_set = scale_set
        self._bad_version = bad_version
        self._sick_disks: set[int] = set()
        self.probed = probed
        self._disks = 0

    # --- what is there at the beginning -----------------------------------------------------------

    def install(self, id: str, host: str, version: str, *, ill: bool) -> None:
        """Put an instance there that has been there before."""
        machine = self._new(id, host)
        machine.disk = Disk(self._number(), version, 1)
        machine.attempt, machine.operation = 1, CREATE
        machine.running = machine.ready = True
        machine.ill = ill
        machine.down_for = "" if machine.is_healthy else "illness"

    def _new(self, id: str, host: str) -> Machine:
        machine = Machine(id=id, host=host, data=self._number(), probed=self.probed)
        self.machines[id] = machine
        return machine

    def _number(self) -> int:
        self._disks += 1
        return self._disks

    # --- requests ---------------------------------------------------------------------------------

    def receive(self, event: e.Event) -> None:
        """Take a request from the broker; a host whose agent is away gets it later."""
        if not isinstance(event, e.HostRequest | e.ImageFetchRequested):
            raise TypeError(f"an agent does not take {type(event).__name__}")
        if event.host in self.dead or event.host in self._down_agents:
            self._waiting[event.host].append(event)
        elif isinstance(event, e.ImageFetchRequested):
            self._fetch(event)
        else:
            for order in event.instances:
                self._take(event, order)

    def _fetch(self, event: e.ImageFetchRequested) -> None:
        said = {
            "scale_set": event.scale_set,
            "host": event.host,
            "upgrade_id": event.upgrade_id,
        }
        delay = self._chaos.random.uniform(0.2, 10)
        if self._chaos.strikes(Fault.SLOW):
            delay *= 20
        if self._chaos.strikes(Fault.FETCH):
            error = Failure(code=FailureCode.IMAGE_UNAVAILABLE, message="the file answered 404")
            self._agenda.after(delay, lambda: self._report(e.ImageFetchFailed(**said, error=error)))
        else:
            self._agenda.after(delay, lambda: self._report(e.ImageFetched(**said)))

    def _take(self, event: e.HostRequest, order: e.InstanceOrder) -> None:
        machine = self.machines.get(order.instance_id)
        if isinstance(event, e.InstancesCommitRequested):
            self._commit(machine, order.attempt)
            return
        operation = _operation(event)
        if machine is None or machine.host != event.host:
            if operation == DELETE:
                self._say_deleted(event, order)
                return
            if operation != CREATE:
                self._refuse(event, order, "this host holds no such instance")
                return
            if order.attempt <= self._buried.get((event.host, order.instance_id), 0):
                return  # delivered once more after its deletion, which agents remember
            machine = Machine(
                id=order.instance_id, host=event.host, data=self._number(), probed=self.probed
            )
            self.machines[order.instance_id] = machine
        if order.attempt < machine.attempt:
            return  # stale
        if order.attempt == machine.attempt and operation == machine.operation:
            if machine.report is not None and machine.step == DONE:
                self._report(machine.report)  # asked again: answered again
            return
        self._begin(machine, event, order, operation)

    def _commit(self, machine: Machine | None, attempt: int) -> None:
        if machine is None or attempt < machine.attempt:
            return
        machine.attempt = attempt
        if machine.previous is not None:
            self._watcher.dropped(machine)
            machine.previous = None

    def _begin(
        self, machine: Machine, event: e.HostRequest, order: e.InstanceOrder, operation: str
    ) -> None:
        unfinished = machine.operation == UPGRADE and machine.disk != machine.target
        restored = machine.operation in (RESTORE, START, STOP, RESTART)
        target: Disk | None = None
        if isinstance(event, e.InstancesCreateRequested | e.InstancesUpgradeRequested):
            generation = event.provisioning.generation
            target = Disk(self._number(), event.image.version, generation)
        elif operation in (START, RESTART):
            if machine.disk is None:
                self._refuse(event, order, "there is no OS disk to start from")
                return
            target = machine.disk
        elif operation == RESTORE:
            if machine.previous is not None:
                target = machine.previous
            elif machine.disk is not None and (unfinished or restored):
                target = machine.disk
            else:
                self._refuse(event, order, "there is no previous OS disk to put back")
                return
        machine.attempt, machine.operation, machine.target = order.attempt, operation, target
        machine.step, machine.report = BEGUN, None
        self._orders[machine.id] = event
        self._go_on(machine)

    # --- the work ---------------------------------------------------------------------------------

    def _go_on(self, machine: Machine) -> None:
        """Plan the next step of an operation, and the rest from there."""
        machine.turn += 1
        chaos, turn = self._chaos, machine.turn
        took = self._pace.work * chaos.random.uniform(0.5, 1.5)
        if chaos.strikes(Fault.SLOW):
            took *= chaos.stream(Fault.SLOW).uniform(3, 8)
        if chaos.strikes(Fault.LATE):
            took += self._pace.late * chaos.stream(Fault.LATE).uniform(0.3, 1.3)
        event = self._orders[machine.id]
        drained = e.InstancesUpgradeRequested | e.InstancesDeleteRequested
        if isinstance(event, drained | e.InstancesPowerRequested):
            drain = event.drain
            took += chaos.random.uniform(0, drain.deadline) if drain is not None else 0
        if chaos.strikes(Fault.AGENT):
            host = machine.host
            killed = chaos.stream(Fault.AGENT).uniform(0, 1.2) * took
            self._agenda.after(killed, lambda: self.kill_agent(host))
        first = 0.5 if machine.operation in (CREATE, UPGRADE) else 0.1
        if machine.step == BEGUN:
            self._plan(took * first, machine, turn, self._stop)
        if machine.step <= STOPPED:
            self._plan(took * 0.7, machine, turn, self._start)
        self._plan(took, machine, turn, self._finish)

    def _plan(
        self, delay: float, machine: Machine, turn: int, step: Callable[[Machine], None]
    ) -> None:
        def happen() -> None:
            if machine.turn == turn and machine.step != DONE:
                step(machine)

        self._agenda.after(delay, happen)

    def _stop(self, machine: Machine) -> None:
        if machine.step != BEGUN:
            return
        machine.step = STOPPED
        if machine.running and machine.operation != START:
            why = _cause(self._orders[machine.id])
            if not machine.down_for:
                self._watcher.about_to_stop(machine, why)
            machine.down_for = machine.down_for or why
            machine.running = machine.ready = False
            self._changed(machine)

    def _start(self, machine: Machine) -> None:
        if machine.step != STOPPED or machine.operation in (DELETE, STOP):
            return
        if machine.running:  # it was to be started, and runs
            machine.step = STARTED
            return
        target, chaos = machine.target, self._chaos
        if target is None:
            raise ValueError(f"{machine.operation} of {machine.id} names no OS disk")
        swapped = machine.disk != target
        if swapped:
            self._swap(machine, target)
        machine.step = STARTED
        new = swapped and machine.operation in (CREATE, UPGRADE)
        if new and target.version == self._bad_version and chaos.strikes(Fault.SICK):
            self._sick_disks.add(target.number)
        machine.sick = target.number in self._sick_disks
        if new and target.version == self._bad_version and chaos.strikes(Fault.BROKEN):
            self._fail(machine, FailureCode.START, "init exited with 1")
            return
        self._run(machine)

    def _swap(self, machine: Machine, target: Disk) -> None:
        if machine.operation == UPGRADE:
            machine.previous = machine.previous or machine.disk
        else:
            machine.previous = None
        machine.disk = target
        machine.swaps[machine.attempt] = machine.swaps.get(machine.attempt, 0) + 1
        self._watcher.swapped(machine)

    def _run(self, machine: Machine) -> None:
        """Start the instance; its application is ready some time later."""
        machine.running, machine.ready = True, False
        turn = machine.turn

        def ready() -> None:
            if machine.turn == turn and machine.running:
                machine.ready = True
                self.settle(machine)

        self._agenda.after(self._pace.boot * self._chaos.random.uniform(0.5, 1.5), ready)
        if not self.probed:
            self.settle(machine)

    def settle(self, machine: Machine) -> None:
        """Note that an instance may be healthy again, and tell."""
        if machine.is_healthy:
            machine.down_for = ""
            machine.believed = False
        self._changed(machine)

    def _finish(self, machine: Machine) -> None:
        if machine.operation == DELETE:
            event = self._orders.pop(machine.id)
            machine.step = DONE
            machine.turn += 1
            del self.machines[machine.id]
            order = e.InstanceOrder(instance_id=machine.id, attempt=machine.attempt)
            self._say_deleted(event, order)
            return
        if machine.operation in (START, STOP, RESTART):
            self._finish_power(machine)
            return
        disk, new = machine.disk, machine.operation in (CREATE, UPGRADE)
        if disk is None:
            raise ValueError(f"{machine.operation} of {machine.id} ended without an OS disk")
        if new and disk.version == self._bad_version:
            if self._chaos.strikes(Fault.EXTENSION):
                self._fail(machine, FailureCode.EXTENSION, "the script exited with 3")
                return
            if self._chaos.strikes(Fault.CREDENTIALS):
                self._fail(machine, FailureCode.CREDENTIALS, "the script's address answered 403")
                return
        event = self._orders[machine.id]
        classes: dict[str, type[e.InstanceCreated | e.InstanceUpgraded | e.InstanceRestored]] = {
            CREATE: e.InstanceCreated,
            UPGRADE: e.InstanceUpgraded,
            RESTORE: e.InstanceRestored,
        }
        cls = classes[machine.operation]
        self._answer(
            machine,
            cls(
                scale_set=event.scale_set,
                instance_id=machine.id,
                attempt=machine.attempt,
                version=disk.version,
                generation=disk.generation,
                address="127.0.0.1",
                port=80,
            ),
        )

    def _finish_power(self, machine: Machine) -> None:
        self._answer(
            machine,
            e.InstancePowered(
                scale_set=self.scale_set,
                instance_id=machine.id,
                attempt=machine.attempt,
                power=Power.RUNNING if machine.running else Power.STOPPED,
                address="127.0.0.1",
                port=80,
            ),
        )

    def _fail(self, machine: Machine, code: FailureCode, message: str) -> None:
        self._tell(f"{machine.id}: {message}")
        self._answer(
            machine,
            e.InstanceFailed(
                scale_set=self.scale_set,
                instance_id=machine.id,
                attempt=machine.attempt,
                error=Failure(code=code, message=message, target=machine.id),
                version=machine.disk.version if machine.disk else None,
            ),
        )

    def _answer(self, machine: Machine, report: e.Event) -> None:
        machine.step, machine.report, machine.power_told = DONE, report, machine.running
        self._report(report)

    def _refuse(self, event: e.HostRequest, order: e.InstanceOrder, why: str) -> None:
        machine = self.machines.get(order.instance_id)
        self._report(
            e.InstanceFailed(
                scale_set=event.scale_set,
                instance_id=order.instance_id,
                attempt=order.attempt,
                error=Failure(code=FailureCode.DRIVER, message=why, target=order.instance_id),
                version=machine.disk.version if machine and machine.disk else None,
            )
        )

    def _say_deleted(self, event: e.HostRequest, order: e.InstanceOrder) -> None:
        self._buried[event.host, order.instance_id] = order.attempt
        self._report(
            e.InstanceDeleted(
                scale_set=event.scale_set,
                instance_id=order.instance_id,
                attempt=order.attempt,
            )
        )

    # --- troubles ---------------------------------------------------------------------------------

    def kill_agent(self, host: str) -> None:
        """Kill an agent; its instances go on, and it comes back soon."""
        if host in self.dead or host in self._down_agents:
            return
        self._tell(f"the agent of {host} is killed")
        self._down_agents.add(host)
        self._interrupt(host)
        back = self._chaos.stream(Fault.AGENT).uniform(0.5, 30)
        self._agenda.after(back, lambda: self._agent_is_back(host))

    def _interrupt(self, host: str) -> None:
        for machine in self.machines.values():
            if machine.host == host and machine.step != DONE:
                booting = machine.running and not machine.ready and not machine.sick
                machine.turn += 1
                if booting:  # the instance boots on without its agent
                    self._boot_on(machine)

    def _boot_on(self, machine: Machine) -> None:
        disk = machine.disk

        def ready() -> None:
            if machine.running and machine.disk is disk and not machine.ready:
                machine.ready = True
                self.settle(machine)

        self._agenda.after(self._pace.boot, ready)

    def _agent_is_back(self, host: str) -> None:
        self._down_agents.discard(host)
        if host in self.dead:
            return
        for machine in [m for m in self.machines.values() if m.host == host]:
            if machine.step != DONE:
                if machine.step == STARTED and not machine.running:
                    self._run(machine)  # the host was rebooted meanwhile
                self._go_on_from(machine)
            elif not machine.running and machine.disk is not None and _should_run(machine):
                self._run(machine)
        waiting, self._waiting[host] = self._waiting[host], []
        for event in waiting:
            self.receive(event)

    def _go_on_from(self, machine: Machine) -> None:
        boots = machine.running and not machine.ready and not machine.sick
        self._go_on(machine)
        if boots:
            self._boot_on(machine)

    def kill_host(self, host: str) -> None:
        """Let a host die with all that runs on it."""
        if host in self.dead:
            return
        self._tell(f"{host} dies")
        self.dead[host] = self._agenda.seconds
        self._interrupt(host)
        for machine in list(self.machines.values()):
            if machine.host == host and machine.running:
                machine.turn += 1
                machine.running = machine.ready = False
                machine.down_for = machine.down_for or "death of its host"
                self._changed(machine)

    def revive_host(self, host: str) -> None:
        """Bring a host back: its agent starts what should run, and goes on with its orders."""
        if self.dead.pop(host, inf) is not inf:
            self._tell(f"{host} is back")
            self._agent_is_back(host)

    def stop_by_itself(self, machine: Machine) -> None:
        """Let an instance stop without having been asked to; its agent tells."""
        if not machine.running or machine.host in self.dead or machine.step != DONE:
            return
        machine.turn += 1
        machine.running = machine.ready = False
        machine.down_for = machine.down_for or "outage"
        self._changed(machine)
        self._tell_power(machine)

    def start_by_itself(self, machine: Machine) -> None:
        """Let somebody start an instance that had stopped."""
        if machine.running or machine.host in self.dead or machine.step != DONE:
            return
        if machine.disk is None or not _should_run(machine):
            return
        machine.turn += 1
        self._run(machine)
        self._tell_power(machine)

    def _tell_power(self, machine: Machine) -> None:
        if machine.running == machine.power_told:
            return
        machine.power_told = machine.running
        self._report(
            e.InstancePowerChanged(
                scale_set=self.scale_set,
                instance_id=machine.id,
                attempt=machine.attempt,
                power=Power.RUNNING if machine.running else Power.STOPPED,
            )
        )

    def make_ill(self, machine: Machine, *, ill: bool) -> None:
        """Let an application fail, or work again."""
        if machine.ill == ill:
            return
        machine.ill = ill
        if ill:
            if not machine.is_healthy:
                machine.down_for = machine.down_for or "illness"
            self._changed(machine)
        else:
            self.settle(machine)


def _operation(event: e.HostRequest) -> str:
    match event:
        case e.InstancesCreateRequested():
            return CREATE
        case e.InstancesUpgradeRequested():
            return UPGRADE
        case e.InstancesRestoreRequested():
            return RESTORE
        case e.InstancesPowerRequested():
            return POWER[event.change]
        case e.InstancesDeleteRequested():
            return DELETE
    raise TypeError(f"an agent does not take {type(event).__name__}")


def _should_run(machine: Machine) -> bool:
    return machine.operation not in (DELETE, STOP) and not (
        isinstance(machine.report, e.InstanceFailed)
        and machine.report.error.code == FailureCode.START
    )


def _cause(event: e.HostRequest) -> str:
    """Return why an order takes an instance down: the upgrade, or what else was asked for."""
    match event:
        case e.InstancesUpgradeRequested(upgrade_id=str()) | e.InstancesRestoreRequested():
            return "upgrade"
        case e.InstancesUpgradeRequested():
            return "deployment"
        case e.InstancesCreateRequested():
            return "creation"
        case e.InstancesPowerRequested():
            return "a person"
    return "deletion"
