"""What learns, list by list, how to weigh columns that say something of the candidates of a request.

    log p(clicked) = log softmax(s)[clicked]    (conditional logit; McFadden 1974, Cao et al. 2007)

Each begins at a blend made by hand and is drawn back to it, so that few data leave it as it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from evaluation.articles import Articles, Indices, grown
from evaluation.models.contract import Floats
from ranking.listwise import HIDDEN, Learner, Shown, Weights

REMEMBERED = 4000
"""Requests that are learned from again, the newest."""
LEAST_NEW, MOST_NEW = 10, 100
"""So many new requests there are at least, and at most, when it is learned again; a fiftieth of all in between."""


class Listed(NamedTuple):
    """A request to learn from: ``columns`` [n, c] of ``candidates`` [n], which were ``clicked`` [n]; ``offset`` [n] is
    the logarithm of how many candidates each row stands for."""

    columns: NDArray[np.float32]
    candidates: Indices
    clicked: NDArray[np.bool_]
    offset: NDArray[np.float32]


class ListLearner(Protocol):
    """Scores that are comparable within a request, and learns from what became of it."""

    def scores(self, columns: NDArray[np.float32], candidates: Indices) -> Floats:
        """Return the logarithms of choices' odds, [n]."""
        ...

    def learn(self, listed: Listed) -> None:
        """Take in a request of which something was clicked and something not."""
        ...


class Trust:
    """How well ``ways`` to score have said what was clicked, before they learned from it, on the last requests."""

    REQUESTS = 500

    def __init__(self, ways: int) -> None:
        self._ways = ways
        self._said: deque[Floats] = deque(maxlen=self.REQUESTS)

    def take(self, scores: Sequence[Floats], clicked: NDArray[np.bool_]) -> None:
        """Note how likely the scores [n] of each way made what was ``clicked`` [n]."""
        self._said.append(np.array([_likelihood(each, clicked) for each in scores]))

    @property
    def shares(self) -> Floats:
        """How much each way is to be heard, [ways], summing to 1: a Bayesian average."""
        sums = np.sum(self._said, axis=0) if self._said else np.zeros(self._ways)
        odds = np.exp(sums - sums.max())
        shares: Floats = odds / odds.sum()
        return shares


