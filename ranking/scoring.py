"""Scores of fresh articles for users, and the exact best of them.

    score = long + short + popularity + freshness + fatigue

``long`` and ``short`` are the cosines to the user's two interest vectors, ``popularity`` the smoothed
click-through rate, each as a z-score over all fresh articles and times its weight, so that the
parts are on one scale; ``freshness`` halves with age, ``fatigue`` grows with every showing that
led to no click. Of articles with the same score the one that stands first in the catalogue is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranking.catalogue import Catalogue

Floats = NDArray[np.float32]
PARTS = ("long", "short", "popularity", "freshness", "fatigue")
ALIKE = 1e-3
"""Below this deviation the cosines are all the same to a user, and what is left of them is rounding."""
CONCERNED_AT_ONCE = 8_000_000


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
class Readers:
    """The users to rank for, u of them: queries float32 [u, 2, d]; windows of article hashes, uint64 bytes.

    ``shown_counts`` (uint8 bytes) goes with ``shown``. No window holds an article twice.
    """

    queries: Floats
    read: Sequence[bytes]
    shown: Sequence[bytes]
    shown_counts: Sequence[bytes]


@dataclass(frozen=True)
class Ranked:
    """The best k of each user: ``places`` in the catalogue [u, k] (-1: none), ``scores`` [u, k], ``parts`` [u, k, 5].

    Where there is no place the score is -inf and the parts are 0. ``trigger`` [u, d] and ``entry`` [u] belong
    together: an article with vector a enters about where ``trigger @ a`` plus its popularity and freshness
    reaches ``entry``.
    """

    places: NDArray[np.intp]
    scores: Floats
    parts: Floats
    trigger: Floats
    entry: Floats


def rank(readers: Readers, catalogue: Catalogue, weights: Weights, k: int, now_ms: int) -> Ranked:
    """Rank all fresh articles for every reader, exactly; articles read are left out."""
    users, n = len(readers.queries), len(catalogue)
    means, scales = _spread(readers.queries, catalogue, weights)
    # A sum of z-scores of cosines is one more product with a vector, but for a constant of the user's.
    trigger = np.einsum("uq,uqd->ud", scales, readers.queries)
    constant = (means * scales).sum(axis=1)
    common = common_parts(catalogue, weights, now_ms)
    scores = trigger @ catalogue.vectors.T
    scores += common.sum(axis=0)
    fatigue = np.zeros((users, n), np.float32)
    row, place, entry = _find(catalogue, readers.shown)
    fatigue[row, place] = np.frombuffer(b"".join(readers.shown_counts), np.uint8)[entry] * np.float32(-weights.fatigue)
    scores += fatigue
    row, place, _ = _find(catalogue, readers.read)
    scores[row, place] = -np.inf

    best = best_places(scores, min(k, n))
    user = np.arange(users)[:, None]
    best_scores = scores[user, best]
    cosines = readers.queries @ catalogue.vectors[best].transpose(0, 2, 1)
    interest = (cosines - means[:, :, None]) * scales[:, :, None]
    parts = np.stack(
        [interest[:, 0], interest[:, 1], common[0][best], common[1][best], fatigue[user, best]],
        axis=2,
        dtype=np.float32,
    )
    unread = ~np.isneginf(best_scores)
    last = best_scores[:, -1] if 0 < k <= n else np.full(users, -np.inf, np.float32)
    return Ranked(
        places=_padded(np.where(unread, best, -1), k, -1),
        scores=_padded(best_scores - constant[:, None], k, -np.inf),
        parts=np.pad(np.where(unread[:, :, None], parts, 0), ((0, 0), (0, k - best.shape[1]), (0, 0))),
        trigger=trigger,
        entry=last,
    )


def common_parts(catalogue: Catalogue, weights: Weights, now_ms: int) -> Floats:
    """Return what is the same for everybody: popularity and freshness, [2, n]."""
    age = np.maximum(now_ms - catalogue.published_at, 0)
    freshness = weights.freshness * np.exp2(-age / weights.freshness_half_life_ms)
    return np.stack([weights.popularity * catalogue.popularity, freshness]).astype(np.float32)


def concerned(trigger: Floats, entry: Floats, vectors: Floats, common: Floats) -> NDArray[np.intp]:
    """Return [u]: the first of m new articles that would enter each user's list, -1 where none would.

    ``common`` [m] is the sum of each article's popularity and freshness. It only triggers: the full
    ranking decides.
    """
    first = np.full(len(trigger), -1, np.intp)
    at_once = max(1, CONCERNED_AT_ONCE // max(1, len(vectors)))
    for start in range(0, len(trigger) if len(vectors) else 0, at_once):
        some = slice(start, start + at_once)
        entering = trigger[some] @ vectors.T + common >= entry[some, None]
        first[some] = np.where(entering.any(axis=1), entering.argmax(axis=1), -1)
    return first


def best_places(scores: Floats, k: int) -> NDArray[np.intp]:
    """Return the places of the k largest scores of each row, [u, k], largest first, ties by place; k <= n."""
    users, n = scores.shape
    if k == n:
        best = np.broadcast_to(np.arange(n), (users, n))
    else:
        least = np.partition(scores, n - k, axis=1)[:, n - k, None]
        chosen = scores >= least
        for user in np.flatnonzero(np.count_nonzero(chosen, axis=1) > k):  # several share the last place
            tied = np.flatnonzero(scores[user] == least[user])
            chosen[user, tied[len(tied) - (np.count_nonzero(chosen[user]) - k) :]] = False
        best = np.nonzero(chosen)[1].reshape(users, k)
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def _spread(queries: Floats, catalogue: Catalogue, weights: Weights) -> tuple[Floats, Floats]:
    """Return for each query the mean of its cosines, and weight by deviation (0 where all are alike); [u, 2] both."""
    turned = (queries.reshape(-1, queries.shape[2]) @ catalogue.covariance).reshape(queries.shape)
    variances = np.einsum("uqd,uqd->uq", turned, queries)
    deviations = np.sqrt(np.maximum(variances, 0))
    scales = np.divide(
        np.array([weights.long, weights.short], np.float32),
        deviations,
        out=np.zeros_like(deviations),
        where=deviations > ALIKE,
    )
    means: Floats = queries @ catalogue.mean
    return means, scales


def _find(catalogue: Catalogue, windows: Sequence[bytes]) -> tuple[NDArray[np.intp], ...]:
    """Find the windows' articles in the catalogue: user, place, and number among all entries, of each found."""
    entries = np.frombuffer(b"".join(windows), np.uint64)
    lengths = np.array([len(window) // 8 for window in windows], np.intp)
    users = np.repeat(np.arange(len(windows)), lengths)
    places = catalogue.places(entries)
    found = np.flatnonzero(places >= 0)
    return users[found], places[found], found


def _padded(values: NDArray[Any], k: int, fill: float) -> NDArray[Any]:
    return np.pad(values, ((0, 0), (0, k - values.shape[1])), constant_values=fill)
