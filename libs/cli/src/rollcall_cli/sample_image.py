"""A small application image, for the demo, the tests, and a first try.

Its `init` serves HTTP on the instance's own port: `/health` says whether the application is
healthy, `/version` which image it runs from. It adds a line to `boots` on the data disk each time
that it starts. Built twice, it is the same file to the byte.
"""

import gzip
import io
import tarfile
from pathlib import Path

# Plain sockets: an HTTP library would take longer to import than all the rest takes to start.
# Nothing handles SIGTERM, so that it ends the process at once.
_INIT = """\
#!/usr/bin/env -S python3 -I -S
import os, socket, time

VERSION = {version!r}
HEALTHY = {healthy!r}
BOOT_SECONDS = {boot_seconds!r}
BOOT_SPREAD = {boot_spread!r}  # seconds more for some: each instance always has the same

with open(os.path.join(os.environ["ROLLCALL_DATA_DIR"], "boots"), "a") as boots:
    boots.write(VERSION + "\\n")
digits = "".join(c for c in os.environ.get("ROLLCALL_INSTANCE_ID", "") if c.isdecimal())
number = int(digits or 0)
time.sleep(BOOT_SECONDS + BOOT_SPREAD * (number * 37 % 11) / 10)

STATE = "Healthy" if HEALTHY else "Unhealthy"
ANSWERS = {{
    "/health": ("200 OK" if HEALTHY else "503 Service Unavailable",
                '{{"ApplicationHealthState": "%s"}}' % STATE, "application/json"),
    "/version": ("200 OK", VERSION + "\\n", "text/plain"),
}}


def answer(connection):
    connection.settimeout(5)
    request = b""
    while b"\\r\\n\\r\\n" not in request and len(request) < 65536:
        part = connection.recv(65536)
        if not part:
            return
        request += part
    words = request.split(b"\\r\\n", 1)[0].decode("latin-1").split(" ")
    path = words[1].partition("?")[0] if len(words) > 1 else "/"
    status, body, kind = ANSWERS.get(path, ("404 Not Found", "not found\\n", "text/plain"))
    head = ("HTTP/1.1 " + status, "Content-Type: " + kind, "Content-Length: %d" % len(body),
            "Connection: close", "", body)
    connection.sendall("\\r\\n".join(head).encode())


address = os.environ["ROLLCALL_ADDRESS"]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
listener = socket.create_server((address, int(os.environ["ROLLCALL_PORT"])), family=family,
                                backlog=128)
while True:
    connection = listener.accept()[0]
    with connection:
        try:
            answer(connection)
        except OSError as error:
            print("connection lost:", error, flush=True)
"""


def build_image(
    path: Path | str,
    version: str,
    *,
    healthy: bool = True,
    boot_seconds: float = 0.0,
    boot_spread: float = 0.0,
) -> Path:
    """Write an image (tar.gz) to `path`, and return where it is.

    `healthy=False` makes one whose application says that it is not. `boot_seconds` is the time
    between its start and its first answer; `boot_spread` makes it up to so much longer, unequally
    over the instances.
    """
    files = {
        "VERSION": (f"{version}\n".encode(), 0o644),
        "init": (
            _INIT.format(
                version=version,
                healthy=healthy,
                boot_seconds=boot_seconds,
                boot_spread=boot_spread,
            ).encode(),
            0o755,
        ),
    }
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)  # with no time and no owner
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw.getvalue(), mtime=0))
    return path
