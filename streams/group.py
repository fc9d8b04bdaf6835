"""A worker's input: one static member of a classic consumer group, with tables per partition.

What happens on assignment, in this order, since each step relies on the one before:

    1. the committed offset is read; Kafka holds the answer back while a transaction on it is pending
    2. only then the ends of the changelogs are read, and the tables restored to them
    3. records are consumed from the committed offset on

On revocation no transaction is open, because callbacks run only inside :meth:`GroupInput.consume`.
A partition that comes back keeps its tables only if it was revoked, not lost, and its committed
offset and changelog ends are still those of the moment it was revoked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from prometheus_client import Counter, Gauge

from contract.errors import Fenced
from contract.settings import Settings
from streams.clients import make_admin, make_consumer
from streams.record import Record
from streams.table import end_offsets, first_offsets
from streams.worker import Identity, Log, Stop

REBALANCES = Counter("stoppress_rebalances_total", "Assignments by how they came about", ["worker", "kind"])
PARTITIONS = Gauge("stoppress_partitions_assigned", "Partitions this worker owns", ["worker"])
LAG = Gauge("stoppress_consumer_lag_records", "Records between what was committed and the end", ["worker"])

FENCED_CODES = {
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}
Answer = TypeVar("Answer")


class Stopped(Exception):
    """A stop was requested while waiting for Kafka; nothing is half done."""


class PartitionTables(Protocol):
    """The state that a worker keeps for its partitions."""

    def restore(self, committed: dict[int, int]) -> None:
        """Rebuild the tables of these partitions from their changelogs; offsets are the committed ones."""

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget the tables of these partitions."""


def patiently(stop: Stop, log: Log, what: str, call: Callable[[], Answer]) -> Answer:
    """Return ``call()``, again and again while Kafka is out of reach or busy.

    Raises :class:`Stopped` on a stop, and what is neither retriable nor a time-out.
    """
    while True:
        if stop.requested:
            raise Stopped(what)
        try:
            return call()
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() in FENCED_CODES:
                raise Fenced(f"{what}: {reason.str()}; another process runs with this worker's slot") from None
            transient = reason.retriable() or reason.code() in (
                KafkaError._TIMED_OUT,
                KafkaError._TRANSPORT,
                KafkaError._ALL_BROKERS_DOWN,
                KafkaError._RESOLVE,
                KafkaError.REQUEST_TIMED_OUT,
                KafkaError.UNSTABLE_OFFSET_COMMIT,
            )
            if reason.fatal() or not transient:
                raise
            log.warning("waiting_for_kafka", what=what, error=reason.str())
            stop.wait(0.2)


