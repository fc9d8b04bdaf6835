"""What speaks for an article to a user: a score's parts.

    log-odds of a click, against the average article = sum of the parts

``long`` and ``short`` are the cosines to the user's two interest vectors, ``nearest`` the mean of the three
largest to what they read lately, ``category`` the logarithm of how often they read its category: each a z-score
over the listed articles times a weight times the user's confidence, which grows with every click, so that
the change from popular to personal is smooth. ``co_reads`` is the share of readers of the last articles who
read this one next, ``followed`` whether the user follows a label of it. ``popularity`` and ``appeal`` are
explained in :mod:`ranking.popularity`; popularity is that in the user's region where they told one
(:mod:`ranking.regions`). ``freshness`` halves with age; ``editor`` is a boost; ``fatigue`` grows with the logarithm of
the showings that led to no click.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranking.catalogue import BOOSTED, Catalogue
from ranking.readers import RECENTS, Readers

Floats = NDArray[np.float32]
Places = NDArray[np.intp]
PARTS = (
    "long", "short", "nearest", "category", "co_reads", "followed",
    "popularity", "appeal", "freshness", "editor", "fatigue",
)  # fmt: skip
ALIKE = 1e-3
"""Below this deviation values are all the same to a user, and what is left of them is rounding."""
NEAREST = 3
LAST_READ = 3
"""After so many of the last articles read, what other readers read next counts."""
WIDEST = 4.0
"""No z-score speaks louder than this, as one of a few articles that differ would."""


@dataclass(frozen=True)
class Weights:
    """The weight of each part, in log-odds; ``freshness_half_life_ms`` is where a new article has lost half of it.

    The proportions are those found best without training on MIND's development data: the three personal
    z-scores weigh alike, popularity twice as much by its own deviation.
    """

    long: float = 0.3
    short: float = 0.15
    nearest: float = 0.3
    category: float = 0.15
    co_reads: float = 2.0
    followed: float = 0.7
    popularity: float = 1.0
    appeal: float = 1.0
    freshness: float = 0.5
    freshness_half_life_ms: float = 6 * 3_600_000
    boost: float = 1.0
    fatigue: float = 0.3


@dataclass(frozen=True)
class Interests:
    """What is found once for each of u users: see :func:`interests_of`.

    ``means`` and ``scales`` [u, 2] turn cosines to the two queries into weighed z-scores; ``trigger`` [u, d] gives
    their sum in one product, less a constant of the user's.
    """

    means: Floats
    scales: Floats
    trigger: Floats


def interests_of(readers: Readers, catalogue: Catalogue, weights: Weights) -> Interests:
    """Return how the users' queries weigh over what is listed."""
    q = readers.queries
    turned = (q.reshape(-1, q.shape[2]) @ catalogue.moments.covariance).reshape(q.shape)
    deviations = np.sqrt(np.maximum(np.einsum("uqd,uqd->uq", turned, q), 0))
    scales = np.divide(
        np.array([weights.long, weights.short], np.float32), deviations,
        out=np.zeros_like(deviations), where=deviations > ALIKE,
    )  # fmt: skip
    scales *= readers.confidence[:, None]
    means: Floats = q @ catalogue.moments.mean
    return Interests(means, scales, np.einsum("uq,uqd->ud", scales, q))


def common_parts(
    catalogue: Catalogue, weights: Weights, now_ms: int, places: Places | slice = slice(None)
) -> Floats:  # fmt: skip
    """Return what is the same for everybody: popularity, appeal, freshness and editor, [4, n], or of ``places``."""
    age = np.maximum(now_ms - catalogue.published_at[places], 0)
    return np.stack(
        [
            weights.popularity * catalogue.popularity[places],
            weights.appeal * catalogue.appeal[places],
            weights.freshness * np.exp2(-age / weights.freshness_half_life_ms),
            weights.boost * (catalogue.placement[places] == BOOSTED),
        ]
    ).astype(np.float32)


