"""The fold: events of one partition, in their order, into staged state.

A pure function of the partition's state, the events and the article vectors known now. Nothing
current is written to: :attr:`Fold.users`, ``stats`` and ``totals`` hold what is to become current
once the transaction that carries them is known to be committed, and :meth:`Fold.adopt` does it.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from contract.errors import BadRecord
from contract.messages import ARTICLE_KINDS, Cause, Event, decode_event
from contract.records import ArticleStats, PartitionTotals, Waiting
from encoders.articles import ArticleTable, hash64
from encoders.decay import Decay
from encoders.user_state import MASK64, PartitionState, UserState, event_hash

WEIGHTS = {"click": 1.0, "like": 2.0, "share": 2.0, "dislike": -1.0}
DWELL_FULL_MS = 60_000
DWELL_WEIGHT = 0.5
FOLDED_KINDS = ARTICLE_KINDS | {"impression", "forget"}
ASKS_FOR_NO_RANKING = frozenset({"impression", "dwell"})
STATS_HALF_LIFE_MS = 6 * 3_600_000


@dataclass(frozen=True)
class FoldLimits:
    """The bounds of a user's state: window lengths in entries, times in ms."""

    waiting_clicks: int = 32
    waiting_ms: int = 24 * 3_600_000
    user_ttl_ms: int = 180 * 86_400_000
    read: int = 128
    seen: int = 64
    shown: int = 128


@dataclass(frozen=True, slots=True)
class Arrival:
    """One good event with the place and Kafka timestamp of its record and its original value."""

    offset: int
    timestamp: int
    event: Event
    value: bytes


@dataclass(frozen=True, slots=True)
class Dropped:
    """A waiting event that a bound pushed out: a dead letter."""

    user_id: str
    waited: Waiting
    error: BadRecord


class _Identified(msgspec.Struct):
    event_id: str = ""


_identified = msgspec.json.Decoder(_Identified).decode


class _Move:
    """A vector to be added to a user's state."""

    __slots__ = ("at", "row", "weight")

    def __init__(self, at: int, row: int, weight: float) -> None:
        self.at, self.row, self.weight = at, row, weight


