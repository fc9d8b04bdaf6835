"""How well articles are clicked, summed over the partitions that count it.

    popularity = logit((clicks + S p) / (impressions + S)) - logit(p),   p = what the text promises

With few impressions this is near 0 and the text decides (:mod:`ranking.appeal`); with many, what readers do.
Log-odds stay bounded where nobody clicks but one, which a z-score does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contract.records import ArticleStats

PRIOR_CLICKS = 1.0
PRIOR_IMPRESSIONS = 25.0
RATES = 0.005, 0.3
"""Between these the average rate is taken to lie, whatever few events say."""
Doubles = NDArray[np.float64]


class Popularity:
    """Decayed impressions and clicks by article and partition.

    Counts decay with ``half_life_ms`` between the time they are given for and the time asked for; those kept beside
    them with each of ``short_minutes``.
    """

    def __init__(self, partitions: int, half_life_ms: float, short_minutes: Sequence[int] = ()) -> None:
        self._short_minutes = tuple(short_minutes)
        self._half_lives_ms = np.array([half_life_ms, *(60_000 * minutes for minutes in short_minutes)], np.float64)
        self._rows: dict[str, int] = {}
        self._free: list[int] = []
        self.version = 0
        """Rises whenever :meth:`rows` may answer otherwise than before."""
        self._at: NDArray[np.int64] = np.zeros((256, partitions), np.int64)
        self._counts: Doubles = np.zeros((256, partitions, len(self._half_lives_ms), 2), np.float64)
        self._flat = _flat(self._counts)

    def put(self, partition: int, article_id: str, stats: ArticleStats | None) -> None:
        """Replace what one partition counted for an article; None takes it away."""
        row = self._rows.get(article_id)
        if stats is None:
            if row is not None:
                self._counts[row, partition] = 0.0
                if not self._counts[row].any():
                    self._free.append(self._rows.pop(article_id))
                    self.version += 1
            return
        if row is None:
            row = self._free.pop() if self._free else len(self._rows)
            if row == len(self._at):
                self._at = np.concatenate([self._at, np.zeros_like(self._at)])
                self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
                self._flat = _flat(self._counts)
            self._rows[article_id] = row
            self.version += 1
        self._at[row, partition] = stats.at
        counts = [stats.impressions, stats.clicks]
        for minutes in self._short_minutes:
            counts += stats.lately.get(minutes, (0.0, 0.0))
        self._flat[row, partition] = [count if math.isfinite(count) else 0.0 for count in counts]

    def rows(self, article_ids: Sequence[str]) -> NDArray[np.intp]:
        """Return where each article is counted, [n], for :meth:`counts_in`; -1 where it is not."""
        return np.fromiter((self._rows.get(article_id, -1) for article_id in article_ids), np.intp, len(article_ids))

    def all_counts_in(self, rows: NDArray[np.intp], now_ms: int) -> Doubles:
        """Return what :meth:`counts_in` does by half-life, [1 + the short ones, 2, n]."""
        since = np.minimum(self._at[rows] - now_ms, 0)
        kept = np.exp2(since[:, :, None] / self._half_lives_ms)
        counted: Doubles = np.einsum("nph,nphc->hcn", kept, self._counts[rows])
        return np.maximum(counted * (rows >= 0), 0)

    def counts_in(self, rows: NDArray[np.intp], now_ms: int) -> Doubles:
        """Return decayed impressions and clicks, [2, n], of ``rows`` [n]; 0 where nothing is known."""
        counted: Doubles = self.all_counts_in(rows, now_ms)[0]
        return counted

    def counts(self, article_ids: Sequence[str], now_ms: int) -> Doubles:
        """Return decayed impressions and clicks of each article, [2, n]; 0 where nothing is known."""
        return self.counts_in(self.rows(article_ids), now_ms)


def _flat(counts: Doubles) -> Doubles:
    """The same numbers, [rows, partitions, half-lives * 2]: one record's in one place."""
    return counts.reshape(*counts.shape[:2], -1)


def base_rate(impressions: Doubles, clicks: Doubles) -> float:
    """Return the average click-through rate; near the prior where little is known."""
    seen = float(np.maximum(impressions, clicks).sum())
    rate = (float(clicks.sum()) + PRIOR_CLICKS) / (seen + PRIOR_IMPRESSIONS)
    return float(np.clip(rate, *RATES))


def smoothed(impressions: Doubles, clicks: Doubles, promised: Doubles) -> Doubles:
    """Return each article's rate, [n], drawn to the ``promised`` [n]; clicks elsewhere are no more than impressions."""
    seen = np.maximum(impressions, clicks)
    rates: Doubles = (clicks + PRIOR_IMPRESSIONS * promised) / (seen + PRIOR_IMPRESSIONS)
    return rates


def popularity(impressions: Doubles, clicks: Doubles, rate: float, appeal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how much better than its text promised each article is clicked, [n], log-odds.

    ``rate`` is :func:`base_rate`, ``appeal`` [n] what the text promises against it.
    """
    promised = 1.0 / (1.0 + np.exp(-(np.log(rate / (1 - rate)) + appeal.astype(np.float64))))
    found = smoothed(impressions, clicks, promised)
    found = np.clip(found, 1e-4, 1 - 1e-4)
    odds: NDArray[np.float32] = (np.log(found / (1 - found)) - np.log(promised / (1 - promised))).astype(np.float32)
    return odds
