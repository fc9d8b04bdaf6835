"""How long the articles worker waits for records, and when it has read enough to run a batch."""

from __future__ import annotations

import time

from prometheus_client import Gauge

from consumers.articles_desk import Desk
from consumers.articles_published import PUBLISHED
from consumers.articles_runner import Bounds, Runner
from streams.group import GroupInput
from streams.record import Record

READ_AT_ONCE = 256
IDLE_SECONDS = 0.1
FETCH_SECONDS = 0.05
RUN_SECONDS = 0.005
MEASURE_SECONDS = 1.0
QUEUE = Gauge("stoppress_encoder_queue_articles", "Articles that wait for the encoder")
QUEUE_AGE = Gauge("stoppress_encoder_queue_age_seconds", "Since Kafka got the one of them that waits longest")


class Reader:
    """All is read before a batch is run, as far as there is room: only then the newest is known."""

    def __init__(self, source: GroupInput, desk: Desk, runner: Runner, bounds: Bounds) -> None:
        self._source = source
        self._desk = desk
        self._runner = runner
        self._bounds = bounds
        self._found = False
        self._ends: dict[int, int] = {}
        self._given_up: dict[int, int] = {}
        self._fill_until: float | None = None
        self._next_measure = 0.0

    def read(self) -> list[Record]:
        """Return the records at hand, as far as there is room for them; waits where none came the last time."""
        records: list[Record] = []
        limit = min(READ_AT_ONCE, self._desk.backlog.room)
        if limit:
            patience = 0.0 if self._found else self._patience()
            records = self._source.consume(1 if patience else limit, patience)
            self._found = bool(records)
            self._ends = self._source.known_ends()
            if not records and patience >= FETCH_SECONDS:
                self._given_up = self._ends
        if not records:
            self._runner.wait(RUN_SECONDS)
        return records

    def may_run(self) -> bool:
        """Whether a batch is to be run now: the encoder is free, and all is read or there is no room."""
        backlog = self._desk.backlog
        if self._runner.busy or not len(backlog):
            self._fill_until = None
            return False
        if backlog.room < READ_AT_ONCE:
            return True
        now = time.monotonic()
        if self._fill_until is None:
            self._fill_until = now + self._bounds.wait_seconds
        full = len(backlog) >= self._bounds.articles or backlog.tokens >= self._bounds.tokens
        return (full or now >= self._fill_until) and not self._behind()

    def measure(self) -> None:
        """Bring the gauges up to date, once a second."""
        if (now := time.monotonic()) < self._next_measure:
            return
        self._next_measure = now + MEASURE_SECONDS
        oldest = self._desk.backlog.oldest()
        QUEUE.set(len(self._desk.backlog))
        QUEUE_AGE.set(0 if oldest is None else max(0.0, time.time() - oldest / 1000))
        PUBLISHED.set(len(self._desk.published))

    def _patience(self) -> float:
        """Seconds to wait for a record."""
        if self._runner.busy:
            return 0.0
        if not len(self._desk.backlog):
            return IDLE_SECONDS
        if self._behind():
            return FETCH_SECONDS
        return max(0.0, (self._fill_until or 0.0) - time.monotonic())

    def _behind(self) -> bool:
        """Whether there is more to read; what was waited for in vain is no record but a transaction's marker."""
        if self._ends == self._given_up:
            return False
        unknown = len(self._ends) < len(self._source.assigned)
        return unknown or any(end > self._desk.backlog.read_to(p) for p, end in self._ends.items())
