"""The folders of an instance: which names are the driver's own, and what a crash leaves."""

from pathlib import Path

import pytest
from instance_agent.drivers.files import Folders, is_number


@pytest.mark.parametrize("name", ["0", "7", "63"])
def test_these_are_data_disks(name: str) -> None:
    assert is_number(name)


@pytest.mark.parametrize("name", ["", "0.bak", "0-backup", "00", "-1", "²", "lost+found", ".0.new"])
def test_these_are_somebody_elses(name: str) -> None:
    assert not is_number(name)


def test_a_process_that_a_loss_of_power_left_an_empty_file_of_is_gone(tmp_path: Path) -> None:
    (tmp_path / "process.json").touch()
    assert Folders(tmp_path).process() is None
