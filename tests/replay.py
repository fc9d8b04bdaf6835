"""Runs a log through the fold in batches, as the users worker does, and checks at each batch what is always true."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from contract.records import decode_stats, decode_totals, decode_user, encode_plain, encode_user
from encoders.articles import ArticleTable
from encoders.fold import Dropped, Fold, FoldLimits
from encoders.user_state import PartitionState, UserState
from tests.strategies import LIMITS, MODEL, PARTITION, Change, Op, Record


@dataclass
class Replay:
    """A partition's state and what it took to get there; ``restoring`` reads it anew after each batch."""

    limits: FoldLimits = LIMITS
    restoring: bool = False
    state: PartitionState = field(default_factory=lambda: PartitionState(PARTITION))
    articles: ArticleTable = field(default_factory=lambda: ArticleTable(MODEL.dims, capacity=1))
    dropped: list[Dropped] = field(default_factory=list)

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

    def take(self, batch: list[Op]) -> None:
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
        fold.count_dead([record.timestamp for record in records if record.event is None])
        fold.finish()
        assert everything(self.state) == before, "nothing current is touched before adopt()"
        fold.adopt()
        self.dropped += fold.dropped
        check_always_true(self.state, self.limits)
        if self.restoring:
            self.state = restored(self.state)


def everything(state: PartitionState) -> Any:
    """All of a partition's state as plain values; vectors and windows by their exact bytes."""
    users = {user_id: encode_user(user.to_record()) for user_id, user in state.users.items()}
    stats = {article_id: encode_plain(stats) for article_id, stats in state.stats.items()}
    waiting_for = {article_id: sorted(users) for article_id, users in state.waiting_for.items()}
    return users, stats, encode_plain(state.totals), waiting_for, state.waits_since


def restored(state: PartitionState) -> PartitionState:
    """The state as another worker reads it from its records."""
    again = PartitionState(state.partition, totals=decode_totals(encode_plain(state.totals)))
    for user_id, user in state.users.items():
        again.put(user_id, UserState.from_record(decode_user(encode_user(user.to_record()))))
    for article_id, stats in state.stats.items():
        again.put_stats(article_id, decode_stats(encode_plain(stats)))
    return again


def check_always_true(state: PartitionState, limits: FoldLimits) -> None:
    totals = state.totals
    assert totals.read == totals.folded + totals.waiting + totals.duplicate + totals.dead
    waits = [(wait.article_id, user_id) for user_id, user in state.users.items() for wait in user.waiting]
    assert totals.waiting == len(waits)
    assert {(article_id, user) for article_id, users in state.waiting_for.items() for user in users} == set(waits)
    oldest = min((wait.timestamp for user in state.users.values() for wait in user.waiting), default=None)
    assert oldest is None or totals.timestamp - limits.waiting_ms <= oldest
    assert oldest is None or state.waits_since <= oldest
    for user in state.users.values():
        assert len(user.waiting) <= limits.waiting_clicks
        assert [wait.offset for wait in user.waiting] == sorted(wait.offset for wait in user.waiting)
        assert len(user.read) == len(set(user.read)) <= limits.read
        assert len(user.seen) == len(set(user.seen)) <= limits.seen
        assert len(user.shown) == len(set(user.shown)) == len(user.shown_counts) <= limits.shown
        assert np.isfinite(user.vector).all()


def integers(state: PartitionState) -> Any:
    """Everything that must be the same to the last bit however a log was cut: all but vectors, counts and causes."""
    users = {
        user_id: (
            user.at, user.timestamp, user.last_offset, user.folded, user.hash_sum, user.read.tolist(),
            user.seen.tolist(), user.shown.tolist(), bytes(user.shown_counts), user.waiting,
        )
        for user_id, user in state.users.items()
    }  # fmt: skip
    return (
        users,
        {article_id: stats.at for article_id, stats in state.stats.items()},
        msgspec.structs.asdict(state.totals),
    )