class Fold:
    """Folds one batch of one partition; use once.

    Call :meth:`settle`, :meth:`take`, :meth:`finish` in this order, then read the staged ``users``
    (None: forgotten), ``stats`` (None: article gone), ``totals`` and ``dropped``.
    """

    def __init__(self, current: PartitionState, articles: ArticleTable, model: Decay, limits: FoldLimits) -> None:
        self._current = current
        self._articles = articles
        self._model = model
        self._limits = limits
        self._moves: dict[str, list[_Move]] = {}
        self._swept = False
        self.users: dict[str, UserState | None] = {}
        self.stats: dict[str, ArticleStats | None] = {}
        self.totals: PartitionTotals = msgspec.structs.replace(current.totals)
        self.dropped: list[Dropped] = []

    @property
    def changed(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.users or self.stats) or self.totals != self._current.totals

    def take(self, arrivals: Iterable[Arrival]) -> None:
        """Fold good events in the order of their offsets."""
        for arrival in arrivals:
            self.totals.read += 1
            self.totals.timestamp = max(self.totals.timestamp, arrival.timestamp)
            self._take_one(arrival)

    def count_dead(self, timestamps: Sequence[int]) -> None:
        """Count records of this partition that became dead letters before they came here."""
        self.totals.read += len(timestamps)
        self.totals.dead += len(timestamps)
        self.totals.timestamp = max(self.totals.timestamp, *timestamps, 0)

    def settle(self, article_ids: Iterable[str]) -> None:
        """Fold what waited for these articles, which now have a vector or are gone."""
        settled = dict.fromkeys(article_ids)
        for article_id in settled:
            if self._articles.is_gone(article_id) and article_id in self._current.stats:
                self.stats[article_id] = None
        users = {user_id for article_id in settled for user_id in self._current.waiting_for.get(article_id, ())}
        for user_id in sorted(users):
            state = self._stage(user_id)
            ready = [wait for wait in state.waiting if wait.article_id in settled]
            state.waiting = [wait for wait in state.waiting if wait.article_id not in settled]
            for wait in ready:
                self._fold_waited(user_id, state, wait)

    def finish(self) -> None:
        """Push out what waited too long and compute the vectors, all users at once."""
        self._sweep()
        moved = [(user_id, moves) for user_id, moves in self._moves.items() if moves]
        if not moved:
            return
        states = [self._staged(user_id) for user_id, _ in moved]
        times = [max(state.at, *(m.at for m in moves)) for state, (_, moves) in zip(states, moved, strict=True)]
        flat = [(u, times[u] - m.at, m.weight, m.row) for u, (_, moves) in enumerate(moved) for m in moves]
        users, ages, weights, rows = zip(*flat, strict=True)
        vectors = self._model.fold(
            np.stack([state.vector for state in states]),
            np.array([t - state.at for state, t in zip(states, times, strict=True)], np.float64),
            np.array(users, np.intp),
            self._articles.vectors[list(rows)],
            np.array(ages, np.float64),
            np.array(weights, np.float64),
        )
        for state, time, vector in zip(states, times, vectors, strict=True):
            state.vector = vector.copy()
            state.at = time
        self._moves = {}

    def adopt(self) -> None:
        """Make the staged state current; only after its transaction is known to be committed."""
        for user_id, state in self.users.items():
            self._current.put(user_id, state)
        for article_id, stats in self.stats.items():
            self._current.put_stats(article_id, stats)
        self._current.totals = self.totals
        if self._swept:
            self._current.find_oldest_wait()

    def _take_one(self, arrival: Arrival) -> None:
        event = arrival.event
        user_id = event.user_id
        if event.kind == "forget":
            self._forget(user_id, arrival.offset)
            return
        state = self._stage(user_id)
        self._drop_overdue(user_id, state)
        if state.timestamp and arrival.timestamp - state.timestamp > self._limits.user_ttl_ms:
            state = self._restart(user_id, state)
        if event.event_id:
            seen = hash64(event.event_id)
            if _place(state.seen, seen) >= 0:
                self.totals.duplicate += 1
                return
            _append(state.seen, seen, self._limits.seen)
        state.timestamp = arrival.timestamp
        if event.kind in ARTICLE_KINDS and not self._known(event.article_id):
            self._wait(user_id, state, arrival)
            return
        if state.cause is None and event.kind not in ASKS_FOR_NO_RANKING:
            state.cause = Cause(kind="event", id=event.event_id, at=arrival.timestamp)
        self._fold(user_id, state, arrival.offset, arrival.timestamp, event)

    def _fold_waited(self, user_id: str, state: UserState, wait: Waiting) -> None:
        try:
            event = decode_event(user_id.encode(), wait.value)
        except BadRecord as error:  # let in by a version that was less strict
            self._drop(user_id, state, wait, error)
            return
        row = self._articles.row(wait.article_id)
        if state.cause is None and row is not None and event.kind not in ASKS_FOR_NO_RANKING:
            at = int(self._articles.cause_at[row]) or wait.timestamp
            state.cause = Cause(kind="article", id=wait.article_id, at=at)
        self.totals.waiting -= 1
        self._fold(user_id, state, wait.offset, wait.timestamp, event)

    def _fold(self, user_id: str, state: UserState, offset: int, timestamp: int, event: Event) -> None:
        at = min(event.at, timestamp)
        if event.kind == "impression":
            for item in event.shown:
                self._count(item.article_id, at, impressions=1.0)
                _count_shown(state, hash64(item.article_id), self._limits.shown)
        else:
            article = hash64(event.article_id)
            if _place(state.read, article) < 0:
                _append(state.read, article, self._limits.read)
            if event.kind == "click":
                self._count(event.article_id, at, clicks=1.0)
            row = self._articles.row(event.article_id)
            weight = _weight(event)
            if row is not None and weight and not 0 < self._articles.expires_at[row] <= at:
                self._moves.setdefault(user_id, []).append(_Move(at, row, weight))
        state.last_offset = max(state.last_offset, offset)
        state.folded += 1
        state.hash_sum = (state.hash_sum + self._count_folded(offset)) & MASK64

    def _count_folded(self, offset: int) -> int:
        hashed = event_hash(self._current.partition, offset)
        self.totals.folded += 1
        self.totals.hash_sum = (self.totals.hash_sum + hashed) & MASK64
        return hashed

    def _forget(self, user_id: str, offset: int) -> None:
        state = self._stage(user_id)
        self._drop_overdue(user_id, state)
        self._count_folded(offset)
        for wait in state.waiting:
            self.totals.waiting -= 1
            self._count_folded(wait.offset)
        self.users[user_id] = None
        self._moves.pop(user_id, None)

    def _known(self, article_id: str) -> bool:
        return self._articles.row(article_id) is not None or self._articles.is_gone(article_id)

    def _wait(self, user_id: str, state: UserState, arrival: Arrival) -> None:
        state.waiting.append(Waiting(arrival.event.article_id, arrival.offset, arrival.timestamp, arrival.value))
        self.totals.waiting += 1
        while len(state.waiting) > self._limits.waiting_clicks:
            self._drop_unmet(
                user_id, state, state.waiting.pop(0), f"more than {self._limits.waiting_clicks} clicks wait"
            )

    def _drop_overdue(self, user_id: str, state: UserState) -> None:
        """Push out what waited too long by the time of the partition's last record.

        To look at a user whenever they are touched, and at everybody in the end, has the same outcome as to
        look at everybody at each record.
        """
        oldest = self.totals.timestamp - self._limits.waiting_ms
        for wait in [wait for wait in state.waiting if wait.timestamp < oldest]:
            state.waiting.remove(wait)
            why = f"it waited longer than {self._limits.waiting_ms / 3_600_000:g} hours"
            self._drop_unmet(user_id, state, wait, why)

    def _sweep(self) -> None:
        oldest = self.totals.timestamp - self._limits.waiting_ms
        for user_id, state in self.users.items():
            if state is not None:
                self._drop_overdue(user_id, state)
        if self._current.waits_since >= oldest:
            return
        self._swept = True
        for user_id in sorted({user_id for users in self._current.waiting_for.values() for user_id in users}):
            waiting = self._current.users[user_id].waiting
            if user_id not in self.users and any(wait.timestamp < oldest for wait in waiting):
                self._drop_overdue(user_id, self._stage(user_id))

    def _drop_unmet(self, user_id: str, state: UserState, wait: Waiting, why: str) -> None:
        error = BadRecord("no_vector_in_time", f"article {wait.article_id!r} has no vector and {why} for this user")
        self._drop(user_id, state, wait, error)

    def _drop(self, user_id: str, state: UserState, wait: Waiting, error: BadRecord) -> None:
        self.totals.waiting -= 1
        self.totals.dead += 1
        self.dropped.append(Dropped(user_id, wait, error))
        # It had no effect and may come again, as a requeued dead letter does.
        seen = hash64(_event_id(wait.value))
        if seen in state.seen:
            state.seen.remove(seen)

    def _stage(self, user_id: str) -> UserState:
        staged = self.users.get(user_id)
        if staged is None:
            current = None if user_id in self.users else self._current.users.get(user_id)
            staged = current.copy() if current else UserState(np.zeros(self._model.state_size, np.float32))
            self.users[user_id] = staged
        return staged

    def _staged(self, user_id: str) -> UserState:
        state = self.users[user_id]
        assert state is not None
        return state

    def _restart(self, user_id: str, before: UserState) -> UserState:
        state = UserState(np.zeros(self._model.state_size, np.float32), waiting=before.waiting, cause=before.cause)
        self.users[user_id] = state
        self._moves.pop(user_id, None)
        return state

    def _count(self, article_id: str, at: int, impressions: float = 0.0, clicks: float = 0.0) -> None:
        if self._articles.row(article_id) is None:
            return
        before = self.stats.get(article_id) or self._current.stats.get(article_id)
        if before is None:
            self.stats[article_id] = ArticleStats(at, impressions, clicks)
            return
        newest = max(before.at, at)
        kept = 2.0 ** ((before.at - newest) / STATS_HALF_LIFE_MS)
        added = 2.0 ** ((at - newest) / STATS_HALF_LIFE_MS)
        self.stats[article_id] = ArticleStats(
            newest, before.impressions * kept + impressions * added, before.clicks * kept + clicks * added
        )


