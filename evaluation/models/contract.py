"""What every model that is judged can do."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.requests import Feedback, Request

Floats = NDArray[np.float64]


class Model(Protocol):
    """Scores, then learns, in the order of time.

    ``probabilities`` says whether the scores are probabilities of a click.
    """

    probabilities: bool

    def scores(self, request: Request) -> Floats:
        """Return a score for each candidate, [n], larger is better; none is NaN. Asking twice gives the same."""
        ...

    def learn(self, feedback: Feedback) -> None:
        """Take in what became of a request, or a click without one; times never go back."""
        ...


def z_scores(values: Floats) -> Floats:
    """Return ``values`` with mean 0 and deviation 1; 0 where they are all equal."""
    centred = values - values.mean()
    deviation = float(np.sqrt(centred @ centred / len(centred)))
    return centred / deviation if deviation > 1e-12 else np.zeros(len(values))
