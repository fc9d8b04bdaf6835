"""What the lists are like beside how well they hit: coverage, diversity, novelty, age, categories.

A list is the first ten of a ranking.

- coverage: the share of the articles that were on offer which came into a list at all
- diversity: 1 - the mean cosine of two articles of a list
- novelty: the mean of -log2 of an article's share of all clicks so far (one click added to each)
- age: the time since an article was first seen
- category mix: the Kullback-Leibler divergence, in bits, of a list's categories from those of what its user had read
  (Steck, 2018; the list mixed with 1% of the user's); users who read nothing are left out
- exposure: the share of each category in all lists, beside its share in what was on offer
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from evaluation.articles import Articles, Indices
from evaluation.decayed_counts import DecayedCounts
from evaluation.requests import Request

LIST_LENGTH = 10
REQUESTS_AT_ONCE = 512
MIXED_IN = 0.01
HOUR_MS = 3_600_000


class Beyond(msgspec.Struct, frozen=True):
    """The figures of one model; None where the data set says nothing of vectors or categories."""

    coverage: float
    diversity: float | None
    novelty: float
    age_hours: float
    category_mix: float | None
    exposure: dict[str, float]


class Offer:
    """What all models' lists are held against: clicks so far, and what was on offer."""

    def __init__(self, articles: Articles) -> None:
        self.articles = articles
        self.clicks = DecayedCounts()
        self.total_clicks = 0
        self._offered = np.zeros(1024, np.int64)

    def note_request(self, request: Request) -> None:
        if request.candidates.max(initial=0) >= len(self._offered):
            longer = np.zeros(2 * len(self.articles), np.int64)
            longer[: len(self._offered)] = self._offered
            self._offered = longer
        self._offered[request.candidates] += 1

    def note_clicks(self, clicked: Indices) -> None:
        self.clicks.add(clicked, 0)
        self.total_clicks += len(clicked)

    @property
    def offered_articles(self) -> int:
        return int(np.count_nonzero(self._offered))

    def exposure(self) -> dict[str, float]:
        """The share of each category in all that was on offer, an article as often as it was."""
        return shares(self.articles, np.arange(len(self._offered)), self._offered)


class BeyondJudge:
    """Takes the lists of one model; looks at many at once."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._requests: list[Request] = []
        self._lists: list[Indices] = []
        self._listed = np.zeros(1024, np.int64)
        self._novelty = self._age = self._diversity = self._mix = 0.0
        self._items = self._diverse_lists = self._mixed_lists = 0

    def take(self, request: Request, listed: Indices) -> None:
        """Take a list, best first."""
        offer = self._offer
        clicks = offer.clicks.of(listed, 0)
        known = max(1, offer.total_clicks + len(offer.articles))
        self._novelty -= float(np.log2((clicks + 1) / known).sum())
        self._items += len(listed)
        self._requests.append(request)
        self._lists.append(listed)
        if len(self._lists) == REQUESTS_AT_ONCE:
            self._look()

    def result(self) -> Beyond | None:
        """Return the figures, None where there was no list."""
        self._look()
        if not self._items:
            return None
        articles = self._offer.articles
        return Beyond(
            coverage=int(np.count_nonzero(self._listed)) / self._offer.offered_articles,
            diversity=self._diversity / self._diverse_lists if self._diverse_lists else None,
            novelty=self._novelty / self._items,
            age_hours=self._age / self._items / HOUR_MS,
            category_mix=self._mix / self._mixed_lists if self._mixed_lists else None,
            exposure=shares(articles, np.arange(len(self._listed)), self._listed),
        )

    def _look(self) -> None:
        if not self._lists:
            return
        articles, n = self._offer.articles, len(self._lists)
        lists = np.full((n, LIST_LENGTH), -1, np.intp)
        for row, listed in enumerate(self._lists):
            lists[row, : len(listed)] = listed
        there = lists >= 0
        if len(articles) > len(self._listed):
            longer = np.zeros(2 * len(articles), np.int64)
            longer[: len(self._listed)] = self._listed
            self._listed = longer
        self._listed += np.bincount(lists[there], minlength=len(self._listed))
        at = np.array([request.at for request in self._requests])
        self._age += float(np.where(there, at[:, None] - articles.first_seen[lists], 0).clip(0).sum())
        if articles.dims:
            self._look_at_vectors(articles, lists, there)
        if len(articles.category_names) > 1:
            self._look_at_categories(articles, lists, there)
        self._requests, self._lists = [], []

    def _look_at_vectors(self, articles: Articles, lists: Indices, there: NDArray[np.bool_]) -> None:
        known = there & articles.has_vector[lists]
        vectors = articles.vectors[lists] * known[:, :, None]
        counts = known.sum(axis=1)
        summed = vectors.sum(axis=1)
        cosines = np.einsum("nd,nd->n", summed, summed) - np.einsum("nkd,nkd->n", vectors, vectors)
        several = counts > 1
        pairs = counts[several] * (counts[several] - 1)
        self._diversity += float((1 - cosines[several] / pairs).sum())
        self._diverse_lists += int(several.sum())

    def _look_at_categories(self, articles: Articles, lists: Indices, there: NDArray[np.bool_]) -> None:
        names = len(articles.category_names)
        for row, request in enumerate(self._requests):
            if len(request.history) and there[row].any():
                own = np.bincount(articles.categories[request.history], minlength=names) / len(request.history)
                listed = lists[row][there[row]]
                mix = np.bincount(articles.categories[listed], minlength=names) / len(listed)
                mixed = (1 - MIXED_IN) * mix + MIXED_IN * own
                some = own > 0
                self._mix += float((own[some] * np.log2(own[some] / mixed[some])).sum())
                self._mixed_lists += 1


def shares(articles: Articles, indices: Indices, counts: NDArray[np.int64]) -> dict[str, float]:
    """Return the share of each category in ``counts``, the largest first; none where no category has a name."""
    names = articles.category_names
    if len(names) == 1:
        return {}
    some = counts > 0
    sums = np.bincount(articles.categories[indices[some]], counts[some], len(names))
    order = np.argsort(-sums, kind="stable")
    return {names[i] or "unknown": float(sums[i] / sums.sum()) for i in order.tolist() if sums[i]}
