"""What the libvirt driver reads beside the agent's own settings, as `ROLLCALL_LIBVIRT_…`."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from rollcall_kit.settings import Settings

from instance_agent.domain.libvirt.adoption import Adoption, parse_adoptions

MIB = 1024**2


class LibvirtSettings(Settings):
    """Durations are seconds, sizes are bytes, but for the memory in MiB."""

    libvirt_uri: str = "qemu:///system"
    libvirt_pool: str = "default"  # for bases, OS disks, seeds and data disks
    # overlay: a qcow2 file on a base, for pools of files; clone: libvirt copies the whole base
    libvirt_disks: Literal["auto", "overlay", "clone"] = "auto"
    # Begins the names of domains and volumes. Agents that share one libvirt need one each.
    libvirt_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,40}$")] = "rollcall"
    libvirt_template: Path | None = None  # else the one that comes with the agent
    libvirt_type: Literal["auto", "kvm", "qemu"] = "auto"
    libvirt_memory: Annotated[int, Field(ge=32)] = 1024  # MiB
    libvirt_cpus: Annotated[int, Field(ge=1)] = 1
    libvirt_guest_port: Annotated[int, Field(ge=1, le=65535)] = 80
    libvirt_data_disk_bytes: Annotated[int, Field(ge=MIB)] = 10 * 1024 * MIB  # of new ones
    libvirt_free_bytes: Annotated[int, Field(ge=0)] = 512 * MIB  # must be free in the pool
    # Where `${console}` is on the libvirt host; empty: the pool's folder, if it has one.
    libvirt_console_dir: str = ""
    libvirt_adopt: str = ""  # PATTERN=SCALE-SET[@VERSION] …, separated by spaces
    libvirt_create: bool = True  # whether domains are made where none is left to be adopted
    libvirt_patience: Annotated[float, Field(ge=0)] = 60  # for a daemon that is away
    # How long a start waits for the guest's address, where the network tells it only then.
    libvirt_address_time: Annotated[float, Field(ge=0)] = 120
    libvirt_boots_at_once: Annotated[int, Field(ge=1)] = Field(
        default_factory=lambda: os.cpu_count() or 1
    )
    # Where the agents of one machine take turns; else a folder of their user for temporary files.
    libvirt_boot_locks: Path | None = None
    libvirt_boot_time: Annotated[float, Field(gt=0)] = 30  # a boot that says nothing counts so long
    libvirt_answer_time: Annotated[float, Field(gt=0)] = 300  # to the guest's first word

    @field_validator("libvirt_adopt")
    @classmethod
    def _rules_make_sense(cls, text: str) -> str:
        parse_adoptions(text)
        return text

    @property
    def adoptions(self) -> tuple[Adoption, ...]:
        """Return the rules of `libvirt_adopt`."""
        return parse_adoptions(self.libvirt_adopt)
