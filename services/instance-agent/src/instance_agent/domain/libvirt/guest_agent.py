"""What is said to the QEMU guest agent, and what its answers mean (QEMU, qemu-ga-ref).

All orders may be carried out twice: an answer that was lost does not say whether its order was
carried out. No secret stands in an order's program or arguments, as the guest shows them to every
user, and the guest agent writes them to the system's log; secrets go in by its standard input.
"""

import base64
import hashlib
import hmac
import json
import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from instance_agent.domain.qemu import CHANNEL

AGENT_CHANNEL = "org.qemu.guest_agent.0"
JOB = ".job"  # the file that runs a script in the guest: drivers/libvirt/job.sh
COMMAND = ".command"  # the script itself

_EXEC, _STATUS = "guest-exec", "guest-exec-status"
_TOP = "/run/rollcall/jobs"
_LATE = "late"  # job.sh's word for a script that was killed because its time was up
# Bytes of a file in one command. With libvirt 9 and QEMU 7.2 commands above some 210 kB, about
# what a socket holds, got stuck, and the guest agent with them.
_CHUNK = 96 * 1024
# libvirt's numbers (virterror.h); a library that is older than an error does not name it.
_INTERNAL_ERROR, _COMMAND_FAILED = 1, 113
_UNANSWERED = {
    42: "VIR_ERR_NO_DOMAIN",
    55: "VIR_ERR_OPERATION_INVALID",  # the domain does not run
    68: "VIR_ERR_OPERATION_TIMEOUT",
    74: "VIR_ERR_ARGUMENT_UNSUPPORTED",  # it has no channel for a guest agent
    86: "VIR_ERR_AGENT_UNRESPONSIVE",
    97: "VIR_ERR_AGENT_UNSYNCED",
    112: "VIR_ERR_AGENT_COMMAND_TIMEOUT",
}


class Unanswered(Exception):
    """The guest agent is not there, or has not answered; what was asked may have been done."""


class Refused(Exception):
    """The guest agent does not do what it was asked; the message has its words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a program in the guest ended."""

    exit_code: int | None  # None: a signal ended it
    output: str
    errors: str


def failure(command: str, code: int, words: str) -> Unanswered | Refused | None:
    """Return what libvirt's error says about the guest agent; None where it is about libvirt.

    libvirt before 11 tells a refusal by an internal error that names the command.
    """
    name = json.loads(command)["execute"]
    if code == _COMMAND_FAILED or (code == _INTERNAL_ERROR and f"'{name}'" in words):
        return Refused(words)
    return Unanswered(words) if code in _UNANSWERED else None


def never(*, agent: bool, program: bool, seed: bool, asks: bool, refusal: str) -> str:
    """Return why a script can never run in a domain that runs, and what to do, or "".

    `agent` and `program`: it has the channel of the guest agent, and that of the seed's program.
    `seed`: it has a disk for the seed. `asks`: the script asks what came of custom data. `refusal`:
    what the guest agent said when it did not run it.
    """
    if asks and not seed:
        return (
            "it has no disk for the seed, from which the guest runs custom data: add one, or take "
            "custom data out of the model"
        )
    if not program and refusal:
        return refusal
    if not program and not agent:
        return (
            f"it has no channel over which a guest takes scripts: add {AGENT_CHANNEL}, for QEMU's "
            f"guest agent, or {CHANNEL} and a disk for the seed, or take custom data and "
            "extensions out of the model"
        )
    return ""


def info() -> str:
    """Return the question what the guest agent can do."""
    return json.dumps({"execute": "guest-info"})


def check_can_execute(reply: str) -> None:
    """Raise Refused, saying what to do, where the guest agent runs no programs."""
    said = _returned(reply)
    commands = said.get("supported_commands", []) if isinstance(said, dict) else []
    enabled = {each["name"] for each in commands if each.get("enabled")}
    missing = [name for name in (_EXEC, _STATUS) if name not in enabled]
    if missing:
        raise Refused(
            f"its guest agent does not allow {' and '.join(missing)}: allow it in the image (the "
            "guest agent's block-rpcs or allow-rpcs, on Red Hat and its kin in "
            "/etc/sysconfig/qemu-ga)"
        )


def execute(shell: str, given: bytes = b"") -> str:
    """Return the order to have the guest's shell do something, with that as its input."""
    arguments: dict[str, Any] = {"path": "/bin/sh", "arg": ["-c", shell], "capture-output": True}
    if given:
        arguments["input-data"] = base64.b64encode(given).decode()
    return json.dumps({"execute": _EXEC, "arguments": arguments})


def status(pid: int) -> str:
    """Return the question how a program ended."""
    return json.dumps({"execute": _STATUS, "arguments": {"pid": pid}})


def process_of(reply: str) -> int:
    """Return the process id in the answer to `execute`. Raises Refused for nonsense."""
    said = _returned(reply)
    try:
        return int(said["pid"])
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"its guest agent answers with no process id: {reply[:200]}") from error


