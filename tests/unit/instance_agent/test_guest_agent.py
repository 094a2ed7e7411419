"""What is said to QEMU's guest agent, and what its answers mean, without any guest."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from instance_agent.domain.libvirt.claim import Claim
from instance_agent.domain.libvirt.domains import DomainXml
from instance_agent.domain.libvirt.guest_agent import (
    AGENT_CHANNEL,
    BOOTED,
    Ending,
    Job,
    Refused,
    Unanswered,
    check_brought,
    check_can_execute,
    ending_of,
    execute,
    failure,
    info,
    job_of,
    never,
    outcome,
    process_of,
    status,
)
from instance_agent.domain.libvirt.template import check_template, fill_template

WORDS = "internal error: unable to execute QEMU agent command 'guest-exec': "


def answer(returned: Any) -> str:
    return json.dumps({"return": returned})


def commands(**enabled: bool) -> str:
    every = [{"name": name.replace("_", "-"), "enabled": on} for name, on in enabled.items()]
    return answer({"version": "7.2", "supported_commands": every})


@pytest.mark.parametrize(
    ("command", "code", "words", "meaning"),
    [
        (execute("x"), 1, WORDS + "Failed to execute child process", Refused),
        (execute("x"), 1, "unable to execute QEMU agent command 'guest-ping'", type(None)),
        (execute("x"), 1, "internal error: client socket is closed", type(None)),
        (execute("x"), 113, "guest agent command failed: in any language", Refused),
        (execute("x"), 86, "Guest agent is not responding", Unanswered),
        (execute("x"), 112, "guest agent didn't respond within 10 seconds", Unanswered),
        (status(7), 55, "Requested operation is not valid: domain is not running", Unanswered),
        (info(), 74, "QEMU guest agent is not configured", Unanswered),
        (info(), 42, "Domain not found", Unanswered),
        (info(), 38, "Cannot recv data: Connection reset by peer", type(None)),
    ],
)
def test_what_an_error_says_of_the_guest_agent(
    command: str, code: int, words: str, meaning: type
) -> None:
    found = failure(command, code, words)
    assert type(found) is meaning
    assert found is None or str(found) == words


def test_a_guest_agent_that_runs_programs_is_taken() -> None:
    check_can_execute(commands(guest_ping=True, guest_exec=True, guest_exec_status=True))


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (commands(guest_exec=False, guest_exec_status=True), "does not allow guest-exec: allow it"),
        (commands(guest_exec=True), "does not allow guest-exec-status: allow it"),
        (commands(), "does not allow guest-exec and guest-exec-status"),
        (answer([]), "does not allow guest-exec and guest-exec-status"),
        ("[]", "does not allow guest-exec and guest-exec-status"),
        ("nonsense", "no JSON: nonsense"),
    ],
)
def test_one_that_does_not_is_refused_with_what_to_do(reply: str, told: str) -> None:
    with pytest.raises(Refused) as refused:
        check_can_execute(reply)
    assert told in str(refused.value)


@given(shell=st.text(), content=st.binary())
def test_an_order_says_what_the_guest_agent_reads(shell: str, content: bytes) -> None:
    order = json.loads(execute(shell, content))
    assert order["execute"] == "guest-exec"
    arguments = order["arguments"]
    assert arguments["path"] == "/bin/sh"
    assert arguments["arg"] == ["-c", shell]
    assert arguments["capture-output"] is True
    assert base64.b64decode(arguments.get("input-data", "")) == content


@pytest.mark.parametrize(
    ("agent", "program", "seed", "asks", "refusal", "told"),
    [
        (True, True, True, True, "", ""),
        (True, False, True, True, "", ""),
        (True, False, False, False, "", ""),  # an adopted domain, by its guest agent
        (False, True, True, False, "", ""),
        (True, True, True, False, "guest-exec is forbidden", ""),  # the seed's program does
        (True, False, True, False, "guest-exec is forbidden", "guest-exec is forbidden"),
        (
            False,
            False,
            True,
            False,
            "",
            f"no channel over which a guest takes scripts: add {AGENT_CHANNEL}",
        ),
        (True, True, False, True, "", "no disk for the seed"),  # nothing has run it
    ],
)
def test_where_a_script_can_never_run(
    agent: bool, program: bool, seed: bool, asks: bool, refusal: str, told: str
) -> None:
    why = never(agent=agent, program=program, seed=seed, asks=asks, refusal=refusal)
    assert told in why
    assert bool(why) == bool(told)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("said", "ending"),
    [
        ({"exited": False}, None),
        ({"exited": True, "exitcode": 0}, Ending(exit_code=0, output="", errors="")),
        (
            {"exited": True, "exitcode": 3, "out-data": encoded("o"), "err-data": encoded("ü")},
            Ending(exit_code=3, output="o", errors="ü"),
        ),
        ({"exited": True, "signal": 9}, Ending(exit_code=None, output="", errors="")),
        (
            {"exited": True, "exitcode": 0, "out-data": "/w==", "out-truncated": True},
            Ending(exit_code=0, output="\ufffd", errors=""),
        ),
    ],
)
def test_how_a_program_ended(said: dict[str, Any], ending: Ending | None) -> None:
    assert ending_of(answer(said)) == ending
    assert json.loads(status(7))["arguments"] == {"pid": 7}
    assert process_of(answer({"pid": 7})) == 7


@pytest.mark.parametrize(
    "reply",
    ["", "null", "{}", answer(None), answer([]), answer({"exited": True, "out-data": "x"})],
)
def test_nonsense_is_told(reply: str) -> None:
    with pytest.raises(Refused):
        ending_of(reply)
    with pytest.raises(Refused):
        process_of(reply)


@pytest.mark.parametrize(
    ("output", "result"),
    [
        ("0\n", (0, "")),
        ("137\nkilled\nby hand\n", (137, "killed\nby hand")),
        ("late\nso far\n", (None, "so far")),
    ],
)
def test_how_a_script_ended(output: str, result: tuple[int | None, str]) -> None:
    assert outcome(Ending(exit_code=0, output=output, errors="")) == result


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        (Ending(exit_code=1, output="", errors="tar: no room"), "(exit code 1): tar: no room"),
        (Ending(exit_code=0, output="what?", errors=""), "what?"),
        (Ending(exit_code=127, output="", errors=""), "it says nothing"),
    ],
)
def test_a_job_that_did_not_work_is_told(ending: Ending, told: str) -> None:
    with pytest.raises(Refused) as refused:
        outcome(ending)
    assert told in str(refused.value)
    if ending.exit_code:
        with pytest.raises(Refused):
            check_brought(ending)


@given(content=st.binary(min_size=1, max_size=64), times=st.integers(1, 5), extra=st.binary())
def test_files_come_in_pieces_that_libvirt_takes(content: bytes, times: int, extra: bytes) -> None:
    chunk = 96 * 1024
    whole = (content * (chunk // len(content) + 1))[:chunk] * times + extra
    orders = list(Job("/run/rollcall/job-1").bring(whole))
    assert all(len(order) < 150_000 for order in orders)
    pieces = [json.loads(order)["arguments"] for order in orders]
    assert b"".join(base64.b64decode(each["input-data"]) for each in pieces) == whole
    for number, piece in enumerate(pieces):
        assert f"bs={chunk} seek={number} " in piece["arg"][1]


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
secrets = texts.map(lambda text: f"s3cret{text}")


@given(secret=secrets, shell=st.booleans())
def test_no_secret_is_in_what_all_users_of_the_guest_see(secret: str, shell: bool) -> None:
    job = job_of("uuid", secret.encode())
    words = ("/bin/sh", "-c", secret) if shell else ("/bin/echo", secret)
    command = job.command(words, {"ROLLCALL_INSTANCE_ID": "a b"}, root=False)
    assert command.startswith(f"export ROLLCALL_INSTANCE_ID='a b'\ncd {job.folder} || exit 1\n")
    if shell:  # not given to another shell as an argument
        text = secret.replace("{files}", job.folder)
        assert command.endswith(f"|| exit 1\n{text}\n")
    orders = [*job.bring(command.encode()), job.run(1), job.end(), execute(BOOTED)]
    seen = [json.loads(order)["arguments"]["arg"] for order in orders]
    assert secret not in job.folder
    if secret not in json.dumps(
        [Job(job.folder).run(1), execute(BOOTED)]
    ):  # such as a word of ours
        assert all(secret not in word for words in seen for word in words)


def test_a_job_is_another_one_for_another_disk_content_or_domain() -> None:
    parts = [("u", b"a", b"b"), ("u", b"ab", b""), ("u", b"a", b"c"), ("v", b"a", b"b")]
    assert len({job_of(uuid, *rest).folder for uuid, *rest in parts}) == 4
    assert job_of("u", b"a", b"b") == job_of("u", b"a", b"b")
    assert json.loads(job_of("u").run(1.2))["arguments"]["arg"][1].endswith(" 2")


TEMPLATE = """<domain type='${type}'><name>${name}</name><devices>${disks}%s</devices></domain>"""
OWN = f"<channel type='spicevmc'><target type='virtio' name='{AGENT_CHANNEL}'/></channel>"


@pytest.mark.parametrize("channel", ["", OWN])
def test_a_new_domain_has_one_channel_for_a_guest_agent(channel: str) -> None:
    text = TEMPLATE % channel
    check_template(text)
    made = fill_template(text, {"name": "a<b", "type": "qemu"}, Claim(scale_set="s"))
    assert made.count(AGENT_CHANNEL) == 1
    assert ("spicevmc" in made) == bool(channel)
    assert DomainXml(made).connected(AGENT_CHANNEL) is False


def test_whether_a_guest_agent_is_connected() -> None:
    text = "<domain><devices><channel><target type='virtio' name='{}' state='{}'/></channel>"
    text += "<disk><target dev='vda'/></disk></devices></domain>"
    for name, state, found in (
        (AGENT_CHANNEL, "connected", True),
        (AGENT_CHANNEL, "disconnected", False),
        ("org.other.0", "connected", None),
    ):
        assert DomainXml(text.format(name, state)).connected(AGENT_CHANNEL) is found
