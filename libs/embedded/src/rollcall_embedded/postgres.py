"""A private PostgreSQL from the distribution's package: own folder, own port, loopback only."""

import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from rollcall_embedded.process import (
    LOOPBACK,
    EmbeddedError,
    free_port,
    kept_secret,
    private_folder,
    spawn,
    terminate,
    write_private,
)
from rollcall_embedded.server import Server

USER = "rollcall"
DATABASE = "rollcall"
OS_USER = "postgres"  # the server refuses to run as root


def find_postgres() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs, None where there is none."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: int("".join(filter(str.isdigit, path.parts[-3])) or 0),
    )
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    return Path(on_path).resolve().parent if on_path and shutil.which("initdb") else None


class PostgresServer(Server):
    """A PostgreSQL in `folder`, which keeps its data from one start to the next.

    `throwaway` gives up safety against a crash of the machine for speed: for tests. As root the
    server runs as user `postgres`, who must be able to reach the folder.
    """

    name = "postgres"

    def __init__(self, folder: Path, *, throwaway: bool = False) -> None:
        super().__init__(folder)
        self.throwaway = throwaway
        self.data = self.folder / "data"
        self.password = ""
        self.port = 0

    def url(self, database: str = DATABASE) -> str:
        """Return the connection URL of one of the server's databases."""
        return f"postgresql://{USER}:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def prepare(self) -> None:
        """Make the cluster, once per folder. Raises EmbeddedError when that fails."""
        private_folder(self.folder, 0o711 if os.geteuid() == 0 else 0o700)
        self.password = kept_secret(self.folder / "password", secrets.token_urlsafe(18))
        if (self.folder / "made").exists():
            self.await_predecessor(self.data / "postmaster.pid")
            return
        shutil.rmtree(self.data, ignore_errors=True)  # of an initdb that was interrupted
        self.data.mkdir(mode=0o700)
        password_file = self.folder / "password.initdb"
        write_private(password_file, self.password + "\n")
        if os.geteuid() == 0:
            shutil.chown(self.data, OS_USER, OS_USER)
            shutil.chown(password_file, OS_USER, OS_USER)
            self._check_reachable()
        options = ["--no-sync"] if self.throwaway else []
        self._run(
            "initdb", "-D", str(self.data), "-U", USER, "-E", "UTF8", "--locale=C",
            "--auth=scram-sha-256", f"--pwfile={password_file}", *options,
        )  # fmt: skip
        self._run(
            "postgres", "--single", "-D", str(self.data), "postgres",
            text=f"CREATE DATABASE {DATABASE}\n",
        )  # fmt: skip
        password_file.unlink()
        write_private(self.folder / "made", "")

    def choose_ports(self) -> None:
        """Take a free port."""
        self.port = free_port()

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start the server in the foreground."""
        settings = {
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "jit": "off",
        }
        if self.throwaway:
            settings |= {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB"}
        options = [word for item in settings.items() for word in ("-c", "=".join(item))]
        return spawn(
            [self._program("postgres"), "-D", str(self.data), "-p", str(self.port), *options],
            log=self.log,
            env=_environment(self.data),
            cwd=self.folder,
            death_signal="INT",  # PostgreSQL's fast stop
            user=_os_user(),
        )

    def is_ready(self) -> bool:
        """Say whether the server takes connections: the last line of its pid file says so."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        mine = self.process is not None and lines[:1] == [str(self.process.pid)]
        return mine and len(lines) > 7 and lines[7].strip() == "ready"

    async def stop(self) -> None:
        """Stop the server: connections are cut, committed work is kept."""
        if self.process is not None:
            await terminate(self.process, patience=6, stop_signal=signal.SIGINT)
            self.process = None

    def _check_reachable(self) -> None:
        check = ["setpriv", "--reuid", OS_USER, "--regid", OS_USER, "--clear-groups"]
        check += ["test", "-w", str(self.data)]
        if subprocess.run(check, check=False, cwd="/").returncode != 0:
            raise EmbeddedError(
                f"user {OS_USER} cannot reach {self.data}, and PostgreSQL refuses to run as root: "
                "choose another folder with --state-dir, for example /var/lib/rollcall"
            )

    def _run(self, program: str, *arguments: str, text: str = "") -> None:
        user = _os_user()
        guard = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"] if user else []
        done = subprocess.run(
            [*guard, self._program(program), *arguments],
            input=text,
            text=True,
            capture_output=True,
            env=_environment(self.data),
            cwd=self.folder,
            check=False,
        )
        if done.returncode != 0:
            raise EmbeddedError(f"{program} failed: {done.stderr.strip() or done.stdout.strip()}")

    @staticmethod
    def _program(name: str) -> str:
        folder = find_postgres()
        if folder is None:
            raise EmbeddedError("PostgreSQL is not installed")
        return str(folder / name)


def _os_user() -> str | None:
    return OS_USER if os.geteuid() == 0 else None


def _environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LC_ALL": "C"}