def ending_of(reply: str) -> Ending | None:
    """Return how a program ended, from the answer to `status`; None: it runs. Raises Refused."""
    said = _returned(reply)
    try:
        if not said["exited"]:
            return None
        return Ending(
            # Windows' agent tells exceptions as signals, Unix' real ones.
            exit_code=None if "signal" in said else int(said.get("exitcode", 0)),
            output=_text(said.get("out-data", "")),
            errors=_text(said.get("err-data", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(f"its guest agent does not say how it went: {reply[:200]}") from error


def _returned(reply: str) -> Any:
    try:
        said = json.loads(reply)
    except ValueError as error:
        raise Refused(f"its guest agent answers with no JSON: {reply[:200]}") from error
    return said.get("return") if isinstance(said, dict) else None


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")


# Scripts run once the guest has booted, as on Azure, and not in the middle of cloud-init's work.
# How that went is not asked here: custom data that failed is told by its own question. Without
# cloud-init a unit that is slow to start is waited for a minute at most.
BOOTED = """\
if command -v cloud-init; then cloud-init status --wait
elif [ -d /run/systemd/system ]; then timeout 60 systemctl is-system-running --wait
fi >/dev/null 2>&1
exit 0"""


# In memory, as secrets lie there, and gone with the boot. Not /run itself: on Debian and its kin no
# program can be run from there.
PLACE = f"""\
umask 077
mkdir -p {_TOP}
grep -q ' {_TOP} ' /proc/mounts || mount -t tmpfs -o mode=700,nosuid,nodev tmpfs {_TOP} || :"""


@dataclass(frozen=True, slots=True)
class Job:
    """One script of one OS disk, and the orders for it."""

    folder: str  # in the guest

    def bring(self, content: bytes) -> Iterator[str]:
        """Give the orders that bring the job's files, as a tar."""
        top = self.folder.rpartition("/")[0]
        for number, begin in enumerate(range(0, len(content), _CHUNK)):
            yield execute(
                f"umask 077; mkdir -p {top} && exec dd of={self.folder}.tar "
                f"bs={_CHUNK} seek={number} conv=notrunc",
                content[begin : begin + _CHUNK],
            )

    def run(self, timeout: float) -> str:
        """Return the order to begin with it, unless that was done, and to wait for its end."""
        own = self.folder
        return execute(
            f"umask 077; [ -e {own}/.whole ] || {{ mkdir -p {own} && tar -xf {own}.tar -C {own} && "
            f": >{own}/.whole; }} || exit 1; rm -f {own}.tar; "
            f"exec sh {own}/{JOB} {own} {math.ceil(timeout)}"
        )

    def end(self) -> str:
        """Return the order to kill what is left of it, and to drop its files."""
        own = self.folder
        return execute(  # moved first, or what is just being killed could write into it
            f"sh {own}/{JOB} {own} 0 end 2>/dev/null; "
            f"mv {own} {own}.$$ 2>/dev/null && rm -rf {own}.$$; rm -f {own}.tar"
        )

    def command(self, words: tuple[str, ...], variables: Mapping[str, str], *, root: bool) -> str:
        """Return what the guest's shell runs.

        A shell's `-c TEXT` becomes the text itself, as it would be on the list of processes, with
        all its secrets. `{files}` becomes the folder.
        """
        settings = "".join(f"export {name}={shlex.quote(v)}\n" for name, v in variables.items())
        place = "/" if root else self.folder
        given = [word.replace("{files}", self.folder) for word in words]
        if len(given) == 3 and given[:2] == ["/bin/sh", "-c"]:
            return f"{settings}cd {place} || exit 1\n{given[2]}\n"
        return f"{settings}cd {place} || exit 1\nexec {shlex.join(given)}\n"


def job_of(secret: str, *parts: bytes) -> Job:
    """Return the job that a script is: another one for another OS disk or other content.

    Its name is seen by everyone in the guest, so nobody must be able to guess the content from it:
    `secret` is something of the domain that only root knows there.
    """
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    name = hmac.new(secret.encode(), whole.digest(), "sha256").hexdigest()[:16]
    return Job(f"{_TOP}/{name}")


def check_brought(ending: Ending) -> None:
    """Raise Refused where the guest has not taken a job's files."""
    if ending.exit_code != 0:
        raise Refused(f"its guest did not take the files: {_words(ending)}")


def outcome(ending: Ending) -> tuple[int | None, str]:
    """Return a script's exit code, None when its time was up, and the last of its output.

    Raises Refused where the job itself did not work.
    """
    first, _, output = ending.output.partition("\n")
    if ending.exit_code == 0 and first == _LATE:
        return None, output.strip()
    if ending.exit_code == 0 and first.isdigit():
        return int(first), output.strip()
    raise Refused(f"its guest did not run it (exit code {ending.exit_code}): {_words(ending)}")


def _words(ending: Ending) -> str:
    return (ending.errors or ending.output).strip()[-500:] or "it says nothing"
