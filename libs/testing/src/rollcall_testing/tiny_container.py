"""A container image of one program, busybox, made without an engine: an archive as `docker save`.

Its `/init` adds the version to `boots` on data disk 0, serves `/health`, `/version` and `/boots` by
HTTP on port 8080, and ends on SIGTERM. Built twice, it is the same file to the byte.
"""

import hashlib
import io
import json
import platform
import shutil
import tarfile
from pathlib import Path

PORT = 8080
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}

_INIT = """\
#!/bin/sh
echo {version} >>/data/0/boots
echo "version {version} boots"
mkdir -p /www/cgi-bin /tmp
echo {version} >/www/version
ln -sf /data/0/boots /www/boots
{health}
trap 'kill $!; exit 0' TERM
httpd -f -p {port} -h /www &
wait
"""


def build_tiny_container(
    path: Path, version: str, *, healthy: bool = True, starts: bool = True
) -> Path:
    """Write an image archive to `path`, and return where it is. Raises FileNotFoundError.

    `healthy=False`: /health answers 404. `starts=False`: its init ends at once, with exit code 3.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError("busybox is not installed: apt-get install busybox-static")
    health = "echo ok >/www/health" if healthy else "echo the application is broken"
    init = _INIT.format(version=version, port=PORT, health=health)
    files = {
        "bin/busybox": Path(busybox).read_bytes(),
        "init": init.encode() if starts else b"#!/bin/sh\necho it cannot start\nexit 3\n",
    }
    layer = _tar(
        {**files, **{f"bin/{name}": "busybox" for name in _APPLETS}},
        folders=("bin", "data", "tmp", "www"),
    )
    config = {
        "architecture": _MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {
            "Entrypoint": ["/init"],
            "Env": ["PATH=/bin"],
            "ExposedPorts": {f"{PORT}/tcp": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    content = json.dumps(config).encode()
    name = _digest(content).removeprefix("sha256:")
    manifest = [{"Config": f"{name}.json", "RepoTags": ["tiny:latest"], "Layers": ["layer.tar"]}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        _tar(
            {
                f"{name}.json": content,
                "layer.tar": layer,
                "manifest.json": json.dumps(manifest).encode(),
            }
        )
    )
    return path


_APPLETS = (
    *("sh", "httpd", "mkdir", "ln", "echo", "kill", "cat", "tail", "sleep", "chmod", "rm", "env"),
    *("tr", "grep", "touch", "ls", "mv", "cp", "ps", "setsid", "id", "pwd"),
)


def _tar(files: dict[str, bytes | str], folders: tuple[str, ...] = ()) -> bytes:
    """Return a tar; a text is where a symbolic link points. No time and no owner is in it."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in folders:
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
