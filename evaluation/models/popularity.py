"""Models that know no user: chance, clicks, and click-through rates."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from evaluation.decayed_counts import DecayedCounts
from evaluation.models.contract import Floats
from evaluation.requests import Feedback, Request

PRIOR_CLICKS, PRIOR_IMPRESSIONS = 1.0, 25.0


class Random:
    """Chance: a hash of request, article and seed."""

    probabilities = False

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def scores(self, request: Request) -> Floats:
        key = (request.at * 1_000_003 + request.user * 7919 + request.session) * 31 + self._seed
        hashed = request.candidates.astype(np.uint64) ^ np.uint64(key & (1 << 64) - 1)
        return _splitmix(hashed) / 2.0**64

    def learn(self, feedback: Feedback) -> None:
        """Chance does not."""


class Popular:
    """Clicks that halve in ``half_life_ms``; infinite: all clicks so far."""

    probabilities = False

    def __init__(self, half_life_ms: float = math.inf) -> None:
        self._clicks = DecayedCounts(half_life_ms)

    def scores(self, request: Request) -> Floats:
        return self._clicks.of(request.candidates, request.at)

    def learn(self, feedback: Feedback) -> None:
        self._clicks.add(feedback.clicks, feedback.request.at)


class PopularAmong:
    """Popular among those with the same value of ``name`` in their context, drawn to what is popular with everybody.

    ``DRAWN`` clicks spread as everybody's are added to the group's own; both halve in ``half_life_ms``.
    """

    probabilities = False
    DRAWN = 20.0

    def __init__(self, name: str, half_life_ms: float) -> None:
        self._name = name
        self._half_life_ms = half_life_ms
        self._everybody = DecayedCounts(half_life_ms)
        self._groups: dict[str, DecayedCounts] = {}

    def scores(self, request: Request) -> Floats:
        everybody = self._everybody.of(request.candidates, request.at)
        group = self._groups.get(self._group(request))
        own = group.of(request.candidates, request.at) if group else np.zeros(len(everybody))
        return own + self.DRAWN * everybody / max(float(everybody.sum()), 1e-9)

    def learn(self, feedback: Feedback) -> None:
        request = feedback.request
        self._everybody.add(feedback.clicks, request.at)
        group = self._groups.setdefault(self._group(request), DecayedCounts(self._half_life_ms))
        group.add(feedback.clicks, request.at)

    def _group(self, request: Request) -> str:
        return request.context.get(self._name, "")


class ClickThroughRate:
    """(clicks + 1) / (impressions + 25), both halving in ``half_life_ms``."""

    probabilities = True

    def __init__(self, half_life_ms: float = math.inf) -> None:
        self._clicks = DecayedCounts(half_life_ms)
        self._impressions = DecayedCounts(half_life_ms)

    def scores(self, request: Request) -> Floats:
        clicks = self._clicks.of(request.candidates, request.at)
        return (clicks + PRIOR_CLICKS) / (self._impressions.of(request.candidates, request.at) + PRIOR_IMPRESSIONS)

    def learn(self, feedback: Feedback) -> None:
        self._impressions.add(feedback.shown, feedback.request.at)
        self._clicks.add(feedback.clicks, feedback.request.at)


def _splitmix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)
