"""How much better or worse articles are clicked in a region than elsewhere.

    excess = logit((clicks + S p) / (impressions + S)) - logit(p)

with impressions and clicks of the region, and p the article's rate everywhere: where a region has told little, what
is read there is what is read everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from contract.records import OTHER_NAME, ArticleStats
from ranking.popularity import smoothed

MOST_REGIONS = 64
"""So many regions are kept apart, the first that were counted; users of others have what is read everywhere."""
REBASE_AFTER = 500.0
"""Half-lives: what is added stays far from the largest float."""
NOTHING = 1e-6
"""Fewer impressions are the rounding of what was taken away."""
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Places = NDArray[np.intp]


@dataclass(frozen=True)
class Regional:
    """``numbers`` of regions, from 1; ``excess`` [1 + regions, n] of n articles in log-odds, 0 for region 0.

    ``seen`` are for each number the places of the articles shown or clicked in that region.
    """

    numbers: Mapping[str, int] = field(default_factory=dict)
    excess: Floats = field(default_factory=lambda: np.zeros((1, 0), np.float32))
    seen: tuple[Places, ...] = (np.zeros(0, np.intp),)


NO_REGIONS = Regional()


class RegionalCounts:
    """Decayed impressions and clicks by region and article, summed over the partitions that count them.

    A count weighs 2^((its time - the base) / half-life), so that sums need not be touched as time goes by.
    """

    def __init__(self, half_life_ms: float) -> None:
        self._half_life_ms = half_life_ms
        self._base = 0
        self._numbers: dict[str, int] = {}
        self._rows: dict[int, int] = {}
        self._free: list[int] = []
        self._hashes = np.zeros(256, np.uint64)
        self._sums: Doubles = np.zeros((1, 256, 2))
        self._told: dict[int, dict[int, ArticleStats]] = {}

    def put(self, partition: int, article: int, stats: ArticleStats | None) -> None:
        """Replace what one partition counted for an article (64-bit hash); None takes it away."""
        told = self._told.get(article)
        if told is None:
            if stats is None or not stats.regions:
                return
            told = self._told[article] = {}
            self._add_row(article)
        row = self._rows[article]
        before = told.pop(partition, None)
        if before is not None:
            self._add(row, before, -1.0)
        if stats is not None and stats.regions:
            told[partition] = stats
            self._add(row, stats, 1.0)
        elif not told:
            del self._told[article], self._rows[article]
            self._sums[:, row], self._hashes[row] = 0.0, 0
            self._free.append(row)

    def regional(self, places: Places, rates: Doubles, now_ms: int) -> Regional:
        """Return what regions make of a catalogue's n articles.

        ``places`` [m] are those of :attr:`hashes` (-1: none), ``rates`` [n] how the articles are clicked everywhere.
        """
        if not self._numbers:
            return NO_REGIONS
        excess = np.zeros((1 + len(self._numbers), len(rates)), np.float32)
        seen = [np.zeros(0, np.intp)]
        kept = 2.0 ** ((self._base - now_ms) / self._half_life_ms)
        for number in self._numbers.values():
            impressions, clicks = self._sums[number].T * kept
            rows = np.flatnonzero((np.maximum(impressions, clicks) > NOTHING) & (places >= 0))
            at = places[rows]
            everywhere = np.clip(rates[at], 1e-4, 1 - 1e-4)
            here = smoothed(np.maximum(impressions[rows], 0), np.maximum(clicks[rows], 0), everywhere)
            excess[number, at] = _logit(np.clip(here, 1e-4, 1 - 1e-4)) - _logit(everywhere)
            seen.append(at)
        return Regional(dict(self._numbers), excess, tuple(seen))

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """The articles of all rows, [m]; 0 where a row is free."""
        return self._hashes

    def _add(self, row: int, stats: ArticleStats, sign: float) -> None:
        elapsed = (stats.at - self._base) / self._half_life_ms
        if sign > 0 and elapsed > REBASE_AFTER:
            self._sums *= 2.0**-elapsed if elapsed < 1000 else 0.0
            self._base, elapsed = stats.at, 0.0
        weight = sign * 2.0 ** max(elapsed, -1000.0)
        for region, (impressions, clicks) in stats.regions.items():
            number = self._numbers.get(region) or self._add_region(region)
            if number and math.isfinite(impressions) and math.isfinite(clicks):
                self._sums[number, row, 0] += weight * impressions
                self._sums[number, row, 1] += weight * clicks

    def _add_region(self, region: str) -> int:
        """Return the region's number; 0 where it is not kept apart."""
        if region == OTHER_NAME or len(self._numbers) >= MOST_REGIONS:
            return 0
        self._numbers[region] = len(self._sums)
        self._sums = np.concatenate([self._sums, np.zeros_like(self._sums[:1])])
        return self._numbers[region]

    def _add_row(self, article: int) -> None:
        row = self._free.pop() if self._free else len(self._rows)
        if row == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)], axis=1)
        self._rows[article], self._hashes[row] = row, article


def _logit(rates: Doubles) -> Doubles:
    odds: Doubles = np.log(rates / (1 - rates))
    return odds
