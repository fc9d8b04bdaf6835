"""Click-through rates of articles, summed over the partitions that count them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contract.records import ArticleStats

PRIOR_CLICKS = 1.0
PRIOR_IMPRESSIONS = 25.0


class Popularity:
    """Decayed impressions and clicks by article and partition.

    Counts decay with ``half_life_ms`` between the time they are given for and the time asked for.
    """

    def __init__(self, partitions: int, half_life_ms: float) -> None:
        self._half_life_ms = half_life_ms
        self._rows: dict[str, int] = {}
        self._free: list[int] = []
        self._at: NDArray[np.int64] = np.zeros((256, partitions), np.int64)
        self._counts: NDArray[np.float64] = np.zeros((256, partitions, 2), np.float64)

    def put(self, partition: int, article_id: str, stats: ArticleStats | None) -> None:
        """Replace what one partition counted for an article; None takes it away."""
        row = self._rows.get(article_id)
        if stats is None:
            if row is not None:
                self._counts[row, partition] = 0.0
                if not self._counts[row].any():
                    self._free.append(self._rows.pop(article_id))
            return
        if row is None:
            row = self._free.pop() if self._free else len(self._rows)
            if row == len(self._at):
                self._at = np.concatenate([self._at, np.zeros_like(self._at)])
                self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
            self._rows[article_id] = row
        self._at[row, partition] = stats.at
        self._counts[row, partition] = stats.impressions, stats.clicks

    def click_through_rates(self, article_ids: Sequence[str], now_ms: int) -> NDArray[np.float32]:
        """Return the smoothed click-through rate of each article, [n]; the prior where nothing is known."""
        rows = np.fromiter((self._rows.get(article_id, -1) for article_id in article_ids), np.intp, len(article_ids))
        kept = np.exp2(np.minimum(self._at[rows] - now_ms, 0) / self._half_life_ms)
        impressions, clicks = np.einsum("np,npc->cn", kept, self._counts[rows])
        known = rows >= 0
        rates: NDArray[np.float32] = (
            (clicks * known + PRIOR_CLICKS) / (impressions * known + PRIOR_IMPRESSIONS)
        ).astype(np.float32)
        return rates
