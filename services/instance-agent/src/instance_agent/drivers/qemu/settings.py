"""What the qemu driver reads beside the agent's own settings, as `ROLLCALL_QEMU_…` variables."""

import os
from glob import glob
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from rollcall_kit.settings import Settings

from instance_agent.domain.network import parse_network

MIB = 1024**2


class QemuSettings(Settings):
    """Durations are seconds, sizes are bytes, but for the memory in MiB, as QEMU has it."""

    qemu_binary: str = "qemu-system-x86_64"
    # microvm is refused: it has no PCI, which our devices are on, and no clock but the processor's,
    # which the kernel fails to measure without KVM in a quarter of its boots, and hangs.
    qemu_machine: str = "pc"
    qemu_accel: Literal["auto", "kvm", "tcg"] = (
        "auto"  # auto: KVM where a guest runs faster with it
    )
    qemu_memory: Annotated[int, Field(ge=32)] = 1024  # MiB
    qemu_cpus: Annotated[int, Field(ge=1)] = 1
    qemu_guest_port: Annotated[int, Field(ge=1, le=65535)] = 80  # where the application listens
    # user: forwarded ports, without any rights; bridge:NAME: a tap on it for each machine, made by
    # the agent; tap:PATTERN: taps that are there. Counts for machines made from then on.
    qemu_network: str = "user"
    # What the DHCP server of a bridge writes its leases to: dnsmasq's own file, or libvirt's.
    qemu_leases: str = "/var/lib/misc/dnsmasq.leases /var/lib/libvirt/dnsmasq/*.status"
    # How long a start waits for the guest's address, where the network tells it only then.
    qemu_address_time: Annotated[float, Field(ge=0)] = 120
    qemu_os_disk_bytes: Annotated[int, Field(ge=0)] = 0  # 0: as large as the image's
    qemu_data_disk_bytes: Annotated[int, Field(ge=MIB)] = 10 * 1024 * MIB  # of new ones, sparse
    qemu_free_bytes: Annotated[int, Field(ge=0)] = (
        512 * MIB
    )  # must be free before an instance stops
    # More boots at once than cores make all of them slower, beyond what each one gains.
    qemu_boots_at_once: Annotated[int, Field(ge=1)] = Field(
        default_factory=lambda: os.cpu_count() or 1
    )
    # Where the agents of one machine take turns; else a folder of their user for temporary files.
    qemu_boot_locks: Path | None = None
    qemu_boot_time: Annotated[float, Field(gt=0)] = 30  # a boot that says nothing counts so long
    qemu_answer_time: Annotated[float, Field(gt=0)] = (
        300  # from the start to the guest's first word
    )
    qemu_console_bytes: Annotated[int, Field(ge=4096)] = (
        16 * MIB
    )  # of one boot; then it begins anew

    @field_validator("qemu_machine")
    @classmethod
    def _machine_boots(cls, kind: str) -> str:
        if kind.partition(",")[0] == "microvm":
            raise ValueError(
                "ROLLCALL_QEMU_MACHINE=microvm has neither PCI nor a clock that works without KVM: "
                "use pc or q35"
            )
        return kind

    @field_validator("qemu_network")
    @classmethod
    def _network_makes_sense(cls, text: str) -> str:
        parse_network(text)
        return text

    def lease_files(self) -> list[Path]:
        """Return the files of leases that there are now."""
        return [Path(file) for each in self.qemu_leases.split() for file in sorted(glob(each))]
