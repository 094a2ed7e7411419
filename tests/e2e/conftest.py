"""The whole stack for an end-to-end test: real servers, real services, real processes."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the database server's own user may pass through, unlike pytest's."""
    made = Path(tempfile.mkdtemp(prefix="rollcall-e2e-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)
