"""The training loop of a click model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from contract.errors import SetupError
from ranking.listwise import BATCH, Learner, Shown, Weights, calibrated, loss_of

PATIENCE = 3
"""So many epochs without a smaller loss on what is held back end the training."""


class Trained(NamedTuple):
    """Weights of epoch ``best``, calibrated on what was held back; ``curve`` has the losses of each epoch, the first
    before any: trained on (None: not known) and held back."""

    weights: Weights
    best: int
    curve: list[tuple[float | None, float]]
    stopped: str


def train(
    learned: Sequence[Shown], held_back: Sequence[Shown], *, seed: int, epochs: int, learning_rate: float,
    patience: int | None = PATIENCE, on_epoch: Callable[[int, float, float], None] = lambda n, loss, held: None,
) -> Trained:  # fmt: skip
    """Learn from ``learned``; ``patience`` None: all epochs, and the weights are the last.

    Raises :class:`SetupError` where the loss is no number before anything was learned.
    """
    draw = np.random.default_rng(seed)
    learner = Learner(Weights.by_hand(learned, seed), learning_rate=learning_rate)
    curve: list[tuple[float | None, float]] = [(None, loss_of(learner.weights, held_back))]
    if not math.isfinite(curve[0][1]):
        raise SetupError("the log holds features that are no numbers: replay it again with this version")
    best, weights, stopped = 0, learner.weights, f"all {epochs} epochs were trained"
    for epoch in range(1, epochs + 1):
        order = draw.permutation(len(learned))
        losses = [
            learner.step([learned[i] for i in order[start : start + BATCH]]) for start in range(0, len(order), BATCH)
        ]
        held = loss_of(learner.weights, held_back)
        if not all(map(math.isfinite, (*losses, held))):
            if not best:
                raise SetupError("the loss diverged before anything was learned: lower --learning-rate")
            stopped = f"the loss diverged in epoch {epoch}; the last good weights are kept"
            break
        curve.append((float(np.mean(losses)), held))
        on_epoch(epoch, curve[-1][0] or 0.0, held)
        if patience is None or held < curve[best][1]:
            best, weights = epoch, learner.weights
        elif epoch - best >= patience:
            stopped = f"nothing was gained in {patience} epochs"
            break
    return Trained(calibrated(weights, held_back), best, curve, stopped)
