"""How scripts run in a domain's guest: over the channel that the seed's program serves."""

import os
from pathlib import Path

from rollcall_contracts.model import FailureCode

from instance_agent.domain.libvirt.domains import DomainXml
from instance_agent.domain.qemu import CHANNEL
from instance_agent.driver import Script, ScriptResult
from instance_agent.drivers.qemu import channel
from instance_agent.failures import OperationFailed


def socket_of(live: DomainXml) -> Path | None:
    """Return the agent's end of the channel, where it can be reached from this machine."""
    path = live.channel(CHANNEL)
    return Path(path) if path and os.path.exists(path) else None


async def greet(socket: Path, patience: float) -> None:
    """Return when the guest has answered, or has had its time."""
    await channel.greet(socket.parent, patience, socket.name)


async def run(socket: Path, script: Script, patience: float) -> ScriptResult:
    """Run a script in the guest. Raises `channel.GuestSilent`."""
    return await channel.run(socket.parent, script, patience, socket.name)


def unreachable(name: str, script: Script) -> OperationFailed:
    """Return the failure of a domain whose guest takes no scripts."""
    return OperationFailed(
        FailureCode.START,
        f"{script.name} cannot run in the domain {name}: it has no channel {CHANNEL} on this "
        "machine, over which a guest takes scripts; add one and a disk for the seed, or take "
        "custom data and extensions out of the model",
    )