class GroupInput:
    """Consumes ``topic`` as ``identity`` and keeps ``tables`` in step with what it owns."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        identity: Identity,
        tables: PartitionTables,
        *,
        name: str,
        changelogs: Sequence[str],
        stop: Stop,
    ) -> None:
        self.topic = topic
        self._name = name
        self._tables = tables
        self._changelogs = changelogs
        self._stop = stop
        self._log = Log(name)
        self._admin = make_admin(settings)
        self._positions: dict[int, int] = {}
        self._parked: dict[int, tuple[int, ...]] = {}
        self._consumer: Consumer = make_consumer(
            settings,
            name=name,
            group=identity.group,
            extra={
                "group.instance.id": identity.instance,
                "partition.assignment.strategy": "range",
                "session.timeout.ms": settings.session_timeout_ms,
                "heartbeat.interval.ms": max(100, settings.session_timeout_ms // 3),
                "max.poll.interval.ms": max(900_000, settings.session_timeout_ms),
            },
        )
        # With its metadata at hand, the first join need not be repeated.
        patiently(stop, self._log, "metadata", lambda: self._consumer.list_topics(topic, 5))
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    @property
    def assigned(self) -> list[int]:
        """The partitions owned and restored."""
        return sorted(self._positions)

    def consume(self, limit: int, seconds: float) -> list[Record]:
        """Return up to ``limit`` records; blocks up to ``seconds``, or as long as a restore takes.

        Raises :class:`Fenced` where another process took this member's place.
        """
        records: list[Record] = []
        for message in self._consumer.consume(limit, seconds):
            error = message.error()
            if error is None:
                records.append(cast(Record, message))
            elif error.code() in FENCED_CODES:
                raise Fenced(f"{self._name}: {error.str()}; another process runs with this worker's slot")
            elif error.fatal():
                raise KafkaException(error)
            else:
                self._log.warning("consumer_error", error=error.str())
        return records

    def positions_after(self, records: Sequence[Record]) -> dict[int, int]:
        """Return for every owned partition the offset to commit once ``records`` are done."""
        positions = dict(self._positions)
        for record in records:
            positions[record.partition()] = record.offset() + 1
        return positions

    def known_ends(self) -> dict[int, int]:
        """Return the ends of the owned partitions as the last fetch saw them, without a request; some may be missing.

        Markers of transactions count too, so an end may lie beyond the last record.
        """
        ends = {}
        for partition in self._positions:
            try:
                end = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)[1]
            except KafkaException:
                continue
            if end >= 0:
                ends[partition] = end
        return ends

    def adopt(self, positions: dict[int, int]) -> None:
        """Take ``positions`` as committed; only after a known commit."""
        self._positions = positions

    def offsets_and_metadata(self, positions: dict[int, int]) -> tuple[list[TopicPartition], object]:
        """Return what a transaction sends for the group, its metadata as of now."""
        offsets = [TopicPartition(self.topic, p, offset) for p, offset in positions.items()]
        return offsets, self._consumer.consumer_group_metadata()

    def reread(self) -> None:
        """Drop and restore all tables and go back to the committed offsets; blocks."""
        partitions = self.assigned
        self._tables.drop(partitions)
        self._positions = {}
        self._take(partitions, kept=set())

    def measure_lag(self) -> int:
        """Return and publish how many offsets lie between the committed ones and the end; one request."""
        ends = end_offsets(self._admin, self.topic, self._positions) if self._positions else {}
        lag = sum(max(0, end - self._positions[p]) for p, end in ends.items())
        LAG.labels(self._name).set(lag)
        return lag

    def close(self) -> None:
        """Leave; a static member's partitions wait for its successor until the session ends."""
        self._consumer.close()

    def _on_assign(self, _consumer: Consumer, assigned: list[TopicPartition]) -> None:
        partitions = [tp.partition for tp in assigned]
        gone = self._parked.keys() - set(partitions)
        self._tables.drop(gone)
        parked = {p: state for p, state in self._parked.items() if p not in gone}
        self._parked = {}
        kept = {p for p, state in self._fingerprints(list(parked)).items() if state == parked[p]}
        self._tables.drop(parked.keys() - kept)
        REBALANCES.labels(self._name, "assigned").inc()
        self._take(partitions, kept)

    def _take(self, partitions: list[int], kept: set[int]) -> None:
        committed = self._committed(partitions)
        restored = {p: committed[p] for p in partitions if p not in kept}
        if restored:
            patiently(self._stop, self._log, "restoring", lambda: self._tables.restore(restored))
        self._consumer.assign([TopicPartition(self.topic, p, committed[p]) for p in partitions])
        self._positions = committed
        PARTITIONS.labels(self._name).set(len(partitions))
        self._log.info("assigned", partitions=len(partitions), restored=len(restored), kept=len(kept))

    def _on_revoke(self, _consumer: Consumer, revoked: list[TopicPartition]) -> None:
        self._parked = self._fingerprints([tp.partition for tp in revoked])
        self._positions = {}
        REBALANCES.labels(self._name, "revoked").inc()

    def _on_lost(self, _consumer: Consumer, lost: list[TopicPartition]) -> None:
        self._tables.drop([tp.partition for tp in lost])
        self._positions = {}
        self._parked = {}
        REBALANCES.labels(self._name, "lost").inc()

    def _committed(self, partitions: list[int]) -> dict[int, int]:
        """The committed offset of each partition, or its first one where none was committed yet."""
        if not partitions:
            return {}
        asked = [TopicPartition(self.topic, p) for p in partitions]
        answers = patiently(self._stop, self._log, "committed", lambda: self._consumer.committed(asked, 5))
        committed = {tp.partition: tp.offset for tp in answers if tp.offset >= 0}
        fresh = [p for p in partitions if p not in committed]
        if fresh:
            committed |= patiently(
                self._stop, self._log, "first", lambda: first_offsets(self._admin, self.topic, fresh)
            )
        return committed

    def _fingerprints(self, partitions: list[int]) -> dict[int, tuple[int, ...]]:
        """For each partition its committed offset and the ends of its changelogs."""
        if not partitions or self._stop.requested:
            return {}
        committed = self._committed(partitions)
        ends = [
            patiently(self._stop, self._log, "ends", lambda topic=topic: end_offsets(self._admin, topic, partitions))  # type: ignore[misc]
            for topic in self._changelogs
        ]
        return {p: (committed[p], *(end[p] for end in ends)) for p in partitions}
