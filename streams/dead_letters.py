"""What could not be used: kept as it came, listed, and sent again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import TopicPartition
from prometheus_client import Counter

from contract.errors import BadRecord
from contract.settings import Settings
from streams.clients import make_consumer, make_producer
from streams.record import Record
from streams.table import read_to_end

DEAD_LETTERS = Counter(
    "stoppress_dead_letters_total", "Records that could not be used, by worker and reason", ["worker", "reason"]
)


@dataclass(frozen=True)
class DeadLetter:
    """One record of ``dead-letters``: the original bytes and where they came from."""

    topic: str
    partition: int
    offset: int
    worker: str
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


def headers_of(topic: str, partition: int, offset: int, worker: str, error: BadRecord) -> list[tuple[str, bytes]]:
    """Return the headers that go with the original key and value."""
    DEAD_LETTERS.labels(worker, error.reason).inc()
    return [
        ("topic", topic.encode()),
        ("partition", str(partition).encode()),
        ("offset", str(offset).encode()),
        ("worker", worker.encode()),
        ("reason", error.reason.encode()),
        ("detail", error.detail[:1000].encode(errors="replace")),
    ]


def read(record: Record) -> DeadLetter:
    """Return the dead letter in a record of ``dead-letters``."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers() or []}
    return DeadLetter(
        topic=headers.get("topic", ""),
        partition=int(headers.get("partition", -1)),
        offset=int(headers.get("offset", -1)),
        worker=headers.get("worker", ""),
        reason=headers.get("reason", ""),
        detail=headers.get("detail", ""),
        key=record.key(),
        value=record.value(),
        timestamp_ms=record.timestamp()[1],
    )


def letters(settings: Settings, topic: str) -> Iterator[DeadLetter]:
    """Yield all dead letters that there are now, partition by partition."""
    yield from map(read, read_to_end(settings, topic, name="dead-letters"))


def requeue(settings: Settings, topic: str, reason: str) -> int:
    """Send every dead letter of ``reason`` to its topic again, each once; return how many.

    The group's offsets move in the same transaction, so a second call sends only newer ones.
    """
    name = f"dead-letters.requeue.{reason}"
    group = f"{settings.namespace}{name}"
    producer = make_producer(settings, name=name, transactional_id=group)
    producer.init_transactions(30)
    consumer = make_consumer(settings, name=name, group=group)
    sent = 0
    try:
        partitions = [TopicPartition(topic, p) for p in consumer.list_topics(topic, 30).topics[topic].partitions]
        done = {tp.partition: max(tp.offset, 0) for tp in consumer.committed(partitions, 30)}
        producer.begin_transaction()
        for record in read_to_end(settings, topic, name=name):
            if record.offset() < done[record.partition()]:
                continue
            done[record.partition()] = record.offset() + 1
            letter = read(record)
            if letter.reason == reason:
                producer.produce(letter.topic, key=letter.key, value=letter.value)
                sent += 1
        producer.send_offsets_to_transaction(
            [TopicPartition(topic, p, offset) for p, offset in done.items()], consumer.consumer_group_metadata(), 30
        )
        producer.commit_transaction(30)
    finally:
        consumer.close()
    return sent
