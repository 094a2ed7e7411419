"""The agent's journal: one row per instance, in SQLite, on the agent's own disk.

Why SQLite in WAL mode: a commit is one append of a few hundred bytes, which outlives kill -9. What
is told of an instance outlives a loss of power, too: a record that is done, or buried, is written
through (synchronous=FULL), with all before it. That costs some milliseconds, so the steps between
are not: what is lost of them the agent sees by what is in place, and its request comes again.
"""

import sqlite3
import time
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from instance_agent.domain.record import Record, Step

REMEMBERED = 7 * 86400.0  # seconds that a deletion is remembered

_record: TypeAdapter[Record] = TypeAdapter(Record)


class JournalError(RuntimeError):
    """The journal cannot be read; the message names the file and what to do."""


class Journal:
    """The records of one host's instances."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS instances ("
            " scale_set TEXT NOT NULL, instance_id TEXT NOT NULL, record TEXT NOT NULL,"
            " PRIMARY KEY (scale_set, instance_id)) WITHOUT ROWID"
        )
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS graves ("
            " scale_set TEXT NOT NULL, instance_id TEXT NOT NULL, attempt INTEGER NOT NULL,"
            " at REAL NOT NULL, PRIMARY KEY (scale_set, instance_id)) WITHOUT ROWID"
        )
        self._connection.execute("DELETE FROM graves WHERE at < ?", (time.time() - REMEMBERED,))

    def get(self, scale_set: str, instance_id: str) -> Record | None:
        """Return what is known of an instance."""
        row = self._connection.execute(
            "SELECT record FROM instances WHERE scale_set = ? AND instance_id = ?",
            (scale_set.lower(), instance_id),
        ).fetchone()
        return None if row is None else self._parse(row[0])

    def all(self) -> list[Record]:
        """Return what is known of every instance."""
        rows = self._connection.execute("SELECT record FROM instances").fetchall()
        return [self._parse(row[0]) for row in rows]

    def save(self, record: Record) -> Record:
        """Write a record down, in place of what was known; returns it."""
        self._write_through(record.step is Step.DONE)
        self._connection.execute(
            "INSERT OR REPLACE INTO instances VALUES (?, ?, ?)",
            (record.scale_set.lower(), record.instance_id, _record.dump_json(record).decode()),
        )
        return record

    def bury(self, scale_set: str, instance_id: str, attempt: int) -> None:
        """Forget an instance but for the attempt of its deletion.

        Its creation may be delivered once more, or only then: it must not be made again.
        """
        key = (scale_set.lower(), instance_id)
        self._write_through(True)
        self._connection.execute("BEGIN")
        self._connection.execute(
            "DELETE FROM instances WHERE scale_set = ? AND instance_id = ?", key
        )
        self._connection.execute(
            "INSERT OR REPLACE INTO graves VALUES (?, ?, ?, ?)", (*key, attempt, time.time())
        )
        self._connection.execute("COMMIT")

    def buried(self, scale_set: str, instance_id: str) -> int:
        """Return the attempt of an instance's deletion; 0 where none is remembered."""
        row = self._connection.execute(
            "SELECT attempt FROM graves WHERE scale_set = ? AND instance_id = ?",
            (scale_set.lower(), instance_id),
        ).fetchone()
        return 0 if row is None else int(row[0])

    def _write_through(self, through: bool) -> None:
        """Say whether the next commit waits for the disk."""
        self._connection.execute(f"PRAGMA synchronous={'FULL' if through else 'NORMAL'}")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _parse(self, text: str) -> Record:
        try:
            return _record.validate_json(text)
        except ValidationError as error:
            raise JournalError(
                f"{self._path} was written by another version of the agent: go back to that "
                f"version, or delete its instances first ({error.error_count()} faults)"
            ) from error
