"""An agent's host whose instances are virtual machines with the test operating system."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import aiohttp
from instance_agent.app import build_host
from instance_agent.domain.record import Operation, Order
from instance_agent.driver import InstanceRef, Script
from instance_agent.host import Host, Job
from instance_agent.settings import Settings
from rollcall_contracts.events import (
    Event,
    InstanceCreated,
    InstanceRestored,
    InstanceUpgraded,
)
from rollcall_contracts.model import Extension, Image, Provisioning
from rollcall_kit.secrets import new_key, seal

from rollcall_testing.instances import HOST
from rollcall_testing.wait import eventually

KEY = new_key()
BOOT = 90  # seconds for a boot on a busy machine without KVM
CUSTOM_DATA = '#!/bin/sh\necho "$(cat /etc/image-version)" >>/data/custom-data\necho it ran\n'


class Rig:
    """The host, what it reported, and one instance to ask things of."""

    def __init__(self, folder: Path, test_os: Path) -> None:
        """Build the host with its state below a folder."""
        self.test_os = test_os
        self.settings = Settings.model_validate(
            {
                "host": HOST,
                "driver": "qemu",
                "state_dir": folder / "agent",
                "stop_grace": 10,
                "secrets_key": KEY,
            }
        )
        self.host: Host = build_host(self.settings)
        self.reports: list[Event] = []

    @property
    def driver(self) -> Any:
        """Return the qemu driver."""
        return self.host.driver

    def ref(self, instance: str = "0") -> InstanceRef:
        """Return which instance is meant."""
        return InstanceRef(scale_set="/sets/vm", instance_id=instance)

    def top(self, instance: str = "0") -> Path:
        """Return the instance's folder."""
        return self.settings.state_dir / "instances" / self.ref(instance).key

    async def report(self, event: Event) -> None:
        """Take a report down."""
        self.reports.append(event)

    def image(self, name: str) -> Image:
        """Return one of the images that were built."""
        file = self.test_os / f"{name}.qcow2"
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return Image(
            publisher="P",
            offer="O",
            sku="S",
            version=f"{name[1]}.0.0",
            url=f"file://{file}",
            sha256=digest,
            size=file.stat().st_size,
        )

    async def ask(
        self,
        operation: Operation,
        attempt: int,
        image: str = "",
        *,
        extensions: tuple[Extension, ...] = (),
        custom_data: str = CUSTOM_DATA,
    ) -> Event:
        """Have an operation carried out, and return its report."""
        found = self.image(image) if image else None
        order = Order(
            scale_set="/sets/vm",
            instance_id="0",
            attempt=attempt,
            operation=operation,
            version=found.version if found else "",
            generation=attempt,
        )
        sealed = seal(KEY, base64.b64encode(custom_data.encode()).decode()) if custom_data else None
        provisioning = Provisioning(
            generation=attempt, sealed_custom_data=sealed, extensions=extensions
        )
        job = Job(order=order, image=found, provisioning=provisioning)
        await self.host.carry_out(job, self.report)
        return self.reports[-1]

    async def in_guest(self, command: str) -> tuple[int | None, str]:
        """Run a command in the guest; returns its exit code and what it wrote."""
        script = Script(name="question", command=("/bin/sh", "-c", command), timeout=BOOT)
        disk = self.host.journal.get("/sets/vm", "0")
        assert disk is not None
        assert disk.disk is not None
        result = await self.driver.run(self.ref(), disk.disk, script)
        return result.exit_code, result.output


async def status(event: Event, path: str = "/status") -> dict[str, Any]:
    """Return what the guest says of itself, once it is up."""
    assert isinstance(event, InstanceCreated | InstanceUpgraded | InstanceRestored), event
    url = f"http://{event.address}:{event.port}{path}"

    async def ask() -> str:
        try:
            # A question that comes too early hangs: QEMU takes it before the guest listens.
            limit = aiohttp.ClientTimeout(total=0.5)
            async with aiohttp.ClientSession(timeout=limit) as session, session.get(url) as answer:
                return await answer.text() if answer.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError):
            return ""

    answer: dict[str, Any] = json.loads(await eventually(ask, timeout=BOOT, interval=0.1))
    return answer
