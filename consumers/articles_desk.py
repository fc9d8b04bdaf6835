"""What becomes of each article: staged for the next transaction, or left waiting for its vector.

Whatever needs no new vector is staged at once: a withdrawal, an expiry, a change of metadata (a hold
is one). A new text waits in the backlog; if its article has a vector already, the new metadata goes
out at once with the vector of the old text. A dead letter is written in the transaction that
commits its offset, so that it is there once.

Everything staged is either committed before the next record is read, or all tables are restored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from consumers.article_view import CAUSE_HEADER
from consumers.articles_backlog import Backlog, Version
from consumers.articles_intake import read, tokenise
from consumers.articles_published import NAME, OFFSET_HEADER, TIMESTAMP_HEADER, Published, PublishedArticles
from consumers.articles_runner import Embedded
from consumers.editors_log import log_change, log_withdrawal
from contract.errors import BadRecord
from contract.records import ArticleMeta, ArticleRecord, encode_article
from contract.settings import Settings
from contract.topics import Topics
from encoders.text import TextEncoder
from streams.one_record import read_record
from streams.record import Record, text_key
from streams.restore import Restore
from streams.worker import Log

EXPIRED_AT_ONCE = 500
HELD_BYTES = 64 << 20
Key = tuple[int, str]
Headers = list[tuple[str, bytes]]


@dataclass
class Staged:
    """For one transaction: the newest value by partition and article, dead letters, and what to count.

    ``published`` are the Kafka timestamps (epoch ms) of the records whose outcome this is.
    """

    values: dict[Key, tuple[bytes | None, Headers | None]] = field(default_factory=dict)
    dead: list[tuple[Record, BadRecord]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    published: list[int] = field(default_factory=list)


class Desk:
    """Decides on records, vectors and expiries; the tables of :class:`streams.group.GroupInput`."""

    def __init__(self, settings: Settings, topics: Topics, encoder: TextEncoder) -> None:
        self._settings = settings
        self._topics = topics
        self._encoder = encoder
        self.published = PublishedArticles(settings, topics, encoder.dims)
        self._dead: dict[int, dict[int, tuple[Record, BadRecord]]] = {}
        self._dead_bytes = 0
        self.backlog = Backlog(settings.encoder_read_ahead)
        self.staged = Staged()

    def restore(self, restore: Restore) -> None:
        """Begin anew with these partitions. Blocks."""
        self._forget(restore.committed)
        self.published.restore(restore)

    def drop(self, partitions: Iterable[int]) -> None:
        self._forget(partitions)
        self.published.drop(partitions)

    def keep_to(self, owned: Sequence[int]) -> None:
        """Forget what was read ahead of partitions that are no longer owned: it is read again if they return."""
        gone = (self.backlog.partitions() | self._dead.keys()) - set(owned)
        if gone:
            self._forget(gone)

    def take_records(self, records: Sequence[Record], now_ms: int) -> None:
        """Stage what can be written at once, and let wait what needs a vector."""
        versions: list[Version] = []
        texts: list[str] = []
        origin: list[Record] = []
        # An id may be met twice among these records, so what is not a new text must keep its place among them.
        steps: list[Record | int] = []
        for record in records:
            try:
                found = read(record)
            except BadRecord as error:
                self._bury(record, error)
                continue
            if found is None:
                steps.append(record)
            elif self._is_done(found[0]):
                self.staged.outcomes["skipped"] += 1
            elif not self.backlog.is_unfinished(record.partition(), record.offset()):
                steps.append(len(versions))
                versions.append(found[0])
                texts.append(found[1])
                origin.append(record)
        tokens = tokenise(self._encoder, texts) if texts else []
        for step in steps:
            if not isinstance(step, int):
                self._withdraw(step)
            elif isinstance(made := tokens[step], BadRecord):
                self._bury(origin[step], made)
            else:
                versions[step].tokens = made
                self._admit(versions[step], now_ms)
        for record in records:
            self.backlog.passed(record.partition(), record.offset())

    def take_vectors(self, embedded: Embedded) -> None:
        """Stage the vectors of a batch, with the newest metadata of each article."""
        for row, version in enumerate(embedded.batch):
            if not self.backlog.end_run(version):
                continue
            newer = self.backlog.waiting(*version.key)
            if newer is None and self._is_done(version):
                self.staged.outcomes["superseded"] += 1
                continue
            if row in embedded.failed:
                self._bury_again(version, embedded.failed[row])
                continue
            if newer is not None and newer.text_hash == version.text_hash:
                self.backlog.cancel(*version.key)
                self._count("unchanged", newer)
            self._write(newer or version, embedded.vectors[row], version.text_hash)
            self._count("embedded", version)

    def take_batch(self, max_articles: int, max_tokens: int, now_ms: int) -> list[Version]:
        """Return the next batch to run; what expired while it waited is staged instead."""
        batch = []
        for version in self.backlog.take(max_articles, max_tokens):
            if self.published.expiry(version) > now_ms:
                batch.append(version)
            else:
                self.backlog.end_run(version)
                self._expire(version, now_ms)
        return batch

    def expire(self, owned: Sequence[int], now_ms: int) -> None:
        """Stage the tombstones of articles that are due, a bounded number at once."""
        for partition, article_id in self.published.expired(now_ms, owned, EXPIRED_AT_ONCE):
            published = self.published.get(partition, article_id)
            assert published is not None
            self._bring_down(partition, article_id, published.offset, published.timestamp, published.due_at)
            self.staged.outcomes["expired"] += 1

    def positions(self, committed: Mapping[int, int]) -> dict[int, int]:
        """Return for every owned partition the offset before which all is finished, and stage dead letters up to it."""
        finished = {p: self.backlog.committable(p) for p in committed}
        positions = {p: offset if (f := finished[p]) is None else f for p, offset in committed.items()}
        flush = self._dead_bytes > HELD_BYTES
        for partition, position in positions.items():
            held = self._dead.get(partition, {})
            for offset in sorted(offset for offset in held if flush or offset < position):
                record, error = held.pop(offset)
                self._dead_bytes -= len(record.value() or b"")
                self.staged.dead.append((record, error))
        return positions

    def adopt(self, positions: Mapping[int, int]) -> Staged:
        """Begin a new transaction; only after a known commit. Returns what was committed."""
        for partition, position in positions.items():
            self.published.forget_gone(partition, position)
        return self.abandon()

    def abandon(self) -> Staged:
        """Begin with nothing staged; return what was."""
        staged, self.staged = self.staged, Staged()
        return staged

    def _is_done(self, version: Version) -> bool:
        """Whether this version, or a newer one, is published with the vector of its own text."""
        published = self.published.get(*version.key)
        if published is None:
            return False
        if published.is_newer_than(version.offset, version.timestamp):
            return True
        same = (published.offset, published.timestamp) == (version.offset, version.timestamp)
        return same and (published.value is None or published.text_hash == version.text_hash)

    def _admit(self, version: Version, now_ms: int) -> None:
        if self._is_done(version):
            self.staged.outcomes["skipped"] += 1
            return
        log_change(self.published.get(*version.key), version)
        self._supersede(*version.key)
        if self.published.expiry(version) <= now_ms:
            self._expire(version, now_ms)
            return
        published = self.published.get(*version.key)
        if published is None or published.value is None:
            self.backlog.add(version)
            return
        record = published.record()
        if published.text_hash == version.text_hash:
            self._write(version, record.vector, published.text_hash)
            self._count("unchanged", version)
            return
        self.backlog.add(version)
        if _metadata(record) != (version.published_at, version.expires_at, _plain(version.meta)):
            self._write(version, record.vector, published.text_hash)

    def _withdraw(self, record: Record) -> None:
        partition, article_id = record.partition(), text_key(record)
        published = self.published.get(partition, article_id)
        offset, timestamp = record.offset(), record.timestamp()[1]
        done = published is not None and (
            published.is_newer_than(offset, timestamp) or (published.offset, published.timestamp) == (offset, timestamp)
        )
        if done:
            self.staged.outcomes["skipped"] += 1
            return
        log_withdrawal(record)
        self._supersede(partition, article_id)
        self._bring_down(partition, article_id, offset, timestamp, timestamp)
        self.staged.outcomes["withdrawn"] += 1
        self.staged.published.append(timestamp)

    def _supersede(self, partition: int, article_id: str) -> None:
        if self.backlog.cancel(partition, article_id) is not None:
            self.staged.outcomes["superseded"] += 1

    def _expire(self, version: Version, now_ms: int) -> None:
        cause_at = min(now_ms, max(version.timestamp, self.published.expiry(version)))
        self._bring_down(*version.key, version.offset, version.timestamp, cause_at)
        self._count("expired", version)

    def _bring_down(self, partition: int, article_id: str, offset: int, timestamp: int, cause_at: int) -> None:
        headers = [
            (CAUSE_HEADER, str(cause_at).encode()),
            (OFFSET_HEADER, str(offset).encode()),
            (TIMESTAMP_HEADER, str(timestamp).encode()),
        ]
        self.staged.values[partition, article_id] = None, headers
        self.published.put(partition, article_id, Published(offset, timestamp))

    def _write(self, version: Version, vector: NDArray[np.float32], text_hash: int) -> None:
        meta = msgspec.structs.replace(version.meta, text_hash=text_hash)
        record = ArticleRecord(vector, version.published_at, version.expires_at, version.timestamp, meta)
        value = encode_article(record)
        self.staged.values[version.key] = value, None
        self.published.put(*version.key, self.published.of(record, value))

    def _count(self, outcome: str, version: Version) -> None:
        self.staged.outcomes[outcome] += 1
        self.staged.published.append(version.timestamp)

    def _bury(self, record: Record, error: BadRecord) -> None:
        """Hold a dead letter until its offset is committed."""
        held = self._dead.setdefault(record.partition(), {})
        if record.offset() in held:
            return
        held[record.offset()] = record, error
        self._dead_bytes += len(record.value() or b"")
        self.staged.outcomes["dead"] += 1
        Log(NAME).warning("dead_letter", reason=error.reason, partition=record.partition(), offset=record.offset())

    def _bury_again(self, version: Version, error: BadRecord) -> None:
        """The same for a version whose record was let go: its original bytes are read once more."""
        record = read_record(
            self._settings, self._topics.articles, version.partition, version.offset, name=f"{NAME}.dead"
        )
        if record is not None:
            self._bury(record, error)

    def _forget(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.backlog.drop(partition)
            for record, _ in self._dead.pop(partition, {}).values():
                self._dead_bytes -= len(record.value() or b"")


def _metadata(record: ArticleRecord) -> tuple[int, int, ArticleMeta]:
    return record.published_at, record.expires_at, _plain(record.meta)


def _plain(meta: ArticleMeta) -> ArticleMeta:
    """The metadata without what tells versions apart."""
    return msgspec.structs.replace(meta, offset=-1, text_hash=0)
