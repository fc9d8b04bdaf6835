"""What the articles worker has published: of every article its newest version, restored from the vectors' topic."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import Gauge

from consumers.articles_backlog import Version
from contract.errors import UnreadableState
from contract.records import ArticleRecord, decode_article
from contract.settings import Settings
from contract.topics import Topics
from streams.record import Record, text_key
from streams.restore import Restore

NAME = "articles"
OFFSET_HEADER = "article-offset"
TIMESTAMP_HEADER = "article-timestamp"
PUBLISHED = Gauge("stoppress_articles_published", "Articles whose vector is published by this worker")
DAY_MS = 86_400_000


@dataclass(slots=True)
class Published:
    """The newest version of an article that was written; ``value`` None where it is withdrawn or expired.

    ``offset`` and ``timestamp`` are of its record in ``articles``, ``text_hash`` of the text of its
    vector, ``due_at`` when it expires (epoch ms).
    """

    offset: int
    timestamp: int
    text_hash: int = 0
    due_at: int = 0
    value: bytes | None = None

    def is_newer_than(self, offset: int, timestamp: int) -> bool:
        """Whether a record is older than this. The time tells too, for a topic made anew counts from 0 again."""
        return offset < self.offset and timestamp <= self.timestamp

    def record(self) -> ArticleRecord:
        """Decode what was written; not for one that is gone."""
        assert self.value is not None
        return decode_article(self.value)


class PublishedArticles:
    """By partition and article. Who is gone is kept only as long as older records may still be read."""

    def __init__(self, settings: Settings, topics: Topics, dims: int) -> None:
        self._dims = dims
        self._topic = topics.article_vectors
        self._ttl_ms = round(settings.article_ttl_days * DAY_MS)
        self._partitions: dict[int, dict[str, Published]] = {}
        self._due: list[tuple[int, int, str]] = []
        self._gone: dict[int, list[tuple[int, str]]] = defaultdict(list)
        self._count: dict[int, int] = defaultdict(int)

    def __len__(self) -> int:
        """Articles that have a vector now."""
        return sum(self._count.values())

    def get(self, partition: int, article_id: str) -> Published | None:
        return self._partitions[partition].get(article_id)

    def put(self, partition: int, article_id: str, published: Published) -> None:
        """Take what was written as the newest version of an article."""
        before = self.get(partition, article_id)
        self._count[partition] += (published.value is not None) - (before is not None and before.value is not None)
        self._partitions[partition][article_id] = published
        if published.value is None:
            heapq.heappush(self._gone[partition], (published.offset, article_id))
        else:
            heapq.heappush(self._due, (published.due_at, partition, article_id))
            if len(self._due) > 1000 + 2 * sum(map(len, self._partitions.values())):
                self._rebuild_due()

    def due_at(self, published_at: int, expires_at: int) -> int:
        """When an article expires: at its own time, or of age; epoch ms."""
        of_age = published_at + self._ttl_ms
        return min(expires_at, of_age) if expires_at else of_age

    def expiry(self, version: Version) -> int:
        """When this version expires, epoch ms."""
        return self.due_at(version.published_at, version.expires_at)

    def expired(self, now_ms: int, owned: Iterable[int], limit: int) -> list[tuple[int, str]]:
        """Return partition and id of up to ``limit`` articles of ``owned`` that are due, each once."""
        allowed = set(owned)
        due: list[tuple[int, str]] = []
        put_off = []
        while self._due and self._due[0][0] <= now_ms and len(due) < limit:
            entry = at, partition, article_id = heapq.heappop(self._due)
            published = self._partitions.get(partition, {}).get(article_id)
            if published is None or published.value is None or published.due_at != at:
                continue
            if partition in allowed:
                due.append((partition, article_id))
            else:
                put_off.append(entry)
        for entry in put_off:
            heapq.heappush(self._due, entry)
        return list(dict.fromkeys(due))

    def forget_gone(self, partition: int, committed: int) -> None:
        """Forget who is gone, where every record before ``committed`` is finished: nothing older can come."""
        gone = self._gone[partition]
        articles = self._partitions[partition]
        while gone and gone[0][0] < committed:
            offset, article_id = heapq.heappop(gone)
            published = articles.get(article_id)
            if published is not None and published.value is None and published.offset == offset:
                del articles[article_id]

    def restore(self, restore: Restore) -> None:
        """Read the vectors of these partitions to their ends. Blocks."""
        self.drop(restore.committed)
        self._partitions |= {p: {} for p in restore.committed}
        restore.read(self._topic, self._apply)
        self._rebuild_due()
        for partition, offset in restore.committed.items():
            articles = self._partitions[partition]
            self._gone[partition] = sorted((p.offset, id) for id, p in articles.items() if p.value is None)
            self._count[partition] = len(articles) - len(self._gone[partition])
            self.forget_gone(partition, offset)
        self.drop(restore.damaged)

    def drop(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._partitions.pop(partition, None)
            self._gone.pop(partition, None)
            self._count.pop(partition, None)

    def of(self, record: ArticleRecord, value: bytes) -> Published:
        """Return the entry for a record that is or will be written as ``value``."""
        meta = record.meta
        due_at = self.due_at(record.published_at, record.expires_at)
        return Published(meta.offset, record.cause_at, meta.text_hash, due_at, value)

    def _apply(self, record: Record) -> None:
        value = record.value()
        if value is None:
            headers = dict(record.headers() or [])
            try:
                published = Published(int(headers.get(OFFSET_HEADER, -1)), int(headers.get(TIMESTAMP_HEADER, 0)))
            except ValueError as error:
                raise UnreadableState(f"a tombstone's headers are damaged: {error}") from None
        else:
            article = decode_article(value)
            if len(article.vector) != self._dims:
                raise UnreadableState(
                    f"a vector of {len(article.vector)} numbers where this generation has {self._dims}; "
                    "something else than the articles worker wrote it"
                )
            published = self.of(article, value)
        self._partitions[record.partition()][text_key(record)] = published

    def _rebuild_due(self) -> None:
        self._due = [
            (published.due_at, partition, article_id)
            for partition, articles in self._partitions.items()
            for article_id, published in articles.items()
            if published.value is not None
        ]
        heapq.heapify(self._due)
