"""The ranker's tables: whose list is due and why, and what it is to be.

A list is due when its user's state changed by an event that asks for it, when an article would
enter it, when an article in it is gone, and in a slow refresh. Nothing here is staged: where a
transaction fails, all of it is dropped and restored.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from consumers.article_view import ArticleChange
from consumers.ranker_catalogue import FreshArticles
from contract.errors import BadRecord
from contract.messages import POPULAR, Cause, Item, List, decode
from contract.murmur2 import partition_of
from contract.records import PARTITION_KEY, decode_user
from contract.settings import Settings
from contract.topics import Topics
from encoders.articles import hash64
from encoders.decay import Decay
from ranking.readers import ReaderTable
from ranking.reasons import SOURCE_OF, reason_of
from ranking.scoring import PARTS, Ranked, Weights, common_parts, concerned, rank
from streams.record import Record, text_key
from streams.table import read_to_end
from streams.worker import Log

PRIORITY = {"withdrawal": 0, "event": 1, "article": 2, "start": 3, "refresh": 4}
BATCH_USERS = 512
REFRESH_USERS = 128
SCORES_AT_ONCE = 8_000_000


@dataclass(frozen=True)
class Publication:
    """What is to be written to ``recommendations``; ``result`` None takes the list away."""

    user_id: str
    partition: int
    result: List | None


class RankerLists:
    """Users of the owned partitions and their lists."""

    def __init__(
        self, settings: Settings, topics: Topics, model: Decay, fresh: FreshArticles, weights: Weights | None = None
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._model = model
        self._fresh = fresh
        self._weights = weights or Weights()
        self._readers = ReaderTable(model.dims, settings.list_length)
        self._owned: set[int] = set()
        self._pending: dict[str, Cause] = {}
        self._forgotten: dict[str, int] = {}
        self._popular_partition = partition_of(POPULAR.encode(), settings.partitions)
        self._popular_at = 0

    def user_count(self) -> int:
        return len(self._readers)

    def put_off(self) -> int:
        """How many users wait for their ranking."""
        return len(self._pending)

    def restore(self, committed: dict[int, int]) -> None:
        """Read users up to their committed offsets, and their present lists. Blocks."""
        partitions = list(committed)
        name = "ranker.restore"
        for record in read_to_end(self._settings, self._topics.user_vectors, name=name, partitions=partitions):
            if record.offset() < committed[record.partition()]:
                self._put_user(record)
        for record in read_to_end(self._settings, self._topics.recommendations, name=name, partitions=partitions):
            self._put_list(record)
        self._owned.update(partitions)
        Log("ranker").info("restored", partitions=len(partitions), users=len(self._readers))

    def drop(self, partitions: Iterable[int]) -> None:
        gone = set(partitions)
        self._readers.drop_partitions(gone)
        self._owned -= gone
        self._pending = {u: cause for u, cause in self._pending.items() if self._readers.row(u) is not None}
        self._forgotten = {u: p for u, p in self._forgotten.items() if p not in gone}

    def take_users(self, records: Iterable[Record], now_ms: int) -> None:
        """Take in changed user states; a cause in them makes the list due."""
        for record in records:
            cause = self._put_user(record, now_ms)
            if cause is not None:
                self._due(text_key(record), cause)

    def take_articles(self, changes: Sequence[ArticleChange], now_ms: int) -> None:
        """Find the users whom publications and withdrawals concern."""
        changed = self._fresh.refresh(changes, now_ms)
        if changed.left:
            cause = {hash64(c.id): c for c in changed.left}
            hashes = np.fromiter(cause, np.uint64, len(cause))
            for row in self._readers.holding(hashes):
                held = next(c for h, c in cause.items() if h in self._readers.listed[row])
                self._due(self._readers.ids[row], held)
        if changed.entered:
            self._trigger(changed.entered, now_ms)

    def due(self, now_ms: int) -> list[tuple[str, Cause]]:
        """Return whom to rank now, the most urgent first, and take them off the list of those who wait."""
        if len(self._pending) > BATCH_USERS:
            order = sorted(self._pending.items(), key=lambda item: (PRIORITY[item[1].kind], item[1].at))[:BATCH_USERS]
        else:
            order = list(self._pending.items())
        for user_id, _ in order:
            del self._pending[user_id]
        if len(order) < BATCH_USERS:
            order += self._slow_refresh(now_ms)
        return order

    def rank(self, due: Sequence[tuple[str, Cause]], now_ms: int) -> Iterator[Publication]:
        """Rank users and yield the lists that are not as they were, tombstones first."""
        for user_id, partition in self._forgotten.items():
            yield Publication(user_id, partition, None)
        self._forgotten = {}
        catalogue = self._fresh.catalogue
        chunk = max(1, SCORES_AT_ONCE // max(1, len(catalogue.ids)))
        for start in range(0, len(due), chunk):
            part = [(row, cause) for user_id, cause in due[start : start + chunk]
                    if (row := self._readers.row(user_id)) is not None]  # fmt: skip
            rows = [row for row, _ in part]
            readers = self._readers.readers(rows)
            ranked = rank(readers, catalogue, self._weights, self._settings.list_length, now_ms)
            self._readers.note(rows, ranked, now_ms)
            cold = np.logical_not(readers.queries.any(axis=(1, 2))).tolist()
            for i, (row, cause) in enumerate(part):
                hashes = np.where(ranked.places[i] >= 0, catalogue.hashes[ranked.places[i]], 0) if catalogue.ids else 0
                if not np.array_equal(self._readers.listed[row], np.broadcast_to(hashes, self._settings.list_length)):
                    self._readers.listed[row] = hashes
                    user_id = self._readers.ids[row]
                    result = self._list(user_id, ranked, i, cause, now_ms, fallback=cold[i])
                    yield Publication(user_id, int(self._readers.partition[row]), result)

    def _put_user(self, record: Record, now_ms: int = 0) -> Cause | None:
        if record.key() == PARTITION_KEY:
            return None
        user_id, value = text_key(record), record.value()
        if value is None:
            self._pending.pop(user_id, None)
            if self._readers.drop(user_id) and now_ms:
                self._forgotten[user_id] = record.partition()
            return None
        self._forgotten.pop(user_id, None)
        user = decode_user(value)
        known = self._readers.row(user_id) is not None
        row = self._readers.put(user_id, record.partition(), user, self._model.query(user.vector[None])[0])
        if not known:
            self._readers.ranked_at[row] = now_ms
        return user.windows.cause

    def _put_list(self, record: Record) -> None:
        user_id = text_key(record)
        if record.value() is None:
            return
        try:
            items = decode(List, record.value()).items
        except BadRecord:
            return
        if user_id == POPULAR:
            row = self._readers.add(POPULAR, record.partition())
        else:
            present = self._readers.row(user_id)
            if present is None:
                return
            row = present
        hashes = [hash64(item.article_id) for item in items][: self._settings.list_length]
        self._readers.listed[row] = 0
        self._readers.listed[row, : len(hashes)] = hashes

    def _due(self, user_id: str, cause: Cause) -> None:
        """Keep the oldest cause of those not yet reflected."""
        before = self._pending.get(user_id)
        if before is None or cause.at < before.at:
            self._pending[user_id] = cause

    def _trigger(self, entered: Sequence[Cause], now_ms: int) -> None:
        catalogue = self._fresh.catalogue
        entered = sorted(entered, key=lambda cause: cause.at)
        places = catalogue.places(np.array([hash64(cause.id) for cause in entered], np.uint64))
        common = common_parts(catalogue, self._weights, now_ms).sum(axis=0)[places]
        entering = concerned(self._readers.trigger, self._readers.entry, catalogue.vectors[places], common)
        first = entering.argmax(axis=1)
        for row in np.flatnonzero(entering.any(axis=1) & (self._readers.partition >= 0)):
            self._due(self._readers.ids[row], entered[first[row]])

    def _slow_refresh(self, now_ms: int) -> list[tuple[str, Cause]]:
        """Those not ranked since they were restored, those ranked longest ago, and the popular list."""
        readers = self._readers
        if self._popular_partition in self._owned and now_ms >= self._popular_at and self._fresh.catalogue.ids:
            self._popular_at = now_ms + round(self._settings.popular_seconds * 1000)
            readers.ranked_at[readers.add(POPULAR, self._popular_partition)] = 1
        overdue = now_ms - round(self._settings.refresh_seconds * 1000)
        rows = np.flatnonzero((readers.partition >= 0) & (readers.ranked_at < overdue))
        if len(rows) > REFRESH_USERS:
            rows = rows[np.argpartition(readers.ranked_at[rows], REFRESH_USERS)[:REFRESH_USERS]]
        return [
            (readers.ids[row], Cause(kind="refresh" if readers.ranked_at[row] else "start", id="", at=now_ms))
            for row in rows
        ]

    def _list(self, user_id: str, ranked: Ranked, i: int, cause: Cause, now_ms: int, fallback: bool) -> List:
        ids = self._fresh.catalogue.ids
        items = []
        for place, score, parts in zip(
            ranked.places[i].tolist(), ranked.scores[i].tolist(), ranked.parts[i].tolist(), strict=True
        ):
            if place < 0:
                break
            reason = reason_of(parts)
            items.append(
                Item(
                    article_id=ids[place],
                    score=round(score, 4),
                    reason=reason,
                    source=SOURCE_OF[reason],
                    parts=dict(zip(PARTS, [round(p, 4) for p in parts], strict=True)) if self._settings.explain else {},
                )
            )
        return List(
            user_id=user_id,
            list_id=secrets.token_hex(8),
            generated_at=int(time.time() * 1000),
            cause=cause,
            generation=self._topics.generation,
            items=items,
            fallback=fallback,
        )
