"""Scores of fresh articles for users, and the exact best of them.

    score = long + short + popularity + freshness + fatigue

``long`` and ``short`` are the cosines to the user's two interest vectors, ``popularity`` the smoothed
click-through rate, each as a z-score over all fresh articles and times its weight, so that the
parts are on one scale; ``freshness`` halves with age, ``fatigue`` grows with every showing that
led to no click.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
PARTS = ("long", "short", "popularity", "freshness", "fatigue")


@dataclass(frozen=True)
class Weights:
    """The weight of each part; ``freshness_half_life_ms`` is where a new article has lost half of it."""

    long: float = 1.0
    short: float = 0.5
    popularity: float = 1.0
    freshness: float = 1.0
    freshness_half_life_ms: float = 6 * 3_600_000
    fatigue: float = 0.4


@dataclass(frozen=True)
class Catalogue:
    """The fresh articles, n of them, as of one moment.

    vectors float32 [n, d]; hashes uint64 [n]; published_at int64 [n]; popularity float32 [n], a z-score.
    """

    ids: Sequence[str]
    vectors: Floats
    hashes: NDArray[np.uint64]
    published_at: NDArray[np.int64]
    popularity: Floats

    def __post_init__(self) -> None:
        order = np.argsort(self.hashes)
        object.__setattr__(self, "_by_hash", order)
        object.__setattr__(self, "_sorted", self.hashes[order])

    def places(self, hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return where each article stands in the catalogue, -1 where it does not."""
        if not len(self.hashes):
            return np.full(len(hashes), -1, np.intp)
        found = np.minimum(np.searchsorted(self._sorted, hashes), len(self.hashes) - 1)  # type: ignore[attr-defined]
        places: NDArray[np.intp] = self._by_hash[found]  # type: ignore[attr-defined]
        return np.where(self.hashes[places] == hashes, places, -1)


@dataclass(frozen=True)
class Readers:
    """The users to rank for, u of them: queries float32 [u, 2, d], windows of article hashes."""

    queries: Floats
    read: Sequence[array[int]]
    shown: Sequence[array[int]]
    shown_counts: Sequence[bytearray]


@dataclass(frozen=True)
class Ranked:
    """The best k of each user: ``places`` in the catalogue [u, k] (-1: none), ``scores`` [u, k], ``parts`` [u, k, 5].

    ``trigger`` [u, d] and ``entry`` [u] belong together: an article with vector a enters about where
    ``trigger @ a`` plus its popularity and freshness reaches ``entry``.
    """

    places: NDArray[np.intp]
    scores: Floats
    parts: Floats
    trigger: Floats
    entry: Floats


def z_scores(values: Floats) -> Floats:
    """Return ``values`` with mean 0 and deviation 1 along the last axis; 0 where they are all equal."""
    centred = values - values.mean(axis=-1, keepdims=True)
    deviation = centred.std(axis=-1, keepdims=True)
    scores: Floats = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-6)
    return scores


def rank(readers: Readers, catalogue: Catalogue, weights: Weights, k: int, now_ms: int) -> Ranked:
    """Rank all fresh articles for every reader, exactly; articles read are left out."""
    users, n = len(readers.queries), len(catalogue.ids)
    dims = readers.queries.shape[2]
    if n == 0 or users == 0:
        nothing = np.zeros((users, k), np.float32)
        return Ranked(
            np.full((users, k), -1, np.intp), nothing, np.zeros((users, k, len(PARTS)), np.float32),
            np.zeros((users, dims), np.float32), np.full(users, -np.inf, np.float32),
        )  # fmt: skip
    cosines = readers.queries @ catalogue.vectors.T
    means = cosines.mean(axis=2)
    deviations = cosines.std(axis=2)
    per_interest = np.array([weights.long, weights.short], np.float32)
    scales = np.divide(per_interest, deviations, out=np.zeros_like(deviations), where=deviations > 1e-6)
    interest = (cosines - means[:, :, None]) * scales[:, :, None]
    common = common_parts(catalogue, weights, now_ms)
    fatigue = np.zeros((users, n), np.float32)
    _scatter(fatigue, catalogue, readers.shown, readers.shown_counts, -weights.fatigue)
    scores = interest.sum(axis=1) + common.sum(axis=0) + fatigue
    _scatter(scores, catalogue, readers.read, None, -np.inf)

    best = _best(scores, min(k, n))
    row = np.arange(users)[:, None]
    best_scores = scores[row, best]
    parts = np.stack(
        [interest[row, 0, best], interest[row, 1, best], common[0][best], common[1][best], fatigue[row, best]], axis=2
    )
    best = np.where(np.isneginf(best_scores), -1, best)
    last = best_scores[:, -1] if n >= k else np.full(users, -np.inf, np.float32)
    return Ranked(
        places=_padded(best, k, -1),
        scores=_padded(best_scores, k, -np.inf),
        parts=np.pad(parts, ((0, 0), (0, k - best.shape[1]), (0, 0))),
        trigger=np.einsum("uq,uqd->ud", scales, readers.queries),
        entry=(last + (means * scales).sum(axis=1)).astype(np.float32),
    )


def common_parts(catalogue: Catalogue, weights: Weights, now_ms: int) -> Floats:
    """Return what is the same for everybody: popularity and freshness, [2, n]."""
    age = np.maximum(now_ms - catalogue.published_at, 0)
    freshness = weights.freshness * np.exp2(-age / weights.freshness_half_life_ms)
    return np.stack([weights.popularity * catalogue.popularity, freshness]).astype(np.float32)


def concerned(trigger: Floats, entry: Floats, vectors: Floats, common: Floats) -> NDArray[np.bool_]:
    """Return [u, m]: which of m new articles would enter which of u lists.

    ``common`` [m] is the sum of each article's popularity and freshness. It only triggers: the full
    ranking decides.
    """
    entering: NDArray[np.bool_] = trigger @ vectors.T + common >= entry[:, None]
    return entering


def _scatter(
    target: Floats,
    catalogue: Catalogue,
    windows: Sequence[array[int]],
    factors: Sequence[bytearray] | None,
    value: float,
) -> None:
    """Add ``value`` (times its factor) to target[user, article] for every article of a user's window."""
    lengths = [len(window) for window in windows]
    hashes = np.frombuffer(b"".join(window.tobytes() for window in windows), np.uint64)
    places = catalogue.places(hashes)
    users = np.repeat(np.arange(len(windows)), lengths)
    amount = np.full(len(hashes), value, np.float32)
    if factors is not None:
        amount *= np.frombuffer(b"".join(factors), np.uint8)
    known = places >= 0
    target[users[known], places[known]] += amount[known]


def _best(scores: Floats, k: int) -> NDArray[np.intp]:
    """Return the places of the k largest scores of each row, largest first, ties by place."""
    if k < scores.shape[1]:
        best = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    else:
        best = np.tile(np.arange(k), (len(scores), 1))
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def _padded(values: NDArray[Any], k: int, fill: float) -> NDArray[Any]:
    return np.pad(values, ((0, 0), (0, k - values.shape[1])), constant_values=fill)
