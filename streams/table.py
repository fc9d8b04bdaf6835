"""A compacted topic, read from its beginning by one process for itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar, cast

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from contract.errors import StoppressError, TopicsDiffer
from contract.settings import Settings
from streams.clients import make_admin, make_consumer
from streams.health import Pulse
from streams.patience import explained, is_transient
from streams.record import Record

_ASKING_SECONDS = 10.0
END_WHAT_IS_OPEN = (
    "start each worker once more that died and was not started again, in its own slot: it ends what it left open"
)
Answer = TypeVar("Answer")


def end_offsets(admin: AdminClient, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """Return the high watermark of each partition, records of open transactions included; blocks briefly.

    Raises :class:`KafkaException`.
    """
    return _list_offsets(admin, topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]


def first_offsets(admin: AdminClient, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """Return the first offset of each partition; blocks briefly. Raises :class:`KafkaException`."""
    return _list_offsets(admin, topic, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]


def open_partitions(admin: AdminClient, topic: str) -> list[int]:
    """Return the partitions in which a transaction is open, by last stable offset; blocks briefly.

    Raises :class:`KafkaException`.
    """
    partitions = admin.list_topics(topic, timeout=_ASKING_SECONDS).topics[topic].partitions
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    ends = end_offsets(admin, topic, partitions)  # first, or what others write meanwhile would look like an open one
    stable = _list_offsets(admin, topic, partitions, latest, IsolationLevel.READ_COMMITTED)
    return [partition for partition, end in ends.items() if stable[partition] < end]


def _list_offsets(
    admin: AdminClient,
    topic: str,
    partitions: Iterable[int],
    which: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
) -> dict[int, int]:
    # A client that does not know the topic's leaders yet may take seconds to find them by itself.
    admin.list_topics(topic, timeout=_ASKING_SECONDS)
    wanted = {TopicPartition(topic, partition): which for partition in partitions}
    answers = admin.list_offsets(wanted, isolation_level=isolation, request_timeout=_ASKING_SECONDS)
    return {asked.partition: answer.result().offset for asked, answer in answers.items()}


def read_to_end(
    settings: Settings,
    topic: str,
    *,
    name: str,
    partitions: Sequence[int] | None = None,
    pulse: Pulse | None = None,
) -> Iterator[Record]:
    """Yield all records that are committed now; blocks meanwhile. Raises as :class:`TableReader`."""
    for batch in batches_to_end(settings, topic, name=name, partitions=partitions, pulse=pulse):
        yield from batch


def batches_to_end(
    settings: Settings,
    topic: str,
    *,
    name: str,
    partitions: Sequence[int] | None = None,
    pulse: Pulse | None = None,
) -> Iterator[list[Record]]:
    """The records of :func:`read_to_end` in the batches in which they came."""
    reader = TableReader(settings, topic, name=name, partitions=partitions, fetch_wait_ms=10)
    try:
        yield from reader.catch_up_in_batches(pulse=pulse)
    finally:
        reader.close()


class TableReader:
    """Reads committed records of ``partitions`` (default: all) without a consumer group; ``from_end``: only what comes.

    What the records mean is the caller's business; the reader knows how far it has come. Raises
    :class:`TopicsDiffer` where there is no such topic, :class:`~contract.errors.BrokerUnreachable`
    where Kafka does not answer, and :class:`StoppressError` for whatever else it says.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        *,
        name: str,
        partitions: Sequence[int] | None = None,
        fetch_wait_ms: int = 100,
        from_end: bool = False,
    ) -> None:
        self.topic = topic
        self._admin = make_admin(settings)
        self._consumer = make_consumer(
            settings, name=name, extra={"enable.partition.eof": True, "fetch.wait.max.ms": fetch_wait_ms}
        )
        if partitions is None:
            partitions = self._asked(self._all_partitions)
        # By number: asking the consumer itself for the beginning costs it half a second.
        begin = end_offsets if from_end else first_offsets
        self._next = self._asked(lambda: begin(self._admin, topic, partitions))
        self._behind: dict[int, int] = {}
        self._aim()

    @property
    def caught_up(self) -> bool:
        """Whether everything up to the end, as it was at the last aim, has been handed out."""
        return not self._behind

    def _aim(self) -> None:
        """Take the present ends as the mark to reach, and ask for an end-of-partition anew."""
        self._behind = self._asked(lambda: end_offsets(self._admin, self.topic, self._next))
        self._consumer.assign([TopicPartition(self.topic, p, offset) for p, offset in self._next.items()])

    def poll(self, seconds: float = 0.0, limit: int = 1000) -> list[Record]:
        """Return up to ``limit`` new records; blocks at most ``seconds``. Tombstones have value None."""
        messages = self._consumer.consume(limit, seconds)
        records = cast(list[Record], [message for message in messages if message.error() is None])
        if len(records) < len(messages):
            for message in messages:
                self._take_error(message)
        reached = {record.partition(): record.offset() for record in records}
        self._next.update({partition: offset + 1 for partition, offset in reached.items()})
        return records

    def _take_error(self, message: Message) -> None:
        error = message.error()
        if error is None or is_transient(error):
            return
        if error.code() != KafkaError._PARTITION_EOF:
            raise explained(error, f"reading {self.topic}")
        # An open transaction ends the readable part early: then this end is not the mark.
        end = cast(Record, message)
        if end.offset() >= self._behind.get(end.partition(), -1):
            self._behind.pop(end.partition(), None)

    def catch_up(self, seconds: float = 300.0, pulse: Pulse | None = None) -> Iterator[Record]:
        """Yield records until the ends are reached as they were when this reader was made, or, where
        they had been reached, as they are now; blocks meanwhile, with a beat of ``pulse`` now and then.

        Raises :class:`StoppressError` where nothing came for ``seconds``.
        """
        for batch in self.catch_up_in_batches(seconds, pulse):
            yield from batch

    def catch_up_in_batches(self, seconds: float = 300.0, pulse: Pulse | None = None) -> Iterator[list[Record]]:
        """The records of :meth:`catch_up` in the batches in which they came."""
        if self.caught_up:
            self._aim()
        deadline = time.monotonic() + seconds
        while self._behind:
            if pulse is not None:
                pulse.beat()
            records = self.poll(0.1, limit=1000)
            if records:
                yield records
                deadline = time.monotonic() + seconds
            elif time.monotonic() > deadline:
                raise StoppressError(
                    f"{self.topic}: partitions {sorted(self._behind)} end before what was written to them; "
                    f"a transaction has been open there for {seconds:.0f} s; {END_WHAT_IS_OPEN}"
                )

    def _all_partitions(self) -> Sequence[int]:
        partitions = sorted(
            self._consumer.list_topics(self.topic, timeout=_ASKING_SECONDS).topics[self.topic].partitions
        )
        if not partitions:
            raise TopicsDiffer(f"topic {self.topic} is missing; run `stoppress topics create`")
        return partitions

    def _asked(self, question: Callable[[], Answer]) -> Answer:
        try:
            return question()
        except KafkaException as error:
            self.close()
            raise explained(error.args[0], f"where {self.topic} begins and ends") from None

    def close(self) -> None:
        """Close the consumer; blocks briefly."""
        self._consumer.close()
