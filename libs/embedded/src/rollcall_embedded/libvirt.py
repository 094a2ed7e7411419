"""A private libvirt: a daemon of its own in a folder of its own, beside the machine's if any.

It is a session daemon, which needs no rights. As root, for whom a session is the machine's libvirt,
it runs as nobody.
"""

import contextlib
import grp
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from rollcall_embedded.process import EmbeddedError, alive_in, spawn, tail

POOL = "rollcall"
_PATIENCE = 60.0  # seconds for the daemon to answer; it asks QEMU what it can do first
_END = 5.0  # seconds for what was killed to be gone
_QEMU_CONFIGURATION = 'stdio_handler = "file"\nsecurity_driver = "none"\n'


class LibvirtDaemon:
    """A libvirtd with one storage pool; its domains end with it."""

    def __init__(self) -> None:
        # Not below a deep folder: sockets' paths are short.
        self.folder = Path(tempfile.mkdtemp(prefix="rcv-", dir="/tmp"))
        self._user = "nobody" if os.getuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Return how the daemon is reached, by root too."""
        return f"qemu+unix:///session?socket={self.folder}/run/libvirt-sock"

    @property
    def pool(self) -> Path:
        """Return the folder of the storage pool."""
        return self.folder / "pool"

    def start(self) -> None:
        """Start the daemon, and make its pool. Raises EmbeddedError."""
        for program in ("libvirtd", "virsh", "qemu-system-x86_64"):
            if shutil.which(program, path=_path()) is None:
                raise EmbeddedError(
                    f"libvirt is not installed: there is no {program}; on Debian or Ubuntu: "
                    "apt-get install libvirt-daemon-system libvirt-clients qemu-system-x86"
                )
        self.folder.chmod(0o755)
        for name in ("home", "run", "c/libvirt", "cache", "data", "pool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "c/libvirt/qemu.conf").write_text(_QEMU_CONFIGURATION)
        (self.folder / "libvirtd.conf").write_text(f'unix_sock_dir = "{self.folder}/run"\n')
        if self._user is not None:
            for place, _, _ in os.walk(self.folder):
                shutil.chown(place, self._user)
        self.launch()
        self.virsh("pool-define-as", POOL, "dir", "--target", str(self.pool))
        self.virsh("pool-start", POOL)
        self.virsh("pool-autostart", POOL)

    def launch(self) -> None:
        """Start the daemon, for the first time or again; domains that run are found again."""
        (self.folder / "run" / "libvirt-sock").unlink(missing_ok=True)
        self._process = spawn(
            [
                *self._as_user(),
                "libvirtd",
                "-f",
                f"{self.folder}/libvirtd.conf",
                "-p",
                f"{self.folder}/run/pid",
            ],
            log=self.folder / "libvirtd.log",
            env={
                "PATH": _path(),
                "HOME": f"{self.folder}/home",
                "XDG_RUNTIME_DIR": f"{self.folder}/run",
                "XDG_CONFIG_HOME": f"{self.folder}/c",
                "XDG_CACHE_HOME": f"{self.folder}/cache",
                "XDG_DATA_HOME": f"{self.folder}/data",
            },
            cwd=self.folder,
        )
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = tail(self.folder / "libvirtd.log")
                self.stop()
                raise EmbeddedError(f"libvirtd did not start; it said:\n{said}")
            time.sleep(0.1)

    def _as_user(self) -> list[str]:
        if self._user is None:
            return []
        group = grp.getgrgid(pwd.getpwnam(self._user).pw_gid).gr_name
        who = ("--reuid", self._user, "--regid", group, "--clear-groups")
        # Told again: the kernel forgets the death signal when the account changes.
        return ["setpriv", *who, "--pdeathsig", "TERM", "--"]

    def _answers(self) -> bool:
        asked = subprocess.run(
            ["virsh", "-c", self.uri, "capabilities"], capture_output=True, start_new_session=True
        )
        return asked.returncode == 0

    def virsh(self, *arguments: str) -> str:
        """Return what virsh says. Raises EmbeddedError."""
        try:
            done = subprocess.run(
                ["virsh", "-q", "-c", self.uri, *arguments],
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                start_new_session=True,  # a terminal's Ctrl-C is ours to heed
            )
        except subprocess.TimeoutExpired as error:
            raise EmbeddedError(f"virsh {' '.join(arguments)} has not ended: {error}") from error
        if done.returncode != 0:
            raise EmbeddedError(f"virsh {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    def kill(self) -> None:
        """End the daemon at once, as a crash would; its domains go on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End the daemon and all its domains, and remove its folder."""
        self.kill()
        ended = []
        for file in self.folder.rglob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(file.read_text())
                if alive_in(pid, self.folder):
                    os.kill(pid, signal.SIGKILL)
                    ended.append(pid)
        deadline = time.monotonic() + _END
        while any(alive_in(pid, self.folder) for pid in ended) and time.monotonic() < deadline:
            time.sleep(0.02)
        shutil.rmtree(self.folder, ignore_errors=True)


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
