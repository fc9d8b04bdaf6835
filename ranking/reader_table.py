"""The users whose lists are kept, as rows of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ranking.ranking import Standing
from ranking.readers import NO_PAST, Past, Readers

NEVER = np.iinfo(np.int64).max
OTHER = np.uint64(np.iinfo(np.uint64).max)
"""In place of a hash: there is no list, or not one that a ranking could give."""
SINGLY = 16
"""Up to so many articles are looked for one by one."""


class ReaderTable:
    """Queries, pasts, present list and entry score by row; a dropped user's row is used again.

    ``queries`` float32 [capacity, 2, d], ``seeds``, ``personal`` and ``spread`` [capacity] as in
    :class:`ranking.readers.Readers`, ``trigger`` [capacity, d], ``entry`` and ``unread`` [capacity] and ``entries``
    [capacity, k] as in :class:`ranking.ranking.Ranked`, ``listed`` uint64 [capacity, k]: the hashes of the list's
    articles in order, 0 where there is none, :data:`OTHER` where there is no list; ``partition`` int32, -1 where the
    row is free, ``ranked_at`` epoch ms: 0 asks for a ranking soon, :data:`NEVER` for none.
    """

    def __init__(self, dims: int, list_length: int, capacity: int = 1024) -> None:
        self._rows: dict[str, int] = {}
        self._free: list[int] = []
        self.ids: list[str] = []
        self._pasts: list[Past] = []
        self._followers: dict[str, set[int]] = {}
        self._muters: dict[str, set[int]] = {}
        self._likings: dict[int, NDArray[np.float32]] = {}
        self.queries = np.zeros((capacity, 2, dims), np.float32)
        self.seeds = np.zeros(capacity, np.uint64)
        self.personal = np.ones(capacity, np.bool_)
        self.spread = np.full(capacity, np.nan, np.float32)
        self.trigger = np.zeros((capacity, dims), np.float32)
        self.entry = np.full(capacity, np.inf, np.float32)
        self.listed = np.full((capacity, list_length), OTHER, np.uint64)
        self.entries = np.full((capacity, list_length), -np.inf, np.float32)
        self.unread = np.zeros(capacity, np.uint64)
        self.partition = np.full(capacity, -1, np.int32)
        self.ranked_at = np.full(capacity, NEVER, np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, user_id: str) -> int | None:
        """Return the user's row, or None where there is none."""
        return self._rows.get(user_id)

    def add(self, user_id: str, partition: int, *, seed: int = 0, personal: bool = True) -> int:
        """Return the user's row, made where there was none; a new one enters no list by itself."""
        row = self._rows.get(user_id)
        if row is not None:
            return row
        row = self._free.pop() if self._free else len(self.ids)
        if row == len(self.ids):
            self.ids.append(user_id)
            self._pasts.append(NO_PAST)
            if row == len(self.partition):
                self._grow()
        self.ids[row] = user_id
        self._rows[user_id] = row
        self.partition[row] = partition
        self.seeds[row], self.personal[row] = seed, personal
        return row

    def put(
        self, rows: Sequence[int], pasts: Sequence[Past], queries: NDArray[np.float32],
        spread: NDArray[np.float32] | float = np.nan,
    ) -> None:  # fmt: skip
        """Take over states of users: their pasts, ``queries`` [len(rows), 2, d] and ``spread`` [len(rows)]."""
        self.queries[list(rows)] = queries
        self.spread[list(rows)] = spread
        for row, past in zip(rows, pasts, strict=True):
            before = self._pasts[row]
            if past.follows != before.follows:
                _move(self._followers, row, before.follows, past.follows)
            if past.mutes != before.mutes:
                _move(self._muters, row, before.mutes, past.mutes)
            self._pasts[row] = past

    def followers(self, labels: Iterable[str]) -> set[int]:
        """Return the rows of those who follow one of ``labels``."""
        return set().union(*(self._followers.get(label, ()) for label in labels))

    def averse(self, labels: Iterable[str], language: int) -> NDArray[np.intp]:
        """Return the rows of those who mute one of ``labels``, or do not read the language of this number."""
        rows = np.array(sorted(set().union(*(self._muters.get(label, ()) for label in labels))), np.intp)
        if not 0 < language < 64:
            return rows
        unread = self.unread[: len(self.ids)] & (np.uint64(1) << np.uint64(language))
        return np.union1d(rows, np.flatnonzero(unread))

    def drop(self, user_id: str) -> bool:
        """Forget a user; return whether there was one."""
        row = self._rows.pop(user_id, None)
        if row is None:
            return False
        self.ids[row] = ""
        _move(self._followers, row, self._pasts[row].follows, ())
        _move(self._muters, row, self._pasts[row].mutes, ())
        self._pasts[row] = NO_PAST
        self.queries[row] = 0.0
        self.seeds[row], self.personal[row], self.spread[row] = 0, True, np.nan
        self.trigger[row] = 0.0
        self.entry[row] = np.inf
        for liking in self._likings.values():
            liking[row] = 0.0
        self.listed[row] = OTHER
        self.entries[row] = -np.inf
        self.unread[row] = 0
        self.partition[row] = -1
        self.ranked_at[row] = NEVER
        self._free.append(row)
        return True

    def drop_partitions(self, partitions: Iterable[int]) -> None:
        """Forget all users of these partitions."""
        for row in np.flatnonzero(np.isin(self.partition, list(partitions))):
            self.drop(self.ids[row])

    def readers(self, rows: Sequence[int]) -> Readers:
        """Return the users of ``rows`` as :func:`ranking.ranking.rank` takes them."""
        index = list(rows)
        pasts = [self._pasts[row] for row in rows]
        return Readers.of(
            self.queries[index], pasts, seeds=self.seeds[index], personal=self.personal[index],
            spread=self.spread[index],
        )  # fmt: skip

    def note(
        self, rows: Sequence[int], trigger: NDArray[np.float32], entry: NDArray[np.float32],
        entries: NDArray[np.float32], categories: NDArray[np.uint64], likings: NDArray[np.float32],
        unread: NDArray[np.uint64], now_ms: int,
    ) -> None:  # fmt: skip
        """Keep what decides whom the next publication concerns; ``likings`` [len(rows), categories]."""
        index = list(rows)
        for number, category in enumerate(categories.tolist()):
            if category and category not in self._likings and likings[:, number].any():
                self._likings[category] = np.zeros(len(self.partition), np.float32)
            if category in self._likings:
                self._likings[category][index] = likings[:, number]
        self.trigger[index] = trigger
        self.entry[index] = entry
        self.entries[index] = entries
        self.unread[index] = unread
        self.ranked_at[index] = now_ms

    def standing(self) -> Standing:
        """Return what tells whom a publication concerns, of all rows in use."""
        used = len(self.ids)
        return Standing(self.trigger[:used], self.entry[:used], self.listed[:used], self.entries[:used])

    def likings(self, categories: Iterable[int]) -> NDArray[np.float32]:
        """Return what articles of these categories (64-bit hashes) are worth to each user, [m, rows in use]."""
        nothing = np.zeros(len(self.partition), np.float32)
        found = np.stack([nothing, *(self._likings.get(category, nothing) for category in categories)])[1:]
        return found[:, : len(self.ids)]

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

    def unranked(self, before_ms: int) -> tuple[int, int, int]:
        """Return how many were not ranked since they were restored, how many last before that time, and when the one
        who waited longest of these was."""
        ranked_at = self.ranked_at[: len(self.ids)]
        overdue = ranked_at[(ranked_at > 0) & (ranked_at < before_ms)]
        return int(np.count_nonzero(ranked_at == 0)), len(overdue), int(overdue.min(initial=before_ms))

    def holding(self, hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return the rows whose present list holds one of these articles."""
        used = self.listed[: len(self.ids)]
        hashes = hashes[hashes != 0]
        if len(hashes) > SINGLY:
            return np.flatnonzero(np.isin(used, hashes).any(axis=1))
        found = np.zeros(len(used), np.bool_)
        for article in hashes:
            found |= (used == article).any(axis=1)
        return np.flatnonzero(found)

    def _grow(self) -> None:
        fills = {
            "entry": np.inf,
            "entries": -np.inf,
            "partition": -1,
            "ranked_at": NEVER,
            "listed": OTHER,
            "personal": True,
            "spread": np.nan,
        }
        for name in (
            "queries", "seeds", "personal", "spread", "trigger", "entry", "entries", "listed", "unread", "partition",
            "ranked_at",
        ):  # fmt: skip
            old = getattr(self, name)
            fresh = np.full_like(old, fills.get(name, 0))
            setattr(self, name, np.concatenate([old, fresh]))
        self._likings = {category: np.concatenate([old, np.zeros_like(old)]) for category, old in self._likings.items()}


def _move(rows: dict[str, set[int]], row: int, before: tuple[str, ...], now: tuple[str, ...]) -> None:
    """Take ``row`` from the sets of the labels it had ``before`` to those it has ``now``."""
    for label in set(before):
        rows[label].discard(row)
        if not rows[label]:
            del rows[label]
    for label in now:
        rows.setdefault(label, set()).add(row)
