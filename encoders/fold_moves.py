"""How far a batch moves the vectors: kept as flat lists event by event, computed for all users at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from contract.records import UserRecord
from encoders.articles import ArticleTable
from encoders.decay import Decay


class Moves:
    """Article vectors to be added to states. A slot is the number of a state in the batch."""

    def __init__(self) -> None:
        self._slots: list[int] = []
        self._ats: list[int] = []
        self._weights: list[float] = []
        self._counts: list[int] = []
        self._rows: list[int] = []

    def add(self, slot: int, at: int, weight: float, rows: Sequence[int]) -> None:
        """Add ``weight`` times the vectors of these rows to the state, as of ``at``."""
        self._slots.append(slot)
        self._ats.append(at)
        self._weights.append(weight)
        self._counts.append(len(rows))
        self._rows += rows

    def apply(self, states: Sequence[UserRecord | None], articles: ArticleTable, model: Decay) -> None:
        """Give each state, by slot, its new numbers and time; None is one that is no more.

        What had expired by the time of its event moves nothing.
        """
        if not self._rows:
            return
        rows = np.array(self._rows, np.intp)
        slots, ats, weights = (
            np.repeat(np.array(values), self._counts) for values in (self._slots, self._ats, self._weights)
        )
        expires = articles.expires_at[rows]
        alive = np.array([state is not None for state in states])
        valid = ((expires <= 0) | (expires > ats)) & alive[slots]
        rows, slots, ats, weights = rows[valid], slots[valid], ats[valid], weights[valid]
        touched, users = np.unique(slots, return_inverse=True)
        if not len(touched):
            return
        moved = [state for state in map(states.__getitem__, touched.tolist()) if state is not None]
        before = np.array([state.at for state in moved], np.int64)
        times = before.copy()
        np.maximum.at(times, users, ats)
        vectors = np.frombuffer(b"".join([state.numbers for state in moved]), "<f4").reshape(len(moved), -1)
        folded = model.fold(
            vectors,
            (times - before).astype(np.float64),
            users,
            articles.vectors[rows],
            (times[users] - ats).astype(np.float64),
            weights,
        )
        numbers, size = folded.astype("<f4", copy=False).tobytes(), 4 * model.state_size
        for i, (state, time) in enumerate(zip(moved, times.tolist(), strict=True)):
            state.numbers = numbers[i * size : (i + 1) * size]
            state.at = time
