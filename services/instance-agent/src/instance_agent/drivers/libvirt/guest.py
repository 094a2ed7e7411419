"""How scripts run in a domain's guest: by the guest agent, or the program that the seed brings."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from rollcall_contracts.model import FailureCode

from instance_agent.domain.libvirt.claim import Claim
from instance_agent.domain.libvirt.domains import DomainXml
from instance_agent.domain.libvirt.guest_agent import AGENT_CHANNEL, Refused, Unanswered, never
from instance_agent.domain.qemu import CHANNEL
from instance_agent.domain.record import Disk
from instance_agent.driver import CUSTOM_DATA, InstanceRef, Script, ScriptResult
from instance_agent.drivers.libvirt.agent import GuestAgent
from instance_agent.drivers.libvirt.connection import Connection
from instance_agent.drivers.qemu import channel
from instance_agent.drivers.qemu.channel import GuestSilent
from instance_agent.failures import OperationFailed

log = structlog.get_logger()

_HELLO = 2.0  # seconds for the seed's program to answer, before the guest agent is looked for again
_LOOK_AGAIN = 0.5  # seconds

Find = Callable[[Any, InstanceRef], tuple[Any, Claim]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ways:
    """What may be used of a domain now."""

    name: str
    runs: bool
    agent: bool | None  # the guest agent is connected; None: it has no channel
    socket: Path | None
    seed: bool


class Guests:
    """Runs scripts in the guests of domains."""

    def __init__(self, lib: Connection, find: Find, patience: float) -> None:
        """Take how domains are found, and how many seconds a guest has for its first answer."""
        self._lib = lib
        self._find = find
        self._patience = patience

    async def run(self, ref: InstanceRef, disk: Disk, script: Script) -> ScriptResult:
        """Run a script by whichever way is open first; the guest agent's where both are.

        Raises GuestSilent where none opens, and OperationFailed where none ever can.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        refusal = ""
        while True:
            ways = await self._lib.call(lambda c: self._ways(c, ref))
            _check(ways, script, refusal, ref)
            if ways.agent and not refusal:
                try:
                    return await self._by_agent(ref, disk, script)
                except Refused as error:
                    refusal = str(error)
                    log.warning("guest_agent_refuses", instance=ref.key, error=refusal)
                    continue
                except Unanswered as error:
                    log.info("guest_agent_silent", instance=ref.key, error=str(error))
            left = deadline - loop.time()
            if ways.socket is not None and await _answers(ways.socket, min(_HELLO, left)):
                rest = max(_HELLO, deadline - loop.time())
                return await channel.run(ways.socket.parent, script, rest, ways.socket.name)
            if not ways.runs or loop.time() >= deadline:
                raise GuestSilent
            if ways.socket is None:
                await asyncio.sleep(_LOOK_AGAIN)

    async def _by_agent(self, ref: InstanceRef, disk: Disk, script: Script) -> ScriptResult:
        agent = self.agent(ref)
        await agent.check()
        return await agent.run(ref, disk, script)

    def agent(self, ref: InstanceRef) -> GuestAgent:
        """Return the guest agent of an instance, connected or not."""
        return GuestAgent(
            lib=self._lib, domain=lambda c: self._find(c, ref)[0], silence=self._patience
        )

    def _ways(self, connection: Any, ref: InstanceRef) -> _Ways:
        domain, claim = self._find(connection, ref)
        live = DomainXml(domain.XMLDesc())
        return _Ways(
            name=domain.name(),
            runs=bool(domain.isActive()),
            agent=live.connected(AGENT_CHANNEL),
            socket=socket_of(live),
            seed=bool(claim.seed_target),
        )


def _check(ways: _Ways, script: Script, refusal: str, ref: InstanceRef) -> None:
    """Raise OperationFailed where a script can never run in a domain that runs."""
    why = never(
        agent=ways.agent is not None,
        program=ways.socket is not None,
        seed=ways.seed,
        asks=script.name == CUSTOM_DATA,
        refusal=refusal,
    )
    if ways.runs and why:
        raise OperationFailed(
            FailureCode.START,
            f"{script.name} cannot run in the domain {ways.name}: {why}",
            ref.instance_id,
        )


def socket_of(live: DomainXml) -> Path | None:
    """Return our end of the seed's program's channel, where this machine has it."""
    path = live.channel(CHANNEL)
    return Path(path) if path and os.path.exists(path) else None


async def greet(socket: Path, patience: float) -> None:
    """Return when the seed's program has answered, or has had its time."""
    await channel.greet(socket.parent, patience, socket.name)


async def _answers(socket: Path, patience: float) -> bool:
    return patience > 0 and await channel.greet(socket.parent, patience, socket.name)
