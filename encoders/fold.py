"""The fold: events of one partition, in their order, into staged state.

A pure function of the partition's state, the events and the article vectors known now. Nothing
current is written to: what :class:`Fold` holds is to become current once the transaction that carries
it is known to be committed, and :meth:`Fold.adopt` does it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from contract.errors import BadRecord
from contract.messages import ARTICLE_KINDS, Cause, Event, decode_carried, decode_waiting
from contract.records import (
    KIND_BITS,
    RECENT,
    ArticleStats,
    PartitionTotals,
    UserRecord,
    Waiting,
    Windows,
    recent_bytes,
)
from encoders.articles import ArticleTable, hash_bytes
from encoders.decay import Decay
from encoders.decayed import DecayedSums
from encoders.fold_merge import absorbs_of
from encoders.fold_moves import Moves
from encoders.fold_rules import (
    AFFINITY_HALF_LIFE_MS,
    ASKS_FOR_NO_RANKING,
    DWELL_FULL_MS,
    IMPRESSION_WEIGHT,
    LIMITED_MINUTES,
    MINUTE_MS,
    Absorb,
    Arrival,
    Dropped,
    FoldLimits,
    weight_of,
)
from encoders.fold_statistics import Statistics
from encoders.user_state import MASK64, PartitionState, event_hash, event_hashes, staged_copy
from encoders.windows import find, push, without


class _Identified(msgspec.Struct):
    event_id: str = ""
    user_id: str = ""


_identified = msgspec.json.Decoder(_Identified).decode
_ONE = b"\x01"


class _Staged:
    """A user's staged state; ``slot`` is its number in the batch."""

    __slots__ = ("affinities", "slot", "state", "user_id", "windows")

    def __init__(self, user_id: str, state: UserRecord, slot: int) -> None:
        self.user_id = user_id
        self.state = state
        self.windows = state.windows
        self.slot = slot
        self.affinities: DecayedSums | None = None


