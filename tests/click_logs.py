"""Requests whose clicks follow one feature that the hand-made formula does not know, or nothing."""

from __future__ import annotations

import numpy as np

from ranking.listwise import ClickLog, Shown, Weights
from ranking.reranker import FEATURES

PLANTED = FEATURES.index("clicks_15min")
START, MINUTE = 1_750_000_000_000, 60_000
OLDER_LIKED, NEWER_LIKED = (2.0, -6.0), (-2.0, 2.0)
"""Lines over log(1 + hours): what is four hours old is clicked by one in eight or nine."""


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
    return by_age(5.0)


def by_age(slope: float, constant: float = 0.0) -> Weights:
    """A model whose log-odds of a click are a line over the logarithm of one hour and the article's age."""
    size = len(FEATURES)
    linear = np.zeros(size, np.float32)
    linear[FEATURES.index("age")] = slope
    zeros, ones = np.zeros(size, np.float32), np.ones(size, np.float32)
    bias, outer = np.zeros((2, 4), np.float32)
    return Weights(zeros, ones, linear, np.zeros((size, 4), np.float32), bias, outer, constant=constant)
