"""Agents and a prober that answer at once, over a real broker: for what costs no real instances."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import uvloop
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from rollcall_contracts import events as e
from rollcall_contracts.model import Power, PowerAction
from rollcall_kit.broker import Broker, QueueSpec

HEARTBEAT = 1.0


@dataclass(kw_only=True)
class AnsweringHosts:
    """Hosts whose agents say that everything went well, and a prober to whom all is healthy.

    `swaps` counts what was asked, by instance and attempt: a second count of one is the broker's
    redelivery or the orchestrator's fault, which the caller tells apart by the attempts' numbers.
    """

    amqp_url: str
    hosts: Sequence[str] = ("host-1", "host-2")
    delay: float = 0.0  # seconds before an instance is reported provisioned
    doubled: bool = False  # every answer twice
    swaps: dict[tuple[str, str, int], int] = field(default_factory=dict)

    async def __aenter__(self) -> "AnsweringHosts":
        self._broker = Broker(self.amqp_url, source="answering-hosts")
        self._tasks = [
            asyncio.create_task(self._broker.run(self._consume)),
            asyncio.create_task(self._beat()),
        ]
        await self._broker.wait_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            await self._broker.report(
                [e.AgentSeen(host=host, driver="answering") for host in self.hosts], time=_now()
            )
            await asyncio.sleep(HEARTBEAT)

    async def _consume(self, connection: AbstractConnection) -> None:
        for host in self.hosts:
            keys = ("instances.*.v1", "image.fetch_requested.v1")
            spec = QueueSpec(
                name=f"instance-agent.{host}", bindings=tuple(f"{key}.{host}" for key in keys)
            )
            await self._broker.subscribe(connection, spec, self._receive)
        probes = QueueSpec(name="health-prober", bindings=("probe.requested.v1",))
        await self._broker.subscribe(connection, probes, self._receive)

    async def _receive(self, message: AbstractIncomingMessage) -> None:
        event = e.parse(message.body)
        if self.delay and isinstance(event, e.InstancesUpgradeRequested):
            await asyncio.sleep(self.delay)
        answers = self._answers(event)
        if self.doubled:
            answers = [*answers, *answers]
        if answers:
            await self._broker.report(answers, time=_now())
        await message.ack()

    def _answers(self, event: e.Event) -> list[e.Event]:
        match event:
            case e.ImageFetchRequested():
                return [
                    e.ImageFetched(
                        scale_set=event.scale_set, host=event.host, upgrade_id=event.upgrade_id
                    )
                ]
            case e.ProbeRequested():
                return [
                    e.InstanceHealthy(
                        scale_set=event.scale_set,
                        instance_id=target.instance_id,
                        attempt=target.attempt,
                        lease=target.lease,
                    )
                    for target in event.targets
                ]
            case e.InstancesCreateRequested() | e.InstancesUpgradeRequested():
                return [self._provisioned(event, order) for order in event.instances]
            case e.InstancesPowerRequested():
                off = event.change is PowerAction.POWER_OFF
                return [
                    e.InstancePowered(
                        scale_set=event.scale_set,
                        instance_id=order.instance_id,
                        attempt=order.attempt,
                        power=Power.STOPPED if off else Power.RUNNING,
                        address="127.0.0.1",
                        port=20000,
                    )
                    for order in event.instances
                ]
            case e.InstancesDeleteRequested():
                return [
                    e.InstanceDeleted(
                        scale_set=event.scale_set,
                        instance_id=order.instance_id,
                        attempt=order.attempt,
                    )
                    for order in event.instances
                ]
        return []

    def _provisioned(
        self,
        event: e.InstancesCreateRequested | e.InstancesUpgradeRequested,
        order: e.InstanceOrder,
    ) -> e.InstanceCreated | e.InstanceUpgraded:
        created = isinstance(event, e.InstancesCreateRequested)
        if not created:
            key = (event.scale_set, order.instance_id, order.attempt)
            self.swaps[key] = self.swaps.get(key, 0) + 1
        cls = e.InstanceCreated if created else e.InstanceUpgraded
        return cls(
            scale_set=event.scale_set,
            instance_id=order.instance_id,
            attempt=order.attempt,
            version=event.image.version,
            generation=event.provisioning.generation,
            address="127.0.0.1",
            port=20000,
        )


def _now() -> datetime:
    return datetime.now(UTC)


async def _main(url: str, count: int) -> None:
    async with AnsweringHosts(
        amqp_url=url, hosts=[f"host-{number}" for number in range(1, count + 1)]
    ):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], int(sys.argv[2])))
