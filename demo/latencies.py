"""Latencies in whole milliseconds: exact percentiles over a run, and over the last seconds of it."""

from __future__ import annotations

from collections import deque
from typing import TypedDict

import numpy as np

LONGEST_MS = 120_000
RECENT_SECONDS = 30.0
_RECENT_COUNT = 50_000


class Percentiles(TypedDict):
    """Milliseconds; None where nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None
    count: int


class Latencies:
    """A histogram with a bin a millisecond; what is longer than :data:`LONGEST_MS` counts as that."""

    def __init__(self) -> None:
        self._bins = np.zeros(LONGEST_MS + 1, np.int64)
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT_COUNT)

    def add(self, milliseconds: int, now: float, *, counts: bool) -> None:
        """Take one measurement made at ``now`` (monotonic seconds); ``counts``: it goes into the run's figures."""
        value = min(max(milliseconds, 0), LONGEST_MS)
        self._recent.append((now, value))
        if counts:
            self._bins[value] += 1

    def total(self) -> Percentiles:
        """Percentiles of all that counted."""
        count = int(self._bins.sum())
        if not count:
            return {"p50": None, "p95": None, "p99": None, "count": 0}
        ranks = np.ceil(np.array([0.5, 0.95, 0.99]) * count)
        p50, p95, p99 = np.searchsorted(np.cumsum(self._bins), ranks).tolist()
        return {"p50": p50, "p95": p95, "p99": p99, "count": count}

    def recent(self, now: float) -> Percentiles:
        """Percentiles of the last :data:`RECENT_SECONDS`."""
        while self._recent and self._recent[0][0] < now - RECENT_SECONDS:
            self._recent.popleft()
        values = [value for _, value in self._recent.copy()]
        if not values:
            return {"p50": None, "p95": None, "p99": None, "count": 0}
        p50, p95, p99 = np.percentile(values, [50, 95, 99], method="inverted_cdf").tolist()
        return {"p50": p50, "p95": p95, "p99": p99, "count": len(values)}
