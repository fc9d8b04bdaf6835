"""The users whose lists are kept, as rows of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from contract.records import Windows
from ranking.scoring import Ranked, Readers

NEVER = np.iinfo(np.int64).max
OTHER = np.uint64(np.iinfo(np.uint64).max)
"""In place of a hash: the present list is not one that a ranking could give."""


class ReaderTable:
    """Queries, windows, present list and entry score by row; a dropped user's row is used again.

    ``queries`` float32 [capacity, 2, d], ``trigger`` [capacity, d], ``entry`` [capacity] (see
    :class:`ranking.scoring.Ranked`), ``listed`` uint64 [capacity, k]: the hashes of the list's articles in
    order, 0 where there is none, ``partition`` int32, -1 where the row is free, ``ranked_at`` epoch ms: 0 asks
    for a ranking soon, :data:`NEVER` for none.
    """

    def __init__(self, dims: int, list_length: int, capacity: int = 1024) -> None:
        self._rows: dict[str, int] = {}
        self._free: list[int] = []
        self.ids: list[str] = []
        self._read: list[bytes] = []
        self._shown: list[bytes] = []
        self._shown_counts: list[bytes] = []
        self.queries = np.zeros((capacity, 2, dims), np.float32)
        self.trigger = np.zeros((capacity, dims), np.float32)
        self.entry = np.full(capacity, np.inf, np.float32)
        self.listed = np.zeros((capacity, list_length), np.uint64)
        self.partition = np.full(capacity, -1, np.int32)
        self.ranked_at = np.full(capacity, NEVER, np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, user_id: str) -> int | None:
        """Return the user's row, or None where there is none."""
        return self._rows.get(user_id)

    def add(self, user_id: str, partition: int) -> int:
        """Return the user's row, made where there was none; a new one enters no list by itself."""
        row = self._rows.get(user_id)
        if row is not None:
            return row
        row = self._free.pop() if self._free else len(self.ids)
        if row == len(self.ids):
            self.ids.append(user_id)
            self._read.append(b"")
            self._shown.append(b"")
            self._shown_counts.append(b"")
            if row == len(self.partition):
                self._grow()
        self.ids[row] = user_id
        self._rows[user_id] = row
        self.partition[row] = partition
        return row

    def put(self, rows: Sequence[int], windows: Sequence[Windows], queries: NDArray[np.float32]) -> None:
        """Take over states of users: their windows and ``queries`` [len(rows), 2, d]."""
        self.queries[list(rows)] = queries
        for row, window in zip(rows, windows, strict=True):
            self._read[row] = window.read
            self._shown[row] = window.shown
            self._shown_counts[row] = window.shown_counts

    def drop(self, user_id: str) -> bool:
        """Forget a user; return whether there was one."""
        row = self._rows.pop(user_id, None)
        if row is None:
            return False
        self.ids[row] = ""
        self._read[row] = self._shown[row] = self._shown_counts[row] = b""
        self.queries[row] = 0.0
        self.trigger[row] = 0.0
        self.entry[row] = np.inf
        self.listed[row] = 0
        self.partition[row] = -1
        self.ranked_at[row] = NEVER
        self._free.append(row)
        return True

    def drop_partitions(self, partitions: Iterable[int]) -> None:
        """Forget all users of these partitions."""
        for row in np.flatnonzero(np.isin(self.partition, list(partitions))):
            self.drop(self.ids[row])

    def readers(self, rows: Sequence[int]) -> Readers:
        """Return the users of ``rows`` as :func:`ranking.scoring.rank` takes them."""
        return Readers(
            self.queries[list(rows)],
            [self._read[row] for row in rows],
            [self._shown[row] for row in rows],
            [self._shown_counts[row] for row in rows],
        )

    def note(self, rows: Sequence[int], ranked: Ranked, now_ms: int) -> None:
        """Keep what decides whom the next publication concerns."""
        index = list(rows)
        self.trigger[index] = ranked.trigger
        self.entry[index] = ranked.entry
        self.ranked_at[index] = now_ms

    def relist(self, rows: Sequence[int], listed: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Make ``listed`` [len(rows), k] the present lists; return which are other than they were."""
        index = list(rows)
        changed: NDArray[np.bool_] = (self.listed[index] != listed).any(axis=1)
        self.listed[index] = listed
        return changed

    def overdue(self, before_ms: int, limit: int) -> NDArray[np.intp]:
        """Return up to ``limit`` rows last ranked before that time, those that waited longest."""
        rows = np.flatnonzero(self.ranked_at < before_ms)
        if len(rows) > limit:
            rows = rows[np.argpartition(self.ranked_at[rows], limit)[:limit]]
        return rows

    def holding(self, hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return the rows whose present list holds one of these articles."""
        return np.flatnonzero(np.isin(self.listed, hashes[hashes != 0]).any(axis=1))

    def _grow(self) -> None:
        for name in ("queries", "trigger", "entry", "listed", "partition", "ranked_at"):
            old = getattr(self, name)
            fresh = np.full_like(old, {"entry": np.inf, "partition": -1, "ranked_at": NEVER}.get(name, 0))
            setattr(self, name, np.concatenate([old, fresh]))
