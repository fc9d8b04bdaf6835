"""A click model that is learned list by list: which of what was on offer was clicked?

    s = x . w + tanh(x W + b) . v,   loss = -mean over clicks of log softmax(s)[clicked]   (Cao et al. 2007)

``x`` are standardised features. Learning begins at the hand-made formula (the parts' sum; v = 0) and weights are
drawn back to it, so that few data leave it as it is. A last step turns scores into calibrated log-odds (Platt 1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.reranker import FEATURES, HAND

Floats = NDArray[np.float32]
HIDDEN = 32
LEARNING_RATE = 2e-3
DRAWN_BACK = 0.02
BATCH = 32
FARTHEST = 5.0
"""No feature counts as farther from its mean, in deviations."""
PLATT_STEPS = 20


class Shown(NamedTuple):
    """One request that is learned from: features [n, f], which were clicked [n], and ``offset`` [n], which is added to
    the scores in the softmax: the logarithm of how many each row stands for."""

    features: Floats
    clicked: NDArray[np.bool_]
    offset: Floats


class ClickLog(NamedTuple):
    """Requests in the order of time, and when each was made, int64 [n], epoch ms."""

    shown: list[Shown]
    at: NDArray[np.int64]


@dataclass(frozen=True)
class Weights:
    """The numbers of a model: mean, deviation and linear [f]; inner [f, h], bias and outer [h]; slope and constant."""

    mean: Floats
    deviation: Floats
    linear: Floats
    inner: Floats
    bias: Floats
    outer: Floats
    slope: float = 1.0
    constant: float = 0.0

    @classmethod
    def by_hand(cls, some: Sequence[Shown], seed: int = 0) -> Weights:
        """Return those that give the hand-made formula, for features spread as in ``some``."""
        rows = np.concatenate([shown.features for shown in some])
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        deviation = np.where(deviation > 1e-4, deviation, np.float32(1))
        draw = np.random.default_rng(seed)
        size = len(FEATURES)
        return cls(
            mean=mean.astype(np.float32),
            deviation=deviation.astype(np.float32),
            linear=hand_formula() * deviation.astype(np.float32),
            inner=(draw.standard_normal((size, HIDDEN)) / np.sqrt(size)).astype(np.float32),
            bias=np.zeros(HIDDEN, np.float32),
            outer=np.zeros(HIDDEN, np.float32),
        )

    def standardised(self, features: Floats) -> Floats:
        x: Floats = np.clip((features - self.mean) / self.deviation, -FARTHEST, FARTHEST)
        return x

    def scores(self, features: Floats) -> Floats:
        """[m, f] -> [m]: comparable within a request."""
        x = self.standardised(features)
        scores: Floats = x @ self.linear + np.tanh(x @ self.inner + self.bias) @ self.outer
        return scores

    def log_odds(self, features: Floats) -> Floats:
        """[m, f] -> [m]: see :class:`ranking.reranker.ClickModel`."""
        odds: Floats = np.float32(self.slope) * self.scores(features) + np.float32(self.constant)
        return odds


def hand_formula() -> Floats:
    """The weight of each feature in the formula that needs no training."""
    return np.array([name in HAND for name in FEATURES], np.float32)


class Learner:
    """Adam (Kingma and Ba 2015) on batches of requests; ``weights`` are those reached."""

    LEARNED = ("linear", "inner", "bias", "outer")

    def __init__(
        self, weights: Weights, *, learning_rate: float = LEARNING_RATE, drawn_back: float = DRAWN_BACK
    ) -> None:
        self.weights = weights
        self._rate = learning_rate
        self._drawn_back = drawn_back
        self._begun = {name: getattr(weights, name) for name in self.LEARNED}
        self._first = {name: np.zeros_like(start) for name, start in self._begun.items()}
        self._second = {name: np.zeros_like(start) for name, start in self._begun.items()}
        self._steps = 0

    def step(self, batch: Sequence[Shown]) -> float:
        """Go one step down on these requests, each with a click; return the loss before it, which may be no number."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._step(batch)

    def _step(self, batch: Sequence[Shown]) -> float:
        w = self.weights
        sizes = np.array([len(shown.features) for shown in batch])
        starts = np.cumsum(sizes) - sizes
        x = w.standardised(np.concatenate([shown.features for shown in batch]))
        offset = np.concatenate([shown.offset for shown in batch])
        hidden = np.tanh(x @ w.inner + w.bias)
        scores = x @ w.linear + hidden @ w.outer + offset
        scores = scores - np.repeat(np.maximum.reduceat(scores, starts), sizes)
        odds = np.exp(scores)
        sums = np.add.reduceat(odds, starts)
        share = odds / np.repeat(sums, sizes)
        clicks = np.concatenate([shown.clicked / shown.clicked.sum() for shown in batch])
        loss = -float(clicks @ (scores - np.repeat(np.log(sums), sizes))) / len(batch)
        if not np.isfinite(loss):
            return loss
        slope = ((share - clicks) / len(batch)).astype(np.float32)
        back = np.outer(slope, w.outer) * (1 - hidden**2)
        self._move({"linear": x.T @ slope, "inner": x.T @ back, "bias": back.sum(axis=0), "outer": hidden.T @ slope})
        return loss

    def _move(self, gradients: dict[str, Floats]) -> None:
        self._steps += 1
        moved = {}
        for name, gradient in gradients.items():
            first = self._first[name] = 0.9 * self._first[name] + 0.1 * gradient
            second = self._second[name] = 0.999 * self._second[name] + 0.001 * gradient**2
            first, second = first / (1 - 0.9**self._steps), second / (1 - 0.999**self._steps)
            now = getattr(self.weights, name)
            step = first / (np.sqrt(second) + 1e-8) + self._drawn_back * (now - self._begun[name])
            moved[name] = (now - self._rate * step).astype(np.float32)
        self.weights = replace(self.weights, **moved)


