"""QEMU's own control channel (QMP): one command per connection, never waited for long."""

import asyncio
import json
from pathlib import Path
from typing import Any

from instance_agent.domain.qemu import QMP_SOCKET
from instance_agent.drivers.qemu.sockets import connect

PATIENCE = 5.0  # seconds; QEMU answers in some milliseconds, also where the guest hangs


class QmpError(OSError):
    """QEMU did not do what it was asked to."""


async def execute(folder: Path, command: str, patience: float = PATIENCE) -> Any:
    """Have the QEMU of an instance's folder do something, and return its answer.

    Raises OSError, and QmpError where QEMU refuses or does not answer within `patience` seconds.
    """
    try:
        async with asyncio.timeout(patience):
            reader, writer = await connect(folder, QMP_SOCKET)
            try:
                await _message(reader)  # its greeting
                for each in ("qmp_capabilities", command):
                    writer.write(json.dumps({"execute": each}).encode() + b"\n")
                    answer = await _answer(reader, each)
            finally:
                writer.close()
    except TimeoutError as error:
        raise QmpError(f"QEMU did not answer {command} within {patience:g} s") from error
    return answer


async def _answer(reader: asyncio.StreamReader, command: str) -> Any:
    while True:  # events may come before it
        message = await _message(reader)
        if "error" in message:
            raise QmpError(f"{command}: {message['error'].get('desc', message['error'])}")
        if "return" in message:
            return message["return"]


async def _message(reader: asyncio.StreamReader) -> dict[str, Any]:
    line = await reader.readline()
    if not line:
        raise QmpError("QEMU closed its control channel")
    message: dict[str, Any] = json.loads(line)
    return message
