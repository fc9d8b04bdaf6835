"""Vectors of articles without texts: from what their readers read before and after.

The positive pointwise mutual information of articles read close to each other, factored by a truncated SVD (Levy and
Goldberg 2014). Learned anew every half an hour from all that was read so far, and turned into the axes of the time
before by an orthogonal Procrustes rotation (Hamilton, Leskovec and Jurafsky 2016), so that states stay meaningful.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

Floats = NDArray[np.float32]
EVERY_MS = 30 * 60_000
SMOOTHING = 0.75
"""Rare articles count as more frequent than they are, or chance would make them near."""


class CoReadVectors:
    """Vectors of ``articles`` numbered articles as of the time that was last given to :meth:`update`.

    A row is one version of one article's vector; rows are made when they are first asked for.
    """

    def __init__(self, articles: int, dims: int) -> None:
        self._articles = articles
        self._dims = dims
        self._pairs: dict[tuple[int, int], float] = {}
        self._vectors: Floats = np.zeros((articles, dims), np.float32)
        self._next_at: int | None = None
        self._row: dict[int, int] = {}
        self._made: list[Floats] = [np.zeros(dims, np.float32)]
        self._made_of: list[int] = [-1]

    def update(self, at: int) -> None:
        """Learn anew where half an hour has passed; ``at`` (epoch ms) must not go back."""
        if self._next_at is None:
            self._next_at = at + EVERY_MS
        elif at >= self._next_at:
            self._next_at = at + EVERY_MS
            self._vectors = aligned(co_read_vectors(self._pairs, self._articles, self._dims), self._vectors)
            self._row = {}

    def read(self, before: Sequence[int], article: int) -> None:
        """Count a read of ``article`` after those in ``before``, the last of them nearest."""
        for distance, other in enumerate(reversed(before), 1):
            if other != article:
                pair = (other, article) if other < article else (article, other)
                self._pairs[pair] = self._pairs.get(pair, 0.0) + 1 / distance

    def row(self, article: int) -> int:
        """Return the row of the article's present vector, -1 where it has none."""
        row = self._row.get(article)
        if row is None:
            vector = self._vectors[article]
            row = -1
            if vector.any():
                row = len(self._made)
                self._made.append(vector)
                self._made_of.append(article)
            self._row[article] = row
        return row

    def row_or_none(self, article: int) -> int:
        """The same with row 0, a zero vector, for an article that has none."""
        return max(0, self.row(article))

    def rows(self) -> tuple[Floats, NDArray[np.int64]]:
        """Return the vectors [R, d] and articles [R] (-1: nobody's) of all rows."""
        return np.array(self._made, np.float32), np.array(self._made_of, np.int64)


def co_read_vectors(pairs: dict[tuple[int, int], float], articles: int, dims: int) -> Floats:
    """Return [articles, dims]: unit rows, zero for an article that is in no pair. Raises nothing for few pairs."""
    vectors = np.zeros((articles, dims), np.float32)
    if not pairs:
        return vectors
    ends = np.array(list(pairs), np.int64)
    counts = np.fromiter(pairs.values(), np.float64, len(pairs))
    i, j = np.concatenate([ends, ends[:, ::-1]]).T
    counts = np.concatenate([counts, counts])
    totals = np.bincount(i, counts, articles)
    smoothed = totals**SMOOTHING
    information = np.log(counts * smoothed.sum() / (totals[i] * smoothed[j]))
    known, compact = np.unique(i, return_inverse=True)
    near = csr_array((np.maximum(information, 0), (compact, np.searchsorted(known, j))), shape=(len(known), len(known)))
    rank = min(dims, len(known) - 1)
    if rank < 1:
        return vectors
    start = np.random.default_rng(0).standard_normal(len(known))
    left, strength, _ = svds(near, k=rank, v0=start)
    found = left[:, ::-1] * np.sqrt(np.maximum(strength[::-1], 0))
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    vectors[known, :rank] = np.divide(found, norms, out=np.zeros_like(found), where=norms > 1e-9)
    return vectors


def aligned(vectors: Floats, former: Floats) -> Floats:
    """Return ``vectors`` turned so that they are as near to ``former`` as turning can make them."""
    left, _, right = np.linalg.svd(vectors.T.astype(np.float64) @ former)
    turned: Floats = (vectors @ (left @ right)).astype(np.float32)
    return turned