def score_parts(
    readers: Readers, catalogue: Catalogue, places: Places, weights: Weights, now_ms: int, *,
    interests: Interests | None = None, co_reads: Floats | None = None, shown: Floats | None = None,
    likings: Floats | None = None,
) -> Floats:  # fmt: skip
    """Return the parts of each article's score for each user: places [u, c] (-1: none) -> [parts, u, c].

    Those of no article are 0. ``interests``, ``co_reads`` (:func:`co_read_shares`), ``shown`` (:func:`shown_counts`)
    and ``likings`` (:func:`category_likings`) are found here where not given.
    """
    interests = interests or interests_of(readers, catalogue, weights)
    parts = np.zeros((len(PARTS), *places.shape), np.float32)
    if not places.size or not len(catalogue.vectors):
        return parts
    cosines = catalogue.cosines(readers.queries, places)
    parts[:2] = ((cosines - interests.means[:, :, None]) * interests.scales[:, :, None]).transpose(1, 0, 2)
    sure = readers.confidence[:, None]
    parts[2] = _nearest(readers, catalogue, places) * (weights.nearest * sure)
    likings = category_likings(readers, catalogue, weights, now_ms) if likings is None else likings
    parts[3] = np.take_along_axis(likings, catalogue.categories[1][places], axis=1)
    shares = co_read_shares(readers, catalogue, now_ms) if co_reads is None else co_reads
    users = np.arange(len(readers))[:, None]
    parts[4] = shares[users, places] * np.float32(weights.co_reads)
    for user, targets in enumerate(readers.follows):
        if targets:
            parts[5, user] = marked(catalogue, targets)[places[user]] * np.float32(weights.followed)
    parts[6:10] = common_parts(catalogue, weights, now_ms, places)
    if catalogue.regional.numbers:
        excess = catalogue.regional.excess[readers.regions(catalogue.regional.numbers)[:, None], places]
        parts[6] += np.float32(weights.popularity) * excess
    counts = shown_counts(readers, catalogue) if shown is None else shown
    parts[10] = np.log1p(counts[users, places]) * np.float32(-weights.fatigue)
    parts[:, places < 0] = 0
    return parts


def click_probability(scores: Floats, catalogue: Catalogue) -> Floats:
    """Return the probability of a click for scores of any shape (-inf: 0)."""
    odds = scores + np.log(catalogue.base_rate / (1 - catalogue.base_rate))
    probability: Floats = (1 / (1 + np.exp(-odds))).astype(np.float32)
    return probability


def category_likings(readers: Readers, catalogue: Catalogue, weights: Weights, now_ms: int) -> Floats:
    """Return what each category is worth to each user, [u, categories]: the part ``category``."""
    names, _, shares = catalogue.categories
    if not len(names):
        return np.zeros((len(readers), 0), np.float32)
    users, hashes, read = readers.category_weights(now_ms)
    at = np.minimum(np.searchsorted(names, hashes), len(names) - 1)
    known = (names[at] == hashes) & (hashes != 0)
    liked = np.zeros((len(readers), len(names)))
    liked[users[known], at[known]] = np.log1p(np.maximum(read[known], 0))
    means = (liked @ shares)[:, None]
    deviations = np.sqrt(np.maximum((liked**2) @ shares[:, None] - means**2, 0))
    scores = np.divide(liked - means, deviations, out=np.zeros_like(liked), where=deviations > ALIKE)
    weighed: Floats = (np.clip(scores, -WIDEST, WIDEST) * weights.category).astype(np.float32)
    return weighed * readers.confidence[:, None]


