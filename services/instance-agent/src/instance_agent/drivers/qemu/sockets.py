"""Connections to QEMU's sockets, whose paths may be longer than a socket's path can be."""

import asyncio
import os
from pathlib import Path

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_LINE = 4 * 1024 * 1024  # bytes in one line at most


async def connect(folder: Path, name: str) -> Streams:
    """Connect to the socket of that name in a folder. Raises OSError."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}/{name}", limit=_LINE)
    finally:
        os.close(descriptor)
