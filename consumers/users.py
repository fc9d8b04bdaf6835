"""The users worker: events in, user state out, exactly once."""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress

from consumers.article_view import ArticleView
from consumers.batching import Batching
from consumers.user_metrics import WRITE_SECONDS, Measured, count
from consumers.user_tables import Batch, UserTables
from contract.errors import TransactionFailed
from contract.murmur2 import partition_of
from contract.records import PARTITION_KEY, encode_plain, encode_user
from contract.settings import Settings
from contract.topics import Topics
from encoders.fold_rules import CO_READS_HALF_LIFE_MS
from encoders.interest import InterestModel
from streams.dead_letters import DeadLetter
from streams.group import GroupInput
from streams.health import HealthServer, Pulse
from streams.transactions import TransactionalOutput
from streams.worker import Identity, Stop, Stopped

NAME = "users"


def run(settings: Settings, topics: Topics, model: InterestModel, stop: Stop, health: HealthServer) -> None:
    """Fold until a stop is requested. Blocks; raises :class:`contract.errors.Fenced`."""
    identity = Identity.of(settings, NAME, topics.generation)
    changelogs = [topics.user_vectors, topics.article_stats, topics.co_reads]
    pulse = Pulse(stop, health)
    with suppress(Stopped), ExitStack() as stack:
        view = ArticleView(settings, topics.article_vectors, dims=model.dims, name=NAME)
        articles = stack.enter_context(closing(view))
        articles.catch_up(pulse)
        tables = UserTables(settings, topics, model, articles.table)
        group = GroupInput(
            settings, topics.user_events, identity, tables, name=NAME, changelogs=changelogs, pulse=pulse,
            also_read=[topics.article_vectors],
        )  # fmt: skip
        source = stack.enter_context(closing(group))
        output = TransactionalOutput(
            settings, identity, name=NAME, pulse=pulse, reads=topics.user_events,
            writes=[*changelogs, topics.user_events, topics.dead_letters],
        )  # fmt: skip
        batching = Batching(settings.batch_events, settings.batch_wait_ms / 1000)
        measured = Measured()
        while not stop.requested:
            # 1. Consume what has come, more of it the more there is, and the vectors that came meanwhile.
            records = batching.consume(source.consume)
            if not source.assigned:
                continue  # what is revoked may be another's by now
            # 2. Fold on staged state; nothing current is touched.
            batch = tables.fold(records, articles.poll())
            measured.update(tables, source, records)
            if batch.changed:
                try:
                    # 3. Write states, statistics, totals, dead letters and offsets in one transaction.
                    with output.transaction(source, source.positions_after(records)), WRITE_SECONDS.time():
                        _send(output, topics, settings.partitions, batch)
                except TransactionFailed:
                    # 4a. Aborted or unknown: go back to the committed offsets, and restore what they do not fit.
                    source.reread()
                    continue
                # 4b. Committed: what was staged is now current.
                tables.adopt(batch)
                count(batch, records)


def _send(output: TransactionalOutput, topics: Topics, partitions: int, batch: Batch) -> None:
    for partition, fold in batch.folds.items():
        for user_id, state in fold.users.items():
            value = None if state is None else encode_user(state)
            output.send(topics.user_vectors, user_id.encode(), value, partition)
        for article, stats in fold.stats.items():
            value = None if stats is None else encode_plain(stats)
            output.send(topics.article_stats, article.encode(), value, partition)
        for article, sums in fold.co_reads.items():
            value = None if sums is None else encode_plain(sums.to_co_reads(CO_READS_HALF_LIFE_MS))
            output.send(topics.co_reads, article.encode(), value, partition)
        output.send(topics.user_vectors, PARTITION_KEY, encode_plain(fold.totals), partition)
        for absorb in fold.absorbs:
            key = absorb.user_id.encode()
            output.send(topics.user_events, key, absorb.value, partition_of(key, partitions))
        for dropped in fold.dropped:
            error, waited = dropped.error, dropped.waited
            DeadLetter(
                topics.user_events, dropped.partition, waited.offset, NAME, error.reason, error.detail,
                dropped.user_id.encode(), waited.value,
            ).send(output, topics.dead_letters)  # fmt: skip
    for message, error in batch.bad:
        DeadLetter.of(message, NAME, error).send(output, topics.dead_letters)
