"""The articles worker: published articles in, vectors out, in micro-batches."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from prometheus_client import Counter, Histogram

from consumers.article_view import CAUSE_HEADER
from contract.errors import BadRecord, TransactionFailed
from contract.messages import Article, decode_article
from contract.records import ArticleMeta, ArticleRecord, encode_article
from contract.settings import Settings
from contract.topics import Topics
from encoders.text import TextEncoder, article_text
from streams.dead_letters import DeadLetter
from streams.group import GroupInput
from streams.health import HealthServer, Pulse
from streams.record import Record
from streams.restore import Restore
from streams.transactions import TransactionalOutput
from streams.worker import Identity, Log, Stop, Stopped

NAME = "articles"
ARTICLES = Counter("stoppress_article_records_total", "Records of articles by outcome", ["outcome"])
BATCH = Histogram(
    "stoppress_encoder_batch_articles", "Articles in a micro-batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
ENCODE_SECONDS = Histogram(
    "stoppress_encoder_seconds", "Tokenising and running one micro-batch",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)  # fmt: skip
PUBLISH_SECONDS = Histogram(
    "stoppress_publish_to_vector_seconds", "From an article's Kafka timestamp to its committed vector",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60),
)  # fmt: skip


class _NoTables:
    """The articles worker keeps no state by partition."""

    def restore(self, restore: Restore) -> None: ...

    def drop(self, partitions: Iterable[int]) -> None: ...


def run(settings: Settings, topics: Topics, encoder: TextEncoder, stop: Stop, health: HealthServer) -> None:
    """Embed until a stop is requested. Blocks; raises :class:`contract.errors.Fenced`."""
    identity = Identity.of(settings, NAME, topics.generation)
    pulse = Pulse(stop, health)
    try:
        output = TransactionalOutput(settings, identity, name=NAME, pulse=pulse)
        source = GroupInput(settings, topics.articles, identity, _NoTables(), name=NAME, changelogs=[], pulse=pulse)
    except Stopped:
        return
    encoder.encode(["warm up"])
    try:
        while not stop.requested:
            # 1. Consume a micro-batch: bounded by count and by waiting time, by tokens in the encoder.
            records = source.consume(settings.encoder_batch_articles, settings.encoder_wait_ms / 1000 or 0.001)
            if not records:
                stop.wait(0.005)
                continue
            # 2. Embed the good ones; what cannot be used becomes a dead letter.
            articles, bad = _decode(records)
            vectors = _embed(encoder, articles)
            try:
                # 3. Write vectors, tombstones, dead letters and offsets in one transaction.
                with output.transaction(source, source.positions_after(records)):
                    for (message, article), record in zip(articles, vectors, strict=True):
                        _send(output, topics.article_vectors, message, article, record)
                    for message, error in bad:
                        DeadLetter.of(message, NAME, error).send(output, topics.dead_letters)
            except TransactionFailed:
                source.reread()
                continue
            _count(articles, bad)
    except Stopped:
        pass
    finally:
        source.close()


Decoded = list[tuple[Record, Article | None]]


def _decode(records: Sequence[Record]) -> tuple[Decoded, list[tuple[Record, BadRecord]]]:
    articles: Decoded = []
    bad = []
    for message in records:
        try:
            articles.append((message, decode_article(message.key(), message.value())))
        except BadRecord as error:
            bad.append((message, error))
            Log(NAME).warning(
                "dead_letter", reason=error.reason, partition=message.partition(), offset=message.offset()
            )
    return articles, bad


def _embed(encoder: TextEncoder, articles: Decoded) -> list[bytes | None]:
    """Return the value to write for each article, None for a withdrawal."""
    present = [article for _, article in articles if article is not None]
    if not present:
        return [None] * len(articles)
    began = time.perf_counter()
    vectors = iter(encoder.encode([article_text(a.title, a.abstract, a.body) for a in present]))
    ENCODE_SECONDS.observe(time.perf_counter() - began)
    BATCH.observe(len(present))
    return [
        None if article is None else encode_article(_record(article, next(vectors), message.timestamp()[1]))
        for message, article in articles
    ]


def _record(article: Article, vector: object, cause_at: int) -> ArticleRecord:
    meta = ArticleMeta(
        article.category, article.tags, article.entities, article.authors,
        article.source, article.language, article.placement,
    )  # fmt: skip
    return ArticleRecord(vector, article.published_at, article.expires_at or 0, cause_at, meta)  # type: ignore[arg-type]


def _send(
    output: TransactionalOutput, topic: str, message: Record, article: Article | None, value: bytes | None
) -> None:
    cause = [(CAUSE_HEADER, str(message.timestamp()[1]).encode())] if article is None else None
    output.send(topic, message.key(), value, message.partition(), cause)


def _count(articles: Decoded, bad: Sequence[object]) -> None:
    now = time.time()
    for message, article in articles:
        ARTICLES.labels("withdrawn" if article is None else "embedded").inc()
        PUBLISH_SECONDS.observe(max(0.0, now - message.timestamp()[1] / 1000))
    ARTICLES.labels("dead").inc(len(bad))
