"""The contract of interest models: what turns the articles a user read into vectors to search with.

Every model keeps all that it knows of a user in one row of S float32 numbers, all zero for somebody new. ``decay``
needs no training; others are trained by ``stoppress train`` and run by ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from contract.errors import InterestModelUnusable
from contract.settings import Settings
from encoders.decay import Decay
from encoders.onnx_interest import OnnxInterest

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class InterestModel(Protocol):
    """What the fold and the ranking ask of an interest model.

    An event is three numbers: ms from the state's time to its new time, ms from the event's time to that new time
    (the later of the two), and the event's weight (:func:`encoders.fold_rules.weight_of`).
    """

    @property
    def dims(self) -> int:
        """d, the numbers of an article's vector."""

    @property
    def state_size(self) -> int:
        """S, the numbers of a user's state."""

    def manifest(self) -> dict[str, object]:
        """What defines the states that the model makes, as plain JSON values; part of the generation."""

    def step(self, state: Floats, article: Floats, event: Doubles) -> Floats:
        """Take one event into each state: [B, S], [B, d], [B, 3] -> [B, S]."""

    def fold(
        self, state: Floats, elapsed_ms: Doubles, users: NDArray[np.intp], article: Floats, age_ms: Doubles,
        weight: Doubles,
    ) -> Floats:  # fmt: skip
        """Take E events into U states, event e into state ``users[e]``, those of a user in their order.

        state [U, S], elapsed_ms [U] from each state's time to its new time, article [E, d], age_ms and weight [E]
        -> [U, S]. The same as :meth:`step` event by event, but for rounding.
        """

    def query(self, state: Floats) -> Floats:
        """Return the vectors to search articles with, [B, S] -> [B, q, d]: unit rows, zero where nothing is known."""


class ScoringModel(InterestModel, Protocol):
    """An interest model that also judges pairs of user and article."""

    def score(self, state: Floats, article: Floats) -> Floats:
        """Return the log-odds that each user reads each article: [B, S], [n, d] -> [B, n]."""


def interest_model(settings: Settings, dims: int) -> InterestModel:
    """Return the interest model that ``settings`` name, for article vectors of ``dims`` numbers.

    Raises :class:`contract.errors.InterestModelUnusable` where there is none, its files are not those of its manifest,
    or it was trained for vectors of another size.
    """
    if not settings.interest_model:
        return Decay.of(settings, dims)
    folder = Path(settings.interest_model)
    model = OnnxInterest.load(folder)
    if model.dims != dims:
        raise InterestModelUnusable(
            f"{folder} was trained for article vectors of {model.dims} numbers, the encoder {settings.encoder} gives "
            f"{dims}: train it with that encoder, or set another interest_model"
        )
    return model


def spread_of(model: InterestModel, state: Floats) -> Floats:
    """Return how unsure ``model`` is of each user's interest, [B, S] -> [B]; NaN where it does not say."""
    if isinstance(model, OnnxInterest) and model.spreads:
        return model.spread(state)
    return np.full(len(state), np.nan, np.float32)


def long_and_short(queries: Floats) -> Floats:
    """Return queries [B, q, d] as the ranking takes them, [B, 2, d]: a model that has but one speaks twice."""
    return np.repeat(queries, 2, axis=1) if queries.shape[1] == 1 else queries
