"""Settings that cannot work are refused with their variable's name."""

import pytest
from instance_agent.settings import Settings
from pydantic import ValidationError


def test_ports_are_a_range_with_both_ends() -> None:
    settings = Settings.model_validate({"port_range": "20000-20009"})
    assert list(settings.ports) == list(range(20000, 20010))


@pytest.mark.parametrize("text", ["20000", "9-1", "0-10", "60000-70000", "a-b"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r"port_range|PORT_RANGE"):
        Settings.model_validate({"port_range": text})


@pytest.mark.parametrize("host", ["", "a b", "#", "a*", ".a"])
def test_a_host_name_must_fit_a_routing_key(host: str) -> None:
    with pytest.raises(ValidationError, match="host"):
        Settings.model_validate({"host": host})


def test_room_is_unknown_unless_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().agent_capacity is None
    monkeypatch.setenv("ROLLCALL_AGENT_CAPACITY", "12")
    assert Settings().agent_capacity == 12
    monkeypatch.setenv("ROLLCALL_AGENT_CAPACITY", "-1")
    with pytest.raises(ValidationError, match="agent_capacity"):
        Settings()
