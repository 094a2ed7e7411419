"""Virtual time: what is to happen, in its order."""

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 5, 12, tzinfo=UTC)  # a Monday

Happening = Callable[[], None]


class Agenda:
    """A clock that only moves to the next happening; those of one time keep their order.

    Times are seconds since `start`: adding floats costs a tenth of adding datetimes.
    """

    def __init__(self, start: datetime = START) -> None:
        self.start = start
        self.seconds = 0.0
        self._heap: list[tuple[float, int, Happening]] = []
        self._count = 0

    @property
    def now(self) -> datetime:
        """Return the virtual time."""
        return self.start + timedelta(seconds=self.seconds)

    def at(self, time: datetime) -> float:
        """Return a time as seconds since the start."""
        return (time - self.start).total_seconds()

    def after(self, delay: float, happening: Happening) -> None:
        """Let something happen so many seconds from now."""
        self.when(self.seconds + delay, happening)

    def when(self, seconds: float, happening: Happening) -> None:
        """Let something happen at a time; one that is past is now."""
        self._count += 1
        heapq.heappush(self._heap, (max(seconds, self.seconds), self._count, happening))

    def next(self) -> float | None:
        """Return when the next happening is due, or None."""
        return self._heap[0][0] if self._heap else None

    def step(self) -> bool:
        """Move the clock to the next happening and let it happen; False when there is none."""
        if not self._heap:
            return False
        self.seconds, _, happening = heapq.heappop(self._heap)
        happening()
        return True
