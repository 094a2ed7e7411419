"""The ports of this host's instances: one each, for as long as the instance exists."""

import asyncio
import socket
import zlib
from collections.abc import Iterable

from rollcall_contracts.model import FailureCode

from instance_agent.failures import OperationFailed

_MOMENT = 1.0  # seconds


class Ports:
    """Which ports of the range are taken, stopped instances' ones too."""

    def __init__(self, allowed: range, address: str, agent: str, taken: set[int]) -> None:
        self._allowed = allowed
        self._address = address
        self._taken = taken
        # Agents of one machine begin at different places, so that they rarely meet: the port of an
        # instance that is stopped looks free to another agent.
        self._first = zlib.crc32(agent.encode()) % len(allowed)

    def know(self, taken: Iterable[int]) -> None:
        """Remember ports that instances have."""
        self._taken.update(taken)

    def take(self) -> int:
        """Return a port that no instance has and nobody listens on. Raises OperationFailed."""
        count = len(self._allowed)
        for offset in range(count):
            port = self._allowed[(self._first + offset) % count]
            if port not in self._taken and _is_free(self._address, port):
                self._taken.add(port)
                return port
        raise OperationFailed(
            FailureCode.DRIVER,
            f"no free port in {self._allowed[0]}-{self._allowed[-1]} on {self._address}: "
            "widen ROLLCALL_PORT_RANGE",
        )

    async def until_free(self, port: int, instance_id: str) -> None:
        """Return when nobody listens where the instance will. Raises OperationFailed.

        What is left of the instance itself was ended just now, and goes in a moment.
        """
        try:
            async with asyncio.timeout(_MOMENT):
                while not _is_free(self._address, port):  # noqa: ASYNC110 (no event tells of it)
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise OperationFailed(
                FailureCode.START,
                f"port {port}, which is this instance's, is taken by another program: end that one",
                instance_id,
            ) from error

    def give_back(self, port: int) -> None:
        """Let another instance have the port."""
        self._taken.discard(port)


def _is_free(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
