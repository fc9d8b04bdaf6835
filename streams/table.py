"""A compacted topic, read from its beginning by one process for itself."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from contract.errors import StoppressError
from contract.settings import Settings
from streams.clients import make_admin, make_consumer
from streams.record import Record


def end_offsets(admin: AdminClient, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """Return the high watermark of each partition, records of open transactions included."""
    return _list_offsets(admin, topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]


def first_offsets(admin: AdminClient, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """Return the first offset of each partition."""
    return _list_offsets(admin, topic, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]


def _list_offsets(admin: AdminClient, topic: str, partitions: Iterable[int], which: OffsetSpec) -> dict[int, int]:
    # A client that does not know the topic's leaders yet may take seconds to find them by itself.
    admin.list_topics(topic, timeout=30)
    wanted = {TopicPartition(topic, partition): which for partition in partitions}
    answers = admin.list_offsets(wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=30.0)
    return {asked.partition: answer.result().offset for asked, answer in answers.items()}


def read_to_end(
    settings: Settings, topic: str, *, name: str, partitions: Sequence[int] | None = None
) -> Iterator[Record]:
    """Yield all records that are committed now; blocks meanwhile."""
    reader = TableReader(settings, topic, name=name, partitions=partitions, fetch_wait_ms=10)
    try:
        yield from reader.catch_up()
    finally:
        reader.close()


class TableReader:
    """Reads committed records of ``partitions`` (default: all) without a consumer group.

    What the records mean is the caller's business; the reader knows how far it has come.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        *,
        name: str,
        partitions: Sequence[int] | None = None,
        fetch_wait_ms: int = 100,
    ) -> None:
        self.topic = topic
        self._admin = make_admin(settings)
        self._consumer = make_consumer(
            settings, name=name, extra={"enable.partition.eof": True, "fetch.wait.max.ms": fetch_wait_ms}
        )
        metadata = self._consumer.list_topics(topic, timeout=30).topics[topic]
        if partitions is None:
            partitions = sorted(metadata.partitions)
        # By number: asking the consumer itself for the beginning costs it half a second.
        self._next = first_offsets(self._admin, topic, partitions)
        self._behind: dict[int, int] = {}
        self._aim()

    @property
    def caught_up(self) -> bool:
        """Whether everything up to the end, as it was at the last aim, has been handed out."""
        return not self._behind

    def _aim(self) -> None:
        """Take the present ends as the mark to reach, and ask for an end-of-partition anew."""
        self._behind = end_offsets(self._admin, self.topic, self._next)
        self._consumer.assign([TopicPartition(self.topic, p, offset) for p, offset in self._next.items()])

    def poll(self, seconds: float = 0.0, limit: int = 1000) -> list[Record]:
        """Return up to ``limit`` new records; blocks at most ``seconds``. Tombstones have value None."""
        records: list[Record] = []
        for message in self._consumer.consume(limit, seconds):
            error = message.error()
            if error is None:
                record = cast(Record, message)
                self._next[record.partition()] = record.offset() + 1
                records.append(record)
            elif error.code() == KafkaError._PARTITION_EOF:
                # An open transaction ends the readable part early: then this end is not the mark.
                end = cast(Record, message)
                if end.offset() >= self._behind.get(end.partition(), -1):
                    self._behind.pop(end.partition(), None)
            elif error.fatal() or not error.retriable():
                raise KafkaException(error)
        return records

    def catch_up(self, seconds: float = 300.0) -> Iterator[Record]:
        """Yield records until the ends are reached as they were when this reader was made, or, where
        they had been reached, as they are now; blocks meanwhile.

        Raises :class:`StoppressError` where that takes longer than ``seconds``.
        """
        if self.caught_up:
            self._aim()
        deadline = time.monotonic() + seconds
        while self._behind:
            yield from self.poll(0.1, limit=1000)
            if time.monotonic() > deadline:
                raise StoppressError(
                    f"{self.topic}: partitions {sorted(self._behind)} were not read to their end within {seconds:.0f} s"
                )

    def close(self) -> None:
        """Close the consumer; blocks briefly."""
        self._consumer.close()
