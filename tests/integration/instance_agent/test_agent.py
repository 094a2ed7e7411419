"""The agent as a process of its own behind a real broker: asked, killed, started again."""

import asyncio
import base64
import contextlib
import hashlib
import os
import re
import signal
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest
from instance_agent.app import REQUESTS, open_journal
from instance_agent.domain.record import Step
from instance_agent.drivers import procfs
from instance_agent.settings import Settings
from rollcall_cli.sample_image import build_image
from rollcall_contracts.events import (
    AgentSeen,
    Event,
    HostRequest,
    ImageFetched,
    ImageFetchFailed,
    ImageFetchRequested,
    InstanceCreated,
    InstanceDeleted,
    InstanceOrder,
    InstanceRestored,
    InstancesCommitRequested,
    InstancesCreateRequested,
    InstancesDeleteRequested,
    InstancesRestoreRequested,
    InstancesUpgradeRequested,
    InstanceUpgraded,
    parse,
    routing_key,
)
from rollcall_contracts.model import Drain, FailureCode, Image, Provisioning
from rollcall_kit.broker import EXCHANGE, Broker, QueueSpec
from rollcall_kit.secrets import new_key, seal
from rollcall_testing import eventually
from rollcall_testing.instances import HOST

SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"
KEY = new_key()
SLOW = '#!/bin/sh\necho "$ROLLCALL_IMAGE_VERSION" >> "$ROLLCALL_DATA_DIR/scripts"\nsleep 0.3\n'


class Control:
    """The other side of the broker, and the agent's process."""

    def __init__(self, amqp_url: str, folder: Path) -> None:
        self.folder = folder
        self.reports: list[Event] = []
        self.environment = {
            **os.environ,
            "ROLLCALL_AMQP_URL": amqp_url,
            "ROLLCALL_HOST": HOST,
            "ROLLCALL_STATE_DIR": str(folder / "agent"),
            "ROLLCALL_SECRETS_KEY": KEY,
            "ROLLCALL_STOP_GRACE": "2",
            "ROLLCALL_HEARTBEAT_INTERVAL": "0.2",
            "ROLLCALL_AGENT_CAPACITY": "40",
        }
        self.settings = Settings.model_validate({"host": HOST, "state_dir": folder / "agent"})
        self.exchange: aio_pika.abc.AbstractExchange
        self.agent: asyncio.subprocess.Process | None = None

    async def start_agent(self) -> None:
        self.agent = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "instance_agent", env=self.environment
        )
        count = len(self.of(AgentSeen))
        await eventually(lambda: len(self.of(AgentSeen)) > count, timeout=20)

    async def kill_agent(self) -> None:
        assert self.agent is not None
        self.agent.kill()
        await self.agent.wait()

    async def stop_instances(self) -> None:
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "instance_agent.stop_instances", env=self.environment
        )
        assert await command.wait() == 0

    async def ask(self, event: Event) -> None:
        await self.exchange.publish(
            aio_pika.Message(
                event.model_dump_json().encode(),
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            ),
            routing_key(event),
        )

    def of(self, *kinds: type[Event]) -> list[Event]:
        return [report for report in self.reports if isinstance(report, kinds)]

    def image(self, version: str, init: Path | None = None) -> Image:
        path = build_image(self.folder / f"{version}.tar.gz", version)
        if init is not None:
            with tarfile.open(path, "w:gz") as tar:
                tar.add(init, "init", filter=executable)
        content = path.read_bytes()
        return Image(
            publisher="P",
            offer="O",
            sku="S",
            version=version,
            url=f"file://{path}",
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
        )

    def upgraded(self, attempt: int) -> set[str]:
        return {
            report.instance_id
            for report in self.reports
            if isinstance(report, InstanceUpgraded) and report.attempt == attempt
        }

    async def booted(self, instance: str, version: str) -> None:
        await eventually(lambda: self.lines(instance, "boots")[-1:] == [version])

    def lines(self, instance: str, name: str) -> list[str]:
        (top,) = (self.folder / "agent" / "instances").glob(f"{instance}-*")
        path = top / "data" / "0" / name
        return path.read_text().split() if path.exists() else []

    def pids(self) -> set[int]:
        """The instances' processes, scripts left out."""
        return {
            process.pid
            for process, values in procfs.leaders_with("ROLLCALL_DATA_DIR")
            if values["ROLLCALL_DATA_DIR"].startswith(str(self.folder.resolve()))
            and "ROLLCALL_SCRIPT" not in values
        }


