"""What was read with what: co-reading and sequential rules (Kamehkhosh, Jannach and Ludewig, 2017)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from evaluation.articles import Indices, grown
from evaluation.models.contract import Floats
from evaluation.requests import Feedback, Request

REBASE_AFTER = 60.0
LATEST = 20
"""Of a history, so many articles are looked back at."""


class Pairs:
    """Weights of ordered pairs of articles, halving in ``half_life_ms``."""

    def __init__(self, half_life_ms: float = math.inf) -> None:
        self._half_life_ms = half_life_ms
        self._base = 0
        self._of: dict[int, dict[int, float]] = {}
        self._scratch: Floats = np.zeros(1024)

    def add(self, before: int, after: int, at: int, weight: float) -> None:
        elapsed = (at - self._base) / self._half_life_ms
        if elapsed > REBASE_AFTER:
            self._rebase(at, elapsed)
            elapsed = 0.0
        followers = self._of.setdefault(before, {})
        followers[after] = followers.get(after, 0.0) + weight * 2.0**elapsed

    def sums(self, befores: Indices, candidates: Indices) -> Floats:
        """Return for each candidate the sum of its weights after each of ``befores``, but for a common factor."""
        largest = int(candidates.max()) + 1 if len(candidates) else 0
        self._scratch = grown(self._scratch, largest)
        touched = []
        for before in befores.tolist():
            followers = self._of.get(before)
            if followers:
                articles = np.fromiter(followers, np.intp, len(followers))
                self._scratch = grown(self._scratch, int(articles.max()) + 1)
                self._scratch[articles] += np.fromiter(followers.values(), np.float64, len(followers))
                touched.append(articles)
        found: Floats = self._scratch[candidates]
        for articles in touched:
            self._scratch[articles] = 0.0
        return found

    def _rebase(self, at: int, elapsed: float) -> None:
        """Let times count from ``at``; what would be next to nothing is forgotten."""
        factor = 2.0**-elapsed if elapsed < 1000 else 0.0
        shrunk = ((a, {b: w * factor for b, w in f.items() if w * factor > 1e-12}) for a, f in self._of.items())
        self._of = {a: followers for a, followers in shrunk if followers}
        self._base = at


class CoReading:
    """Articles read by the same reader (or in the same session), in either order; all of the history counts."""

    probabilities = False

    def __init__(self) -> None:
        self._pairs = Pairs()

    def scores(self, request: Request) -> Floats:
        return self._pairs.sums(np.unique(request.history[-LATEST:]), request.candidates)

    def learn(self, feedback: Feedback) -> None:
        for history, article, at in sequences(feedback):
            for other in dict.fromkeys(history[-LATEST:].tolist()):
                if other != article:
                    self._pairs.add(other, article, at, 1.0)
                    self._pairs.add(article, other, at, 1.0)


class SequentialRules:
    """What was read after the last article read; a pair weighs 1 / (the steps between them)."""

    probabilities = False

    def __init__(self, half_life_ms: float = math.inf) -> None:
        self._pairs = Pairs(half_life_ms)

    def scores(self, request: Request) -> Floats:
        return self._pairs.sums(request.history[-1:], request.candidates)

    def learn(self, feedback: Feedback) -> None:
        for history, article, at in sequences(feedback):
            for distance, other in enumerate(reversed(history[-LATEST:].tolist()), 1):
                if other != article:
                    self._pairs.add(other, article, at, 1.0 / distance)


def sequences(feedback: Feedback) -> list[tuple[Indices, int, int]]:
    """Return what was read before, the article read then, and when: of a history nobody knew, each step of it."""
    request, steps = feedback.request, []
    if request.first:
        history: NDArray[np.intp] = request.history
        steps = [(history[max(0, i - LATEST) : i], int(history[i]), request.at) for i in range(1, len(history))]
    return steps + [(request.history, article, request.at) for article in feedback.clicks.tolist()]
