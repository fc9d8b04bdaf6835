"""What a trained model may know of a user and an article, and where its scores take the place of the hand-made ones.

A model gives the log-odds of a click from one row of :data:`FEATURES` for each pair. The parts of
:mod:`ranking.features` are among them, so that a model can do no less than their sum; the others say how often an
article is clicked by half-life, what is read next, how an article stands among the candidates of the same request,
and what the request is like. What an editor asks for is none of them: it is added afterwards.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from contract.messages import DEVICES
from ranking.catalogue import Catalogue
from ranking.co_reading import PRIOR
from ranking.features import ALIKE, PARTS, WIDEST, Places
from ranking.popularity import smoothed
from ranking.readers import RECENTS, Readers

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
HALF_LIVES = ("6h", "1h", "15min")
"""Of the counts that a catalogue has to carry for a model: the long one of the statistics, and the short ones."""
HAND = tuple(part for part in PARTS if part != "editor")
FEATURES = (
    *HAND,
    *(f"{name}_among" for name in ("long", "short", "nearest", "category", "liked")),
    *(f"clicks_{half_life}" for half_life in HALF_LIVES),
    *(f"clicks_{half_life}_among" for half_life in HALF_LIVES),
    *(f"rate_{half_life}" for half_life in HALF_LIVES),
    "source_rate", "next_last", "next_last_among", "next_any", "next_any_among", "next_smoothed",
    "age", "impressions", "position", "read", "followers", "candidates", "day_sin", "day_cos",
    *(f"on_{device}" for device in DEVICES if device),
)  # fmt: skip
"""The parts but the editor's, then

    _among          against the other candidates of the request: as a z-score, or over the largest
    clicks, impressions, age (hours), candidates, read (articles lately), followers (readers counted after the
                    last one read): logarithms
    rate            clicks per impression by half-life, as log-odds against the average; source_rate: of its source
    next_last/any   the share of readers who went on to it from the last article, or from any of the last ten
    next_smoothed   the logarithm of the first, drawn to what is clicked now
    position        log(1 + place in the list) where it was told; the first when serving
    day             the time of day (UTC)
    on              1 on the kind of device that the user told last
"""
VERSION = 2
"""Of what the features mean: a model of another version is none of ours."""
LOOKED_BACK = 10
DRAWN = 4.0
"""So many readers who went where everybody goes are added to those who went on from an article."""
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
_AMONG = ("long", "short", "nearest", "category")


class ClickModel(Protocol):
    """What is asked of a trained model."""

    def log_odds(self, features: Floats) -> Floats:
        """Return the log-odds of a click for rows of :data:`FEATURES`, [m, f] -> [m]."""


def pair_features(
    readers: Readers, catalogue: Catalogue, places: Places, parts: Floats, now_ms: int,
    positions: NDArray[np.int64] | None = None,
) -> Floats:  # fmt: skip
    """Return what a model goes by: places [u, c] (-1: none) and their parts [parts, u, c] -> [u, c, features].

    ``positions`` [u, c] are those the articles were seen at, where they were told (-1: not). Rows of no article are 0.
    """
    users, width = places.shape
    there = places >= 0
    found = np.zeros((users, width, len(FEATURES)), np.float32)
    if not there.any():
        return found
    column = {name: found[:, :, i] for i, name in enumerate(FEATURES)}
    for name in HAND:
        column[name][:] = parts[PARTS.index(name)]
    for name in _AMONG:
        column[f"{name}_among"][:] = _z_among(parts[PARTS.index(name)], there)
    liked = parts[PARTS.index("popularity")] + parts[PARTS.index("appeal")]
    column["liked_among"][:] = _z_among(liked, there)
    safe = np.where(there, places, 0)
    now_clicked = np.full((users, width), 1e-3)
    for number, half_life in enumerate(HALF_LIVES):
        counts = catalogue.counts[min(number, len(catalogue.counts) - 1)]
        impressions, clicks = (np.where(there, counted[safe], 0) for counted in counts)
        column[f"clicks_{half_life}"][:] = np.log(clicks + 0.05)
        column[f"clicks_{half_life}_among"][:] = _over_largest(clicks)
        column[f"rate_{half_life}"][:] = _rate(impressions, clicks, catalogue.base_rate)
        now_clicked = clicks + DRAWN * now_clicked / now_clicked.sum(axis=1, keepdims=True)
    column["source_rate"][:] = _source_rates(catalogue)[safe]
    last, lately, followers = _next_reads(readers, catalogue, now_ms)
    rows = np.arange(users)[:, None]
    for name, shares in (("next_last", last), ("next_any", lately)):
        share = np.where(there, shares[rows, safe], 0).astype(np.float64)
        column[name][:] = share
        column[f"{name}_among"][:] = _over_largest(share)
    everybody = now_clicked / now_clicked.sum(axis=1, keepdims=True)
    went = column["next_last"] * (followers[:, None] + PRIOR)
    column["next_smoothed"][:] = np.log((went + DRAWN * everybody) / (followers[:, None] + DRAWN))
    column["age"][:] = np.log1p(np.maximum(now_ms - catalogue.published_at[safe], 0) / HOUR_MS)
    column["impressions"][:] = np.log1p(catalogue.impressions[safe])
    if positions is not None:
        column["position"][:] = np.log1p(np.maximum(positions, 0))
    column["read"][:] = np.log1p(np.bincount(readers.recent_articles(RECENTS)[0], minlength=users))[:, None]
    column["followers"][:] = np.log1p(followers)[:, None]
    column["candidates"][:] = np.log1p(there.sum(axis=1))[:, None]
    angle = 2 * np.pi * (now_ms % DAY_MS) / DAY_MS
    column["day_sin"][:], column["day_cos"][:] = np.sin(angle), np.cos(angle)
    for device in DEVICES[1:]:
        told = zip(readers.pasts, readers.personal, strict=True)
        column[f"on_{device}"][:] = np.array([[personal and past.device == device] for past, personal in told])
    found[~there] = 0
    return found


def model_scores(
    model: ClickModel, readers: Readers, catalogue: Catalogue, places: Places, parts: Floats, now_ms: int
) -> Floats:
    """Return the scores that take the place of the parts' sum, [u, c]: log-odds against the average article."""
    features = pair_features(readers, catalogue, places, parts, now_ms)
    odds = model.log_odds(features.reshape(-1, len(FEATURES))).reshape(places.shape)
    scores: Floats = (odds - _logit(catalogue.base_rate) + parts[PARTS.index("editor")]).astype(np.float32)
    return scores


