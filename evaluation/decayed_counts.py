"""Counts by article that halve with time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from evaluation.articles import Indices, grown

Floats = NDArray[np.float64]
REBASE_AFTER = 60.0  # half-lives: an addition's weight stays far from the largest float


class DecayedCounts:
    """Counts that have halved ``half_life_ms`` after they were added; infinite: they stay.

    An addition weighs 2^((its time - the base) / half-life), so that nothing need be touched as time goes by.
    """

    def __init__(self, half_life_ms: float = math.inf) -> None:
        self._half_life_ms = half_life_ms
        self._base = 0
        self._sums: Floats = np.zeros(1024)

    def add(self, articles: Indices, at: int, weight: float | Floats = 1.0) -> None:
        """Add ``weight`` to each of ``articles`` (no two alike) as of ``at``, epoch ms."""
        if not len(articles):
            return
        elapsed = (at - self._base) / self._half_life_ms
        if elapsed > REBASE_AFTER:
            self._sums *= 2.0**-elapsed if elapsed < 1000 else 0.0
            self._base, elapsed = at, 0.0
        self._sums = grown(self._sums, int(articles.max()) + 1)
        self._sums[articles] += weight * 2.0**elapsed

    def of(self, articles: Indices, at: int) -> Floats:
        """Return the counts of ``articles`` [n] as of ``at``."""
        if len(articles) and articles.max() >= len(self._sums):
            self._sums = grown(self._sums, int(articles.max()) + 1)
        counts: Floats = self._sums[articles] * 2.0 ** ((self._base - at) / self._half_life_ms)
        return counts
