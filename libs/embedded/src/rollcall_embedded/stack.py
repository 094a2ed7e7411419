"""The whole of Rollcall on one machine: servers, services and agents as children of one process."""

import asyncio
import os
import secrets
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

from rollcall_kit.config import ConfigError, load_config
from rollcall_kit.secrets import new_key

from rollcall_embedded.certificates import Certificates, make_certificates
from rollcall_embedded.environment import agent_environment, service_environment
from rollcall_embedded.folder import lock, make_state_dir, rotated
from rollcall_embedded.packages import ensure_packages
from rollcall_embedded.postgres import PostgresServer
from rollcall_embedded.probe import answers, is_ready, reaches_broker
from rollcall_embedded.process import (
    LOOPBACK,
    EmbeddedError,
    accepts,
    exited,
    free_port,
    kept_secret,
    spawn,
    tail,
)
from rollcall_embedded.rabbitmq import RabbitServer
from rollcall_embedded.server import Server
from rollcall_embedded.supervise import Supervised
from rollcall_embedded.together import together

CONTROL_PLANE = ("orchestrator", "image-publisher", "health-prober", "http-api")
READY_PATIENCE = 60.0  # seconds for a service to reach the broker
DEATHS_AT_START = 2  # then it will not do better the next time
SERVICE_PATIENCE = 4.0  # seconds to stop, before being killed
# As the agents' grace and more, on a busy machine: what is killed here leaves instances behind.
INSTANCES_PATIENCE = 45.0


def _agent(host: str) -> str:
    return f"instance-agent-{host}"