def executable(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode = 0o755
    return member


@pytest.fixture
async def control(amqp_url: str, tmp_path: Path) -> AsyncIterator[Control]:
    control = Control(amqp_url, tmp_path)
    broker = Broker(amqp_url, source="test")

    async def consume(connection: aio_pika.abc.AbstractConnection) -> None:
        async def receive(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            control.reports.append(parse(message.body))
            await message.ack()

        await broker.subscribe(
            connection, QueueSpec(name="reports", bindings=("report.#",)), receive
        )
        channel = await connection.channel(publisher_confirms=True)
        control.exchange = await channel.get_exchange(EXCHANGE, ensure=False)

    running = asyncio.create_task(broker.run(consume))
    await broker.wait_up()
    try:
        await control.start_agent()
        yield control
    finally:
        if control.agent is not None and control.agent.returncode is None:
            control.agent.terminate()
            assert await control.agent.wait() == 0
        await control.stop_instances()
        assert control.pids() == set()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def orders(count: int, attempt: int) -> tuple[InstanceOrder, ...]:
    return tuple(InstanceOrder(instance_id=str(number), attempt=attempt) for number in range(count))


def provisioning(generation: int) -> Provisioning:
    return Provisioning(
        generation=generation,
        sealed_custom_data=seal(KEY, base64.b64encode(SLOW.encode()).decode()),
    )


async def test_requests_become_reports(control: Control) -> None:
    v1, v2 = control.image("1.0.0"), control.image("2.0.0")
    assert control.of(AgentSeen)[0] == AgentSeen(host=HOST, driver="process", capacity=40)
    await control.ask(ImageFetchRequested(scale_set=SET, host=HOST, upgrade_id="u", image=v1))
    await eventually(lambda: control.of(ImageFetched))
    bad = v2.model_copy(update={"sha256": "0" * 64})
    await control.ask(ImageFetchRequested(scale_set=SET, host=HOST, upgrade_id="u", image=bad))
    (failed,) = await eventually(lambda: control.of(ImageFetchFailed))
    assert isinstance(failed, ImageFetchFailed)
    assert failed.error.code == FailureCode.IMAGE_VERIFICATION

    await control.ask(
        InstancesCreateRequested(
            scale_set=SET, host=HOST, instances=orders(3, 1), image=v1, provisioning=provisioning(1)
        )
    )
    await eventually(lambda: len(control.of(InstanceCreated)) == 3)
    await control.ask(
        InstancesUpgradeRequested(
            scale_set=SET, host=HOST, instances=orders(3, 2), image=v2, provisioning=provisioning(2)
        )
    )
    await eventually(lambda: len(control.of(InstanceUpgraded)) == 3)
    request: HostRequest = InstancesRestoreRequested(
        scale_set=SET, host=HOST, instances=orders(1, 3)
    )
    await control.ask(request)  # type: ignore[arg-type]  # one of the events, held as their base
    (restored,) = await eventually(lambda: control.of(InstanceRestored))
    assert isinstance(restored, InstanceRestored)
    assert restored.version == "1.0.0"
    await control.ask(
        InstancesCommitRequested(scale_set=SET, host=HOST, instances=orders(3, 2)[1:])
    )
    top = control.folder / "agent" / "instances"
    await eventually(lambda: len(list(top.glob("*/disks/*"))) == 3)
    await control.ask(InstancesDeleteRequested(scale_set=SET, host=HOST, instances=orders(3, 4)))
    await eventually(lambda: len(control.of(InstanceDeleted)) == 3)
    assert list(top.iterdir()) == []
    assert control.pids() == set()


async def test_instances_outlive_their_agent(control: Control) -> None:
    v1 = control.image("1.0.0")
    await control.ask(
        InstancesCreateRequested(
            scale_set=SET, host=HOST, instances=orders(3, 1), image=v1, provisioning=provisioning(1)
        )
    )
    await eventually(lambda: len(control.of(InstanceCreated)) == 3)
    before = control.pids()
    assert len(before) == 3
    await control.kill_agent()
    assert control.pids() == before
    await control.start_agent()
    assert control.pids() == before  # adopted, not started again
    victim = min(before)
    os.kill(victim, signal.SIGKILL)  # not the new agent's child, and still seen at once
    await eventually(lambda: any(r.type == "instance.power_changed.v1" for r in control.reports))
    assert control.pids() == before - {victim}


REACHED = {
    "prepared": {Step.PREPARED, Step.STOPPED, Step.SWAPPED, Step.STARTED},
    "swapped": {Step.SWAPPED, Step.STARTED},
    "started": {Step.STARTED},
}


@pytest.mark.parametrize("step", REACHED)
async def test_kill_9_in_the_middle_of_a_swap_acts_once(control: Control, step: str) -> None:
    v1, v2 = control.image("1.0.0"), control.image("2.0.0")
    create = InstancesCreateRequested(
        scale_set=SET, host=HOST, instances=orders(6, 1), image=v1, provisioning=provisioning(1)
    )
    await control.ask(create)
    await eventually(lambda: len(control.of(InstanceCreated)) == 6)
    for number in range(6):
        await control.booted(str(number), "1.0.0")
    await control.ask(
        InstancesUpgradeRequested(
            scale_set=SET, host=HOST, instances=orders(6, 2), image=v2, provisioning=provisioning(2)
        )
    )
    journal = open_journal(control.settings)
    await eventually(
        lambda: any(r.attempt == 2 and r.step in REACHED[step] for r in journal.all()), interval=0
    )
    await control.kill_agent()
    assert any(record.step is not Step.DONE for record in journal.all())
    await control.start_agent()
    await eventually(lambda: control.upgraded(2) == {str(n) for n in range(6)}, timeout=20)
    for record in journal.all():
        assert record.swaps == 2, record  # one for its creation, one for the upgrade
        await control.booted(record.instance_id, "2.0.0")
        assert control.lines(record.instance_id, "boots") == ["1.0.0", "2.0.0"]
        assert control.lines(record.instance_id, "scripts").count("2.0.0") in (1, 2)
    journal.close()
    assert len(control.pids()) == 6


async def test_kill_9_in_the_middle_of_a_drain_does_not_begin_its_time_anew(
    control: Control,
) -> None:
    app = Path(__file__).with_name("draining_app.py")
    v1, v2 = control.image("1.0.0", app), control.image("2.0.0")
    await control.ask(
        InstancesCreateRequested(
            scale_set=SET,
            host=HOST,
            instances=orders(1, 1),
            image=v1,
            provisioning=Provisioning(generation=1),
        )
    )
    await eventually(lambda: control.of(InstanceCreated))
    (top,) = (control.folder / "agent" / "instances").iterdir()
    data = top / "data" / "0"
    await eventually((data / "listens").exists)
    await control.ask(
        InstancesUpgradeRequested(
            scale_set=SET,
            host=HOST,
            instances=orders(1, 2),
            image=v2,
            provisioning=Provisioning(generation=2),
            drain=Drain(request_path="/drain", deadline=8),
        )
    )

    def posts() -> list[float]:
        lines = (data / "posts").read_text().splitlines() if (data / "posts").exists() else []
        return [float(line.split()[0]) for line in lines]

    await eventually(lambda: len(posts()) >= 4)
    await control.kill_agent()
    asked = len(posts())
    journal = open_journal(control.settings)
    (before,) = journal.all()
    assert before.draining is not None
    assert before.draining.answered
    await control.start_agent()
    await eventually(lambda: len(posts()) > asked)
    (after,) = journal.all()
    assert after.draining == before.draining
    journal.close()
    (upgraded,) = await eventually(lambda: control.of(InstanceUpgraded), timeout=20)
    assert isinstance(upgraded, InstanceUpgraded)
    assert re.match(r"not drained in 8\.\d s, stopped all the same", upgraded.reason)
    assert 4 < posts()[-1] - posts()[0] <= 8.5


async def test_a_second_agent_in_the_same_folder_is_refused(control: Control) -> None:
    second = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "instance_agent",
        env=control.environment,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await second.communicate()
    assert second.returncode == 1
    assert b"another agent works in" in errors


def test_the_queue_takes_every_request_of_a_host() -> None:
    assert set(REQUESTS) == {
        *HostRequest.__subclasses__(),
        ImageFetchRequested,
    }
