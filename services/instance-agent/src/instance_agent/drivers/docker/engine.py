"""The way to the engine, and what it says, as failures that name what to do."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiodocker import Docker, DockerError
from rollcall_contracts.model import FailureCode

from instance_agent.domain.docker import Container, Volume, listed, listed_volume
from instance_agent.failures import OperationFailed

_NO_CONNECTION = 900  # the status that aiodocker gives to what never came to the engine


class Engine:
    """Opens a connection for each step: none is kept that a restarted engine would break."""

    def __init__(self) -> None:
        self._version = "auto"  # of the engine's API; asked for once

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Docker]:
        """Yield a client. Raises OperationFailed where the engine refuses, or goes away."""
        try:
            client = Docker(api_version=self._version)
        except (AssertionError, ValueError) as error:  # it found no socket, or no sound address
            raise OperationFailed(
                FailureCode.DRIVER,
                f"no Docker engine was found: start one, or set DOCKER_HOST ({error})",
            ) from error
        async with client:
            try:
                yield client
            except DockerError as error:
                raise failure(error) from error
            except aiohttp.ClientError as error:  # it ended in the midst of an answer
                raise OperationFailed(
                    FailureCode.DRIVER,
                    f"the Docker engine went away ({type(error).__name__}): start it again",
                ) from error
            self._version = client.api_version


def failure(error: DockerError, code: FailureCode = FailureCode.DRIVER) -> OperationFailed:
    """Return what the control plane is told of an engine's refusal."""
    if error.status == _NO_CONNECTION:
        return OperationFailed(code, f"{error.message}: start the engine, or set DOCKER_HOST")
    return OperationFailed(code, f"the Docker engine says: {error.message}")


async def containers(client: Docker, labels: Mapping[str, str]) -> list[Container]:
    """Return the containers, running or not, that have all these labels."""
    wanted = [f"{name}={value}" if value else name for name, value in labels.items()]
    items = await client.containers.list(all=True, filters=json.dumps({"label": wanted}))
    return [listed(item) for item in items]


async def remembers_end(client: Docker, container: str) -> bool:
    """Say whether this engine saw a container end: one that was started since has no such event."""
    subscriber = client.events.subscribe(create_task=False)  # type: ignore[no-untyped-call]
    wanted = json.dumps({"container": [container], "event": ["die"]})
    await client.events.run(since=1, until=int(time.time()) + 1, filters=wanted)
    return await subscriber.get() is not None


async def volumes(client: Docker, labels: Mapping[str, str]) -> list[Volume]:
    """Return the volumes that have all these labels."""
    wanted = [f"{name}={value}" for name, value in labels.items()]
    listing = client.volumes.list  # aiodocker says no types of it
    answer = await listing(filters={"label": wanted})  # type: ignore[no-untyped-call]
    return [listed_volume(item) for item in answer["Volumes"] or ()]
