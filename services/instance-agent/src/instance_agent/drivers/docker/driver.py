"""The driver itself: what each step does with containers and volumes. See docs/drivers.md."""

import asyncio
import hashlib
import math
import uuid
from datetime import UTC, datetime
from pathlib import Path

from aiodocker import Docker, DockerError
from aiodocker.volumes import DockerVolume
from rollcall_contracts.model import FailureCode

from instance_agent.domain.docker import (
    AGENT,
    DISK,
    KEY,
    LABEL,
    LUN,
    PAUSED,
    PORT,
    RUNNING,
    VOLUME_ID,
    Container,
    Wanted,
    base_name,
    configuration,
    data_disks,
    in_place,
    new_name,
    numbered_name,
    volume_name,
)
from instance_agent.domain.record import Disk
from instance_agent.driver import (
    Capabilities,
    Endpoint,
    InstanceRef,
    NewDisk,
    Observation,
    Options,
    Script,
    ScriptResult,
)
from instance_agent.drivers.docker import images, scripts
from instance_agent.drivers.docker.engine import (
    Engine,
    containers,
    failure,
    remembers_end,
    volumes,
)
from instance_agent.drivers.docker.settings import DockerSettings
from instance_agent.drivers.ports import Ports
from instance_agent.failures import OperationFailed

_CONSOLE_LINES = 40
_CONSOLE_BYTES = 4096
_LOOK_AGAIN = 1.0  # seconds between two looks at a container that was said to have ended
_PORTS_TRIED = 5
_TAKEN = ("port is already allocated", "address already in use")
_CONFLICT, _NOT_FOUND = 409, 404


