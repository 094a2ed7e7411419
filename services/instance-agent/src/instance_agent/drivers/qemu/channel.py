"""The agent's end of the channel to the program in the guest that runs scripts: see runner.sh."""

import asyncio
import base64
import io
import secrets
import shlex
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from instance_agent.domain.qemu import CHANNEL_SOCKET
from instance_agent.driver import CUSTOM_DATA, Script, ScriptResult
from instance_agent.drivers.qemu.sockets import Streams, connect

_HELLO_AGAIN = 1.0  # seconds

# The custom data ran, or runs, as the guest boots; this says what came of it.
ASK_CUSTOM_DATA = """\
if command -v cloud-init >/dev/null 2>&1; then
  tail -c 1500 /var/log/cloud-init-output.log 2>/dev/null
  cloud-init status --wait --long
  code=$?
  [ "$code" = 2 ] && exit 0 # it has warnings, and went on
  exit "$code"
fi
while [ ! -e /run/rollcall/user-data.exit ]; do sleep 0.1; done
cat /run/rollcall/user-data.log
exit "$(cat /run/rollcall/user-data.exit)"
"""


class GuestSilent(Exception):
    """The guest has not answered: it did not boot, or nothing in it takes scripts."""


@asynccontextmanager
async def _guest(folder: Path, patience: float, name: str) -> AsyncIterator[Streams]:
    """Give a connection on which the guest has answered, within `patience` seconds."""
    try:
        async with asyncio.timeout(patience):
            reader, writer = await connect(folder, name)
            try:
                await _hello(reader, writer)
            except BaseException:
                writer.close()
                raise
    except (TimeoutError, OSError) as error:
        raise GuestSilent from error
    try:
        yield reader, writer
    finally:
        writer.close()  # which ends a script that still runs
        with suppress(OSError):
            await writer.wait_closed()


async def _hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say hello until it is answered; what the guest says to an agent before this one is skipped.

    More than once: the first one may end a script which that agent had started.
    """
    word = secrets.token_hex(8)
    while True:
        writer.write(f"hello {word}\n".encode())
        with suppress(TimeoutError):
            async with asyncio.timeout(_HELLO_AGAIN):
                await _line(reader, f"ready {word}")
                return


async def _line(reader: asyncio.StreamReader, beginning: str) -> str:
    while line := await reader.readline():
        text = line.decode(errors="replace").strip()
        if text.startswith(beginning):
            return text
    raise ConnectionResetError("QEMU closed the channel")


async def greet(folder: Path, patience: float, name: str = CHANNEL_SOCKET) -> bool:
    """Return whether the guest answered within `patience` seconds."""
    try:
        async with _guest(folder, patience, name):
            return True
    except GuestSilent:
        return False


async def run(
    folder: Path, script: Script, patience: float, name: str = CHANNEL_SOCKET
) -> ScriptResult:
    """Run a script in the guest; it ends with its time, and when this is cancelled.

    Raises GuestSilent when there is no answer within `patience` seconds, and when the connection
    breaks.
    """
    word = secrets.token_hex(8)
    content = await asyncio.to_thread(_pack, script)
    async with _guest(folder, patience, name) as (reader, writer):
        try:
            async with asyncio.timeout(script.timeout):
                writer.write(f"run {word} {len(content)}\n".encode() + content)
                await writer.drain()
                _, _, code, *said = (await _line(reader, f"done {word} ")).split(" ")
        except TimeoutError:
            return ScriptResult(exit_code=None, output="")
        except OSError as error:
            raise GuestSilent from error
    output = base64.b64decode(said[0]).decode(errors="replace").strip() if said else ""
    return ScriptResult(exit_code=int(code), output=output)


def _pack(script: Script) -> bytes:
    return packed({**contents(script), ".command": _command(script).encode()})


def contents(script: Script) -> dict[str, bytes]:
    """Return the files of a script by name."""
    return {name: file.read_bytes() for name, file in script.files.items()}


def packed(files: Mapping[str, bytes]) -> bytes:
    """Return files as a tar; a multiple of 10240 bytes, and the same for the same files."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            _add(tar, name, content)
    return whole.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o700
    tar.addfile(member, io.BytesIO(content))


def _command(script: Script) -> str:
    if script.name == CUSTOM_DATA:
        return ASK_CUSTOM_DATA
    place = "/" if script.in_root else '"$1"'
    # The guest's own shell puts its folder in; all else is quoted.
    words = " ".join(
        '"$1"'.join(shlex.quote(part) for part in word.split("{files}")) for word in script.command
    )
    return f"cd {place} || exit 1\nexec {words}\n"
