"""Follow every upgrade from outside, and prove that nothing was missed or changed.

    uv run examples/auditor/auditor.py --url amqp://auditor:PASSWORD@HOST:5672/rollcall

It prints what happens to images, upgrades, batches and instances. Each entry of Rollcall's event
log carries a number that counts without gaps in its stream, the hash of the entry before, and its
own hash; all three are checked. The last number and hash of each stream are kept in a file, so a
restart goes on where the last run ended. Exit code 2: an entry is missing or was changed.
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["aio-pika>=9.5"]
# ///

import argparse
import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, ProbableAuthenticationError

QUEUE = "auditor"
GENESIS = "0" * 64  # what the first entry of a stream has for the hash before
SHOWN = ("image.", "upgrade.", "batch.", "instance.")  # families that are printed


class ChainBroken(Exception):
    """An entry is missing, or is not what was written; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the log, as it came."""

    stream: str
    sequence: int
    id: str
    type: str
    source: str
    time: str
    subject: str
    previous_hash: str
    hash: str
    body: str


def read_entry(headers: Mapping[str, object], body: bytes) -> Entry:
    """Return a message as an entry. Raises ChainBroken for one that is none."""
    try:
        return Entry(
            stream=str(headers["cloudEvents:stream"]),
            sequence=int(str(headers["cloudEvents:sequence"])),
            id=str(headers["cloudEvents:id"]),
            type=str(headers["cloudEvents:type"]),
            source=str(headers["cloudEvents:source"]),
            time=str(headers["cloudEvents:time"]),
            subject=str(headers["cloudEvents:subject"]),
            previous_hash=str(headers["cloudEvents:previoushash"]),
            hash=str(headers["cloudEvents:hash"]),
            body=body.decode(),
        )
    except (KeyError, ValueError) as error:
        raise ChainBroken(f"a message that is no entry of the log: {error!r}") from error


def hash_of(entry: Entry) -> str:
    """Return the hash that an entry must have; written from the documentation, not shared code."""
    fields = (
        entry.previous_hash,
        entry.stream,
        str(entry.sequence),
        entry.id,
        entry.type,
        entry.source,
        entry.time,
        entry.body,
    )
    return hashlib.sha256("\n".join(fields).encode()).hexdigest()


class Position:
    """The last number and hash of each stream, kept in a file."""

    def __init__(self, path: Path, *, from_here: bool) -> None:
        self._path = path
        self._from_here = from_here
        self._last: dict[str, tuple[int, str]] = {}
        self.load()

    def load(self) -> None:
        """Read the file, if there is one."""
        if self._path.exists():
            self._last = {
                stream: (int(sequence), str(hash))
                for stream, (sequence, hash) in json.loads(self._path.read_text()).items()
            }

    def check(self, entry: Entry) -> bool:
        """Take an entry's place in its stream; False for a copy of one that was seen before.

        Raises ChainBroken.
        """
        where = f"{entry.stream} entry {entry.sequence}"
        if entry.hash != hash_of(entry):
            raise ChainBroken(f"CHANGED: {where} does not have the hash of its content")
        known = self._last.get(entry.stream)
        if known is None and self._from_here:
            known = (entry.sequence - 1, entry.previous_hash)
        sequence, hash = known or (0, GENESIS)
        if entry.sequence <= sequence:
            if entry.sequence == sequence and entry.hash != hash:
                raise ChainBroken(f"CHANGED: {where} came again as another one")
            return False
        if entry.sequence != sequence + 1:
            missing = f"{sequence + 1} to {entry.sequence - 1}"
            raise ChainBroken(f"MISSING: {entry.stream} entries {missing}")
        if entry.previous_hash != hash:
            raise ChainBroken(f"CHANGED: an entry of {entry.stream} before {entry.sequence}")
        self._last[entry.stream] = (entry.sequence, entry.hash)
        return True

    def save(self) -> None:
        """Write the file in one step: a crash leaves the old one or the new one."""
        draft = self._path.with_name(self._path.name + ".new")
        with draft.open("w") as file:
            json.dump(self._last, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)


def show(entry: Entry) -> None:
    """Print an entry that tells what happened; requests to agents and probers are left out."""
    if not entry.type.startswith(SHOWN) or entry.type.endswith("requested.v1"):
        return
    reason = json.loads(entry.body).get("reason", "")
    # As JSON, so that no text of an application reaches the terminal as control characters.
    print(entry.time, entry.type, entry.subject, json.dumps(reason), flush=True)


def take(messages: list[AbstractIncomingMessage], position: Position) -> None:
    """Check and show messages in their order; what was checked is saved, whatever follows."""
    try:
        for message in messages:
            entry = read_entry(message.headers, message.body)
            if position.check(entry):
                show(entry)
    finally:
        position.save()


async def follow(url: str, position: Position) -> None:
    """Read the queue until the connection is lost. Raises ChainBroken."""
    connection = await aio_pika.connect(url, timeout=10)
    async with connection:
        inbox: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        connection.close_callbacks.add(lambda *_: inbox.put_nowait(None))
        channel = await connection.channel(publisher_confirms=False)
        channel.close_callbacks.add(lambda *_: inbox.put_nowait(None))
        await channel.set_qos(prefetch_count=500)
        queue = await channel.get_queue(QUEUE, ensure=False)
        await queue.consume(inbox.put)
        print("auditor: connected", file=sys.stderr, flush=True)
        fresh = True
        while (message := await inbox.get()) is not None:
            messages = [message]
            while not inbox.empty() and (message := inbox.get_nowait()) is not None:
                messages.append(message)
            if fresh:
                # The queue has one active consumer. A second auditor on this host waits, and goes
                # on where the first one's file ends.
                position.load()
                fresh = False
            take(messages, position)
            await messages[-1].ack(multiple=True)  # after saving: a crash brings copies, no gap
            if message is None:
                break


async def audit(url: str, position: Position) -> int:
    """Follow until the process is told to stop; return the exit code."""
    while True:
        try:
            await follow(url, position)
        except ChainBroken as error:
            print(f"\n*** THE CHAIN IS BROKEN *** {error}", file=sys.stderr, flush=True)
            return 2
        except ProbableAuthenticationError as error:
            print(f"auditor: the broker refuses the account: {error}", file=sys.stderr)
            return 1
        except (OSError, AMQPError, RuntimeError) as error:
            print(f"auditor: {error or type(error).__name__}", file=sys.stderr, flush=True)
        await asyncio.sleep(1)


async def run(url: str, position: Position) -> int:
    """Audit until SIGINT or SIGTERM."""
    task = asyncio.create_task(audit(url, position))
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return 0


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", default=os.environ.get("AUDITOR_URL"), help="or AUDITOR_URL")
    parser.add_argument("--position", type=Path, default=Path("auditor-position.json"))
    parser.add_argument(
        "--from-here",
        action="store_true",
        help="accept streams that began before this auditor's queue was made",
    )
    arguments = parser.parse_args()
    if not arguments.url:
        parser.error("give --url amqp://auditor:PASSWORD@HOST:PORT/VHOST, or set AUDITOR_URL")
    position = Position(arguments.position, from_here=arguments.from_here)
    return asyncio.run(run(arguments.url, position))


if __name__ == "__main__":
    sys.exit(main())
