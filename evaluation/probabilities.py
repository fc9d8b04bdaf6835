"""Whether probabilities of a click mean what they say."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

FINE_BINS = 2000
CURVE_BINS = 15
THRESHOLD_EVERY = 32
_LEAST = 1e-7


class CurvePoint(msgspec.Struct, frozen=True):
    """A point of the reliability curve: what was said, what came of it, of how many items."""

    said: float
    clicked: float
    items: int


class Calibration(msgspec.Struct, frozen=True):
    """``ece`` is the expected calibration error over bins of equal mass; ``threshold`` the last one that was used."""

    log_loss: float
    ece: float
    threshold: float
    precision: float
    recall: float
    accuracy: float
    curve: list[CurvePoint]


class ProbabilityJudge:
    """Takes probabilities with what came of them; memory does not grow.

    An item counts as recommended where its probability reaches the threshold, which is the one of the largest F1 on all
    requests before.
    """

    def __init__(self) -> None:
        self._items = np.zeros(FINE_BINS, np.int64)
        self._clicks = np.zeros(FINE_BINS, np.int64)
        self._said = np.zeros(FINE_BINS)
        self._loss = 0.0
        self._threshold = 0
        self._requests = 0
        self._confusion = np.zeros(4, np.int64)

    def take(self, probabilities: NDArray[np.float64], clicked: NDArray[np.bool_]) -> None:
        """Take the items of one request."""
        bins = np.clip((probabilities * FINE_BINS).astype(np.intp), 0, FINE_BINS - 1)
        if self._requests:  # before there is no threshold
            self._confusion += np.bincount(2 * (bins >= self._threshold) + clicked, minlength=4)
        self._items += np.bincount(bins, minlength=FINE_BINS)
        self._clicks += np.bincount(bins[clicked], minlength=FINE_BINS)
        self._said += np.bincount(bins, probabilities, FINE_BINS)
        right = np.where(clicked, probabilities, 1 - probabilities)
        self._loss -= float(np.log(np.clip(right, _LEAST, 1)).sum())
        if self._requests % THRESHOLD_EVERY == 0:
            found = np.cumsum(self._clicks[::-1])[::-1]
            taken = np.cumsum(self._items[::-1])[::-1]
            f1 = 2 * found / np.maximum(1, taken + found[0])
            self._threshold = int(np.flatnonzero(f1 == f1.max())[-1])
        self._requests += 1

    def result(self) -> Calibration | None:
        """Return the figures, None where nothing was taken."""
        total = int(self._items.sum())
        if not total:
            return None
        curve = self._curve(total)
        _, missed, wrong, found = (int(count) for count in self._confusion)
        return Calibration(
            log_loss=self._loss / total,
            ece=sum(abs(point.said - point.clicked) * point.items for point in curve) / total,
            threshold=self._threshold / FINE_BINS,
            precision=found / max(1, found + wrong),
            recall=found / max(1, found + missed),
            accuracy=1 - (missed + wrong) / max(1, int(self._confusion.sum())),
            curve=curve,
        )

    def _curve(self, total: int) -> list[CurvePoint]:
        """Join the fine bins to some of about equal mass."""
        bin_of = np.minimum((np.cumsum(self._items) - self._items / 2) * CURVE_BINS / total, CURVE_BINS - 1).astype(int)
        items, clicks, said = (
            np.bincount(bin_of, column, CURVE_BINS) for column in (self._items, self._clicks, self._said)
        )
        return [
            CurvePoint(float(said[i] / items[i]), float(clicks[i] / items[i]), int(items[i]))
            for i in np.flatnonzero(items)
        ]
