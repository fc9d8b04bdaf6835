"""Runs a log through the fold in batches, as the users worker does, and checks at each batch what is always true."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from contract.records import (
    RECENT,
    UserRecord,
    decode_co_reads,
    decode_stats,
    decode_totals,
    decode_user,
    encode_plain,
    encode_user,
)
from encoders.articles import ArticleTable
from encoders.decayed import DecayedSums
from encoders.fold import Fold
from encoders.fold_rules import CO_READS_HALF_LIFE_MS, Absorb, Dropped, FoldLimits
from encoders.user_state import PartitionState
from tests.strategies import LIMITS, MODEL, PARTITION, Change, Op, Record


@dataclass
class Replay:
    """A partition's state and what it took to get there; ``restoring`` reads it anew after each batch."""

    limits: FoldLimits = LIMITS
    restoring: bool = False
    partition: int = PARTITION
    state: PartitionState = field(init=False)
    articles: ArticleTable = field(default_factory=lambda: ArticleTable(MODEL.dims, capacity=1))
    dropped: list[Dropped] = field(default_factory=list)
    absorbs: list[Absorb] = field(default_factory=list)
    limited: int = 0

    def __post_init__(self) -> None:
        self.state = PartitionState(self.partition)

    def run(self, ops: list[Op], cuts: Collection[int] = ()) -> Replay:
        """Take ``ops`` in batches that end before each of ``cuts`` and before each change of an article."""
        batch: list[Op] = []
        for i, op in enumerate(ops):
            if batch and (i in cuts or isinstance(op, Change)):
                self.take(batch)
                batch = []
            batch.append(op)
        if batch:
            self.take(batch)
        return self

    def take(self, batch: list[Op]) -> Fold:
        changes = [op for op in batch if isinstance(op, Change)]
        records = [op for op in batch if isinstance(op, Record)]
        for change in changes:
            if change.record is None:
                self.articles.withdraw(change.article_id)
            else:
                self.articles.put(change.article_id, change.record)
        before = everything(self.state)
        fold = Fold(self.state, self.articles, MODEL, self.limits)
        fold.settle([change.article_id for change in changes])
        fold.take(record.arrival() for record in records if record.event is not None)
        fold.count_dead([(record.timestamp, None) for record in records if record.event is None])
        fold.finish()
        assert everything(self.state) == before, "nothing current is touched before adopt()"
        fold.adopt()
        self.dropped += fold.dropped
        self.absorbs += fold.absorbs
        self.limited += fold.limited
        check_always_true(self.state, self.limits)
        if self.restoring:
            self.state = restored(self.state)
        return fold


def everything(state: PartitionState) -> Any:
    """All of a partition's state as plain values; vectors and windows by their exact bytes."""
    users = {user_id: encode_user(user) for user_id, user in state.users.items()}
    stats = {key: encode_plain(stats) for key, stats in state.stats.items()}
    co_reads = {article_id: (sums.epoch, dict(sums.sums)) for article_id, sums in state.co_reads.items()}
    waiting_for = {article_id: sorted(users) for article_id, users in state.waiting_for.items()}
    return users, stats, co_reads, encode_plain(state.totals), waiting_for, state.waits_since


def restored(state: PartitionState) -> PartitionState:
    """The state as another worker reads it from its records."""
    again = PartitionState(state.partition, totals=decode_totals(encode_plain(state.totals)))
    for user_id, user in state.users.items():
        again.put(user_id, decode_user(encode_user(user)))
    for key, stats in state.stats.items():
        again.put_stats(key, decode_stats(encode_plain(stats)))
    for article_id, sums in state.co_reads.items():
        record = decode_co_reads(encode_plain(sums.to_co_reads(CO_READS_HALF_LIFE_MS)))
        again.put_co_reads(article_id, DecayedSums.of(record, CO_READS_HALF_LIFE_MS))
    return again


def check_always_true(state: PartitionState, limits: FoldLimits) -> None:
    totals = state.totals
    assert totals.read == totals.folded + totals.waiting + totals.duplicate + totals.dead
    waits = [(wait, user_id) for user_id, user in state.users.items() for wait in user.windows.waiting]
    assert totals.waiting == sum(wait.carried_from < 0 for wait, _ in waits)
    assert {(article_id, user) for article_id, users in state.waiting_for.items() for user in users} == {
        (wait.article_id, user_id) for wait, user_id in waits
    }
    oldest = min((wait.timestamp for wait, _ in waits), default=None)
    assert oldest is None or totals.timestamp - limits.waiting_ms <= oldest
    assert oldest is None or state.waits_since <= oldest
    for user in state.users.values():
        w = user.windows
        own = [wait.offset for wait in w.waiting if wait.carried_from < 0]
        assert len(w.waiting) <= limits.waiting_clicks
        assert own == sorted(own)
        assert len(w.read) == 8 * len(set(hashes(w.read))) <= 8 * limits.read
        assert len(w.seen) == 8 * len(set(hashes(w.seen))) <= 8 * limits.seen
        assert len(w.shown) == 8 * len(set(hashes(w.shown))) == 8 * len(w.shown_counts) <= 8 * limits.shown
        assert len(w.recents) <= RECENT.size * limits.recents
        assert len(w.affinities) <= 16 * limits.affinities
        assert len(w.follows) <= limits.follows
        assert len(w.mutes) <= limits.mutes
        assert not set(w.follows) & set(w.mutes)
        assert np.isfinite(user.vector).all()
    assert all(len(sums.sums) <= limits.co_reads for sums in state.co_reads.values())


def hashes(window: bytes) -> list[int]:
    """The 64-bit numbers of a window."""
    numbers: list[int] = np.frombuffer(window, "<u8").tolist()
    return numbers


def staying(state: PartitionState, user_ttl_ms: int = LIMITS.user_ttl_ms) -> dict[str, UserRecord]:
    """The users whose next event will not let them start anew: of others the row may be there or not."""
    return {
        user_id: user
        for user_id, user in state.users.items()
        if user.windows.waiting or state.totals.timestamp - user.timestamp <= user_ttl_ms
    }


def integers(state: PartitionState, user_ttl_ms: int = LIMITS.user_ttl_ms) -> Any:
    """Everything that must be the same to the last bit however a log was cut: all but vectors, statistics and causes.

    Affinities and co-reads are among it: what is pushed out of them must not hang on rounding.
    """
    users = {}
    for user_id, user in staying(state, user_ttl_ms).items():
        windows = msgspec.structs.asdict(user.windows) | {"cause": None}
        users[user_id] = (user.at, user.timestamp, user.last_offset, user.folded, user.hash_sum, windows)
    return (
        users,
        {key: (stats.at, sorted(stats.positions), sorted(stats.reasons)) for key, stats in state.stats.items()},
        {article_id: (sums.epoch, sums.sums) for article_id, sums in state.co_reads.items()},
        msgspec.structs.asdict(state.totals),
    )
