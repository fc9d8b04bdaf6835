"""The articles worker: published articles in, vectors out, in micro-batches, the newest first.

It reads ahead of the encoder (:mod:`consumers.articles_backlog`), so outputs may be ahead of the
committed offsets; what is read again after a crash is compared with what is published
(:mod:`consumers.articles_desk`) and never replaces something newer.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, suppress

from prometheus_client import Counter, Histogram

from consumers.articles_desk import Desk, Staged
from consumers.articles_published import NAME
from consumers.articles_reader import Reader
from consumers.articles_runner import ENCODER, Bounds, Runner
from contract.errors import TransactionFailed
from contract.settings import Settings
from contract.topics import Topics
from encoders.text import TextEncoder
from streams.dead_letters import DeadLetter
from streams.group import GroupInput
from streams.health import HealthServer, Pulse
from streams.transactions import TransactionalOutput
from streams.worker import Identity, Stop, Stopped

ARTICLES = Counter("stoppress_article_records_total", "Records of articles by outcome", ["outcome"])
PUBLISH_SECONDS = Histogram(
    "stoppress_publish_to_vector_seconds", "From an article's Kafka timestamp to its committed vector",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60),
)  # fmt: skip


def run(settings: Settings, topics: Topics, encoder: TextEncoder, stop: Stop, health: HealthServer) -> None:
    """Embed until a stop is requested. Blocks; raises :class:`contract.errors.Fenced`."""
    identity = Identity.of(settings, NAME, topics.generation)
    changelogs = [topics.article_vectors]
    pulse = Pulse(stop, health)
    desk = Desk(settings, topics, encoder)
    bounds = Bounds.of(settings, encoder)
    ENCODER.info({"provider": encoder.provider, "model": encoder.manifest.model, "generation": topics.generation})
    with suppress(Stopped), ExitStack() as stack:
        output = TransactionalOutput(
            settings, identity, name=NAME, pulse=pulse, reads=topics.articles, writes=[*changelogs, topics.dead_letters]
        )
        group = GroupInput(settings, topics.articles, identity, desk, name=NAME, changelogs=changelogs, pulse=pulse)
        runner = stack.enter_context(closing(Runner(encoder)))
        source = stack.enter_context(closing(group))
        reader = Reader(source, desk, runner, bounds)
        while not stop.requested:
            # 1. Read ahead; while there is more to read nothing new is run, so that the newest is known.
            records = reader.read()
            desk.keep_to(source.assigned)
            # 2. Stage what needs no new vector, what the encoder has done, and what has expired.
            desk.take_records(records, now := _now_ms())
            if (embedded := runner.collect()) is not None:
                desk.take_vectors(embedded)
            if reader.may_run() and (batch := desk.take_batch(bounds.articles, bounds.tokens, now)):
                runner.start(batch)
            desk.expire(source.assigned, now)
            try:
                # 3. Write what is staged and the offsets before which all is finished in one transaction.
                _commit(output, source, desk, topics)
            except TransactionFailed:
                # 4. Aborted or unknown: read offsets and what is published again.
                desk.abandon()
                source.reread(keep=False)
            reader.measure()


def _commit(output: TransactionalOutput, source: GroupInput, desk: Desk, topics: Topics) -> None:
    committed = source.positions_after([])
    positions = desk.positions(committed)
    staged = desk.staged
    if positions and (staged.values or staged.dead or positions != committed):
        with output.transaction(source, positions):
            for (partition, article_id), (value, headers) in staged.values.items():
                output.send(topics.article_vectors, article_id.encode(), value, partition, headers)
            for record, error in staged.dead:
                DeadLetter.of(record, NAME, error).send(output, topics.dead_letters)
    _count(desk.adopt(positions))


def _count(staged: Staged) -> None:
    for outcome, count in staged.outcomes.items():
        ARTICLES.labels(outcome).inc(count)
    now = _now_ms()
    for timestamp in staged.published:
        PUBLISH_SECONDS.observe(max(0, now - timestamp) / 1000)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
