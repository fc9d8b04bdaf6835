"""The users whose lists are kept, as rows of arrays."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from contract.records import UserRecord
from ranking.scoring import Ranked, Readers


class ReaderTable:
    """Queries, windows, present list and entry score by row; a dropped user's row is used again.

    ``queries`` float32 [capacity, 2, d], ``trigger`` [capacity, d], ``entry`` [capacity] (see
    :class:`ranking.scoring.Ranked`), ``listed`` uint64 [capacity, k]: the hashes of the list's articles in
    order, 0 where there is none, ``partition`` int32, -1 where the row is free, ``ranked_at`` epoch ms.
    """

    def __init__(self, dims: int, list_length: int, capacity: int = 1024) -> None:
        self._rows: dict[str, int] = {}
        self._free: list[int] = []
        self.ids: list[str] = []
        self._read: list[array[int]] = []
        self._shown: list[array[int]] = []
        self._shown_counts: list[bytearray] = []
        self.queries = np.zeros((capacity, 2, dims), np.float32)
        self.trigger = np.zeros((capacity, dims), np.float32)
        self.entry = np.full(capacity, np.inf, np.float32)
        self.listed = np.zeros((capacity, list_length), np.uint64)
        self.partition = np.full(capacity, -1, np.int32)
        self.ranked_at = np.zeros(capacity, np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, user_id: str) -> int | None:
        return self._rows.get(user_id)

    def add(self, user_id: str, partition: int) -> int:
        """Return the user's row, made where there was none; a new one enters no list by itself."""
        row = self._rows.get(user_id)
        if row is not None:
            return row
        row = self._free.pop() if self._free else len(self.ids)
        if row == len(self.ids):
            self.ids.append(user_id)
            self._read.append(array("Q"))
            self._shown.append(array("Q"))
            self._shown_counts.append(bytearray())
            if row == len(self.partition):
                self._grow()
        self.ids[row] = user_id
        self._rows[user_id] = row
        self.partition[row] = partition
        return row

    def put(self, user_id: str, partition: int, record: UserRecord, queries: NDArray[np.float32]) -> int:
        """Take over a user's state: its windows and ``queries`` [2, d]; return the row."""
        row = self.add(user_id, partition)
        self.queries[row] = queries
        self._read[row] = array("Q", record.windows.read)
        self._shown[row] = array("Q", record.windows.shown)
        self._shown_counts[row] = bytearray(record.windows.shown_counts)
        return row

    def drop(self, user_id: str) -> bool:
        """Forget a user; return whether there was one."""
        row = self._rows.pop(user_id, None)
        if row is None:
            return False
        self._read[row] = array("Q")
        self._shown[row] = array("Q")
        self._shown_counts[row] = bytearray()
        self.queries[row] = 0.0
        self.trigger[row] = 0.0
        self.entry[row] = np.inf
        self.listed[row] = 0
        self.partition[row] = -1
        self.ranked_at[row] = 0
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

    def holding(self, hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return the rows whose present list holds one of these articles."""
        return np.flatnonzero(np.isin(self.listed, hashes[hashes != 0]).any(axis=1))

    def _grow(self) -> None:
        for name in ("queries", "trigger", "entry", "listed", "partition", "ranked_at"):
            old = getattr(self, name)
            fresh = np.full_like(old, {"entry": np.inf, "partition": -1}.get(name, 0))
            setattr(self, name, np.concatenate([old, fresh]))