def _silent(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """How a stack is run."""

    state_dir: Path
    config: Path | None = None  # the configuration file: feeds, catalogue
    api_port: int = 0  # 0: a free one
    agents: int = 2
    tls: bool = False  # the API speaks https, with a certificate of this machine's own
    throwaway: bool = False  # the state is not meant to survive a crash of the machine
    extra_env: Mapping[str, str] = field(default_factory=dict)
    host_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # of a host's agent
    report: Callable[[str], None] = _silent  # told of progress, a line at a time


class Stack:
    """A running installation; `async with Stack(options) as stack`.

    `ROLLCALL_DATABASE_URL` and `ROLLCALL_AMQP_URL` of the environment name servers to use instead
    of private ones. Children end with this process, even when it is killed; the agents' instances
    live on then, and the next stack in the folder takes them over.
    """

    def __init__(self, options: StackOptions) -> None:
        self.options = options
        self.folder = options.state_dir.expanduser().absolute()
        self.logs = self.folder / "logs"
        self.token_file = self.folder / "api-token"
        self.processes: dict[str, Supervised] = {}
        self.api_port = options.api_port
        config = options.config
        self._config = str(config.expanduser().absolute()) if config else ""
        self.token = self._secrets_key = ""
        self.database_url = os.environ.get("ROLLCALL_DATABASE_URL", "")
        self.amqp_url = os.environ.get("ROLLCALL_AMQP_URL", "")
        self.certificates: Certificates | None = None  # with options.tls, once it is started
        self._trust: ssl.SSLContext | None = None
        self._postgres: PostgresServer | None = None
        self._rabbit: RabbitServer | None = None
        self._metrics_ports: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._held = ExitStack()

    @property
    def api_url(self) -> str:
        """Return the address of the API."""
        scheme = "https" if self.options.tls else "http"
        return f"{scheme}://{LOOPBACK}:{self.api_port}"

    @property
    def auditor_amqp_url(self) -> str:
        """Return the auditor's AMQP URL. Raises EmbeddedError when the broker is not ours."""
        if self._rabbit is None:
            raise EmbeddedError(
                "the broker was given by ROLLCALL_AMQP_URL: it has its own accounts"
            )
        return self._rabbit.auditor_url

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return the names of the agents' hosts."""
        return tuple(f"host-{number + 1}" for number in range(self.options.agents))

    def metrics_url(self, name: str) -> str:
        """Return where a service shows its metrics; it changes when the service starts again."""
        return f"http://{LOOPBACK}:{self._metrics_ports[name]}/metrics"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything and wait until it works.

        Raises EmbeddedError, which ends with the log of what did not start; nothing runs then.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop everything, instances too, in less than 15 seconds; a cancellation waits for it."""
        work = asyncio.ensure_future(self._stop())
        cancelled = False
        while not work.done():
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                cancelled = True
        work.result()
        if cancelled:
            raise asyncio.CancelledError

    async def kill(self, name: str, *, restart: bool = True) -> None:
        """Kill a child (`orchestrator`, `instance-agent-host-1`, `rabbitmq` …) as by kill -9."""
        await self.processes[name].kill(restart=restart)

    async def restart(self, name: str) -> None:
        """Stop a service where it runs, start it, and wait until it works."""
        child = self.processes[name]
        await child.halt(SERVICE_PATIENCE)
        child.resume()
        await self._await_service(name)

    async def _start(self) -> None:
        if self.api_port and accepts(self.api_port):
            raise EmbeddedError(
                f"port {self.api_port} of {LOOPBACK} is in use: choose another with --api-port"
            )
        try:  # a mistake is better told here than in five logs
            load_config(self._config)
        except ConfigError as error:
            raise EmbeddedError(str(error)) from error
        make_state_dir(self.folder)
        self._held.enter_context(lock(self.folder))
        self.token = kept_secret(self.token_file, secrets.token_urlsafe(32))
        self._secrets_key = kept_secret(self.folder / "secrets-key", new_key())
        self.api_port = self.api_port or free_port()
        if self.options.tls:
            self.certificates = make_certificates(self.folder / "tls", datetime.now(UTC))
            self._trust = self.certificates.client_context()
        await self._start_servers()
        for name in CONTROL_PLANE:
            self._supervise(name, partial(self._start_service, name))
        for host in self.hosts:
            name = _agent(host)
            self._supervise(name, partial(self._start_service, name, self._agent_env(host)))
        await together(*(self._await_service(name) for name in self._service_names()))

    async def _start_servers(self) -> None:
        if not self.database_url:
            self._postgres = PostgresServer(
                self.folder / "postgres", throwaway=self.options.throwaway
            )
        if not self.amqp_url:
            self._rabbit = RabbitServer(self.folder / "rabbitmq")
        given = {"ROLLCALL_DATABASE_URL": self.database_url, "ROLLCALL_AMQP_URL": self.amqp_url}
        await together(*(answers(name, url) for name, url in given.items() if url))
        servers: list[Server] = [s for s in (self._postgres, self._rabbit) if s is not None]
        if servers:
            await asyncio.to_thread(ensure_packages, self.options.report)
        await together(*(self._start_server(server) for server in servers))
        if self._postgres is not None:
            self.database_url = self._postgres.url()
        if self._rabbit is not None:
            self.amqp_url = self._rabbit.url()

    async def _start_server(self, server: Server) -> None:
        began = time.monotonic()
        await server.start()
        self._say_ready(server.name, began)

        def again() -> "subprocess.Popen[bytes]":
            server.process = server.launch()
            return server.process

        self._supervise(server.name, again, process=server.process)

    def _supervise(
        self,
        name: str,
        start: Callable[[], "subprocess.Popen[bytes]"],
        process: "subprocess.Popen[bytes] | None" = None,
    ) -> None:
        child = Supervised(name, start, self.options.report, process=process)
        self.processes[name] = child
        self._tasks.append(asyncio.create_task(child.run()))

    def _service_names(self) -> list[str]:
        return [*CONTROL_PLANE, *(_agent(host) for host in self.hosts)]

    def _start_service(
        self, name: str, environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        self._metrics_ports[name] = free_port()
        module = "instance_agent" if environment else name.replace("-", "_")
        return spawn(
            [sys.executable, "-m", module],
            log=rotated(self.logs / f"{name}.log"),
            env={
                **(environment or self._environment()),
                "ROLLCALL_METRICS_PORT": str(self._metrics_ports[name]),
            },
            cwd=self.folder,
        )

    def _environment(self) -> dict[str, str]:
        return service_environment(
            amqp_url=self.amqp_url,
            database_url=self.database_url,
            secrets_key=self._secrets_key,
            token=self.token,
            api_port=self.api_port,
            config=self._config,
            extra={**self._tls_environment(), **self.options.extra_env},
        )

    def _tls_environment(self) -> dict[str, str]:
        if self.certificates is None:
            return {}
        return {
            "ROLLCALL_API_TLS_CERTIFICATE": str(self.certificates.certificate),
            "ROLLCALL_API_TLS_KEY": str(self.certificates.key),
        }

    def _agent_env(self, host: str) -> dict[str, str]:
        shared = {**self._environment(), **self.options.host_env.get(host, {})}
        return agent_environment(shared, self.folder / "agents" / host, host=host, hosts=self.hosts)

    async def _await_service(self, name: str) -> None:
        """Wait until a service works. Raises EmbeddedError when it dies again or takes too long."""
        child = self.processes[name]
        began, deaths = time.monotonic(), child.deaths
        while not await self._works(name):
            dead = child.deaths - deaths >= DEATHS_AT_START
            if dead or time.monotonic() - began > READY_PATIENCE:
                log = self.logs / f"{name}.log"
                fault = "ends at once" if dead else f"is not ready after {READY_PATIENCE:g} s"
                raise EmbeddedError(f"{name} {fault}; the end of {log}:\n{tail(log)}")
            await asyncio.sleep(0.1)
        self._say_ready(name, began)

    def _works(self, name: str) -> Awaitable[bool]:
        if name == "http-api":
            return is_ready(self.api_port, self._trust)
        return reaches_broker(self._metrics_ports.get(name, 0))

    def _say_ready(self, name: str, began: float) -> None:
        self.options.report(f"{name} is ready ({time.monotonic() - began:.1f} s)")

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        services = [
            child for name, child in self.processes.items() if name in self._service_names()
        ]
        await asyncio.gather(*(child.halt(SERVICE_PATIENCE) for child in services))
        if services:
            await asyncio.gather(*(self._stop_instances(host) for host in self.hosts))
        servers = [server for server in (self._rabbit, self._postgres) if server is not None]
        await asyncio.gather(*(server.stop() for server in servers))
        self.processes.clear()
        self._held.close()

    async def _stop_instances(self, host: str) -> None:
        log = self.logs / f"stop-instances-{host}.log"
        process = spawn(
            [sys.executable, "-m", "instance_agent.stop_instances"],
            log=rotated(log),
            env=self._agent_env(host),
            cwd=self.folder,
        )
        if not await exited(process, INSTANCES_PATIENCE):
            process.kill()
            process.wait()
            self.options.report(f"the instances of {host} did not stop in time: see {log}")
        elif process.returncode != 0:
            self.options.report(f"the instances of {host} may still run: see {log}")
