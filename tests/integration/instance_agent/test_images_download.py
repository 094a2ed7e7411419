"""Downloads that are cut off, and servers that lie: real connections, byte for byte."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from instance_agent.download import (
    AccessDenied,
    Downloaded,
    DownloadFailed,
    NotWritten,
    TooLarge,
    download,
)

CONTENT = random.Random(1).randbytes(3_000_000)
SHA = hashlib.sha256(CONTENT).hexdigest()
OTHER = random.Random(2).randbytes(3_000_000)

Headers = dict[str, str]
Answer = Callable[[Headers, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Answers each request by the next of its scripted answers; the last one again and again."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[Headers] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            headers = dict(line.lower().split(": ", 1) for line in head)
            self.asked.append(headers)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            await answer(headers, writer)
        except ConnectionError:
            return  # the client has seen enough
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/image?token=SECRET"
    yield server
    listening.close()


def begin(status: str, **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode()


async def send(writer: asyncio.StreamWriter, *parts: bytes) -> None:
    for part in parts:
        writer.write(part)
    await writer.drain()


def whole(content: bytes = CONTENT, tag: str = '"one"', until: int | None = None) -> Answer:
    """Honour ranges as a good server does; `until`: only so many bytes, then cut off."""

    async def answer(headers: Headers, writer: asyncio.StreamWriter) -> None:
        start = int(headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if headers.get("if-range", tag) != tag:
            start = 0
        facts = {"Content_Length": len(content) - start, "ETag": tag}
        if start >= len(content):
            await send(writer, begin("416 Range Not Satisfiable", Content_Length=0))
            return
        if start:
            where = f"bytes {start}-{len(content) - 1}/{len(content)}"
            head = begin("206 Partial Content", Content_Range=where, **facts)
        else:
            head = begin("200 OK", **facts)
        await send(writer, head, content[start : None if until is None else start + until])

    return answer


def always(*parts: bytes, hang: bool = False) -> Answer:
    async def answer(headers: Headers, writer: asyncio.StreamWriter) -> None:
        await send(writer, *parts)
        if hang:
            await writer.wait_closed()

    return answer


async def fetch(server: Server, path: Path, *, tries: int = 3, patience: float = 20) -> Downloaded:
    return await download(
        server.url,
        path,
        limit=len(CONTENT),
        size=len(CONTENT),
        patience=patience,
        resume=True,
        tries=tries,
        pause=0.01,
    )


async def test_what_was_cut_off_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "file"
    server.answers = [whole(until=1_000_000), whole(until=500_000), whole()]
    come = await fetch(server, file)
    assert (come.sha256, come.size, come.in_pieces) == (SHA, len(CONTENT), True)
    assert file.read_bytes() == CONTENT
    assert [asked.get("range") for asked in server.asked] == [
        None,
        "bytes=1000000-",
        "bytes=1500000-",
    ]
    assert [asked.get("if-range") for asked in server.asked] == [None, '"one"', '"one"']
    assert {asked["accept-encoding"] for asked in server.asked} == {"identity"}


async def test_a_later_call_goes_on_too_and_asks_nothing_for_a_whole_file(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    server.answers = [whole(until=2_000_000)]
    with pytest.raises(DownloadFailed) as caught:
        await fetch(server, file, tries=1)
    assert "SECRET" not in str(caught.value)
    assert file.stat().st_size == 2_000_000
    server.answers = [whole()]
    assert (await fetch(server, file)).sha256 == SHA
    assert server.asked[-1]["range"] == "bytes=2000000-"
    count = len(server.asked)
    assert (await fetch(server, file)).sha256 == SHA
    assert len(server.asked) == count


async def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(
    server: Server, tmp_path: Path
) -> None:
    server.answers = [whole(OTHER, '"old"', until=1_000_000), whole()]
    come = await fetch(server, tmp_path / "file")
    assert (come.sha256, come.in_pieces) == (SHA, False)


IGNORES = begin("200 OK", Content_Length=len(CONTENT)) + CONTENT
WRONG_PART = begin("206 Partial Content", Content_Range="bytes 5-9/3000000", Content_Length=5)
OTHER_SIZE = begin(
    "206 Partial Content", Content_Range="bytes 1000000-3999999/4000000", Content_Length=3000000
)
NO_RANGE = begin("206 Partial Content", Content_Length=2_000_000)


@pytest.mark.parametrize(
    "second",
    [
        always(IGNORES),  # knows no ranges
        always(WRONG_PART, b"wrong"),
        always(OTHER_SIZE, OTHER),
        always(NO_RANGE, OTHER[:2_000_000]),
        always(begin("416 Range Not Satisfiable", Content_Length=0)),
        always(begin("503 Service Unavailable", Content_Length=0)),
        always(b"this is no HTTP\r\n\r\n"),
        always(b""),  # closes without a word
    ],
)
async def test_a_server_that_goes_on_wrongly_does_no_harm(
    server: Server, tmp_path: Path, second: Answer
) -> None:
    server.answers = [whole(until=1_000_000), second, whole()]
    assert (await fetch(server, tmp_path / "file")).sha256 == SHA
    assert (tmp_path / "file").read_bytes() == CONTENT


async def test_pieces_of_two_files_are_told_as_pieces(server: Server, tmp_path: Path) -> None:
    """Without a validator nobody can know; who knows the digest finds out, and asks once more."""

    def unnamed(content: bytes, *, until: int | None) -> Answer:
        async def answer(headers: Headers, writer: asyncio.StreamWriter) -> None:
            start = int(headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            head = begin("200 OK", Content_Length=len(content))
            if start:
                where = f"bytes {start}-{len(content) - 1}/{len(content)}"
                length = len(content) - start
                head = begin("206 OK", Content_Range=where, Content_Length=length)
            await send(writer, head, content[start:until])

        return answer

    server.answers = [unnamed(OTHER, until=1_000_000), unnamed(CONTENT, until=None)]
    come = await fetch(server, tmp_path / "file")
    assert (come.in_pieces, come.size) == (True, len(CONTENT))
    assert come.sha256 != SHA
    assert "if-range" not in server.asked[1]


async def test_a_weak_tag_is_no_validator_and_a_date_is_one(server: Server, tmp_path: Path) -> None:
    date = "Sat, 04 May 2013 01:58:57 GMT"
    head = begin("200 OK", Content_Length=len(CONTENT), ETag='W/"x"', Last_Modified=date)
    server.answers = [always(head, CONTENT[:1_000_000]), whole()]
    await fetch(server, tmp_path / "file")
    assert server.asked[1]["if-range"] == date.lower()


async def test_a_server_that_stalls_is_asked_again(server: Server, tmp_path: Path) -> None:
    head = begin("200 OK", Content_Length=len(CONTENT), ETag='"one"')
    server.answers = [always(head, CONTENT[:1_000_000], hang=True), whole()]
    assert (await fetch(server, tmp_path / "file", patience=0.3)).sha256 == SHA
    assert server.asked[1]["range"] == "bytes=1000000-"


def dripping(begun: bytes) -> Answer:
    async def answer(headers: Headers, writer: asyncio.StreamWriter) -> None:
        await send(writer, begun)
        while True:
            await send(writer, b"x")
            await asyncio.sleep(0.05)

    return answer


async def test_a_server_that_gives_a_byte_now_and_then_is_asked_again(
    server: Server, tmp_path: Path
) -> None:
    head = begin("200 OK", Content_Length=len(CONTENT), ETag='"one"')
    content = b"x" * len(CONTENT)
    server.answers = [dripping(head), whole(content)]
    async with asyncio.timeout(10):
        come = await fetch(server, tmp_path / "file", patience=0.3)
    assert (come.sha256, come.in_pieces) == (hashlib.sha256(content).hexdigest(), True)
    server.answers = [dripping(head)]
    async with asyncio.timeout(10):
        with pytest.raises(DownloadFailed, match="less than 1024 a second"):
            await fetch(server, tmp_path / "other", patience=0.3)


async def test_an_answer_that_never_begins_is_not_waited_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instance_agent.download._CONNECT", 0.2)
    server.answers = [dripping(b"HTTP/1.1 200 OK\r\nX: "), whole()]
    async with asyncio.timeout(10):
        assert (await fetch(server, tmp_path / "file", patience=0.3)).sha256 == SHA


async def test_there_is_an_end_to_trying(server: Server, tmp_path: Path) -> None:
    server.answers = [always(begin("503 Service Unavailable", Content_Length=0))]
    with pytest.raises(DownloadFailed, match="503") as caught:
        await fetch(server, tmp_path / "file")
    assert len(server.asked) == 3
    assert "SECRET" not in str(caught.value)


async def test_progress_is_worth_more_tries(server: Server, tmp_path: Path) -> None:
    server.answers = [whole(until=1_100_000)]
    assert (await fetch(server, tmp_path / "file", tries=2)).sha256 == SHA
    server.asked.clear()
    server.answers = [whole(until=1000)]
    with pytest.raises(DownloadFailed):
        await fetch(server, tmp_path / "other", tries=2)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "answer",
    [
        always(begin("200 OK", Content_Length=10**12), hang=True),  # told before a byte came
        always(begin("200 OK"), CONTENT, b"!"),
        always(
            begin("200 OK", Transfer_Encoding="chunked"),
            b"200000\r\n" + b"x" * 0x200000 + b"\r\n",
            b"200000\r\n" + b"x" * 0x200000 + b"\r\n",
            hang=True,
        ),
    ],
)
async def test_more_than_was_told_is_never_kept(
    server: Server, tmp_path: Path, answer: Answer
) -> None:
    server.answers = [answer]
    with pytest.raises(TooLarge):
        await fetch(server, tmp_path / "file")
    assert (tmp_path / "file").stat().st_size <= len(CONTENT)
    assert len(server.asked) == 1


async def test_bytes_after_the_told_length_are_not_read(server: Server, tmp_path: Path) -> None:
    server.answers = [always(begin("200 OK", Content_Length=len(CONTENT)), CONTENT, b"more")]
    assert (await fetch(server, tmp_path / "file")).sha256 == SHA


async def test_a_shorter_file_that_says_so_is_what_it_is(server: Server, tmp_path: Path) -> None:
    server.answers = [always(begin("200 OK", Content_Length=5), b"short")]
    come = await fetch(server, tmp_path / "file")
    assert (come.size, come.in_pieces) == (5, False)


async def test_an_answer_without_a_length_that_ends_early_goes_on(
    server: Server, tmp_path: Path
) -> None:
    server.answers = [always(begin("200 OK", ETag='"one"'), CONTENT[:1_500_000]), whole()]
    assert (await fetch(server, tmp_path / "file")).sha256 == SHA
    assert server.asked[1]["range"] == "bytes=1500000-"


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found"])
async def test_a_plain_no_is_not_asked_again(server: Server, tmp_path: Path, status: str) -> None:
    server.answers = [always(begin(status, Content_Length=0))]
    with pytest.raises(DownloadFailed) as caught:
        await fetch(server, tmp_path / "file")
    assert isinstance(caught.value, AccessDenied) == (status[:3] != "404")
    assert len(server.asked) == 1


async def test_a_disk_that_is_full_is_no_fault_of_the_server(server: Server) -> None:
    server.answers = [always(begin("200 OK", Content_Length=len(CONTENT)), CONTENT)]
    with pytest.raises(NotWritten, match="No space left") as caught:
        await download(server.url, Path("/dev/full"), limit=10**7, patience=20)
    assert caught.value.full


async def test_the_longest_file_that_is_there_is_not_trusted(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * (len(CONTENT) + 1))
    server.answers = [whole()]
    assert (await fetch(server, file)).sha256 == SHA
