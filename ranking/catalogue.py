"""The fresh articles as one matrix, with what all rankings share."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Catalogue:
    """The fresh articles, n of them, as of one moment; not to be changed.

    vectors float32 [n, d]; hashes uint64 [n], no two alike; published_at int64 [n]; popularity float32 [n],
    a z-score. ``mean`` [d] and ``covariance`` [d, d] of the vectors, float32, give mean and deviation of
    anybody's cosines without a look at all articles.
    """

    def __init__(
        self,
        ids: Sequence[str],
        vectors: Floats,
        hashes: NDArray[np.uint64],
        published_at: NDArray[np.int64],
        popularity: Floats,
    ) -> None:
        self.ids = ids
        self.vectors = vectors
        self.hashes = hashes
        self.published_at = published_at
        self.popularity = popularity
        self._by_hash = np.argsort(hashes)
        self._sorted = hashes[self._by_hash]
        self.mean: Floats = vectors.mean(axis=0) if len(ids) else np.zeros(vectors.shape[1], np.float32)
        centred = vectors - self.mean
        self.covariance: Floats = (centred.T @ centred / max(1, len(ids))).astype(np.float32)

    def __len__(self) -> int:
        return len(self.ids)

    def with_popularity(self, popularity: Floats) -> Catalogue:
        """Return the same articles with other click-through rates."""
        other = copy.copy(self)
        other.popularity = popularity
        return other

    def places(self, hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return where each article stands in the catalogue, -1 where it does not."""
        if not len(self.ids):
            return np.full(len(hashes), -1, np.intp)
        found = np.minimum(np.searchsorted(self._sorted, hashes), len(self.ids) - 1)
        places: NDArray[np.intp] = self._by_hash[found]
        return np.where(self.hashes[places] == hashes, places, -1)


def z_scores(values: Floats) -> Floats:
    """Return ``values`` with mean 0 and deviation 1; 0 where they are all equal."""
    if not len(values):
        return values
    centred = values - values.mean()
    deviation = centred.std()
    scores: Floats = centred / deviation if deviation > 1e-6 else np.zeros_like(centred)
    return scores
