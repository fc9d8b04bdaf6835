"""Requests whose clicks follow one feature that the hand-made formula does not know, or nothing."""

from __future__ import annotations

import numpy as np

from ranking.listwise import ClickLog, Shown, Weights
from ranking.reranker import FEATURES

PLANTED = FEATURES.index("clicks_15min")
START, MINUTE = 1_750_000_000_000, 60_000


def a_log(requests: int = 400, *, shuffled: bool = False, seed: int = 0, items: int = 12) -> ClickLog:
    draw = np.random.default_rng(seed)
    shown = []
    for _ in range(requests):
        features = draw.standard_normal((items, len(FEATURES))).astype(np.float32)
        odds = np.zeros(items) if shuffled else 2.0 * features[:, PLANTED]
        clicked = np.zeros(items, np.bool_)
        clicked[draw.choice(items, p=np.exp(odds) / np.exp(odds).sum())] = True
        shown.append(Shown(features, clicked, np.zeros(items, np.float32)))
    return ClickLog(shown, START + MINUTE * np.arange(requests))


def oldest_first() -> Weights:
    """A model that goes by age alone, the oldest first."""
    size = len(FEATURES)
    linear = np.zeros(size, np.float32)
    linear[FEATURES.index("age")] = 5.0
    zeros, ones = np.zeros(size, np.float32), np.ones(size, np.float32)
    return Weights(zeros, ones, linear, np.zeros((size, 4), np.float32), *np.zeros((2, 4), np.float32))