def as_by_hand(scores: Floats, by_hand: Floats, values: Floats) -> Floats:
    """Return which hand-made score goes with each of a model's ``values`` [u, k], less a deviation of how well it does.

    Fitted as a line over the candidates' ``scores`` and ``by_hand`` [u, c] (-inf: none); -inf stays so.
    """
    there = np.isfinite(scores)
    counts = np.maximum(there.sum(axis=1, keepdims=True), 1)
    x, y = np.where(there, scores, 0), np.where(there, by_hand, 0)
    middle, level = x.sum(axis=1, keepdims=True) / counts, y.sum(axis=1, keepdims=True) / counts
    x, y = np.where(there, x - middle, 0), np.where(there, y - level, 0)
    spread = (x**2).sum(axis=1, keepdims=True)
    slope = np.divide((x * y).sum(axis=1, keepdims=True), spread, out=np.zeros_like(spread), where=spread > ALIKE)
    slope = np.maximum(slope, 0)
    left = np.sqrt((np.where(there, y - slope * x, 0) ** 2).sum(axis=1, keepdims=True) / counts)
    finite = np.isfinite(values)
    found = level + slope * (np.where(finite, values, 0) - middle) - left
    return np.where(finite, found, values).astype(np.float32)


def _next_reads(readers: Readers, catalogue: Catalogue, now_ms: int) -> tuple[Floats, Floats, Doubles]:
    """Return the shares of readers who went on to each article, [u, n], from the last one read and summed over the last
    ten, the n-th back counting 1 / n; and how many were counted after the last, [u]."""
    shape = len(readers), len(catalogue.hashes)
    last, lately, followers = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(len(readers))
    if not catalogue.co_reads:
        return last, lately, followers
    users, recents = readers.recent_articles(LOOKED_BACK)
    back = np.searchsorted(users, users, side="right") - np.arange(len(users))  # newest last
    read, numbers = np.unique(recents, return_inverse=True)
    owners, articles, shares = catalogue.co_reads.after_each(read, now_ms)
    places = catalogue.places(articles)
    there = places >= 0
    next_reads = csr_array((shares[there], (owners[there], places[there])), (len(read), shape[1]))
    lessened = csr_array((1.0 / back, (users, numbers)), (len(readers), len(read)))
    lately = (lessened @ next_reads).toarray().astype(np.float32)
    newest = back == 1
    last[users[newest]] = next_reads[numbers[newest]].toarray()
    totals = np.bincount(owners, shares, len(read))[numbers[newest]]
    followers[users[newest]] = PRIOR * totals / np.maximum(1 - totals, 1e-6)
    return last, lately, followers


def _source_rates(catalogue: Catalogue) -> Floats:
    """Return how much better than the average the articles of each one's source are clicked, [n], log-odds."""
    rates = catalogue.fronts.get("source rates")
    if rates is None:
        _, numbers = np.unique(catalogue.source, return_inverse=True)
        impressions, clicks = (np.bincount(numbers, c).astype(np.float64) for c in catalogue.counts[0])
        odds = _rate(impressions, clicks, catalogue.base_rate)
        rates = catalogue.fronts["source rates"] = np.where(catalogue.source == 0, 0, odds[numbers]).astype(np.float32)
    found: Floats = rates
    return found


def _z_among(values: Floats, there: NDArray[np.bool_]) -> Floats:
    counts = np.maximum(there.sum(axis=1, keepdims=True), 1)
    centred = np.where(there, values - np.where(there, values, 0).sum(axis=1, keepdims=True) / counts, 0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / counts)
    scores = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > ALIKE)
    bounded: Floats = np.clip(scores, -WIDEST, WIDEST)
    return bounded


def _over_largest(values: Doubles) -> Doubles:
    largest = values.max(axis=1, keepdims=True)
    found: Doubles = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)
    return found


def _rate(impressions: Doubles, clicks: Doubles, base_rate: float) -> Doubles:
    """Return log-odds of a click against the average article's."""
    rate = smoothed(impressions, clicks, np.full_like(clicks, base_rate))
    return _logit(np.clip(rate, 1e-4, 1 - 1e-4)) - _logit(base_rate)


def _logit(rate: Doubles | float) -> Doubles:
    odds: Doubles = np.log(rate / (1 - rate))
    return odds
