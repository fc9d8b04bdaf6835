"""Sums of other models' scores, each made comparable within the request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from evaluation.models.contract import Floats, Model, z_scores
from evaluation.requests import Feedback, Request


class Blend:
    """The weighted sum of the parts' scores, each through ``scale``."""

    probabilities = False

    def __init__(self, parts: Sequence[tuple[float, Model]], scale: Callable[[Floats], Floats] = z_scores) -> None:
        self._parts = parts
        self._scale = scale

    def scores(self, request: Request) -> Floats:
        total = np.zeros(len(request.candidates))
        for weight, model in self._parts:
            total += weight * self._scale(model.scores(request))
        return total

    def learn(self, feedback: Feedback) -> None:
        for _, model in self._parts:
            model.learn(feedback)


def over_maximum(scores: Floats) -> Floats:
    """Return non-negative ``scores`` over their own maximum; as they are where all are 0."""
    largest = scores.max(initial=0.0)
    return scores / largest if largest > 0 else scores
