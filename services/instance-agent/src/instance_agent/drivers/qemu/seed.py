"""The seed: a small disk that tells the guest who it is and what to run (cloud-init's NoCloud)."""

import json
import re
import shlex
import tempfile
from importlib.resources import files
from pathlib import Path

from instance_agent.domain.record import Disk
from instance_agent.driver import InstanceRef
from instance_agent.drivers.qemu.programs import call

_NOTHING = b"#cloud-config\n{}\n"  # NoCloud is a seed only when it holds user-data


async def build_seed(file: Path, ref: InstanceRef, disk: Disk, custom_data: bytes) -> None:
    """Write the seed of one OS disk, for the folder's owner alone to read: it may hold secrets.

    Its instance-id is new with each OS disk, so the custom data runs again (M06); and it stays the
    same for that disk, so that nothing runs again when the disk is put back (M43).
    """
    name = re.sub(r"[^a-z0-9-]", "-", ref.key.lower())
    meta = {"instance-id": f"{ref.key}-{disk.name}", "local-hostname": name}
    with tempfile.TemporaryDirectory(dir=file.parent) as place:
        folder = Path(place)
        # JSON is YAML, and quotes whatever a name may hold.
        (folder / "meta-data").write_text(json.dumps(meta) + "\n")
        (folder / "user-data").write_bytes(custom_data or _NOTHING)
        (folder / "vendor-data").write_text(runner(ref, disk))
        await call(
            *("xorriso", "-as", "mkisofs", "-quiet", "-V", "cidata", "-J", "-r"),
            *("-o", str(file), str(folder)),
        )


def runner(ref: InstanceRef, disk: Disk) -> str:
    """Return the program that takes scripts in the guest, for this instance and OS disk."""
    text = files("instance_agent.drivers.qemu").joinpath("runner.sh").read_text()
    return text.replace("@INSTANCE_ID@", shlex.quote(ref.instance_id)).replace(
        "@IMAGE_VERSION@", shlex.quote(disk.version)
    )
