"""Images of the tests' own operating systems, which are built once and kept for later runs."""

import os
import subprocess
from pathlib import Path

TOOLS = Path(__file__).parents[4] / "tests" / "vm"


def cache() -> Path:
    """Return where they are kept, as the Makefile has it."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ROLLCALL_VM_CACHE") or Path(home) / "rollcall" / "vm")


def build_test_os() -> Path:
    """Build the test operating system, unless it is there, and return the folder of its images."""
    subprocess.run([TOOLS / "build-test-os", cache()], check=True, timeout=250)
    return cache()
