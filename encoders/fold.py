"""The fold: events of one partition, in their order, into staged state.

A pure function of the partition's state, the events and the article vectors known now. Nothing
current is written to: what :class:`Fold` holds is to become current once the transaction that carries
it is known to be committed, and :meth:`Fold.adopt` does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from contract.errors import BadRecord
from contract.messages import ARTICLE_KINDS, Cause, Event, decode_carried, decode_waiting
from contract.records import KIND_BITS, RECENT, ArticleStats, PartitionTotals, UserRecord, Waiting, Windows
from encoders.articles import ArticleTable, hash_bytes
from encoders.decayed import DecayedSums
from encoders.fold_account import Account
from encoders.fold_merge import absorbs_of
from encoders.fold_moves import Moves
from encoders.fold_rules import (
    AFFINITY_HALF_LIFE_MS,
    ASKS_FOR_NO_RANKING,
    DWELL_FULL_MS,
    IDLE_AT_ONCE,
    IMPRESSION_WEIGHT,
    Absorb,
    Arrival,
    Dropped,
    FoldLimits,
    weight_of,
)
from encoders.fold_statistics import Statistics
from encoders.interest import InterestModel
from encoders.user_state import MASK64, PartitionState, event_hashes, staged_copy
from encoders.windows import find, note_context, note_rate, note_read, note_shown, note_target, push


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
    ``absorbs`` and ``dropped``. ``account`` and ``statistics`` count by kind what became of events, ``limited`` those
    left out of statistics by the rate limit, ``expired`` the users dropped since none came for ``user_ttl``.
    """

    def __init__(
        self, current: PartitionState, articles: ArticleTable, model: InterestModel, limits: FoldLimits
    ) -> None:
        self._current = current
        self._articles = articles
        self._model = model
        self._limits = limits
        self._staged: dict[str, _Staged | None] = {}
        self._slots: list[UserRecord] = []
        self._moves = Moves()
        self._nothing = bytes(4 * model.state_size)
        self._swept = False
        self.account = Account(current.partition, current.totals, limits)
        self.statistics = Statistics(current, self.account.totals, articles, limits.co_reads)
        self.users: dict[str, UserRecord | None] = {}
        self.stats: dict[str, ArticleStats | None] = {}
        self.co_reads: dict[str, DecayedSums | None] = {}
        self.absorbs: list[Absorb] = []
        self.limited = 0
        self.expired = 0

    @property
    def totals(self) -> PartitionTotals:
        """The partition's totals; true after :meth:`finish`."""
        return self.account.totals

    @property
    def dropped(self) -> list[Dropped]:
        """Waiting events that a bound pushed out."""
        return self.account.dropped

    @property
    def changed(self) -> bool:
        """Whether there is anything to write; known after :meth:`finish`."""
        return bool(self.users or self.stats or self.co_reads) or self.totals != self._current.totals

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

    def take(self, arrivals: Iterable[Arrival]) -> None:
        """Fold good events in the order of their offsets."""
        arrivals = list(arrivals)
        hashes = event_hashes(self._current.partition, [arrival.offset for arrival in arrivals])
        totals = self.account.totals
        totals.read += len(arrivals)
        for arrival, hashed in zip(arrivals, hashes, strict=True):
            if arrival.timestamp > totals.timestamp:
                totals.timestamp = arrival.timestamp
            self._take_one(arrival, hashed)

    def count_dead(self, records: Sequence[tuple[int, bytes | None]]) -> None:
        """Count records of this partition, timestamp and value, that became dead letters before they came here."""
        self.account.count_dead(records)

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
        self._drop_idle()
        self.account.finish()
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
            self._current.oldest_wait()

    def _take_one(self, arrival: Arrival, hashed: int) -> None:
        offset, timestamp, event, value = arrival
        kind, account = event.kind, self.account
        staged = self._staged.get(event.user_id) or self._stage(event.user_id)
        if staged.windows.waiting:
            account.drop_overdue(event.user_id, staged.windows)
        if kind == "forget":
            self._remove(staged, hashed, kind)
            return
        state = staged.state
        if timestamp - state.timestamp > self._limits.user_ttl_ms and state.timestamp:
            staged = self._restart(staged)
            state = staged.state
        windows = staged.windows
        if event.event_id:
            seen = hash_bytes(event.event_id)
            if find(windows.seen, seen) >= 0:
                account.duplicate[kind] += 1
                return
            windows.seen = push(windows.seen, seen, 8 * self._limits.seen)
        state.timestamp = timestamp
        at = min(timestamp, event.at)
        note_rate(windows, at, timestamp, self._limits.events_per_minute)
        if event.context:
            note_context(windows, event.context)
        if kind in ARTICLE_KINDS and not self._known(event.article_id):
            windows.waiting = (*windows.waiting, Waiting(event.article_id, offset, timestamp, value))
            account.wait(kind)
            account.bound(event.user_id, windows)
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
        account.fold(state, hashed, kind)

    def _article(self, staged: _Staged, event: Event, at: int, *, counts: bool = True) -> None:
        """Take in an event on an article that has a vector or is gone."""
        windows, articles, kind = staged.windows, self._articles, event.kind
        row, bit = articles.rows.get(event.article_id), KIND_BITS[kind]
        hashed = hash_bytes(event.article_id) if row is None else articles.hash_bytes[row]
        first = note_read(windows, hashed, bit, self._limits.read)
        before = windows.recents
        article = int.from_bytes(hashed, "little")
        dwell_ms = min(event.dwell_ms or 0, DWELL_FULL_MS) if kind == "dwell" else 0
        recent = RECENT.pack(article, at, bit << 16 | dwell_ms)
        windows.recents = push(before, recent, RECENT.size * self._limits.recents)
        if row is None:
            return
        if kind == "click" and counts:
            if at < windows.limited_until:
                self.limited += 1
            elif first:
                self.statistics.count(row, at, kind, event.position, event.reason, event.source, windows.region)
                self.statistics.count_next(before, article, at)
        self._move(staged, row, at, weight_of(kind, dwell_ms))

    def _move(self, staged: _Staged, row: int, at: int, weight: float) -> None:
        """Move the vector and the affinity to the article's category; an expired article moves neither."""
        articles = self._articles
        if not weight or 0 < articles.expires_at[row] <= at:
            return
        self._moves.add(staged.slot, at, weight, row)
        category = articles.categories[row]
        if category:
            affinities = staged.affinities
            if affinities is None:
                windows = staged.windows
                epoch = windows.affinities_at // AFFINITY_HALF_LIFE_MS
                affinities = staged.affinities = DecayedSums.of_pairs(epoch, windows.affinities)
            affinities.add(category, at, weight, AFFINITY_HALF_LIFE_MS, self._limits.affinities)

    def _impression(self, staged: _Staged, event: Event, at: int) -> None:
        row_of, hash_of = self._articles.rows.get, self._articles.hash_bytes
        shown = {}
        for item in event.shown:
            row = row_of(item.article_id)
            shown[hash_bytes(item.article_id) if row is None else hash_of[row]] = row, item
        fresh = note_shown(staged.windows, list(shown), self._limits.shown)
        rows = [row for row, _ in shown.values() if row is not None]
        if rows:
            self._moves.add_all(staged.slot, at, IMPRESSION_WEIGHT, rows)
        if at < staged.windows.limited_until:
            self.limited += 1
            return
        region = staged.windows.region
        for (row, item), first in zip(shown.values(), fresh, strict=True):
            if first and row is not None:
                self.statistics.count(row, at, "impression", item.position, item.reason, item.source, region)

    def _target(self, staged: _Staged, event: Event, at: int) -> None:
        """Take in a follow or a mute. The article it was made on counts where it is known."""
        limits, follow = self._limits, event.kind == "follow"
        note_target(staged.windows, event.target, follow=follow, follows=limits.follows, mutes=limits.mutes)
        row = self._articles.row(event.article_id)
        if row is not None:
            self._move(staged, row, at, weight_of(event.kind, 0))

    def _absorb(self, staged: _Staged, absorb: Event, offset: int, timestamp: int) -> None:
        """Take in what another user did: in the statistics already, but for what waited there."""
        windows = staged.windows
        for carried in absorb.events:
            event = decode_carried(carried)
            lay_at = min(carried.timestamp or timestamp, timestamp)
            at, waited = min(event.at, lay_at), carried.offset >= 0
            if event.kind not in ARTICLE_KINDS:
                self._target(staged, event, at)
            elif self._known(event.article_id):
                self._article(staged, event, at, counts=waited)
            else:
                lay = (carried.offset, max(0, carried.partition)) if waited else (offset, self._current.partition)
                value = bytes(carried.event)
                wait = Waiting(event.article_id, lay[0], lay_at, value, carried_from=lay[1], counted=not waited)
                windows.waiting = (*windows.waiting, wait)
        self.account.drop_overdue(staged.user_id, windows)
        self.account.bound(staged.user_id, windows)

    def _remove(self, staged: _Staged, hashed: int, kind: str) -> None:
        """Take a user away; what waited counts as folded."""
        for wait in staged.windows.waiting:
            self.account.fold_waited(None, wait, kind)
        self.account.fold(None, hashed, kind)
        self._staged[staged.user_id] = None

    def _known(self, article_id: str) -> bool:
        return article_id in self._articles.rows or self._articles.is_gone(article_id)

    def _fold_waited(self, staged: _Staged, wait: Waiting) -> None:
        windows, row = staged.windows, self._articles.row(wait.article_id)
        try:
            event = decode_waiting(wait.value)
        except BadRecord as error:  # let in by a version that was less strict
            self.account.drop(staged.user_id, windows, wait, error)
            return
        if windows.cause is None and row is not None and event.kind not in ASKS_FOR_NO_RANKING:
            at = int(self._articles.cause_at[row]) or wait.timestamp
            windows.cause = Cause(kind="article", id=wait.article_id, at=at)
        self._article(staged, event, min(event.at, wait.timestamp), counts=not wait.counted)
        if wait.carried_from < 0:
            staged.state.last_offset = max(staged.state.last_offset, wait.offset)
        self.account.fold_waited(staged.state, wait, event.kind)

    def _sweep(self) -> None:
        """Push out what waited too long, also of users whom nothing in the batch concerned."""
        oldest = self.totals.timestamp - self._limits.waiting_ms
        for staged in self._staged.values():
            if staged is not None and staged.windows.waiting:
                self.account.drop_overdue(staged.user_id, staged.windows)
        if self._current.waits_since >= oldest:
            return
        self._swept = True
        for user_id in sorted({user_id for users in self._current.waiting_for.values() for user_id in users}):
            waiting = self._current.users[user_id].windows.waiting
            if user_id not in self._staged and any(wait.timestamp < oldest for wait in waiting):
                self.account.drop_overdue(user_id, self._stage(user_id).windows)

    def _drop_idle(self) -> None:
        """Drop a few of those who would start anew at their next event."""
        newest = self.totals.timestamp
        for user_id, state in islice(self._current.users.items(), IDLE_AT_ONCE):
            if user_id in self._staged or state.windows.waiting:
                continue
            if newest - state.timestamp <= self._limits.user_ttl_ms:
                return
            self.users[user_id] = None
            self.expired += 1

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
        windows = Windows(waiting=before.windows.waiting, cause=before.windows.cause)
        staged = self._new(before.user_id, UserRecord(self._nothing, windows=windows))
        self._staged[before.user_id] = staged
        return staged
