"""Fixtures of the tests that boot virtual machines."""

import subprocess
from pathlib import Path

import pytest
from rollcall_testing.vm_images import TOOLS, build_test_os


@pytest.fixture(scope="session")
def qemu_packages() -> None:
    """QEMU and what belongs to it, installed where that is possible."""
    subprocess.run([TOOLS / "install-packages"], check=True)


@pytest.fixture(scope="session")
def test_os(qemu_packages: None) -> Path:
    """The folder of the test operating system's images; built once, and kept for later runs."""
    return build_test_os()
