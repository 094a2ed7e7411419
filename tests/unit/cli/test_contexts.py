"""Contexts: kept privately, and found in the order in which people expect."""

import json
import stat
from pathlib import Path

import pytest
from rollcall_cli.contexts import Context, ContextError, ContextFile, Contexts
from rollcall_cli.reaching import DEFAULT_URL, Wish, is_loopback, reach

PROD = Context(
    server="https://prod.example:8470",
    client_id="robot",
    client_secret="secret of prod",
    subscription="mine",
)
TEST = Context(server="https://test.example", token="token of test")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContextFile:
    """A user's file with two contexts; nothing of `rollcall up` is on the machine."""
    monkeypatch.setattr("rollcall_cli.reaching.default_state_dir", lambda: tmp_path / "state")
    made = ContextFile.default({"XDG_CONFIG_HOME": str(tmp_path / "config")})
    made.write(Contexts().put("prod", PROD).put("test", TEST))
    return made


def test_nobody_else_can_read_the_file(file: ContextFile) -> None:
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    file.path.chmod(0o644)
    file.write(file.read())
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [path.name for path in file.path.parent.iterdir()] == ["contexts.json"]


def test_what_is_written_is_read_again(file: ContextFile) -> None:
    contexts = file.read()
    assert contexts.current == "prod"
    assert contexts.by_name == {"prod": PROD, "test": TEST}
    assert "secret of prod" not in repr(contexts)
    file.write(contexts.use("test").without("prod"))
    assert file.read() == Contexts(current="test", by_name={"test": TEST})
    assert file.read().without("test").current is None


def test_a_token_is_kept_for_its_context(file: ContextFile) -> None:
    file.keep_token("prod", "issued", 12.5)
    kept = file.read().by_name["prod"]
    assert (kept.token, kept.expires, kept.client_secret) == ("issued", 12.5, "secret of prod")
    file.keep_token("gone", "issued", 12.5)
    assert set(file.read().by_name) == {"prod", "test"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"current": null}', '{"contexts": {"a": 1}}'])
def test_a_broken_file_is_named(file: ContextFile, text: str) -> None:
    file.path.write_text(text)
    with pytest.raises(ContextError, match=str(file.path)):
        file.read()


@pytest.mark.parametrize(
    ("wish", "environment", "url", "token", "named_by"),
    [
        (Wish(), {}, PROD.server, None, "the context prod"),
        (Wish(context="test"), {}, TEST.server, "token of test", "the context test"),
        (Wish(), {"ROLLCALL_CONTEXT": "test"}, TEST.server, "token of test", "the context test"),
        (Wish(), {"ROLLCALL_URL": "https://a.example/"}, "https://a.example", None, "ROLLCALL_URL"),
        (
            Wish(url="https://b.example"), {"ROLLCALL_URL": "https://a.example"},
            "https://b.example", None, "--url",
        ),
        # The token of the environment comes before a context's, what is said before both.
        (Wish(), {"ROLLCALL_API_TOKEN": "given"}, PROD.server, "given", "the context prod"),
        (
            Wish(context="test"),
            {"ROLLCALL_API_TOKEN": "given", "ROLLCALL_URL": "https://a.example"},
            TEST.server, "token of test", "the context test",
        ),
        # Another server's address never gets a context's token.
        (Wish(url="https://c.example", context="test"), {}, "https://c.example", None, "--url"),
        (Wish(url=TEST.server.upper(), context="test"), {}, TEST.server, "token of test", ""),
    ],
)  # fmt: skip  # a table
def test_the_server_is_found_in_this_order(
    file: ContextFile,
    wish: Wish,
    environment: dict[str, str],
    url: str,
    token: str | None,
    named_by: str,
) -> None:
    target = reach(wish, environment, file)
    assert (target.url, target.token) == (url, token)
    assert not named_by or target.named_by == named_by


def test_an_account_goes_with_its_own_server_alone(file: ContextFile) -> None:
    own = reach(Wish(), {}, file)
    assert own.account is not None
    assert (own.account.client_id, own.subscription) == ("robot", "mine")
    assert reach(Wish(url="https://a.example"), {}, file).account is None
    assert reach(Wish(), {"ROLLCALL_API_TOKEN": "given"}, file).account is None


def test_without_anything_it_is_the_server_of_up(file: ContextFile, tmp_path: Path) -> None:
    file.path.unlink()
    assert reach(Wish(), {}, file).token is None
    state = tmp_path / "state"
    (state / "tls").mkdir(parents=True)
    (state / "api-token").write_text("token of up\n")
    (state / "tls" / "ca.pem").write_text("an authority")
    found = reach(Wish(), {}, file)
    assert (found.url, found.token, found.ca_file) == (DEFAULT_URL, "token of up", None)
    over_tls = reach(Wish(url="https://localhost:8470"), {}, file)
    assert (over_tls.token, over_tls.ca_file) == ("token of up", state / "tls" / "ca.pem")
    elsewhere = reach(Wish(url="https://prod.example"), {}, file)
    assert (elsewhere.token, elsewhere.ca_file) == (None, None)


def test_an_unknown_context_lists_those_there_are(file: ContextFile) -> None:
    with pytest.raises(ContextError, match=r"no context tset.*prod, test"):
        reach(Wish(context="tset"), {}, file)
    file.path.write_text(json.dumps({"current": None, "contexts": {}}))
    with pytest.raises(ContextError, match="rollcall login"):
        reach(Wish(context="prod"), {}, file)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8470", True), ("https://localhost", True), ("http://[::1]:80", True),
        ("http://10.0.0.1", False), ("https://localhost.example", False), ("nonsense", False),
    ],
)  # fmt: skip  # a table
def test_which_addresses_are_this_machine(url: str, here: bool) -> None:
    assert is_loopback(url) is here
