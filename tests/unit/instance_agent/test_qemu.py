"""The command line of a virtual machine, and what an image's first bytes say."""

import struct

import pytest
from instance_agent.domain.qemu import (
    Machine,
    command,
    compression,
    forwarding,
    image_format,
    mac_address,
    plugged,
)
from instance_agent.drivers.qemu.settings import QemuSettings
from pydantic import ValidationError


def machine(**more: object) -> list[str]:
    values: dict[str, object] = {
        "binary": "qemu",
        "name": "0-abc",
        "kind": "pc",
        "accelerator": "tcg",
        "memory": 96,
        "cpus": 1,
        "os_disk": "disks/1,2/os.qcow2",
        "seed": "disks/1/seed.iso",
        "data_disks": {1: "data/1.raw", 0: "data/0.raw"},
        "console": "logs/boot-000001.log",
        "netdev": forwarding("127.0.0.1", 20001, 80),
        "mac": mac_address("0-abc"),
    }
    return command(Machine(**{**values, **more}))  # type: ignore[arg-type]  # by name


def test_disks_are_found_by_serial_number_and_only_the_os_disk_boots() -> None:
    line = machine()
    devices = [word for word in line if word.startswith("virtio-blk-pci")]
    assert [word.split("serial=")[1].split(",")[0] for word in devices] == [
        "os",
        "data-0",
        "data-1",
        "seed",
    ]
    assert [word for word in devices if "bootindex" in word] == [devices[0]]
    drives = [word for word in line if word.startswith("if=none")]
    assert [("readonly=on" in word) for word in drives] == [False, False, False, True]
    assert "file=disks/1,,2/os.qcow2" in drives[0]  # a comma would begin an option


def test_the_port_is_forwarded_on_the_given_address_alone() -> None:
    assert "user,id=net,hostfwd=tcp:127.0.0.1:20001-:80" in machine()


def test_a_tap_is_inherited_as_qemu_may_run_no_helper() -> None:
    line = machine(netdev=plugged(9), mac="52:01:02:03:04:05")
    assert line[line.index("-netdev") + 1] == "tap,id=net,fd=9"
    assert "spawn=deny" in line[line.index("-sandbox") + 1]
    assert any(word.endswith("mac=52:01:02:03:04:05") for word in line)


@pytest.mark.parametrize(("accelerator", "cpu"), [("kvm", "host"), ("tcg", "max")])
def test_the_processor_fits_the_accelerator(accelerator: str, cpu: str) -> None:
    line = machine(accelerator=accelerator)
    assert line[line.index("-cpu") + 1] == cpu
    assert line[line.index("-accel") + 1].startswith(accelerator)


def test_an_instance_has_one_network_address_for_ever() -> None:
    assert mac_address("a") == mac_address("a") != mac_address("b")
    assert mac_address("a").startswith("52:54:00:")


def test_a_machine_is_a_pc_and_one_that_hangs_without_kvm_is_refused() -> None:
    assert QemuSettings().qemu_machine == "pc"
    assert QemuSettings.model_validate({"qemu_machine": "q35"}).qemu_machine == "q35"
    for kind in ("microvm", "microvm,acpi=off"):
        with pytest.raises(ValidationError, match="use pc or q35"):
            QemuSettings.model_validate({"qemu_machine": kind})


def qcow2(*, version: int = 3, backing: int = 0, crypt: int = 0, features: int = 0) -> bytes:
    head = bytearray(512)
    struct.pack_into(">4sIQ", head, 0, b"QFI\xfb", version, backing)
    struct.pack_into(">I", head, 32, crypt)
    struct.pack_into(">Q", head, 72, features)
    return bytes(head)


BOOTABLE = bytes(510) + b"\x55\xaa"


@pytest.mark.parametrize(
    ("head", "kind"),
    [(qcow2(), "qcow2"), (qcow2(version=2, features=4), "qcow2"), (BOOTABLE, "raw")],
)
def test_an_image_is_known_by_its_beginning(head: bytes, kind: str) -> None:
    assert image_format(head) == kind


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (qcow2(backing=512), "backing file"),  # it could be /etc/shadow
        (qcow2(features=4), "another file"),
        (qcow2(crypt=2), "encrypted"),
        (qcow2()[:50], "cut off"),
        (bytes(512), "neither"),
        (b"", "neither"),
        (b"<html>", "neither"),
    ],
)
def test_an_image_that_is_not_whole_by_itself_is_refused(head: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        image_format(head)


def test_compression_is_known_by_its_beginning() -> None:
    heads = (b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"QFI\xfb", b"")
    assert [compression(head) for head in heads] == ["gz", "xz", "zst", "", ""]
