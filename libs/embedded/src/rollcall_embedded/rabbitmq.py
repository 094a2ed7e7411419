"""A private RabbitMQ from the distribution's package: own folder, own ports, own epmd."""

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from rollcall_kit.auditing import AUDITOR
from rollcall_kit.definitions import USER, VHOST, broker_definitions

from rollcall_embedded.process import (
    LOOPBACK,
    EmbeddedError,
    accepts,
    free_port,
    kept_secret,
    private_folder,
    spawn,
    terminate,
    write_private,
)
from rollcall_embedded.server import Server

NODE = "rollcall@localhost"

# Erlang's distribution stays on loopback, for the server and for its tools.
_LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"

# The 30 minutes of RabbitMQ's own would close the channel of an agent that upgrades for longer, and
# of each prober. deploy/rabbitmq.conf says the same.
_CONSUMER_TIMEOUT = 30 * 86_400_000  # milliseconds

_CONFIGURATION = """\
listeners.tcp.1 = {loopback}:{port}
management.tcp.ip = {loopback}
management.tcp.port = {management_port}
definitions.import_backend = local_filesystem
definitions.local.path = {definitions}
log.console = true
log.console.level = info
log.file = false
raft.wal_max_size_bytes = 67108864
consumer_timeout = {consumer_timeout}
"""


def find_rabbitmq() -> Path | None:
    """Return the server's start script, None where RabbitMQ is not installed.

    Not the wrapper in /usr/sbin: that one wants to be another user.
    """
    script = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    return script if script.exists() else None


class RabbitServer(Server):
    """A RabbitMQ in `folder`, which keeps its queues from one start to the next.

    `management` serves the HTTP API on a loopback port, which takes a second more to start.
    `throwaway` kills it when stopped, which is quicker: for tests.
    """

    name = "rabbitmq"

    def __init__(self, folder: Path, *, management: bool = False, throwaway: bool = False) -> None:
        super().__init__(folder)
        self.throwaway = throwaway
        self.management = management
        self.password = self.auditor_password = ""
        self.port = self.management_port = self.distribution_port = self.epmd_port = 0
        self._epmd: subprocess.Popen[bytes] | None = None

    def url(self, vhost: str = VHOST, user: str = USER, password: str | None = None) -> str:
        """Return the AMQP URL of a vhost; the account is `rollcall` unless told."""
        secret = self.password if password is None else password
        return (
            f"amqp://{quote(user)}:{quote(secret)}@{LOOPBACK}:{self.port}/{quote(vhost, safe='')}"
        )

    @property
    def auditor_url(self) -> str:
        """Return the AMQP URL of the auditor's account, which can only read its own queue."""
        return self.url(user=AUDITOR, password=self.auditor_password)

    @property
    def management_url(self) -> str:
        """Return the address of the management API."""
        return f"http://{LOOPBACK}:{self.management_port}"

    def prepare(self) -> None:
        """Make the folder. Raises EmbeddedError while another server runs in it."""
        private_folder(self.folder)
        self.password = kept_secret(self.folder / "password", secrets.token_urlsafe(18))
        self.auditor_password = kept_secret(
            self.folder / "auditor-password", secrets.token_urlsafe(18)
        )
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            write_private(cookie, secrets.token_hex(20), 0o400)
        plugins = "rabbitmq_management" if self.management else ""
        (self.folder / "enabled_plugins").write_text(f"[{plugins}].\n")
        (self.folder / "advanced.config").write_text("[].\n")
        made = broker_definitions(password=self.password, auditor_password=self.auditor_password)
        write_private(self.folder / "definitions.json", json.dumps(made))
        self.await_predecessor(self.folder / "server.pid")

    def choose_ports(self) -> None:
        """Take free ports for AMQP, management, distribution and epmd."""
        ports: set[int] = set()
        while len(ports) < 4:
            ports.add(free_port())
        self.port, self.management_port, self.distribution_port, self.epmd_port = ports

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start epmd where it is not running, and the server, both in the foreground."""
        script = find_rabbitmq()
        if script is None:
            raise EmbeddedError("RabbitMQ is not installed")
        text = _CONFIGURATION.format(
            loopback=LOOPBACK,
            port=self.port,
            management_port=self.management_port,
            definitions=self.folder / "definitions.json",
            consumer_timeout=_CONSUMER_TIMEOUT,
        )
        if not self.management:
            text = "".join(
                line for line in text.splitlines(True) if not line.startswith("management.")
            )
        (self.folder / "rabbitmq.conf").write_text(text)
        self._launch_epmd()
        return spawn([str(script)], log=self.log, env=self._environment(), cwd=self.folder)

    def is_ready(self) -> bool:
        """Say whether the server takes connections."""
        return accepts(self.port) and (not self.management or accepts(self.management_port))

    async def stop(self) -> None:
        """Stop the server, then its epmd."""
        if self.process is not None:
            if self.throwaway:
                self.process.kill()
            await terminate(self.process, patience=6)
            self.process = None
        if self._epmd is not None:
            await terminate(self._epmd, patience=2)
            self._epmd = None

    def _launch_epmd(self) -> None:
        if self._epmd is not None and self._epmd.poll() is None:
            return
        program = shutil.which("epmd")
        if program is None:
            raise EmbeddedError("epmd, a part of Erlang, is not installed")
        self._epmd = spawn(
            [program, "-port", str(self.epmd_port), "-address", LOOPBACK],
            log=self.folder / "epmd.log",
            env=self._environment(),
            cwd=self.folder,
        )
        deadline = time.monotonic() + 5
        while not accepts(self.epmd_port) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _environment(self) -> Mapping[str, str]:
        folder = str(self.folder)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": folder,
            "RUNNING_UNDER_SYSTEMD": "true",  # the script then becomes the server: one pid to stop
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_PID_FILE": f"{folder}/server.pid",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/generated",
            "RABBITMQ_FEATURE_FLAGS_FILE": f"{folder}/feature_flags",
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",  # do not pin: the cores are shared with others
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _LOOPBACK_ONLY,
            "RABBITMQ_CTL_ERL_ARGS": _LOOPBACK_ONLY,
        }
