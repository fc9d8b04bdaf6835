r"""What another ranker's explored places would have been clicked, from places that were given by chance.

Of n places the i-th was given to :math:`a_i`, drawn with probability :math:`p_i`; :math:`r_i` is 1 where it was
clicked. A model that would have given it to :math:`a_i` with probability :math:`\pi_i` has the importance weight
:math:`w_i = \pi_i / p_i`, and its click-through rate is estimated by

    IPS     sum(w r) / n         (Horvitz and Thompson 1952)
    SNIPS   sum(w r) / sum(w)    (Swaminathan and Joachims 2015)

IPS is unbiased, but of large variance; SNIPS is biased by O(1 / n), of less variance, and does not depend on how the
propensities are scaled. Weights above sqrt(n) are cut down to it (Ionides 2008), which biases both downwards; how many
is told. The effective sample size is sum(w)^2 / sum(w^2) (Kish 1965): with few, believe no figure. Intervals are
bootstrapped over users, for to one user the same is shown again and again.

A model's :math:`\pi` draws evenly among the fifth of the candidates that it scores highest. A choice of the one best
would agree with what was drawn too seldom to say anything.
"""

from __future__ import annotations

import math
from array import array

import msgspec
import numpy as np
from numpy.typing import NDArray

from evaluation import metrics
from evaluation.bootstrap import interval, resampled_means
from evaluation.requests import Draw

TAKEN = 0.2
FEW = 30
"""Below this effective sample size an estimate is not to be believed."""
Floats = NDArray[np.float64]
Interval = tuple[float, float]


class Estimate(msgspec.Struct, frozen=True):
    """A model's click-through rate in explored places; ``clipped`` of its weights were cut down."""

    ips: float
    ips_ci: Interval
    snips: float
    snips_ci: Interval
    effective_sample_size: float
    clipped: int


class OffPolicy(msgspec.Struct, frozen=True):
    """``explored`` places with a propensity, of ``users`` users, were shown, and clicked at the rate ``ctr``.

    ``candidates`` is how many could have been drawn, on average; ``clip`` the largest weight allowed.
    """

    explored: int
    users: int
    ctr: float
    ctr_ci: Interval
    candidates: float
    clip: float
    models: dict[str, Estimate]


class Draws:
    """Collects draws and, by model, the probability that it would have drawn the same."""

    def __init__(self) -> None:
        self.propensities = array("d")
        self.clicked = array("d")
        self._users = array("q")
        self._candidates = 0
        self._same: dict[str, array[float]] = {}

    def take(self, draw: Draw, scores: dict[str, Floats]) -> None:
        """Take one, with every model's scores of its candidates."""
        self.propensities.append(draw.propensity)
        self.clicked.append(draw.clicked)
        self._users.append(draw.request.user)
        self._candidates += len(draw.request.candidates)
        for name, found in scores.items():
            self._same.setdefault(name, array("d")).append(would_draw(found, draw.drawn))

    def result(self, seed: int) -> OffPolicy | None:
        """Work out the figures, None where nothing was drawn; the same seed gives the same."""
        n = len(self.propensities)
        if not n:
            return None
        clicked, propensities = np.frombuffer(self.clicked), np.frombuffer(self.propensities)
        distinct, users = np.unique(np.frombuffer(self._users, np.int64), return_inverse=True)
        clip = math.sqrt(n)
        models = {
            name: estimate(np.frombuffer(same) / propensities, clicked, users, clip=clip, seed=seed)
            for name, same in self._same.items()
        }
        logged = estimate(np.ones(n), clicked, users, seed=seed)
        return OffPolicy(n, len(distinct), logged.ips, logged.ips_ci, self._candidates / n, clip, models)


def would_draw(scores: Floats, drawn: int) -> float:
    """Return the probability that a model with these scores [n] draws the one at ``drawn``."""
    taken = max(1, math.ceil(TAKEN * len(scores)))
    return 1 / taken if drawn in metrics.best(scores, taken) else 0.0


def estimate(
    weights: Floats, clicked: Floats, users: NDArray[np.int64], *, clip: float = math.inf, seed: int = 0
) -> Estimate:
    """Return the estimates from weights, clicks and user numbers, [n] each, with 95% intervals."""
    cut = np.minimum(weights, clip)
    sums = np.stack([np.bincount(users, column) for column in (cut * clicked, cut, np.ones(len(cut)))], axis=1).astype(
        np.float64
    )
    gains, weighed, counts = sums.sum(axis=0).tolist()
    drawn = resampled_means(sums, np.random.default_rng(seed))
    squares = float((cut**2).sum())
    return Estimate(
        ips=gains / counts,
        ips_ci=interval(drawn[:, 0] / drawn[:, 2]),
        snips=gains / weighed if weighed else 0.0,
        snips_ci=interval(np.divide(drawn[:, 0], drawn[:, 1], out=np.zeros(len(drawn)), where=drawn[:, 1] > 0)),
        effective_sample_size=weighed**2 / squares if squares else 0.0,
        clipped=int((weights > clip).sum()),
    )
