"""What an article's readers read next, summed over the partitions that count it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contract.records import CoReads

PRIOR = 2.0
"""So many readers who went nowhere are added, so that one reader's way does not count as everybody's."""

Next = tuple[NDArray[np.uint64], NDArray[np.float64]]


class CoReading:
    """Decayed weights by article, partition and article read next; both articles as 64-bit hashes."""

    def __init__(self, half_life_ms: float = 18 * 60_000) -> None:
        self._half_life_ms = half_life_ms
        self._records: dict[int, dict[int, CoReads]] = {}

    def __len__(self) -> int:
        """How many articles something was read after."""
        return len(self._records)

    def put(self, partition: int, article: int, record: CoReads | None) -> None:
        """Replace what one partition counted after ``article``; None takes it away."""
        if record is not None:
            self._records.setdefault(article, {})[partition] = record
        elif article in self._records:
            self._records[article].pop(partition, None)
            if not self._records[article]:
                del self._records[article]

    def after(self, article: int, now_ms: int) -> Next:
        """Return the articles read next, and the share of readers who did, smoothed."""
        _, then, shares = self.after_each(np.array([article], np.uint64), now_ms)
        articles, numbers = np.unique(then, return_inverse=True)
        return articles, np.bincount(numbers, shares, len(articles)).astype(np.float64)

    def after_each(
        self, articles: NDArray[np.uint64], now_ms: int
    ) -> tuple[NDArray[np.intp], NDArray[np.uint64], NDArray[np.float64]]:
        """Return of each of ``articles`` [m] its number, articles read next, and the share of its readers, smoothed.

        Where both are the same, shares are to be summed.
        """
        found = [
            (number, record)
            for number, article in enumerate(articles.tolist())
            for record in self._records.get(article, {}).values()
        ]
        kept = np.exp2([min(0, record.at - now_ms) / self._half_life_ms for _, record in found])
        lengths = [len(record.weights) // 8 for _, record in found]
        weights = np.frombuffer(b"".join(record.weights for _, record in found)) * np.repeat(kept, lengths)
        numbers = np.repeat(np.array([number for number, _ in found], np.intp), lengths)
        usable = np.isfinite(weights) & (weights > 0)
        numbers, weights = numbers[usable], weights[usable]
        then = np.frombuffer(b"".join(record.articles for _, record in found), np.uint64)[usable]
        shares: NDArray[np.float64] = weights / (np.bincount(numbers, weights, len(articles)) + PRIOR)[numbers]
        return numbers, then, shares