class Remembered:
    """The newest requests, and when it is time to learn from them again."""

    def __init__(self) -> None:
        self.requests: deque[Listed] = deque(maxlen=REMEMBERED)
        self._new = 0

    def due(self, listed: Listed) -> bool:
        self.requests.append(listed)
        self._new += 1
        if self._new < np.clip(len(self.requests) // 50, LEAST_NEW, MOST_NEW):
            return False
        self._new = 0
        return True


class ConditionalLogit:
    """s = x . w, and with ``articles`` + e . v + b: e an article's vector, b what is its own; all with Gaussian priors.

    ``w`` lies around ``by_hand`` [c] by ``DEVIATION``; v lets texts differ by ``APPEAL`` (which is what
    :class:`evaluation.models.content.Appeal` takes them to), b by ``OWN``. The most probable values are found by
    L-BFGS from those before. A list shows what an article is worth beside what else was on offer and beside what
    its reader likes, which a click-through rate does not know.
    """

    DEVIATION, APPEAL, OWN = 0.1, 1 / 3, 0.3
    STEPS = 30

    def __init__(self, by_hand: Floats, articles: Articles | None = None) -> None:
        self._by_hand = by_hand
        self._weights = by_hand.copy()
        self._articles = articles
        self._appeal: Floats = np.zeros(articles.dims if articles else 0)
        self._own: Floats = np.zeros(1024)
        self._remembered = Remembered()

    def scores(self, columns: NDArray[np.float32], candidates: Indices) -> Floats:
        found: Floats = columns @ self._weights
        if self._articles is not None:
            self._own = grown(self._own, int(candidates.max(initial=0)) + 1)
            found = found + self._articles.vectors[candidates] @ self._appeal + self._own[candidates]
        return found

    def learn(self, listed: Listed) -> None:
        if self._remembered.due(listed):
            self._fit(list(self._remembered.requests))

    def _fit(self, some: list[Listed]) -> None:
        x = np.concatenate([listed.columns for listed in some]).astype(np.float64)
        offset = np.concatenate([listed.offset for listed in some]).astype(np.float64)
        share = np.concatenate([listed.clicked / listed.clicked.sum() for listed in some])
        sizes = np.array([len(listed.candidates) for listed in some])
        starts = np.cumsum(sizes) - sizes
        means, precisions = [self._by_hand], [np.full(len(self._by_hand), self.DEVIATION**-2)]
        begin = [self._weights]
        c = d = x.shape[1]
        known = own = np.empty(0, np.intp)
        if self._articles is not None:
            candidates = np.concatenate([listed.candidates for listed in some])
            known, own = np.unique(candidates, return_inverse=True)
            self._own = grown(self._own, int(known[-1]) + 1)
            x = np.concatenate([x, self._articles.vectors[candidates]], axis=1)
            d = x.shape[1]
            means.append(np.zeros(d - c + len(known)))
            precisions += [np.full(d - c, self.APPEAL**-2), np.full(len(known), self.OWN**-2)]
            begin += [self._appeal, self._own[known]]
        mean, precision = np.concatenate(means), np.concatenate(precisions)

        def loss(at: Floats) -> tuple[float, Floats]:
            s = x @ at[:d] + offset
            if len(known):
                s += at[d:][own]
            highest = np.maximum.reduceat(s, starts)
            odds = np.exp(s - np.repeat(highest, sizes))
            sums = np.add.reduceat(odds, starts)
            slope = odds / np.repeat(sums, sizes) - share
            away = at - mean
            value = float((highest + np.log(sums)).sum() - share @ s + precision @ away**2 / 2)
            own_slope = np.bincount(own, slope, len(known)) if len(known) else np.empty(0)
            return value, np.concatenate([x.T @ slope, own_slope]) + precision * away

        found = minimize(loss, np.concatenate(begin), jac=True, method="L-BFGS-B", options={"maxiter": self.STEPS}).x
        self._weights, self._appeal = found[:c], found[c:d]
        if len(known):
            self._own[known] = found[d:]


class Network:
    """The mean of ``NETWORKS`` of s = x . w + tanh(x W + b) . v, begun and taught apart: :mod:`ranking.listwise`.

    By Adam, ``BATCH`` requests at a time; on average each is learned from ``TIMES`` times.
    """

    NETWORKS, BATCH, TIMES = 3, 128, 32

    def __init__(self, by_hand: Floats, seed: int) -> None:
        self._by_hand = by_hand.astype(np.float32)
        self._draw = np.random.default_rng(seed)
        self._remembered = Remembered()
        self._learners: list[Learner] = []
        self._taken = 0

    def scores(self, columns: NDArray[np.float32], candidates: Indices) -> Floats:
        if not self._learners:
            return np.asarray(columns @ self._by_hand, np.float64)
        found: Floats = np.mean([each.weights.scores(columns) for each in self._learners], axis=0, dtype=np.float64)
        return found

    def learn(self, listed: Listed) -> None:
        self._taken += 1
        if not self._remembered.due(listed):
            return
        some = self._remembered.requests
        if not self._learners:
            if len(some) < MOST_NEW:
                return
            self._learners = [Learner(self._begun(list(some))) for _ in range(self.NETWORKS)]
        for learner in self._learners:
            for _ in range(round(self._taken * self.TIMES / self.BATCH)):
                drawn = (some[i] for i in self._draw.integers(0, len(some), self.BATCH))
                learner.step([Shown(each.columns, each.clicked, each.offset) for each in drawn])
        self._taken = 0

    def _begun(self, some: list[Listed]) -> Weights:
        """The blend made by hand, for columns spread as in ``some``."""
        rows = np.concatenate([listed.columns for listed in some])
        deviation = rows.std(axis=0)
        deviation = np.where(deviation > 1e-4, deviation, np.float32(1)).astype(np.float32)
        size = rows.shape[1]
        inner = self._draw.standard_normal((size, HIDDEN)) / np.sqrt(size)
        return Weights(
            mean=rows.mean(axis=0).astype(np.float32),
            deviation=deviation,
            linear=self._by_hand * deviation,
            inner=inner.astype(np.float32),
            bias=np.zeros(HIDDEN, np.float32),
            outer=np.zeros(HIDDEN, np.float32),
        )


def _likelihood(scores: Floats, clicked: NDArray[np.bool_]) -> float:
    scores = scores - scores.max()
    return float(scores[clicked].mean() - np.log(np.exp(scores).sum()))
