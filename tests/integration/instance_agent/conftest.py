"""Fixtures of the tests that boot virtual machines."""

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "vm"


@pytest.fixture(scope="session")
def qemu_packages() -> None:
    """QEMU and what belongs to it, installed where that is possible."""
    subprocess.run([TOOLS / "install-packages"], check=True)


@pytest.fixture(scope="session")
def test_os(qemu_packages: None) -> Path:
    """The folder of the test operating system's images; built once, and kept for later runs."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("ROLLCALL_VM_CACHE") or Path(home) / "rollcall" / "vm")
    subprocess.run([TOOLS / "build-test-os", folder], check=True, timeout=250)
    return folder
