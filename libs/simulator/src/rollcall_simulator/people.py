"""People, other sets and the feed: what they do in the middle of a rollout."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    HookAction,
    Image,
    MaintenanceWindow,
    PowerAction,
    RollingPolicy,
    ScaleSetSpec,
)
from rollcall_rollout import InstancePhase

from rollcall_simulator.agenda import Agenda
from rollcall_simulator.faults import Chaos, Fault
from rollcall_simulator.probers import Probers
from rollcall_simulator.scenario import (
    LINE,
    NEW,
    NEWER,
    OTHER_LINE,
    OTHER_SET,
    SET,
    Happening,
    Mood,
    draw_policy,
    image,
)
from rollcall_simulator.site import Machine, Site
from rollcall_simulator.store import Store


class People:
    """Everybody outside of the control plane."""

    def __init__(
        self,
        *,
        agenda: Agenda,
        chaos: Chaos,
        site: Site,
        probers: Probers,
        store: Store,
        spec: ScaleSetSpec,
        ask: Callable[[e.Event], None],
    ) -> None:
        self._agenda = agenda
        self._chaos = chaos
        self._site = site
        self._probers = probers
        self._store = store
        self._ask = ask
        self.spec = spec  # the model as it was last written
        self._newest = 1
        self._held: dict[str, Image] = {}
        self._protected: dict[str, bool] = {}
        self._off: set[str] = set()
        self._number = 0  # of the last request of which each counts once

    def happen(self, happening: Happening) -> None:
        """Let one of the scenario's happenings come."""
        self._chaos.struck[happening.fault] += 1
        do = {
            Fault.DEAD: self._kill_host,
            Fault.OUTAGE: self._outage,
            Fault.MASS: self._mass_outage,
            Fault.FLAP: self._flap,
            Fault.SCALE: self._scale,
            Fault.MODEL: self._change_model,
            Fault.CANCEL: lambda _: self._ask(e.UpgradeCancelRequested(scale_set=SET)),
            Fault.PAUSE: self._pause,
            Fault.ROLLBACK: lambda _: self._ask(e.UpgradeRollbackRequested(scale_set=SET)),
            Fault.START: self._start,
            Fault.DEPLOY: self._deploy,
            Fault.REIMAGE: self._reimage,
            Fault.POWER: self._power,
            Fault.REMOVE: self._remove,
            Fault.PROTECT: self._protect,
            Fault.HOLD: self._hold,
            Fault.WITHDRAW: self._withdraw,
            Fault.NEWER: self._publish_newer,
            Fault.DELETE: self._delete,
        }[happening.fault]
        do(happening.chance)

    # --- the world --------------------------------------------------------------------------------

    def _machine(self, chance: float) -> Machine | None:
        machines = list(self._site.machines.values())
        return machines[int(chance * len(machines))] if machines else None

    def _kill_host(self, chance: float) -> None:
        hosts = self._site.hosts
        host = hosts[int(chance * len(hosts))]
        self._site.kill_host(host)
        stream = self._chaos.stream(Fault.DEAD)
        if stream.random() < 0.7:
            self._agenda.after(stream.uniform(5, 1800), lambda: self._site.revive_host(host))

    def _outage(self, chance: float) -> None:
        machine = self._machine(chance)
        if machine is None:
            return
        stream = self._chaos.stream(Fault.OUTAGE)
        lasts = stream.uniform(5, 900)
        if stream.random() < 0.5:
            self._site.stop_by_itself(machine)
            self._agenda.after(lasts, lambda: self._site.start_by_itself(machine))
        else:
            self._site.make_ill(machine, ill=True)
            self._agenda.after(lasts, lambda: self._site.make_ill(machine, ill=False))

    def _mass_outage(self, chance: float) -> None:
        stream = self._chaos.stream(Fault.MASS)
        lasts = stream.uniform(10, 600)
        for machine in list(self._site.machines.values()):
            if stream.random() < chance:
                self._site.make_ill(machine, ill=True)
                again = lasts * stream.uniform(0.8, 1.2)
                self._agenda.after(again, partial(self._site.make_ill, machine, ill=False))

    def _flap(self, chance: float) -> None:
        machine = self._machine(chance)
        if machine is None:
            return
        stream = self._chaos.stream(Fault.FLAP)
        when = 0.0
        for number in range(2 * stream.randint(2, 5)):
            when += stream.uniform(1, 40)
            ill = number % 2 == 0
            self._agenda.after(when, partial(self._site.make_ill, machine, ill=ill))

    # --- the model --------------------------------------------------------------------------------

    def _write(self, **fields: object) -> None:
        update = {**fields, "revision": self.spec.revision + 1}
        self.spec = self.spec.model_copy(update=update)
        self._ask(e.ScaleSetChanged(scale_set=SET, spec=self.spec))

    def _scale(self, chance: float) -> None:
        now = self.spec.capacity
        wanted = round(now * (0.4 + 1.2 * chance)) + (chance > 0.5)
        self._write(capacity=min(wanted, max(now, 60)))

    def _change_model(self, chance: float) -> None:
        stream, spec = self._chaos.stream(Fault.MODEL), self.spec
        change = int(chance * 9)
        if change == 0:
            self._write(automatic_os_upgrade=not spec.automatic_os_upgrade)
        elif change == 1:
            pinned = spec.image.version != "latest"
            version = "latest" if pinned else stream.choice((NEW, NEWER))
            self._write(image=spec.image.model_copy(update={"version": version}))
        elif change == 2 and spec.probe is not None:
            path = f"/health/{spec.revision}"
            self._write(probe=spec.probe.model_copy(update={"request_path": path}))
        elif change == 3:
            generation = spec.provisioning.generation + 1
            self._write(
                provisioning=spec.provisioning.model_copy(update={"generation": generation})
            )
        elif change == 4:
            self._write(maintenance_windows=())
        elif change == 5:
            self._write(lifecycle_hooks=())
        elif change == 6:
            self._write(image=OTHER_LINE if spec.image.stream == LINE.stream else LINE)
        else:
            self._write(policy=self._policy())

    def _policy(self) -> RollingPolicy:
        policy = draw_policy(self._chaos.stream(Fault.MODEL), Mood.ORDINARY)
        if self.spec.provisioning.data_disks and policy.max_surge:
            policy = policy.model_copy(update={"max_surge": False})
        return policy

    def _delete(self, chance: float) -> None:
        self.spec = self.spec.model_copy(update={"revision": self.spec.revision + 1})
        self._ask(e.ScaleSetDeleted(scale_set=SET, revision=self.spec.revision))

    # --- people -----------------------------------------------------------------------------------

    def _pause(self, chance: float) -> None:
        self._ask(e.UpgradePauseRequested(scale_set=SET))
        if chance < 0.8:
            self._agenda.after(1500 * chance, self._resume)

    def _resume(self) -> None:
        self._ask(e.UpgradeResumeRequested(scale_set=SET))

    def _start(self, chance: float) -> None:
        self._ask(e.UpgradeStartRequested(scale_set=SET, override=chance < 0.5))

    def _deploy(self, chance: float) -> None:
        machine = self._machine(chance)
        ids = ("*",) if chance < 0.2 or machine is None else (machine.id,)
        self._ask(e.ModelDeployRequested(scale_set=SET, instance_ids=ids))

    def _all_or_one(self, chance: float) -> tuple[str, ...]:
        machine = self._machine(chance * 5 % 1)
        if chance < 0.3:
            return tuple(self._site.machines)
        return (machine.id,) if machine is not None else ()

    def _reimage(self, chance: float) -> None:
        ids = self._all_or_one(chance)
        self._number += 1
        self._ask(
            e.ModelDeployRequested(
                scale_set=SET, instance_ids=ids, reimage=True, number=self._number
            )
        )
        if chance > 0.9:
            self._agenda.after(
                600 * chance, lambda: self._ask(e.UpgradeCancelRequested(scale_set=SET))
            )

    def _power(self, chance: float) -> None:
        stream = self._chaos.stream(Fault.POWER)
        ids = self._all_or_one(chance)
        changes = (
            *(PowerAction.POWER_OFF, PowerAction.DEALLOCATE, PowerAction.POWER_OFF),
            *(PowerAction.RESTART, PowerAction.REDEPLOY, PowerAction.START),
        )
        change = changes[int(chance * 100) % len(changes)]
        self._change_power(ids, change)
        if change in (PowerAction.POWER_OFF, PowerAction.DEALLOCATE) and chance * 7 % 1 < 0.7:
            again = partial(self._change_power, ids, PowerAction.START)
            self._agenda.after(stream.uniform(1, 1500), again)

    def _change_power(self, ids: tuple[str, ...], change: PowerAction) -> None:
        self._number += 1
        off = change in (PowerAction.POWER_OFF, PowerAction.DEALLOCATE)
        self._off = self._off | set(ids) if off else self._off - set(ids)
        self._ask(
            e.PowerChangeRequested(
                scale_set=SET, instance_ids=ids, change=change, number=self._number
            )
        )

    def _remove(self, chance: float) -> None:
        """Delete an instance, as the API does: those that are not gone yet stay named."""
        there, leaving = self._store.instances, set(self.spec.leaving)
        free = [
            instance.id
            for instance in there.values()
            if instance.phase is not InstancePhase.DELETING
            and instance.replaces is None
            and instance.id not in leaving
        ]
        if not free or not self.spec.capacity:
            return
        chosen = sorted(free, key=int)[int(chance * len(free))]
        still = tuple(id for id in self.spec.leaving if id in there)
        self._write(capacity=self.spec.capacity - 1, leaving=(*still, chosen))

    def _protect(self, chance: float) -> None:
        machine = self._machine(chance)
        if machine is None:
            return
        on = not self._protected.get(machine.id, False)
        self._protected[machine.id] = on
        whole = chance < 0.7
        self._ask(
            e.InstanceProtectionChanged(
                scale_set=SET,
                instance_id=machine.id,
                protect_from_scale_in=on,
                protect_from_scale_set_actions=on and whole,
            )
        )

    def _hold(self, chance: float) -> None:
        held = self._store.images.get(NEW)
        if held is None:
            return
        self._held[held.version] = held
        self._ask(
            e.ImageHeld(
                image=held,
                by_set=OTHER_SET,
                upgrade_id="22222222-2222-2222-2222-222222222222",
                error=Failure(code="Faulted", message="it faulted there"),
            )
        )
        if chance < 0.7:
            self._agenda.after(1500 * chance, lambda: self._release(held))

    def _release(self, held: Image) -> None:
        self._ask(e.ImageReleased(image=held))

    def answer_hook(self, event: e.LifecycleHookStarted) -> None:
        """Answer a lifecycle hook, as somebody does."""
        stream = self._chaos.stream(Fault.HOOK)
        if not self._chaos.strikes(Fault.HOOK):
            self._answer_hook(event, HookAction.APPROVE, 1 + 30 * self._chaos.random.random())
            return
        match stream.randrange(4):
            case 0:
                self._answer_hook(event, HookAction.REJECT, stream.uniform(1, 100))
            case 1 if event.instance_ids:
                some = {id: stream.choice(list(HookAction)) for id in event.instance_ids}
                self._agenda.after(
                    stream.uniform(1, 100),
                    lambda: self._ask(
                        e.LifecycleHookAnswered(scale_set=SET, hook_id=event.hook_id, actions=some)
                    ),
                )
            case 2:
                more = self._agenda.now + timedelta(seconds=stream.uniform(60, 2000))
                later = e.LifecycleHookAnswered(
                    scale_set=SET, hook_id=event.hook_id, wait_until=more
                )
                self._agenda.after(5, lambda: self._ask(later))
                self._answer_hook(event, HookAction.APPROVE, stream.uniform(60, 2000))

    def _answer_hook(self, event: e.LifecycleHookStarted, action: HookAction, delay: float) -> None:
        answer = e.LifecycleHookAnswered(
            scale_set=SET, hook_id=event.hook_id, actions={"*": action}
        )
        self._agenda.after(delay, lambda: self._ask(answer))

    def approve(self, event: e.UpgradeStarted) -> None:
        """Approve a deferred upgrade, as somebody does."""
        if not self._chaos.strikes(Fault.APPROVAL):
            self._agenda.after(5, lambda: self._approve("*"))
            return
        stream, when = self._chaos.stream(Fault.APPROVAL), 0.0
        for id in event.instance_ids:
            when += stream.uniform(1, 200)
            if stream.random() < 0.7:
                self._agenda.after(when, partial(self._approve, id))

    def _approve(self, id: str) -> None:
        self._ask(e.UpgradeApproveRequested(scale_set=SET, instance_ids=(id,)))

    def tidy_up(self) -> None:
        """Undo what holds the set: resume, approve, release, protect no more."""
        self._resume()
        self._approve("*")
        for held in self._held.values():
            self._release(held)
        if self._off:
            self._change_power(tuple(self._off), PowerAction.START)
        for id in [id for id, on in self._protected.items() if on]:
            self._ask(e.InstanceProtectionChanged(scale_set=SET, instance_id=id))
        windows: tuple[MaintenanceWindow, ...] = ()
        if self.spec.maintenance_windows != windows:
            self._write(maintenance_windows=windows)

    # --- the feed ---------------------------------------------------------------------------------

    def publish(self, version: str) -> None:
        """Publish a version."""
        published = image(version, self._agenda.now)
        self._store.images[version] = published
        self._ask(e.ImagePublished(image=published))

    def _publish_newer(self, chance: float) -> None:
        self._newest += 1
        self.publish(f"1.{self._newest}")

    def _withdraw(self, chance: float) -> None:
        image = self._store.images.pop(NEW, None)
        if image is not None:
            self._ask(e.ImageWithdrawn(image=image))
