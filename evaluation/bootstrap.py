"""Bootstrap over requests: all models on the same resamples, so that differences are paired."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 1000
CONFIDENCE = 0.95
_AT_ONCE = 4_000_000


def resampled_means(values: Floats, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """Return the means of columns over requests drawn with replacement: [requests, m] -> [resamples, m]."""
    n = len(values)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, _AT_ONCE // n)
    for start in range(0, resamples, step):
        drawn = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(min(step, resamples - start))]
        means[start : start + len(drawn)] = np.stack(drawn) @ values / n
    return means


def interval(means: Floats) -> tuple[float, float]:
    """Return the percentile interval of resampled means, [resamples]."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def p_value(differences: Floats) -> float:
    """Return the two-sided bootstrap p-value that there is no difference, at least 1 / resamples."""
    one_sided = min((differences <= 0).mean(), (differences >= 0).mean())
    return max(min(1.0, 2 * float(one_sided)), 1 / len(differences))
