"""Content appeal: which texts readers like at all, learned from impressions and clicks.

A logistic regression of the click on the article's vector, by Newton's method from the weights
found before. An article counts with at most :data:`MOST_IMPRESSIONS`: how it did is as much its own luck as its
text's, however many saw it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
MOST_IMPRESSIONS = 50.0
RIDGE = 6.0
"""Of a prior by which appeal differs by 0.4 log-odds from text to text."""
STEPS = 4
WIDEST = 2.0
"""No text promises more or less than this (log-odds)."""


def fit_appeal(
    vectors: Floats, impressions: NDArray[np.float64], clicks: NDArray[np.float64], base_rate: float,
    start: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:  # fmt: skip
    """Return weights [d + 1], the last one constant: log-odds of a click against ``base_rate``, see :func:`appeal_of`.

    vectors [n, d]; impressions and clicks [n]. Articles without impressions say nothing.
    """
    dims = vectors.shape[1]
    weights = np.zeros(dims + 1) if start is None else start.copy()
    seen = (impressions > 0.5) & np.isfinite(clicks)
    if not seen.any():
        return np.zeros(dims + 1)
    counted = np.maximum(impressions[seen], clicks[seen])
    rates = clicks[seen] / counted
    counted = np.minimum(counted, MOST_IMPRESSIONS)
    x = np.concatenate([vectors[seen], np.ones((len(rates), 1), np.float32)], axis=1).astype(np.float64)
    ridge = np.full(dims + 1, RIDGE)
    offset = _logit(base_rate)
    for _ in range(STEPS):
        expected = 1.0 / (1.0 + np.exp(-(x @ weights + offset)))
        gradient = x.T @ (counted * (rates - expected)) - ridge * weights
        curvature = (x.T * (counted * expected * (1 - expected))) @ x + np.diag(ridge)
        weights += np.clip(np.linalg.solve(curvature, gradient), -2.0, 2.0)
    return weights


def appeal_of(vectors: Floats, weights: NDArray[np.float64]) -> Floats:
    """Return the appeal of each article [n]: log-odds against the average one."""
    appeal = vectors @ weights[:-1].astype(np.float32) + np.float32(weights[-1])
    clipped: Floats = np.clip(appeal, -WIDEST, WIDEST)
    return clipped


def _logit(rate: float) -> float:
    return float(np.log(rate / (1 - rate)))
