"""What could not be used: kept as it came, listed, and sent again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from prometheus_client import Counter

from contract.errors import BadRecord, TransactionFailed
from contract.messages import MAX_ARTICLE_BYTES, MAX_EVENT_BYTES
from contract.settings import Settings
from contract.topics import Topics
from streams.clients import make_admin, make_consumer, make_producer
from streams.record import Record
from streams.table import read_to_end
from streams.transactions import TransactionalOutput

DEAD_LETTERS = Counter(
    "stoppress_dead_letters_total", "Records that could not be used, by worker and reason", ["worker", "reason"]
)
DETAIL_CHARACTERS = 1000
KEPT_WHOLE_BYTES = MAX_ARTICLE_BYTES + (64 << 10)
CUT_BYTES = 1 << 20
BATCH_LETTERS = 1000
BATCH_BYTES = 32 << 20
OFFSETS_KEPT_MINUTES = 7 * 24 * 60


@dataclass(frozen=True)
class DeadLetter:
    """One record of ``dead-letters``: the original bytes and where they came from.

    ``cut_from`` is 0, or the bytes of key and value of a record that was too large to be kept whole:
    of such a one there is the first MiB. ``timestamp_ms`` is when it was written.
    """

    topic: str
    partition: int
    offset: int
    worker: str
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    cut_from: int = 0
    timestamp_ms: int = 0

    @classmethod
    def of(cls, record: Record, worker: str, error: BadRecord) -> Self:
        """The dead letter that ``record`` becomes in ``worker``."""
        return cls(
            record.topic(), record.partition(), record.offset(), worker, error.reason, error.detail,
            record.key(), record.value(),
        )  # fmt: skip

    def __str__(self) -> str:
        line = f"{self.topic}[{self.partition}]@{self.offset} {self.reason}: {self.detail}"
        return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")

    def send(self, output: TransactionalOutput, topic: str) -> None:
        """Write it to ``topic`` in the open transaction.

        A compressed batch can hold a record larger than any topic takes by itself; that one is cut.
        """
        DEAD_LETTERS.labels(self.worker, self.reason).inc()
        headers = [
            ("topic", self.topic.encode()),
            ("partition", str(self.partition).encode()),
            ("offset", str(self.offset).encode()),
            ("worker", self.worker.encode()),
            ("reason", self.reason.encode()),
            ("detail", self.detail[:DETAIL_CHARACTERS].encode(errors="replace")),
        ]
        key, value = self.key, self.value
        size = self.size
        if size > KEPT_WHOLE_BYTES:
            headers.append(("cut-from", str(size).encode()))
            key, value = key and key[:CUT_BYTES], value and value[:CUT_BYTES]
        output.send(topic, key, value, headers=headers)


def read(record: Record) -> DeadLetter:
    """Return the dead letter in a record of ``dead-letters``; what its headers do not say is empty or -1."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers() or [] if value is not None}
    return DeadLetter(
        topic=headers.get("topic", ""),
        partition=_number(headers, "partition", -1),
        offset=_number(headers, "offset", -1),
        worker=headers.get("worker", ""),
        reason=headers.get("reason", ""),
        detail=headers.get("detail", ""),
        key=record.key(),
        value=record.value(),
        cut_from=_number(headers, "cut-from", 0),
        timestamp_ms=record.timestamp()[1],
    )


def letters(settings: Settings, topics: Topics) -> Iterator[DeadLetter]:
    """Yield all dead letters that there are now, partition by partition. Blocks meanwhile."""
    yield from map(read, read_to_end(settings, topics.dead_letters, name="dead-letters"))


@dataclass
class Requeued:
    """How many letters were sent again, and how many were not, by the reason why."""

    sent: int = 0
    kept: dict[str, int] = field(default_factory=dict)

    def keep(self, why: str) -> None:
        self.kept[why] = self.kept.get(why, 0) + 1


def requeue(settings: Settings, topics: Topics, reason: str) -> Requeued:
    """Send every dead letter of ``reason`` to its topic again, each once. Blocks meanwhile.

    How far that went is a group's offsets, which move in the transaction that sends: a second call
    sends only newer letters. Kafka forgets such offsets in time, so letters older than that stay.
    Raises :class:`TransactionFailed` where another requeue of this reason begins meanwhile, or Kafka
    does not say that it committed.
    """
    name = f"dead-letters.requeue.{reason}"
    group = f"{settings.namespace}{name}"
    producer = make_producer(settings, name=name, transactional_id=group)
    consumer = make_consumer(settings, name=name, group=group)
    try:
        return _requeue(settings, topics, reason, producer, consumer)
    except KafkaException as error:
        raise TransactionFailed(
            f"the requeue of {reason} was stopped, perhaps by another that began meanwhile ({error.args[0].str()}); "
            "call it again: it goes on where this one came to"
        ) from None
    finally:
        consumer.close()


def _requeue(settings: Settings, topics: Topics, reason: str, producer: Producer, consumer: Consumer) -> Requeued:
    producer.init_transactions(30)
    topic = topics.dead_letters
    partitions = [TopicPartition(topic, p) for p in consumer.list_topics(topic, 30).topics[topic].partitions]
    done = {tp.partition: max(tp.offset, 0) for tp in consumer.committed(partitions, 30)}
    remembered_since = time.time_ns() // 1_000_000 - 60_000 * _offsets_kept_minutes(make_admin(settings))
    largest = {topics.articles: MAX_ARTICLE_BYTES, topics.user_events: MAX_EVENT_BYTES}
    outcome = Requeued()
    batch: list[DeadLetter] = []
    size = 0

    def commit() -> None:
        producer.begin_transaction()
        for letter in batch:
            producer.produce(letter.topic, key=letter.key, value=letter.value)
        offsets = [TopicPartition(topic, p, offset) for p, offset in done.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        producer.commit_transaction(30)
        outcome.sent += len(batch)
        batch.clear()

    for record in read_to_end(settings, topic, name="dead-letters.requeue"):
        if record.offset() < done[record.partition()]:
            continue
        done[record.partition()] = record.offset() + 1
        letter = read(record)
        if letter.reason != reason:
            continue
        if letter.topic not in largest:
            outcome.keep("not from a topic of this namespace")
        elif letter.cut_from or letter.size > largest[letter.topic]:
            outcome.keep("larger than its topic takes")
        elif letter.timestamp_ms < remembered_since:
            outcome.keep("older than Kafka remembers what was sent again")
        else:
            batch.append(letter)
            size += letter.size
        if len(batch) == BATCH_LETTERS or size > BATCH_BYTES:
            commit()
            size = 0
    commit()
    return outcome


def _offsets_kept_minutes(admin: AdminClient) -> int:
    """How long Kafka keeps a group's offsets after they were committed; its default where it does not tell."""
    broker = str(next(iter(admin.list_topics(timeout=30).brokers)))
    (answer,) = admin.describe_configs([ConfigResource(ResourceType.BROKER, broker)]).values()
    try:
        return int(answer.result()["offsets.retention.minutes"].value)
    except (KafkaException, KeyError, ValueError):
        return OFFSETS_KEPT_MINUTES


def _number(headers: Mapping[str, str], name: str, otherwise: int) -> int:
    try:
        return int(headers[name])
    except (KeyError, ValueError):
        return otherwise