class DockerDriver:
    """See `instance_agent.driver.Driver`."""

    name = "docker"
    capabilities = Capabilities()

    def __init__(self, options: Options) -> None:
        self._options = options
        self._settings = DockerSettings()
        options.folder.mkdir(parents=True, exist_ok=True)
        self._agent = self._settings.docker_namespace or options.agent
        space = hashlib.sha256(self._agent.encode()).hexdigest()[:8]
        self._repository = f"rollcall-{space}"
        self._engine = Engine()
        self._ports = Ports(options.ports, options.address, options.agent, set())
        self._making = asyncio.Lock()  # a port is looked for and taken by one at a time

    def _base(self, ref: InstanceRef) -> str:
        return base_name(self._agent, ref.key)

    def _mine(self, ref: InstanceRef) -> dict[str, str]:
        return {AGENT: self._agent, KEY: ref.key}

    async def import_image(self, file: Path, folder: Path) -> None:
        """Load the archive, or pull what the file names by digest, into the engine."""
        limit = self._options.max_unpacked_bytes
        async with self._engine.open() as client:
            await images.bring_in(client, file, folder, self._repository, limit)

    async def prepare(self, ref: InstanceRef, new: NewDisk) -> None:
        """Make the container, which is not started, and volumes that are missing."""
        async with self._engine.open() as client:
            disks = await self._make_volumes(client, ref, new.data_disks)
            known = await containers(client, self._mine(ref))
            if any(container.disk.name == new.disk.name for container in known):
                return
            image = await images.ensure(client, new.image, self._repository)
            async with self._making:
                port = known[0].port if known else await self._free_port(client)
                wanted = Wanted(
                    image=image.id,
                    labels=self._labels(ref, new.disk, port),
                    environment=self._environment(ref, new.disk, port),
                    volumes=disks,
                    hostname=_hostname(ref),
                    address=self._options.address,
                    port=port,
                    container_port=self._container_port(image.ports),
                    memory=self._settings.docker_memory,
                    cpus=self._settings.docker_cpus,
                    network=self._settings.docker_network,
                    init=self._settings.docker_init,
                )
                name = new_name(self._base(ref), new.disk.name)
                await client.containers.create(configuration(wanted), name=name)

    async def _make_volumes(
        self, client: Docker, ref: InstanceRef, luns: tuple[int, ...]
    ) -> dict[str, str]:
        """Return which volumes are mounted where, having made what is missing (M06)."""
        there = {volume.lun: volume.name for volume in await volumes(client, self._mine(ref))}
        for lun in luns:
            if lun not in there:
                labels = {**self._mine(ref), LUN: str(lun), VOLUME_ID: uuid.uuid4().hex}
                name = volume_name(self._base(ref), lun)
                create = client.volumes.create  # aiodocker says no types of it
                await create({"Name": name, "Labels": labels})  # type: ignore[no-untyped-call]
        there = {volume.lun: volume.name for volume in await volumes(client, self._mine(ref))}
        foreign = [volume_name(self._base(ref), lun) for lun in luns if lun not in there]
        if foreign:
            raise OperationFailed(
                FailureCode.DRIVER,
                f"volume {foreign[0]} is there and is not Rollcall's: rename or remove it",
                ref.instance_id,
            )
        return {self._settings.docker_data_path.format(lun=lun): there[lun] for lun in luns}

    async def _free_port(self, client: Docker) -> int:
        """Return a port that no instance on this engine has, whichever agent's it is."""
        self._ports.know(each.port for each in await containers(client, {PORT: ""}))
        return self._ports.take()

    def _labels(self, ref: InstanceRef, disk: Disk, port: int) -> dict[str, str]:
        return {
            **self._mine(ref),
            DISK: disk.name,
            PORT: str(port),
            f"{LABEL}host": self._options.host,
            f"{LABEL}scale-set": ref.scale_set,
            f"{LABEL}instance": ref.instance_id,
            f"{LABEL}version": disk.version,
            f"{LABEL}generation": str(disk.generation),
            f"{LABEL}digest": disk.digest,
        }

    def _environment(self, ref: InstanceRef, disk: Disk, port: int) -> dict[str, str]:
        """Return what the instance is told; the port is the one outside of the container."""
        return {
            "ROLLCALL_INSTANCE_ID": ref.instance_id,
            "ROLLCALL_IMAGE_VERSION": disk.version,
            "ROLLCALL_DATA_DIR": self._settings.docker_data_path.format(lun=0),
            "ROLLCALL_ADDRESS": self._options.address,
            "ROLLCALL_PORT": str(port),
        }

    def _container_port(self, exposed: tuple[int, ...]) -> int:
        if self._settings.docker_port:
            return self._settings.docker_port
        if len(exposed) != 1:
            said = ", ".join(map(str, exposed)) or "none"
            raise OperationFailed(
                FailureCode.IMAGE_UNSAFE,
                f"the image cannot be used: it must expose the one port of its application, and "
                f"exposes {said}; set ROLLCALL_DOCKER_PORT",
            )
        return exposed[0]

    async def stop(self, ref: InstanceRef, grace: float) -> None:
        """Have the engine send the image's stop signal, and SIGKILL when the time is up."""
        async with self._engine.open() as client:
            for container in await containers(client, self._mine(ref)):
                if container.state in (RUNNING, PAUSED):
                    # Whole seconds; with 0 the engine sends both at once.
                    seconds = math.ceil(grace)
                    await client.containers.container(container.id).stop(t=seconds)

    async def swap(self, ref: InstanceRef, old: str | None, new: str) -> None:
        """Rename the new container to the name after that of the one in place."""
        async with self._engine.open() as client:
            known = await containers(client, self._mine(ref))
            current = in_place(known)
            name = current.disk.name if current else None
            if name == new:
                return
            if name != old:
                raise OperationFailed(
                    FailureCode.DRIVER,
                    f"OS disk {name} is in place where {old} was expected; nothing was changed",
                    ref.instance_id,
                )
            found = [container for container in known if container.disk.name == new]
            if not found:
                raise OperationFailed(
                    FailureCode.DRIVER, f"OS disk {new} does not exist", ref.instance_id
                )
            number = (current.number if current else 0) + 1
            target = client.containers.container(found[0].id)
            await target.rename(numbered_name(self._base(ref), number))

    async def start(self, ref: InstanceRef, disk: Disk) -> Endpoint:
        """Start the container in place, and watch it for a moment."""
        async with self._engine.open() as client:
            for _ in range(_PORTS_TRIED):
                known = await containers(client, self._mine(ref))
                current = in_place(known)
                if current is None or current.disk.name != disk.name:
                    raise OperationFailed(
                        FailureCode.START, f"OS disk {disk.name} is not in place", ref.instance_id
                    )
                try:
                    await self._start(client, current, ref)
                except DockerError as error:
                    taken = any(words in error.message for words in _TAKEN)
                    is_new = len(known) == 1 and current.number == 1
                    if not (taken and is_new):
                        raise _start_failed(error, current, ref) from error
                    await self._move_to_another_port(client, current, ref)
                else:
                    return Endpoint(address=self._options.address, port=current.port)
        raise OperationFailed(
            FailureCode.START, "other programs take all the ports tried", ref.instance_id
        )

    async def _start(self, client: Docker, current: Container, ref: InstanceRef) -> None:
        container = client.containers.container(current.id)
        if current.state == RUNNING:
            return
        if current.state == PAUSED:
            await container.unpause()
            return
        await container.start()
        try:
            async with asyncio.timeout(self._options.start_settle):
                code = (await container.wait())["StatusCode"]
        except TimeoutError:
            return
        raise OperationFailed(
            FailureCode.START,
            f"the container ended at once (exit code {code}): {await self._said(client, current)}",
            ref.instance_id,
        )

    async def _move_to_another_port(
        self, client: Docker, current: Container, ref: InstanceRef
    ) -> None:
        """Make a new instance's container again, with a port that nobody has.

        Nobody knows the port of an instance that never started. The new one is in place at once,
        as its number is the higher one.
        """
        facts = await client.containers.container(current.id).show()
        async with self._making:
            port = await self._free_port(client)
            config, host = dict(facts["Config"]), dict(facts["HostConfig"])
            config["Labels"] = {**config["Labels"], PORT: str(port)}
            config["Env"] = [
                f"ROLLCALL_PORT={port}" if each.startswith("ROLLCALL_PORT=") else each
                for each in config["Env"]
            ]
            host["PortBindings"] = {
                inside: [{"HostIp": self._options.address, "HostPort": str(port)}]
                for inside in host["PortBindings"]
            }
            name = numbered_name(self._base(ref), current.number + 1)
            await client.containers.create({**config, "HostConfig": host}, name=name)
        await client.containers.container(current.id).delete(force=True, v=True)

    async def run(self, ref: InstanceRef, disk: Disk, script: Script) -> ScriptResult:
        """Run a script in the container; it needs /bin/sh, cat and tail there."""
        async with self._engine.open() as client:
            current = in_place(await containers(client, self._mine(ref)))
            if current is None or current.state != RUNNING:
                said = await self._said(client, current) if current else "there is none"
                raise OperationFailed(
                    FailureCode.START,
                    f"the container has stopped, {script.name} cannot run in it: {said}",
                    ref.instance_id,
                )
            environment = self._environment(ref, disk, current.port)
            return await scripts.run(client, current.id, script, environment)

    async def observe(self, ref: InstanceRef) -> Observation:
        """Ask the engine."""
        async with self._engine.open() as client:
            known = await containers(client, self._mine(ref))
            there = await volumes(client, self._mine(ref))
        current = in_place(known)
        return Observation(
            running=current is not None and current.state == RUNNING,
            disk=current.disk if current else None,
            disks=frozenset(container.disk.name for container in known),
            data_disks=data_disks(current, there, self._settings.docker_data_path),
        )

    async def wait_stopped(self, ref: InstanceRef) -> None:
        """Wait for the engine to say so. Raises OperationFailed where it went away meanwhile.

        An engine that is stopped stops its containers first, and tells: so it is asked whether it
        is the same still.
        """
        ran = False
        while True:
            async with self._engine.open() as client:
                current = in_place(await containers(client, self._mine(ref)))
                if current is None or current.state != RUNNING:
                    if ran and current is not None and not await remembers_end(client, current.id):
                        raise OperationFailed(FailureCode.DRIVER, "the engine was started anew")
                    return
                ran = True
                await client.containers.container(current.id).wait()
            await asyncio.sleep(_LOOK_AGAIN)

    async def console(self, ref: InstanceRef) -> str:
        """Return the last lines of the container's log since its last start."""
        async with self._engine.open() as client:
            current = in_place(await containers(client, self._mine(ref)))
            return await self._said(client, current) if current else ""

    async def _said(self, client: Docker, current: Container) -> str:
        container = client.containers.container(current.id)
        started = (await container.show())["State"]["StartedAt"]
        since = datetime.fromisoformat(f"{started[:19]}+00:00").timestamp()
        lines = await container.log(
            stdout=True, stderr=True, tail=_CONSOLE_LINES, since=int(max(0, since))
        )
        return "".join(lines)[-_CONSOLE_BYTES:].strip()

    async def commit(self, ref: InstanceRef, keep: frozenset[str]) -> None:
        """Remove the other containers, and images that have served."""
        async with self._engine.open() as client:
            for container in await containers(client, self._mine(ref)):
                if container.disk.name not in keep:
                    await _remove(client, container)
            await images.drop_unused(client, self._repository, datetime.now(UTC))

    async def delete(self, ref: InstanceRef) -> None:
        """Remove the instance's containers, then its volumes."""
        async with self._engine.open() as client:
            known = await containers(client, self._mine(ref))
            for container in known:
                await _remove(client, container)
            for volume in await volumes(client, self._mine(ref)):
                found = DockerVolume(client, volume.name)  # type: ignore[no-untyped-call]
                await found.delete()  # type: ignore[no-untyped-call]
        for container in known:
            self._ports.give_back(container.port)


async def _remove(client: Docker, container: Container) -> None:
    """Remove a container with what it wrote; one that is gone, or about to be, is fine."""
    try:
        await client.containers.container(container.id).delete(force=True, v=True)
    except DockerError as error:
        if error.status not in (_NOT_FOUND, _CONFLICT):
            raise


def _hostname(ref: InstanceRef) -> str:
    """Return the instance's id as a host's name can be, which has 63 characters at most."""
    return ref.key.partition("-")[0].replace("_", "-").strip("-")[:63] or "instance"


def _start_failed(error: DockerError, current: Container, ref: InstanceRef) -> OperationFailed:
    if any(words in error.message for words in _TAKEN):
        return OperationFailed(
            FailureCode.START,
            f"port {current.port}, which is this instance's, is taken by another program: end that "
            "one",
            ref.instance_id,
        )
    return failure(error, FailureCode.START)
