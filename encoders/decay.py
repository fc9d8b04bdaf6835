"""``decay``: the interest model that needs no training.

A user's state is two sums of the vectors of what they read, each weighed by 2^(-age / half-life):
one with a long half-life, one with a short. Sums are linear, so a batch of events is one sparse
product, and the result is that of taking the events one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from contract.settings import Settings

HOUR_MS = 3_600_000
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Decay:
    """The interest model ``decay`` over article vectors of ``dims`` numbers.

    An event is three numbers: ms from the state's time to its new time, ms from the event's time
    to that new time, and the event's weight. The new time is the later of the two, so an event that
    comes late weighs as if it had come in time.
    """

    dims: int
    long_half_life_ms: float
    short_half_life_ms: float

    @classmethod
    def of(cls, settings: Settings, dims: int) -> Decay:
        """Return the model with the half-lives of ``settings``."""
        return cls(dims, settings.long_half_life_hours * HOUR_MS, settings.short_half_life_hours * HOUR_MS)

    @property
    def state_size(self) -> int:
        """S, the numbers of a state: the long sum, then the short."""
        return 2 * self.dims

    def manifest(self) -> dict[str, object]:
        """What defines the states that this model makes; part of the generation."""
        return {
            "model": "decay",
            "dims": self.dims,
            "long_half_life_ms": self.long_half_life_ms,
            "short_half_life_ms": self.short_half_life_ms,
        }

    def step(self, state: Floats, article: Floats, event: NDArray[np.float64]) -> Floats:
        """Take one event into each state: [B, S], [B, d], [B, 3] -> [B, S]."""
        kept = self._weights(event[:, 0])
        added = self._weights(event[:, 1]) * event[:, 2:]
        return np.concatenate(
            [
                state[:, : self.dims] * kept[:, :1] + article * added[:, :1],
                state[:, self.dims :] * kept[:, 1:] + article * added[:, 1:],
            ],
            axis=1,
            dtype=np.float32,
        )

    def fold(
        self,
        state: Floats,
        elapsed_ms: NDArray[np.float64],
        users: NDArray[np.intp],
        article: Floats,
        age_ms: NDArray[np.float64],
        weight: NDArray[np.float64],
    ) -> Floats:
        """Take E events into U states at once, event e into state ``users[e]``.

        state [U, S], elapsed_ms [U] from each state's time to its new time, article [E, d], age_ms
        and weight [E] -> [U, S].
        """
        order = np.argsort(users, kind="stable")
        ends = np.searchsorted(users[order], np.arange(len(state) + 1))
        added = (self._weights(age_ms) * weight[:, None])[order].astype(np.float32)
        # Rows are the long sums, then the short ones; made of its parts, a matrix costs a third of one of coordinates.
        per_event = csr_array(
            (added.T.ravel(), np.tile(order, 2), np.concatenate([ends, ends[1:] + len(users)])),
            shape=(2 * len(state), len(users)),
        )
        summed = (per_event @ article).reshape(2, len(state), self.dims)
        kept = self._weights(elapsed_ms).T[:, :, None]
        folded: Floats = np.concatenate(
            [state[:, : self.dims] * kept[0] + summed[0], state[:, self.dims :] * kept[1] + summed[1]],
            axis=1,
            dtype=np.float32,
        )
        return folded

    def query(self, state: Floats) -> Floats:
        """Return the unit vectors to search articles with: [B, S] -> [B, 2, d]; zero stays zero."""
        sums = state.reshape(-1, 2, self.dims)
        norms = np.linalg.norm(sums, axis=2, keepdims=True)
        queries: Floats = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 1e-12)
        return queries

    def _weights(self, age_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        half_lives = np.array([self.long_half_life_ms, self.short_half_life_ms])
        weights: NDArray[np.float64] = np.exp2(-np.asarray(age_ms, np.float64)[:, None] / half_lives)
        return weights