def loss_of(weights: Weights, some: Sequence[Shown]) -> float:
    """Return the mean listwise loss of ``some`` requests, no number where a score is none."""
    losses = []
    with np.errstate(over="ignore", invalid="ignore"):
        for shown in some:
            scores = weights.scores(shown.features) + shown.offset
            scores = scores - scores.max()
            losses.append(float(np.log(np.exp(scores).sum()) - scores[shown.clicked].mean()))
    return float(np.mean(losses))


def calibrated(weights: Weights, some: Sequence[Shown]) -> Weights:
    """Return the same model with the slope and constant that make ``some`` clicks likeliest (Newton's method)."""
    scores = np.concatenate([weights.scores(shown.features) for shown in some]).astype(np.float64)
    clicked = np.concatenate([shown.clicked for shown in some]).astype(np.float64)
    count = np.exp(np.concatenate([shown.offset for shown in some]).astype(np.float64))
    rate = (clicked @ count) / count.sum()
    x = np.stack([scores, np.ones_like(scores)], axis=1)
    prior = np.array([1.0, np.log(rate / (1 - rate)) - scores @ count / count.sum()])
    at, ridge = prior.copy(), np.diag([10.0, 0.1])
    for _ in range(PLATT_STEPS):
        said = 1 / (1 + np.exp(-np.clip(x @ at, -30, 30)))
        gradient = x.T @ (count * (clicked - said)) - ridge @ (at - prior)
        at = at + np.clip(np.linalg.solve((x.T * (count * said * (1 - said))) @ x + ridge, gradient), -2, 2)
    return replace(weights, slope=float(max(at[0], 0.05)), constant=float(at[1]))


def sampled(features: Floats, clicked: NDArray[np.bool_], draw: np.random.Generator, most: int = 200) -> Shown:
    """Return a request to learn from with about ``most`` rows: what was clicked, the likeliest by the hand-made formula
    and by what is read next or clicked now, and some of the rest, each of which stands for several."""
    n = len(features)
    if n <= most:
        return Shown(features, clicked, np.zeros(n, np.float32))
    quarter = most // 4
    kept = clicked.copy()
    for column in (
        features @ hand_formula(),
        features[:, FEATURES.index("next_smoothed")],
        features[:, FEATURES.index("next_any")],
    ):
        kept[np.argpartition(-column, quarter)[:quarter]] = True
    rest = np.flatnonzero(~kept)
    drawn = draw.choice(rest, min(quarter, len(rest)), replace=False)
    rows = np.concatenate([np.flatnonzero(kept), drawn])
    offset = np.zeros(len(rows), np.float32)
    offset[len(rows) - len(drawn) :] = np.log(len(rest) / max(1, len(drawn)))
    return Shown(features[rows], clicked[rows], offset)
