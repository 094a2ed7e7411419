"""The ports of this host's instances: one each, for as long as the instance exists."""

import socket
import zlib
from collections.abc import Iterable

from rollcall_contracts.model import FailureCode

from instance_agent.failures import OperationFailed


class Ports:
    """Which ports of the range are taken, stopped instances' ones too."""

    def __init__(self, allowed: range, address: str, host: str, taken: set[int]) -> None:
        self._allowed = allowed
        self._address = address
        self._taken = taken
        # Agents of one machine begin at different places, so that they rarely meet.
        self._first = zlib.crc32(host.encode()) % len(allowed)

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