def _event_id(value: bytes) -> str:
    try:
        return _identified(value).event_id
    except (msgspec.MsgspecError, RecursionError):
        return ""


def _weight(event: Event) -> float:
    if event.kind == "dwell":
        return DWELL_WEIGHT * min(event.dwell_ms or 0, DWELL_FULL_MS) / DWELL_FULL_MS
    return WEIGHTS[event.kind]


def _place(window: array[int], value: int) -> int:
    """Return where ``value`` stands in a window, -1 where it does not; bytes are compared faster than numbers."""
    content, sought = window.tobytes(), value.to_bytes(8, sys.byteorder)
    at = content.find(sought)
    while at >= 0 and at % 8:
        at = content.find(sought, at + 1)
    return at // 8


def _append(window: array[int], value: int, length: int) -> None:
    window.append(value)
    if len(window) > length:
        del window[: len(window) - length]


def _count_shown(state: UserState, article: int, length: int) -> None:
    """Count one more showing; the article becomes the newest of its window."""
    count = 0
    if (place := _place(state.shown, article)) >= 0:
        count = state.shown_counts[place]
        del state.shown[place], state.shown_counts[place]
    _append(state.shown, article, length)
    state.shown_counts.append(min(255, count + 1))
    if len(state.shown_counts) > length:
        del state.shown_counts[: len(state.shown_counts) - length]
