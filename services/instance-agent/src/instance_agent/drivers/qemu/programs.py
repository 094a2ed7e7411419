"""Programs of other packages that the driver calls: qemu-img and the like."""

import asyncio
from pathlib import Path

from rollcall_contracts.model import FailureCode

from instance_agent.failures import OperationFailed

# Which Debian package has what.
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "xorriso": "xorriso",
    "zstd": "zstd",
}


async def call(*command: str, folder: Path | None = None) -> str:
    """Run a program to its end and return what it wrote.

    Raises OperationFailed. When cancelled, the program is ended and waited for.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise missing(command[0]) from error
    try:
        output, errors = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        said = (errors or output).decode(errors="replace").strip()[-1000:]
        raise OperationFailed(FailureCode.DRIVER, f"{command[0]} failed: {said}")
    return output.decode(errors="replace")


def missing(program: str) -> OperationFailed:
    """Return the failure of a host without the program, which says how to get it."""
    package = PACKAGES.get(program)
    how = f": apt-get install {package}" if package else ""
    return OperationFailed(FailureCode.DRIVER, f"{program} is not installed on this host{how}")
