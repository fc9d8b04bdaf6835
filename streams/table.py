"""A compacted topic, read from its beginning by one process for itself."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from confluent_kafka import (
    OFFSET_BEGINNING,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from contract.errors import StoppressError
from contract.settings import Settings
from streams.clients import make_admin, make_consumer


def end_offsets(admin: AdminClient, topic: str, partitions: Iterable[int], seconds: float = 30.0) -> dict[int, int]:
    """Return the high watermark of each partition, records of open transactions included."""
    wanted = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in partitions}
    answers = admin.list_offsets(wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=seconds)
    return {asked.partition: answer.result().offset for asked, answer in answers.items()}


class TableReader:
    """Reads committed records of ``partitions`` (default: all) without a consumer group.

    What the records mean is the caller's business; the reader knows how far it has come.
    """

    def __init__(
        self, settings: Settings, topic: str, *, name: str, partitions: Sequence[int] | None = None
    ) -> None:
        self.topic = topic
        self._admin = make_admin(settings)
        if partitions is None:
            metadata = self._admin.list_topics(topic, timeout=30).topics[topic]
            partitions = sorted(metadata.partitions)
        self._consumer = make_consumer(settings, name=name, extra={"enable.partition.eof": True})
        self._next = dict.fromkeys(partitions, OFFSET_BEGINNING)
        self._behind: dict[int, int] = dict.fromkeys(partitions, -1)
        self._aim()

    @property
    def caught_up(self) -> bool:
        """Whether everything up to the end, as it was at the last aim, has been handed out."""
        return not self._behind

    def _aim(self) -> None:
        """Take the present ends as the mark to reach, and ask for an end-of-partition anew."""
        self._behind = end_offsets(self._admin, self.topic, self._next)
        self._consumer.assign([TopicPartition(self.topic, p, offset) for p, offset in self._next.items()])

    def poll(self, seconds: float = 0.0, limit: int = 1000) -> list[Message]:
        """Return up to ``limit`` new records; blocks at most ``seconds``. Tombstones have value None."""
        records = []
        for message in self._consumer.consume(limit, seconds):
            error = message.error()
            if error is None:
                self._next[message.partition()] = message.offset() + 1
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                # An open transaction ends the readable part early: then this end is not the mark.
                if message.offset() >= self._behind.get(message.partition(), -1):
                    self._behind.pop(message.partition(), None)
            elif error.fatal() or not error.retriable():
                raise KafkaException(error)
        return records

    def catch_up(self, seconds: float = 300.0) -> Iterator[Message]:
        """Yield records until the ends at the moment of the call are reached; blocks meanwhile.

        Raises :class:`StoppressError` where that takes longer than ``seconds``.
        """
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
