"""A candidate before the same lists as the model that serves: what both say, and which was right.

Of each list that somebody saw, what both said before it was seen is held against what was clicked in it:

    log loss   its mean over the items seen
    order      how often what was clicked stands above what was passed over (AUC), where there is both

The differences :math:`d_i`, candidate less serving, have the running mean :math:`\\bar d_n` and deviation :math:`s_n`,
and an interval that holds at all n at once, so that it can be looked at after every list:

    mean +- s sqrt(2 (n r^2 + 1) / (n^2 r^2) log(sqrt(n r^2 + 1) / a))

(an asymptotic confidence sequence: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, theorem 2.2 and, for means
that change with time, 2.5). Both models are fixed and speak first, so a user's lists need not be independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.catalogue import Catalogue
from ranking.features import PARTS, Places
from ranking.ranking import Formula, rank_traced
from ranking.readers import Readers
from ranking.reranker import FEATURES, ClickModel, pair_features

Floats = NDArray[np.float64]
Outcome = Literal["promoted", "refused"]
LEAST = 200
"""Lists with something clicked and something passed over, before which nothing is decided."""
ALPHA = 0.05
TIGHTEST_AT = 1000
"""At so many lists the interval is the narrowest that its kind can be."""
LOSS_TOLERANCE, ORDER_TOLERANCE = 0.01, 0.01
"""By so much, of the serving model's log loss and in AUC, a candidate may seem worse at the interval's bad end."""


class Difference(NamedTuple):
    """Candidate less serving: the mean, and the interval that holds at all times."""

    mean: float
    low: float
    high: float


class Compared(NamedTuple):
    """Over ``lists``, ``ordered`` of which have an AUC: both models' means, serving first, and their differences.

    ``no_numbers``: what the candidate said was not always finite.
    """

    lists: int
    ordered: int
    log_loss: tuple[float, float]
    auc: tuple[float, float]
    loss_difference: Difference
    auc_difference: Difference
    no_numbers: bool = False

    @property
    def outcome(self) -> Outcome | None:
        """``promoted`` where neither is worse than is tolerated, ``refused`` where one is, None while that is open."""
        if self.no_numbers:
            return "refused"
        if self.ordered < LEAST:
            return None
        tolerated = LOSS_TOLERANCE * self.log_loss[0]
        if self.loss_difference.low > tolerated or self.auc_difference.high < -ORDER_TOLERANCE:
            return "refused"
        if self.loss_difference.high <= tolerated and self.auc_difference.low >= -ORDER_TOLERANCE:
            return "promoted"
        return None


class Judgement:
    """What was seen so far of a candidate and the model that serves; of bounded size."""

    def __init__(self) -> None:
        self._loss, self._auc = _Pairs(), _Pairs()
        self._no_numbers = False

    def hear(self, log_odds: Floats) -> None:
        """Note whether the candidate says something wherever serving does; both say [2, ...], NaN: not asked."""
        self._no_numbers |= bool((np.isfinite(log_odds[0]) & ~np.isfinite(log_odds[1])).any())

    def take(self, log_odds: Floats, clicked: NDArray[np.bool_]) -> None:
        """Take a list that was seen: what serving and candidate said [2, n], and what was clicked [n]; n > 0."""
        self._loss.take(np.logaddexp(0, np.where(clicked, -log_odds, log_odds)).mean(axis=1))
        if clicked.any() and not clicked.all():
            above = log_odds[:, clicked, None] - log_odds[:, None, ~clicked]
            self._auc.take(((above > 0) + (above == 0) / 2).mean(axis=(1, 2)))

    def compared(self) -> Compared:
        """Return how both did; all zeros while nothing was seen."""
        loss, auc = self._loss, self._auc
        means, differences = (loss.means(), auc.means()), (loss.difference(), auc.difference())
        return Compared(loss.count, auc.count, *means, *differences, self._no_numbers)


class _Pairs:
    """Sums over pairs of numbers, serving's and candidate's."""

    def __init__(self) -> None:
        self.count = 0
        self._sums = np.zeros(2)
        self._mean = self._squares = 0.0

    def take(self, pair: Floats) -> None:
        """Welford's update (1962), which loses no digits."""
        self.count += 1
        self._sums += pair
        off = float(pair[1] - pair[0]) - self._mean
        self._mean += off / self.count
        self._squares += off * (float(pair[1] - pair[0]) - self._mean)

    def means(self) -> tuple[float, float]:
        serving, candidate = (self._sums / max(1, self.count)).tolist()
        return serving, candidate

    def difference(self) -> Difference:
        if not self.count:
            return Difference(0.0, -math.inf, math.inf)
        half = half_width(self.count) * math.sqrt(self._squares / self.count)
        return Difference(self._mean, self._mean - half, self._mean + half)


def half_width(n: int) -> float:
    """Return half the width of the interval of n differences whose deviation is 1."""
    r2 = (-2 * math.log(ALPHA) + math.log(-2 * math.log(ALPHA) + 1)) / TIGHTEST_AT
    grown = n * r2 + 1
    return math.sqrt(2 * grown / (n * n * r2) * math.log(math.sqrt(grown) / ALPHA))


def said_of(
    listed: Places, readers: Readers, catalogue: Catalogue, formula: Formula, models: Sequence[ClickModel | None],
    now_ms: int,
) -> Floats:  # fmt: skip
    """Return the log-odds of a click that each of ``models`` (None: the hand-made formula) gives, [models, u, k].

    ``listed`` [u, k] are places of what stands in the readers' lists, -1: none. NaN where an article is none of the
    reader's candidates any more. Candidates and features are those of a ranking: all models see the same.
    """
    by_hand = Formula(formula.weights, formula.rules, formula.amounts)
    _, trace = rank_traced(readers, catalogue, by_hand, now_ms)
    places, parts = trace.candidates.places, trace.parts
    found = np.full((len(models), *listed.shape), np.nan)
    same = (places[:, None, :] == listed[:, :, None]) & (listed >= 0)[:, :, None]
    users, items = np.nonzero(same.any(axis=2))
    if not len(users):
        return found
    columns = same[users, items].argmax(axis=1)
    features = pair_features(readers, catalogue, places, parts, now_ms)[users, columns]
    editor = parts[PARTS.index("editor"), users, columns]
    usual = math.log(catalogue.base_rate / (1 - catalogue.base_rate))
    for number, model in enumerate(models):
        if model is None:
            found[number, users, items] = parts[:, users, columns].sum(axis=0) + usual
        else:
            found[number, users, items] = model.log_odds(features.reshape(-1, len(FEATURES))) + editor
    return found
