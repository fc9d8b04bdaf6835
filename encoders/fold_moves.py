"""How far a batch moves the vectors: kept as flat arrays event by event, computed for all users at once."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from contract.records import UserRecord
from encoders.articles import ArticleTable
from encoders.interest import InterestModel


class Moves:
    """Article vectors to be added to states. A slot is the number of a state in the batch."""

    def __init__(self) -> None:
        self._slots = array("q")
        self._ats = array("q")
        self._weights = array("d")
        self._counts = array("q")
        self._rows = array("q")

    def add(self, slot: int, at: int, weight: float, row: int) -> None:
        """Add ``weight`` times the vector of this row to the state, as of ``at``."""
        self._slots.append(slot)
        self._ats.append(at)
        self._weights.append(weight)
        self._counts.append(1)
        self._rows.append(row)

    def add_all(self, slot: int, at: int, weight: float, rows: Sequence[int]) -> None:
        """The same of several rows."""
        self._slots.append(slot)
        self._ats.append(at)
        self._weights.append(weight)
        self._counts.append(len(rows))
        self._rows.extend(rows)

    def apply(self, states: Sequence[UserRecord], articles: ArticleTable, model: InterestModel) -> None:
        """Give each state, by slot, its new numbers and time.

        What had expired by the time of its event moves nothing.
        """
        if not self._rows:
            return
        rows, counts = np.frombuffer(self._rows, np.int64), np.frombuffer(self._counts, np.int64)
        slots = np.repeat(np.frombuffer(self._slots, np.int64), counts)
        ats = np.repeat(np.frombuffer(self._ats, np.int64), counts)
        weights = np.repeat(np.frombuffer(self._weights, np.float64), counts)
        expires = articles.expires_at[rows]
        valid = (expires <= 0) | (expires > ats)
        rows, slots, ats, weights = rows[valid], slots[valid], ats[valid], weights[valid]
        touched, users = np.unique(slots, return_inverse=True)
        if not len(touched):
            return
        moved = [states[slot] for slot in touched.tolist()]
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
