"""Scripts in a running container, by the engine's exec; each ends with its time, or its agent.

An exec goes on when nobody listens to it any more. So each script writes down which process it is,
in a folder of its own in the container, and is ended by that: a session's leader, as the runtime
makes it, with all of its group.
"""

import asyncio
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from aiodocker import Docker
from aiodocker.containers import DockerContainer

from instance_agent.driver import Script, ScriptResult

_TOP = ".rollcall"
_OUTPUT = 2048  # bytes of output in a result
# Runs a command, and remembers who runs it. Output goes to a file: what a script leaves running
# could hold a pipe open.
_RUN = 'echo $$ >"$0/process" && exec "$@" >"$0/output" 2>&1'
# Ends what is left of a script, if it is that script still and no other process with its number.
_END = (
    'read -r leader <"$0/process" || exit 0; '
    'case "$1$(cat "/proc/$leader/environ" 2>/dev/null)" in '
    'ended*|*"ROLLCALL_SCRIPT=$2"*) kill -9 -- "-$leader";; esac; rm -f "$0/process"'
)
_TAIL = f'tail -c {_OUTPUT} "$0/output"'


async def run(
    client: Docker, container: str, script: Script, environment: Mapping[str, str]
) -> ScriptResult:
    """Run a script as root. When cancelled, nothing of it goes on."""
    found = client.containers.container(container)
    own = f"/{_TOP}/{script.name}"
    await _shell(found, _END, own, "unknown", script.name)  # of an agent that was killed
    files = await asyncio.to_thread(_packed, script)
    await found.put_archive("/", files)  # type: ignore[no-untyped-call]  # aiodocker says no types
    command = [part.replace("{files}", own) for part in script.command]
    code: int | None = None
    ended = "unknown"
    try:
        async with asyncio.timeout(script.timeout):
            code = await _execute(
                found,
                ["/bin/sh", "-c", _RUN, own, *command],
                environment={**environment, "ROLLCALL_SCRIPT": script.name},
                workdir="/" if script.in_root else own,
            )
            ended = "ended"  # its group may have others in it still, who keep the number from reuse
    except TimeoutError:
        code = None
    finally:
        await asyncio.shield(_shell(found, _END, own, ended, script.name))
    return ScriptResult(exit_code=code, output=await _shell(found, _TAIL, own))


async def _execute(
    container: DockerContainer,
    command: list[str],
    *,
    environment: Mapping[str, str] | None = None,
    workdir: str | None = None,
    output: io.BytesIO | None = None,
) -> int:
    """Run a command in the container, and return its exit code."""
    execution = await container.exec(command, user="0", environment=environment, workdir=workdir)
    async with execution.start() as stream:
        while (message := await stream.read_out()) is not None:
            if output is not None:
                output.write(message.data)
    return int((await execution.inspect())["ExitCode"])


async def _shell(container: DockerContainer, text: str, *arguments: str) -> str:
    output = io.BytesIO()
    await _execute(container, ["/bin/sh", "-c", text, *arguments], output=output)
    return output.getvalue().decode(errors="replace").strip()


def _packed(script: Script) -> bytes:
    """Return a tar of the script's own folder, with its files."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for folder in (_TOP, f"{_TOP}/{script.name}"):
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, 0o700
            tar.addfile(member)
        for name, path in script.files.items():
            _add(tar, f"{_TOP}/{script.name}/{name}", path)
    return raw.getvalue()


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    member = tarfile.TarInfo(name)
    member.mode, member.size = 0o700, path.stat().st_size
    with path.open("rb") as file:
        tar.addfile(member, file)
