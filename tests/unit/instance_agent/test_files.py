"""Which names in an instance's folders are the driver's own."""

import pytest
from instance_agent.drivers.files import is_number


@pytest.mark.parametrize("name", ["0", "7", "63"])
def test_these_are_data_disks(name: str) -> None:
    assert is_number(name)


@pytest.mark.parametrize("name", ["", "0.bak", "0-backup", "00", "-1", "²", "lost+found", ".0.new"])
def test_these_are_somebody_elses(name: str) -> None:
    assert not is_number(name)
