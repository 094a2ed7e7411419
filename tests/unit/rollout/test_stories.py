"""Rollouts told in plain words: each is compared with its checked-in story."""

from collections.abc import Callable
from pathlib import Path

import pytest
from rollcall_testing.scenarios import SCENARIOS, file_name, tell
from rollcall_testing.stories import Story

STORIES = Path(__file__).with_name("stories")
HINT = "a rule or its words changed: if that is intended, run `make golden` and read the diff"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[file_name(s) for s in SCENARIOS])
def test_a_rollout_goes_as_its_story_tells(scenario: Callable[[], Story]) -> None:
    assert tell(scenario) == (STORIES / file_name(scenario)).read_text(), HINT


def test_each_story_has_its_scenario() -> None:
    names = {file_name(scenario) for scenario in SCENARIOS}
    assert {file.name for file in STORIES.glob("*.txt")} == names, HINT
    assert len(names) == len(SCENARIOS)
