"""The connection to libvirt's daemon: calls in threads, and a new connection after a restart."""

import asyncio
import importlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar

import structlog
from rollcall_contracts.model import FailureCode

from instance_agent.driver import DriverNotFound
from instance_agent.failures import OperationFailed

log = structlog.get_logger()

T = TypeVar("T")

_THREADS = 16
_TRY_AGAIN = 0.5  # seconds between two tries to reach a daemon that is away
_KEEPALIVE = (5, 3)  # seconds between questions to a remote daemon, and how many may be unanswered


class _Away(Exception):
    """The daemon cannot be reached, or went away meanwhile."""


@cache
def bindings() -> Any:
    """Return libvirt's Python module. Raises DriverNotFound where it is not installed."""
    try:
        found = importlib.import_module("libvirt")
    except ImportError as error:
        raise DriverNotFound(
            "ROLLCALL_DRIVER=libvirt: libvirt-python is not installed; it is built against "
            "libvirt's headers: apt-get install libvirt-dev pkg-config gcc python3-dev, then "
            "pip install 'instance-agent[libvirt]'"
        ) from error
    found.registerErrorHandler(_ignore, None)  # errors are raised, and need not be printed too
    # Without its event loop libvirt does not notice that a remote host is gone.
    found.virEventRegisterDefaultImpl()
    threading.Thread(target=_run_events, args=(found,), daemon=True, name="libvirt").start()
    return found


def _ignore(_context: object, _error: object) -> None:
    """Take an error that is raised as well."""


def _run_events(found: Any) -> None:
    while True:
        found.virEventRunDefaultImpl()


class Connection:
    """Does work on an open connection, which is opened again when it has broken.

    Work is a function that takes the connection. It may be done twice, so it looks before it acts.
    """

    def __init__(self, uri: str, patience: float) -> None:
        """Take where the daemon is, and how many seconds it may be away."""
        self._uri = uri
        self._patience = patience
        self._lock = threading.Lock()
        self._open: Any = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="libvirt")

    async def call(self, work: Callable[[Any], T]) -> T:
        """Return what the work returns. When cancelled, it is waited for.

        Raises OperationFailed where libvirt refuses, or is away for longer than its patience.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while True:
            try:
                return await self._in_thread(partial(self.do, work))
            except _Away as error:
                if loop.time() >= deadline:
                    raise OperationFailed(
                        FailureCode.DRIVER,
                        f"libvirt at {self._uri} does not answer: {error}; start it (systemctl "
                        "start libvirtd), or mend ROLLCALL_LIBVIRT_URI",
                    ) from error
                log.warning("libvirt_away", uri=self._uri, error=str(error))
            await asyncio.sleep(_TRY_AGAIN)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # nobody asks for it any more
            raise

    def do(self, work: Callable[[Any], T]) -> T:
        """Do the work in this thread. Raises OperationFailed, or _Away."""
        libvirt = bindings()
        connection = self._connected(libvirt)
        try:
            return work(connection)
        except libvirt.libvirtError as error:
            if _is_alive(libvirt, connection):
                raise OperationFailed(FailureCode.DRIVER, f"libvirt: {error}") from error
            self._forget(connection)
            raise _Away(str(error)) from error

    def check(self) -> None:
        """Raise DriverNotFound where there is no libvirt that could be used."""
        try:
            self.do(lambda connection: connection.getLibVersion())
        except (_Away, OperationFailed) as error:
            raise DriverNotFound(
                f"ROLLCALL_DRIVER=libvirt: {self._uri} cannot be reached: {error}; start libvirt "
                "(systemctl start libvirtd), or mend ROLLCALL_LIBVIRT_URI"
            ) from error

    def _connected(self, libvirt: Any) -> Any:
        with self._lock:
            if self._open is None:
                try:
                    self._open = libvirt.open(self._uri)
                except libvirt.libvirtError as error:
                    raise _Away(str(error)) from error
                self._open.setKeepAlive(*_KEEPALIVE)
            return self._open

    def _forget(self, connection: Any) -> None:
        with self._lock:
            if self._open is connection:
                self._open = None


def _is_alive(libvirt: Any, connection: Any) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False