def co_read_shares(readers: Readers, catalogue: Catalogue, now_ms: int) -> Floats:
    """Return the share of readers of the users' last articles who read each article next, [u, n]; older ones less."""
    if not catalogue.co_reads:
        return np.zeros((len(readers), len(catalogue.hashes)), np.float32)
    users, recents = readers.recent_articles(LAST_READ)
    back = np.searchsorted(users, users, side="right") - np.arange(len(users))  # newest last
    read, numbers = np.unique(recents, return_inverse=True)
    owners, articles, found = catalogue.co_reads.after_each(read, now_ms)
    places = catalogue.places(articles)
    there = places >= 0
    owners, places, found = owners[there], places[there], found[there]
    begins = np.searchsorted(owners, np.arange(len(read) + 1))
    counts = np.diff(begins)[numbers]
    pairs = np.repeat(np.arange(len(users)), counts)
    entries = np.arange(len(pairs)) + np.repeat(begins[numbers] - (np.cumsum(counts) - counts), counts)
    shape = len(readers), len(catalogue.hashes)
    cells = users[pairs] * shape[1] + places[entries]
    summed = np.bincount(cells, (1.0 / back)[pairs] * found[entries], minlength=shape[0] * shape[1])
    shares: Floats = summed.reshape(shape).astype(np.float32)
    return shares


def shown_counts(readers: Readers, catalogue: Catalogue) -> Floats:
    """Return how often each article was shown to each user and not clicked, [u, n]."""
    counts = np.zeros((len(readers), len(catalogue.hashes)), np.float32)
    users, places, entries = find(catalogue, readers.shown)
    counts[users, places] = np.frombuffer(b"".join(readers.shown_counts), np.uint8)[entries]
    return counts


def marked(catalogue: Catalogue, labels: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return which articles carry one of ``labels``, [n]."""
    found = np.zeros(len(catalogue.hashes), np.bool_)
    for label in labels:
        found[catalogue.labels.places(label)] = True
    return found


def find(catalogue: Catalogue, windows: list[bytes]) -> tuple[Places, ...]:
    """Find windows' articles in the catalogue: user, place, and number among all entries, of each that is there."""
    entries = np.frombuffer(b"".join(windows), np.uint64)
    users = np.repeat(np.arange(len(windows)), [len(window) // 8 for window in windows])
    places = catalogue.places(entries)
    found = np.flatnonzero(places >= 0)
    return users[found], places[found], found


def _nearest(readers: Readers, catalogue: Catalogue, candidates: Places) -> Floats:
    """Return the z-score of the mean of the three largest cosines to what was read lately: [u, c] places -> [u, c]."""
    users, recents = readers.recent_articles(RECENTS)
    places = catalogue.places(recents)
    users, places = users[places >= 0], places[places >= 0]
    if not len(users):
        return np.zeros(candidates.shape, np.float32)
    counts = np.bincount(users, minlength=len(readers))
    columns = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    read = np.zeros((len(readers), counts.max()), np.intp)
    read[users, columns] = places
    absent = np.arange(read.shape[1]) >= counts[:, None]
    to_anchors = catalogue.vectors[read.reshape(-1)] @ catalogue.vectors[catalogue.anchors].T
    background = _top_mean(to_anchors.reshape(*read.shape, -1), absent, counts)
    found = _top_mean(catalogue.likeness(read, candidates), absent, counts)
    return _z(found, background)


def _top_mean(cosines: Floats, absent: NDArray[np.bool_], counts: NDArray[np.intp]) -> Floats:
    """Return the mean of the three largest of r cosines, or of all where there are fewer: [u, r, c] -> [u, c]."""
    if absent.any():
        cosines[absent] = -1.0
    best = np.full((NEAREST, len(cosines), cosines.shape[2]), -1.0, np.float32)
    for number in range(cosines.shape[1]):  # kept sorted, one after the other: a tenth of what sorting takes
        falling = cosines[:, number]
        for rank in range(NEAREST):
            best[rank], falling = np.maximum(best[rank], falling), np.minimum(best[rank], falling)
    used = np.arange(NEAREST)[:, None] < np.clip(counts, 1, NEAREST)
    mean: Floats = (best * used[:, :, None]).sum(axis=0) / used.sum(axis=0)[:, None]
    return mean.astype(np.float32)


def _z(values: Floats, background: Floats) -> Floats:
    if not background.shape[1]:
        return np.zeros_like(values)
    mean, deviation = background.mean(axis=1, keepdims=True), background.std(axis=1, keepdims=True)
    scores = np.divide(values - mean, deviation, out=np.zeros_like(values), where=deviation > ALIKE)
    bounded: Floats = np.clip(scores, -WIDEST, WIDEST)
    return bounded
