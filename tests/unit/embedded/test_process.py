"""Ports, secrets and environments: what needs no server."""

import stat
from pathlib import Path

import pytest
from rollcall_embedded.environment import agent_environment, service_environment
from rollcall_embedded.folder import default_state_dir, lock, rotated
from rollcall_embedded.process import (
    INSTANCE_PORTS,
    EmbeddedError,
    ephemeral_ports,
    free_port,
    kept_secret,
    write_private,
)
from rollcall_kit.definitions import VHOST, broker_definitions


def test_a_free_port_is_neither_ephemeral_nor_one_of_the_instances() -> None:
    for _ in range(50):
        port = free_port()
        assert port not in ephemeral_ports()
        assert port not in INSTANCE_PORTS


def test_a_secret_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert kept_secret(path, "first") == "first"
    assert kept_secret(path, "second") == "first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_private_file_replaces_another_whatever_its_mode_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new", 0o400)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400


def test_the_second_holder_of_a_folder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(EmbeddedError, match=r"already runs .* \(pid \d+\)"):
        lock(tmp_path)
    lock(tmp_path).close()  # free again


def test_a_long_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollcall_embedded.folder.LOG_LIMIT", 3)
    log = tmp_path / "orchestrator.log"
    log.write_text("long")
    assert not rotated(log).exists()
    assert (tmp_path / "orchestrator.1.log").read_text() == "long"


def test_a_user_keeps_state_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state_dir() == tmp_path / "rollcall"


def test_an_agent_is_told_no_database_and_no_token_and_its_own_ports(tmp_path: Path) -> None:
    shared = service_environment(
        amqp_url="amqp://a",
        database_url="postgresql://d",
        secrets_key="k",
        token="t",
        api_port=1,
        config="",
        extra={"ROLLCALL_LOG_LEVEL": "DEBUG"},
    )
    hosts = ("host-1", "host-2", "host-3")
    told = [agent_environment(shared, tmp_path / h, host=h, hosts=hosts) for h in hosts]
    assert all("ROLLCALL_DATABASE_URL" not in one for one in told)
    assert all("ROLLCALL_API_TOKEN" not in one for one in told)
    assert all(one["ROLLCALL_LOG_LEVEL"] == "DEBUG" for one in told)
    ports: list[int] = []
    for one in told:
        first, last = one["ROLLCALL_PORT_RANGE"].split("-")
        ports += range(int(first), int(last) + 1)
    assert len(ports) == len(set(ports))
    assert set(ports) <= set(INSTANCE_PORTS)


def test_the_broker_gets_both_accounts_and_the_auditor_may_only_read_its_queue() -> None:
    made = broker_definitions(password="secret", auditor_password="other")
    assert {user["name"] for user in made["users"]} == {"rollcall", "auditor"}
    assert "secret" not in str(made)
    permissions = {entry["user"]: entry for entry in made["permissions"]}
    assert permissions["auditor"] | {"vhost": VHOST} == {
        "user": "auditor",
        "vhost": VHOST,
        "configure": "",
        "write": "",
        "read": "^auditor$",
    }
