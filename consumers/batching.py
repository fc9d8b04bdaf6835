"""How many records a batch waits for: one while little comes, many where the worker is behind."""

from __future__ import annotations

import time
from collections.abc import Callable

from streams.record import Record

GROWTH = 4
QUICK = 0.25


class Batching:
    """Fills batches of at most ``most`` records for at most ``seconds``.

    A batch is due as soon as it has as many records as are to be expected. That is one, until they
    came at once: then they lay there already, and the next batch may be larger. So what comes alone is not
    kept waiting, and under load transactions are few.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self.expected = 1

    def consume(self, consume: Callable[[int, float], list[Record]]) -> list[Record]:
        """Return what ``consume(limit, seconds)`` returns; blocks as long as that does."""
        began = time.perf_counter()
        records = consume(self.expected, self._seconds)
        self.note(len(records), time.perf_counter() - began)
        return records

    def note(self, count: int, seconds: float) -> None:
        """Learn from a batch of ``count`` records that took so long to fill."""
        if count < self.expected:
            self.expected = max(1, count)
        elif seconds < QUICK * self._seconds:
            self.expected = min(GROWTH * count, self._most)
