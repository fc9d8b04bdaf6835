"""The feedback loop: candidate sources and exploration weigh by how what they give is clicked now, against usual.

    expected(source) = sum over positions of impressions(source, position) * ctr(position)
    ratio(source)    = (clicks + K) / (expected + K)
    weight(source)   = GAIN * (log ratio - its usual value), log-odds that its candidates gain

``ctr(position)`` is that of all personal lists together, so that position bias fools nobody: a source that stands at
the head of lists has to earn more than one at their end. Counts halve in six hours; what is usual is an average of
the log ratios that halves in two days.

Held against 1 instead of against what is usual, the ratio would mislead: sources differ in whom they are shown to (a
newcomer's list is all popular and new), and the articles of a source that just miss a list are not like those in it.
A change says that a source is worth less than it was, and that those who rely on it need another.

Exploration has a place in the list that is drawn by chance (:func:`ranking.exploration.places_to_explore`), so it is
held against all that was shown in those places; its share of lists is multiplied by exp(weight).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.records import ArticleStats
from ranking.candidates import SOURCES
from ranking.exploration import first_and_last_place
from ranking.reasons import EXPLORATION

PRIOR_CLICKS = 20.0
GAIN = 2.0
STRONGEST = 1.0
"""No source gains or loses more than this, log-odds."""
USUAL_HALF_LIFE_MS = 48 * 3_600_000
ENOUGH_CLICKS = 200.0
"""With fewer in all, nothing is known to be usual, and all weights are 0."""
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Adapted:
    """``sources``: the log-odds that a candidate gains by its source, in the order of :data:`SOURCES`.

    ``exploration`` is what the share of places to explore is multiplied by.
    """

    sources: tuple[float, ...] = (0.0,) * len(SOURCES)
    exploration: float = 1.0


UNCHANGED = Adapted()


class Feedback:
    """Counts of the candidate sources by partition, and what their ratios usually are.

    The counts are those of all partitions, so every ranker comes to the same ratios; what is usual is taken from the
    time that this one has run.
    """

    def __init__(self, half_life_ms: float) -> None:
        """``half_life_ms`` is that of the counts."""
        self._half_life_ms = half_life_ms
        self._stats: dict[tuple[int, str], ArticleStats] = {}
        self._usual: Doubles = np.zeros(len(SOURCES) + 1)
        self._looked_at: int | None = None
        self._looked_ms = 0.0

    def put(self, partition: int, source: str, stats: ArticleStats | None) -> None:
        """Replace what one partition counted for a source; None takes it away. Sources not known here do not count."""
        if source not in SOURCES:
            return
        if stats is None:
            self._stats.pop((partition, source), None)
        else:
            self._stats[partition, source] = stats

    def look(self, length: int, now_ms: int) -> Adapted:
        """Take in how lists of ``length`` are clicked at ``now_ms``, and return the weights; call it now and then."""
        ratios = self.log_ratios(length, now_ms)
        if ratios is None:
            return UNCHANGED
        if self._looked_at is None:
            self._looked_at, self._usual = now_ms, ratios
        passed = max(0, now_ms - self._looked_at)
        self._looked_at += passed
        self._looked_ms += passed
        # A plain mean to begin with, else what the first looks saw would be usual for days.
        share = max(1 - 2.0 ** (-passed / USUAL_HALF_LIFE_MS), passed / max(1.0, self._looked_ms))
        self._usual = self._usual + share * (ratios - self._usual)
        weights = np.clip(GAIN * (ratios - self._usual), -STRONGEST, STRONGEST)
        return Adapted(tuple(weights[:-1].round(3).tolist()), round(float(np.exp(weights[-1])), 3))

    def log_ratios(self, length: int, now_ms: int) -> Doubles | None:
        """Return the log ratios of all sources and of exploration, [sources + 1]; None where too little was counted."""
        positions = sorted({position for stats in self._stats.values() for position in stats.positions})
        if not positions:
            return None
        counts = np.zeros((2, len(SOURCES), len(positions)))
        explored = np.zeros(2)
        for (_, source), stats in self._stats.items():
            kept = 2.0 ** (min(0, stats.at - now_ms) / self._half_life_ms)
            for position, told in stats.positions.items():
                counts[:, SOURCES.index(source), positions.index(position)] += np.array(told) * kept
            explored += np.array(stats.reasons.get(EXPLORATION, (0.0, 0.0))) * kept
        if counts[1].sum() < ENOUGH_CLICKS:
            return None
        return log_ratios(counts[0], counts[1], positions, explored, length)


def log_ratios(
    impressions: Doubles, clicks: Doubles, positions: Sequence[int], explored: Doubles, length: int
) -> Doubles:
    """Return the log ratios from impressions and clicks [sources, positions], each position the first of its bucket.

    ``explored`` are the impressions and clicks of what was explored, [2]; its ratio is the last of [sources + 1].
    """
    seen = impressions.sum(axis=0)
    rates = clicks.sum(axis=0) / np.maximum(seen, 1e-9)
    first, last = first_and_last_place(length)
    inside = slice(max(0, bisect_right(positions, first) - 1), bisect_right(positions, last - 1))
    there = seen[inside]
    expected = explored[0] * float((rates[inside] * there).sum() / max(float(there.sum()), 1e-9))
    clicked = np.append(clicks.sum(axis=1), explored[1])
    ratios: Doubles = np.log((clicked + PRIOR_CLICKS) / (np.append(impressions @ rates, expected) + PRIOR_CLICKS))
    return ratios
