"""The unmodified Azure SDKs for Python do their work on Rollcall (M51, M52)."""

from pathlib import Path
from typing import Any

import pytest

NEWEST = (
    "azure-identity",
    "azure-mgmt-compute",
    "azure-mgmt-network",
    "azure-mgmt-resource",
)
# It speaks the seed's api-version, and was made before Python 3.11.
OF_2018 = ("azure-mgmt-compute==4.3.1", "azure-identity", "msrestazure", "setuptools<70")


@pytest.mark.clients
@pytest.mark.parametrize(
    ("python", "script"),
    [(NEWEST, "newest.py"), (OF_2018, "of_2018.py")],
    indirect=["python"],
    ids=["newest", "2018"],
)
async def test_an_unmodified_sdk_does_its_work(
    python: Path, installation: Any, script: str
) -> None:
    await installation.drive(python, script)
