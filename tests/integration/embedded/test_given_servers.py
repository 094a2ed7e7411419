"""A server that was given and does not answer is named at once, without its password."""

from pathlib import Path

import pytest
from rollcall_embedded.process import EmbeddedError, free_port
from rollcall_embedded.stack import Stack, StackOptions


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("ROLLCALL_DATABASE_URL", "postgresql"), ("ROLLCALL_AMQP_URL", "amqp")],
)
async def test_an_unreachable_server_is_named(
    name: str, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv(name, f"{scheme}://rollcall:hidden@127.0.0.1:{port}/x")
    with pytest.raises(EmbeddedError, match=f"{name}.*127.0.0.1:{port}") as raised:
        await Stack(StackOptions(state_dir=tmp_path / "state")).start()
    assert "hidden" not in str(raised.value)


async def test_a_url_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLCALL_AMQP_URL", "localhost")
    with pytest.raises(EmbeddedError, match="ROLLCALL_AMQP_URL is not the URL of a server"):
        await Stack(StackOptions(state_dir=tmp_path / "state")).start()