class Fold:
    """Folds one batch of one partition; use once.

    Call :meth:`settle`, :meth:`take`, :meth:`finish` in this order, then read the staged ``users`` (None: forgotten
    or merged), ``stats`` and ``co_reads`` (None: article gone), ``totals``, and what else is to be written:
    ``absorbs`` and ``dropped``. ``outcomes`` counts by kind what became of events, ``limited`` those left out of
    statistics by the rate limit.
    """

    def __init__(self, current: PartitionState, articles: ArticleTable, model: Decay, limits: FoldLimits) -> None:
        self._current = current
        self._articles = articles
        self._model = model
        self._limits = limits
        self._staged: dict[str, _Staged | None] = {}
        self._slots: list[UserRecord | None] = []
        self._moves = Moves()
        self._nothing = bytes(4 * model.state_size)
        self._swept = False
        self.users: dict[str, UserRecord | None] = {}
        self.stats: dict[str, ArticleStats | None] = {}
        self.co_reads: dict[str, DecayedSums | None] = {}
        self.totals: PartitionTotals = msgspec.structs.replace(current.totals)
        self.statistics = Statistics(current, self.totals, articles, limits.co_reads)
        self.absorbs: list[Absorb] = []
        self.dropped: list[Dropped] = []
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.limited = 0

    @property
    def changed(self) -> bool:
        """Whether there is anything to write; known after :meth:`finish`."""
        return bool(self.users or self.stats or self.co_reads) or self.totals != self._current.totals

    def take(self, arrivals: Iterable[Arrival]) -> None:
        """Fold good events in the order of their offsets."""
        arrivals = list(arrivals)
        hashes = event_hashes(self._current.partition, [arrival.offset for arrival in arrivals])
        totals = self.totals
        for arrival, hashed in zip(arrivals, hashes, strict=True):
            totals.read += 1
            if arrival.timestamp > totals.timestamp:
                totals.timestamp = arrival.timestamp
            self._take_one(arrival, hashed)

    def count_dead(self, timestamps: Sequence[int]) -> None:
        """Count records of this partition that became dead letters before they came here."""
        self.totals.read += len(timestamps)
        self.totals.dead += len(timestamps)
        self.totals.timestamp = max(self.totals.timestamp, *timestamps, 0)
        if timestamps:
            self.outcomes["unknown", "dead"] += len(timestamps)

    def settle(self, article_ids: Iterable[str]) -> None:
        """Fold what waited for these articles, which now have a vector or are gone."""
        settled = dict.fromkeys(article_ids)
        for article_id in settled:
            if self._articles.is_gone(article_id):
                if article_id in self._current.stats:
                    self.stats[article_id] = None
                if article_id in self._current.co_reads:
                    self.co_reads[article_id] = None
        users = {user_id for article_id in settled for user_id in self._current.waiting_for.get(article_id, ())}
        for user_id in sorted(users):
            staged = self._stage(user_id)
            waiting = staged.windows.waiting
            staged.windows.waiting = tuple(wait for wait in waiting if wait.article_id not in settled)
            for wait in waiting:
                if wait.article_id in settled:
                    self._fold_waited(staged, wait)

    def finish(self) -> None:
        """Push out what waited too long, and compute vectors and statistics, all users at once."""
        self._sweep()
        self._moves.apply(self._slots, self._articles, self._model)
        for user_id, staged in self._staged.items():
            if staged is None:
                self.users[user_id] = None
                continue
            staged.state.hash_sum &= MASK64
            if staged.affinities is not None:
                staged.windows.affinities = staged.affinities.pairs()
                staged.windows.affinities_at = staged.affinities.epoch * AFFINITY_HALF_LIFE_MS
            self.users[user_id] = staged.state
        self.totals.hash_sum &= MASK64
        self.stats |= self.statistics.stats()
        self.co_reads |= self.statistics.co_reads

    def adopt(self) -> None:
        """Make the staged state current; only after its transaction is known to be committed."""
        for user_id, state in self.users.items():
            self._current.put(user_id, state)
        for key, stats in self.stats.items():
            self._current.put_stats(key, stats)
        for article_id, sums in self.co_reads.items():
            self._current.put_co_reads(article_id, sums)
        self._current.totals = self.totals
        if self._swept:
            self._current.find_oldest_wait()

    def _take_one(self, arrival: Arrival, hashed: int) -> None:
        offset, timestamp, event, value = arrival
        kind = event.kind
        staged = self._stage(event.user_id)
        if staged.windows.waiting:
            self._drop_overdue(staged)
        if kind == "forget":
            self._remove(staged, hashed, kind)
            return
        if staged.state.timestamp and timestamp - staged.state.timestamp > self._limits.user_ttl_ms:
            staged = self._restart(staged)
        state, windows = staged.state, staged.windows
        if event.event_id:
            seen = hash_bytes(event.event_id)
            if find(windows.seen, seen) >= 0:
                self.totals.duplicate += 1
                self.outcomes[kind, "duplicate"] += 1
                return
            windows.seen = push(windows.seen, seen, 8 * self._limits.seen)
        state.timestamp = timestamp
        at = min(event.at, timestamp)
        self._note_rate(windows, at)
        if kind in ARTICLE_KINDS and not self._known(event.article_id):
            self._wait(staged, Waiting(event.article_id, offset, timestamp, value))
            self.totals.waiting += 1
            self.outcomes[kind, "waiting"] += 1
            self._bound(staged)
            return
        if kind == "merge":
            self.absorbs += absorbs_of(state, event, at, (self._current.partition, offset), self._articles)
            self._remove(staged, hashed, kind)
            return
        if windows.cause is None and kind not in ASKS_FOR_NO_RANKING:
            windows.cause = Cause(kind="event", id=event.event_id, at=timestamp)
        if kind == "impression":
            self._impression(staged, event, at)
        elif kind in ARTICLE_KINDS:
            self._article(staged, event, at)
        elif kind == "absorb":
            self._absorb(staged, event, offset, timestamp)
        else:
            self._target(staged, event, at)
        if offset > state.last_offset:
            state.last_offset = offset
        self._count_folded(state, hashed, kind)

    def _count_folded(self, state: UserRecord | None, hashed: int, kind: str) -> None:
        self.totals.folded += 1
        self.totals.hash_sum += hashed
        self.outcomes[kind, "folded"] += 1
        if state is not None:
            state.folded += 1
            state.hash_sum += hashed

    def _article(self, staged: _Staged, event: Event, at: int, *, counts: bool = True) -> None:
        """Take in an event on an article that has a vector or is gone."""
        windows, kind, limits = staged.windows, event.kind, self._limits
        row = self._articles.row(event.article_id)
        hashed = hash_bytes(event.article_id) if row is None else self._articles.hash_bytes[row]
        first = _note_read(windows, hashed, KIND_BITS[kind], limits.read)
        before = windows.recents
        article = int.from_bytes(hashed, "little")
        dwell_ms = min(event.dwell_ms or 0, DWELL_FULL_MS) if kind == "dwell" else 0
        windows.recents = push(before, recent_bytes(article, at, kind, dwell_ms), RECENT.size * limits.recents)
        if row is None:
            return
        if kind == "click" and counts:
            if at < windows.limited_until:
                self.limited += 1
            elif first:
                self.statistics.count(row, at, kind, event.position, event.reason, event.source)
                self.statistics.count_next(before, article, at)
        self._move(staged, row, at, weight_of(kind, dwell_ms))

    def _move(self, staged: _Staged, row: int, at: int, weight: float) -> None:
        """Move the vector and the affinity to the article's category; an expired article moves neither."""
        if not weight or 0 < self._articles.expires_at[row] <= at:
            return
        self._moves.add(staged.slot, at, weight, (row,))
        category = self._articles.categories[row]
        if category:
            affinities = staged.affinities
            if affinities is None:
                windows = staged.windows
                epoch = windows.affinities_at // AFFINITY_HALF_LIFE_MS
                affinities = staged.affinities = DecayedSums.of_pairs(epoch, windows.affinities)
            affinities.add(category, at, weight, AFFINITY_HALF_LIFE_MS, self._limits.affinities)

    def _impression(self, staged: _Staged, event: Event, at: int) -> None:
        windows, articles, size = staged.windows, self._articles, self._limits.shown
        shown, times = windows.shown, windows.shown_counts
        limited = at < windows.limited_until
        rows = []
        for item in event.shown:
            row = articles.row(item.article_id)
            if row is None:
                hashed = hash_bytes(item.article_id)
            else:
                hashed = articles.hash_bytes[row]
                rows.append(row)
            place = find(shown, hashed)
            if place < 0:
                times = push(times, _ONE, size)
                if row is not None and not limited:
                    self.statistics.count(row, at, "impression", item.position, item.reason, item.source)
            else:  # the article becomes the newest of its window
                count = bytes((min(255, times[place >> 3] + 1),))
                shown, times = without(shown, place, 8), without(times, place >> 3, 1) + count
            shown = push(shown, hashed, 8 * size)
        windows.shown, windows.shown_counts = shown, times
        self.limited += limited
        if rows:
            self._moves.add(staged.slot, at, IMPRESSION_WEIGHT, rows)

    def _target(self, staged: _Staged, event: Event, at: int) -> None:
        """Take in a follow or a mute; each ends the other. The article it was made on counts where it is known."""
        windows, target = staged.windows, event.target
        follows = tuple(t for t in windows.follows if t != target)
        mutes = tuple(t for t in windows.mutes if t != target)
        if event.kind == "follow":
            follows = (*follows, target)[-self._limits.follows :]
        else:
            mutes = (*mutes, target)[-self._limits.mutes :]
        windows.follows, windows.mutes = follows, mutes
        row = self._articles.row(event.article_id)
        if row is not None:
            self._move(staged, row, at, weight_of(event.kind, None))

    def _absorb(self, staged: _Staged, absorb: Event, offset: int, timestamp: int) -> None:
        """Take in what another user did: in the statistics already, but for what waited there."""
        for carried in absorb.events:
            event = decode_carried(carried)
            lay_at = min(carried.timestamp or timestamp, timestamp)
            at, waited = min(event.at, lay_at), carried.offset >= 0
            if event.kind not in ARTICLE_KINDS:
                self._target(staged, event, at)
            elif self._known(event.article_id):
                self._article(staged, event, at, counts=waited)
            else:
                place = (carried.offset, max(0, carried.partition)) if waited else (offset, self._current.partition)
                self._wait(
                    staged,
                    Waiting(event.article_id, place[0], lay_at, bytes(carried.event), place[1], counted=not waited),
                )
        self._drop_overdue(staged)
        self._bound(staged)

    def _remove(self, staged: _Staged, hashed: int, kind: str) -> None:
        """Forget a user. What waited counts as folded, unless it did where it was carried over from."""
        for wait in staged.windows.waiting:
            if wait.carried_from < 0:
                self.totals.waiting -= 1
                self._count_folded(None, event_hash(self._current.partition, wait.offset), kind)
        self._count_folded(None, hashed, kind)
        self._slots[staged.slot] = None
        self._staged[staged.user_id] = None

    def _note_rate(self, windows: Windows, at: int) -> None:
        """Count the event in its minute; who has too many is left out of statistics for an hour of event time."""
        minute = at // MINUTE_MS
        if minute > windows.minute:
            windows.minute = minute
            windows.minute_events = 1
            return
        windows.minute_events += 1
        if windows.minute_events > self._limits.events_per_minute:
            windows.limited_until = (windows.minute + LIMITED_MINUTES) * MINUTE_MS

    def _known(self, article_id: str) -> bool:
        return self._articles.row(article_id) is not None or self._articles.is_gone(article_id)

    def _fold_waited(self, staged: _Staged, wait: Waiting) -> None:
        try:
            event = decode_waiting(wait.value)
        except BadRecord as error:  # let in by a version that was less strict
            self._drop(staged, wait, error)
            return
        windows, row = staged.windows, self._articles.row(wait.article_id)
        if windows.cause is None and row is not None and event.kind not in ASKS_FOR_NO_RANKING:
            at = int(self._articles.cause_at[row]) or wait.timestamp
            windows.cause = Cause(kind="article", id=wait.article_id, at=at)
        self._article(staged, event, min(event.at, wait.timestamp), counts=not wait.counted)
        if wait.carried_from < 0:
            self.totals.waiting -= 1
            staged.state.last_offset = max(staged.state.last_offset, wait.offset)
            self._count_folded(staged.state, event_hash(self._current.partition, wait.offset), event.kind)

    def _wait(self, staged: _Staged, wait: Waiting) -> None:
        staged.windows.waiting = (*staged.windows.waiting, wait)

    def _bound(self, staged: _Staged) -> None:
        """Push out the oldest of too many waiting events."""
        windows, most = staged.windows, self._limits.waiting_clicks
        too_many = windows.waiting[: max(0, len(windows.waiting) - most)]
        windows.waiting = windows.waiting[len(too_many) :]
        for wait in too_many:
            self._drop_unmet(staged, wait, f"more than {most} clicks wait")

    def _drop_overdue(self, staged: _Staged) -> None:
        """Push out what waited too long by the time of the partition's last record.

        To look at a user whenever they are touched, and at everybody in the end, has the same outcome as to
        look at everybody at each record.
        """
        windows, oldest = staged.windows, self.totals.timestamp - self._limits.waiting_ms
        overdue = [wait for wait in windows.waiting if wait.timestamp < oldest]
        if overdue:
            windows.waiting = tuple(wait for wait in windows.waiting if wait.timestamp >= oldest)
            for wait in overdue:
                self._drop_unmet(staged, wait, f"it waited longer than {self._limits.waiting_ms / 3_600_000:g} hours")

    def _sweep(self) -> None:
        oldest = self.totals.timestamp - self._limits.waiting_ms
        for staged in self._staged.values():
            if staged is not None and staged.windows.waiting:
                self._drop_overdue(staged)
        if self._current.waits_since >= oldest:
            return
        self._swept = True
        for user_id in sorted({user_id for users in self._current.waiting_for.values() for user_id in users}):
            waiting = self._current.users[user_id].windows.waiting
            if user_id not in self._staged and any(wait.timestamp < oldest for wait in waiting):
                self._drop_overdue(self._stage(user_id))

    def _drop_unmet(self, staged: _Staged, wait: Waiting, why: str) -> None:
        error = BadRecord("no_vector_in_time", f"article {wait.article_id!r} has no vector and {why} for this user")
        self._drop(staged, wait, error)

    def _drop(self, staged: _Staged, wait: Waiting, error: BadRecord) -> None:
        try:
            sent = _identified(wait.value)
        except (msgspec.MsgspecError, RecursionError):
            sent = _Identified()
        if wait.carried_from >= 0:  # counted as folded where it lay
            self.dropped.append(Dropped(sent.user_id or staged.user_id, wait.carried_from, wait, error))
            return
        self.dropped.append(Dropped(staged.user_id, self._current.partition, wait, error))
        self.totals.waiting -= 1
        self.totals.dead += 1
        self.outcomes["unmet", "dead"] += 1
        # It had no effect and may come again, as a requeued dead letter does.
        windows = staged.windows
        place = find(windows.seen, hash_bytes(sent.event_id))
        if place >= 0:
            windows.seen = without(windows.seen, place, 8)

    def _stage(self, user_id: str) -> _Staged:
        staged = self._staged.get(user_id)
        if staged is None:
            current = None if user_id in self._staged else self._current.users.get(user_id)
            state = UserRecord(self._nothing) if current is None else staged_copy(current)
            staged = self._staged[user_id] = self._new(user_id, state)
        return staged

    def _new(self, user_id: str, state: UserRecord) -> _Staged:
        self._slots.append(state)
        return _Staged(user_id, state, len(self._slots) - 1)

    def _restart(self, before: _Staged) -> _Staged:
        self._slots[before.slot] = None
        windows = Windows(waiting=before.windows.waiting, cause=before.windows.cause)
        staged = self._new(before.user_id, UserRecord(self._nothing, windows=windows))
        self._staged[before.user_id] = staged
        return staged


def _note_read(windows: Windows, hashed: bytes, bit: int, length: int) -> bool:
    """Note that the article was read in this way; return whether it was the first time."""
    place = find(windows.read, hashed)
    if place < 0:
        windows.read = push(windows.read, hashed, 8 * length)
        windows.read_kinds = push(windows.read_kinds, bytes((bit,)), length)
        return True
    place >>= 3
    kinds = windows.read_kinds
    if kinds[place] & bit:
        return False
    windows.read_kinds = kinds[:place] + bytes((kinds[place] | bit,)) + kinds[place + 1 :]
    return True
