"""A worker's input: one static member of a classic consumer group, with tables per partition.

What happens on assignment, in this order, since each step relies on the one before:

    1. the committed offset is read; Kafka holds the answer back while a transaction on it is pending
    2. only then the ends of the changelogs are read, and the tables restored to them
    3. records are consumed from the committed offset on

Every commit carries a token that no other commit has. Tables are kept over a rebalance or an aborted
transaction where the committed offset and its token are those of this worker's own last commit: then
nobody wrote to the partition in between, since every transaction commits all offsets that its worker
owns. On revocation no transaction is open, because callbacks run only inside :meth:`GroupInput.consume`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from prometheus_client import Counter, Gauge

from contract.errors import Fenced, SetupError, StoppressError, TopicsDiffer
from contract.settings import Settings
from streams.claim import Claim
from streams.clients import make_admin, make_consumer
from streams.health import Pulse
from streams.patience import explained, is_transient, patiently
from streams.record import Record
from streams.restore import Damage, Restore
from streams.table import END_WHAT_IS_OPEN, end_offsets, first_offsets
from streams.topic_ids import TopicIds
from streams.worker import Identity, Log, hold_off_collector

REBALANCES = Counter("stoppress_rebalances_total", "Assignments by how they came about", ["worker", "kind"])
PARTITIONS = Gauge("stoppress_partitions_assigned", "Partitions this worker owns and has restored", ["worker"])
PAUSED = Gauge("stoppress_partitions_paused", "Partitions this worker owns and cannot restore", ["worker"])
LAG = Gauge("stoppress_consumer_lag_records", "Records between what was committed and the end", ["worker"])
RESTORED = Counter("stoppress_restored_records_total", "Changelog records read to restore tables", ["worker"])
RESTORE_SECONDS = Gauge("stoppress_restore_seconds", "How long the last restore took", ["worker"])
EXPIRED = Counter("stoppress_expired_offsets_total", "Offsets that were deleted before they were read", ["worker"])

LOOK_SECONDS = 5.0
OVERDUE_SECONDS = 15.0


class PartitionTables(Protocol):
    """The state that a worker keeps for its partitions."""

    def restore(self, restore: Restore) -> None:
        """Rebuild the tables of ``restore.committed`` from its changelogs; none for those that are damaged then."""

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget the tables of these partitions."""


@dataclass(frozen=True)
class Commit:
    """What Kafka keeps for a partition; offset -1 where nothing was ever committed."""

    offset: int
    token: str


class GroupInput:
    """Consumes ``topic`` as ``identity`` and keeps ``tables`` in step with what it owns.

    It ends where ``topic``, one of ``changelogs``, or a topic that the worker ``also_read`` is made anew.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        identity: Identity,
        tables: PartitionTables,
        *,
        name: str,
        changelogs: Sequence[str],
        pulse: Pulse,
        also_read: Sequence[str] = (),
    ) -> None:
        self.topic = topic
        self._settings = settings
        self._name = name
        self._identity = identity
        self._tables = tables
        self._changelogs = changelogs
        self._pulse = pulse
        self._log = Log(name)
        self._admin = make_admin(settings)
        self._positions: dict[int, int] = {}
        self._paused: dict[int, Damage] = {}
        self._held: dict[int, Commit] = {}  # the commit that each partition's tables reflect, revoked ones included
        self._commits = 0
        self._rebalances = 0
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._paused_ends: dict[str, dict[int, int]] = {}
        self._paused_at: dict[int, int] = {}
        self._paused_ends_of_topic: dict[int, int] = {}
        self._topic_ids = TopicIds(self._admin, [topic, *changelogs, *also_read], self._pulse, self._log)
        self._claim = Claim(settings, identity, topic, pulse, self._log)
        self._consumer = self._join()

    def _join(self) -> Consumer:
        settings = self._settings
        consumer = make_consumer(
            settings,
            name=self._name,
            group=self._identity.group,
            extra={
                "group.instance.id": self._identity.instance,
                "partition.assignment.strategy": "range",
                "session.timeout.ms": settings.session_timeout_ms,
                "heartbeat.interval.ms": max(100, settings.session_timeout_ms // 3),
                "max.poll.interval.ms": max(900_000, settings.session_timeout_ms),
                "auto.offset.reset": "error",
            },
        )
        # With its metadata at hand, the first join need not be repeated.
        patiently(self._pulse, self._log, "metadata", lambda: consumer.list_topics(self.topic, 5))
        consumer.subscribe([self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        return consumer

    @property
    def assigned(self) -> list[int]:
        """The partitions owned and restored. While there are none, nothing may be written."""
        return sorted(self._positions)

    def consume(self, limit: int, seconds: float) -> list[Record]:
        """Return up to ``limit`` records of owned partitions; blocks up to ``seconds``, or as long as a restore takes.

        Raises :class:`Fenced` where another process took this member's place,
        :class:`~streams.worker.Stopped` on a stop, and :class:`StoppressError` for what cannot go on.
        """
        self._pulse.beat()
        self._look_around()
        rebalances = self._rebalances
        consumer = self._consumer
        records: list[Record] = []
        for message in consumer.consume(limit, seconds):
            error = message.error()
            if error is None:
                records.append(cast(Record, message))
            else:
                self._take_error(error)
                if consumer is not self._consumer:
                    return []
        if self._rebalances != rebalances:
            # Which of them were read before it cannot be told: all are read again.
            if self._positions:
                self._read_from(self._positions)
            return []
        return records if self._positions else []

    def positions_after(self, records: Sequence[Record]) -> dict[int, int]:
        """Return for every owned partition the offset to commit once ``records`` are done."""
        positions = dict(self._positions)
        for record in records:
            positions[record.partition()] = record.offset() + 1
        return positions

    def known_ends(self) -> dict[int, int]:
        """Return the ends of the owned partitions as last seen, without a request; those not fetched yet are missing.

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

    def offsets_and_metadata(self, positions: dict[int, int]) -> tuple[list[TopicPartition], object]:
        """Return what the next transaction sends for the group, with the group's metadata as of now."""
        self._commits += 1
        offsets = [TopicPartition(self.topic, p, offset, self._token) for p, offset in positions.items()]
        return offsets, self._consumer.consumer_group_metadata()

    def adopt(self, positions: dict[int, int]) -> None:
        """Take ``positions`` as committed by the last transaction; only after a known commit."""
        self._positions = positions
        self._held = {p: Commit(offset, self._token) for p, offset in positions.items()}

    def reread(self, *, keep: bool = True) -> None:
        """Go back to the committed offsets after a failed transaction; blocks.

        Tables that are not those of the present commit are restored; all of them unless ``keep``,
        for a worker whose tables hold what was never committed.
        """
        if not keep:
            self._drop(self._held)
        owned = [*self._positions, *self._paused]
        try:
            if owned:
                self._take(owned)
        except KafkaException as error:
            self._take_error(error.args[0])

    def expelled(self) -> None:
        """Kafka says that this is no member any more: own nothing until it has joined again."""
        self._disown()
        self._drop(self._held)

    def replaced(self) -> bool:
        """Whether another process has started in this worker's slot; asks Kafka, and waits for the answer."""
        return self._claim.is_lost()

    def measure_lag(self) -> dict[int, int]:
        """Return by partition how many offsets lie between the committed one and the end last seen; asks nobody.

        Publishes their sum. Those where nothing is left are missing, those that are paused are not.
        """
        ends = self.known_ends() | self._paused_ends_of_topic
        positions = self._positions | self._paused_at
        behind = {p: end - positions[p] for p, end in ends.items() if end > positions[p]}
        LAG.labels(self._name).set(sum(behind.values()))
        return behind

    def close(self) -> None:
        """Leave; a static member's partitions wait for its successor until the session ends."""
        self._pulse.ready(False)
        try:
            self._consumer.close()
        except StoppressError as error:  # partitions were assigned on the way out: nothing is taken any more
            self._log.info("assigned_while_closing", error=str(error))

    @property
    def _token(self) -> str:
        return f"{self._claim.token}.{self._commits}"

    def _on_assign(self, _consumer: Consumer, assigned: list[TopicPartition]) -> None:
        self._rebalances += 1
        REBALANCES.labels(self._name, "assigned").inc()
        self._take([tp.partition for tp in assigned])

    def _on_revoke(self, _consumer: Consumer, _revoked: list[TopicPartition]) -> None:
        REBALANCES.labels(self._name, "revoked").inc()
        self._log.info("revoked", partitions=len(self._held))
        self._disown()

    def _on_lost(self, _consumer: Consumer, _lost: list[TopicPartition]) -> None:
        REBALANCES.labels(self._name, "lost").inc()
        self._log.warning("lost", partitions=len(self._held))
        self.expelled()

    def _disown(self) -> None:
        self._rebalances += 1
        self._positions = {}
        self._paused = {}
        self._paused_at = {}
        self._paused_ends_of_topic = {}
        self._pulse.ready(False)

    def _drop(self, partitions: Iterable[int]) -> None:
        gone = set(partitions)
        self._tables.drop(gone)
        self._held = {p: commit for p, commit in self._held.items() if p not in gone}

    def _take(self, partitions: list[int]) -> None:
        """Own exactly these: keep or restore their tables, and read from the committed offsets on."""
        self._pulse.ready(False)
        committed = self._committed(partitions)
        self._drop([p for p, commit in self._held.items() if committed.get(p) != commit])
        kept = len(self._held)
        positions = self._within_the_log(committed)
        try:
            anew = {p: position for p, position in positions.items() if p not in self._held}
            positions |= self._restore(anew, {p for p in anew if committed[p].token})
        except SetupError:
            if self._committed(partitions) == committed:
                raise
            # Another has committed since: these partitions are lost, which is still to be heard of.
            self._log.warning("lost_while_restoring", partitions=len(partitions))
            self.expelled()
            return
        self._held = {p: commit for p, commit in committed.items() if p not in self._paused}
        self._positions = {p: positions[p] for p in self._held}
        self._paused_at = {p: positions[p] for p in self._paused}
        self._paused_ends_of_topic = self._ends_of_paused(self.topic)
        self._read_from(self._positions)
        PARTITIONS.labels(self._name).set(len(self._positions))
        PAUSED.labels(self._name).set(len(self._paused))
        self._log.info("assigned", partitions=len(partitions), kept=kept, paused=len(self._paused))
        self._pulse.ready(bool(self._positions) and not self._paused)

    def _read_from(self, positions: dict[int, int]) -> None:
        self._consumer.assign([TopicPartition(self.topic, p, offset) for p, offset in positions.items()])

    def _restore(self, positions: dict[int, int], by_workers: set[int]) -> dict[int, int]:
        """Restore these partitions' tables; those that cannot be restored are ``paused`` then.

        Returns where to read on instead, where what was committed is ahead of the group's offsets.
        """
        self._paused = {}
        if not positions:
            return {}
        began = time.monotonic()
        self._log.info("restoring", partitions=len(positions))

        def restored() -> Restore:
            restore = Restore(self._settings, positions, name=self._name, pulse=self._pulse, by_workers=by_workers)
            self._tables.restore(restore)
            return restore

        restore = patiently(self._pulse, self._log, "restoring", restored)
        hold_off_collector()
        seconds = time.monotonic() - began
        RESTORED.labels(self._name).inc(restore.records)
        RESTORE_SECONDS.labels(self._name).set(seconds)
        self._log.info("restored", partitions=len(positions), records=restore.records, seconds=round(seconds, 3))
        self._paused = restore.damaged
        for partition, damage in self._paused.items():
            self._log.error("partition_paused", partition=partition, record=damage.record, do=damage.do)
        self._paused_ends = self._changelog_ends()
        for partition, offset in restore.ahead.items():
            # Seen after a hard restart of the only broker: it answered with offsets from minutes before.
            self._log.error("offsets_lost", partition=partition, answered=positions[partition], restored=offset)
        return restore.ahead

    def _committed(self, partitions: list[int]) -> dict[int, Commit]:
        if not partitions:
            return {}
        asked = [TopicPartition(self.topic, p) for p in partitions]
        clients = chain([self._consumer], iter(self._another_client, None))
        overdue_at = time.monotonic() + 2 * self._settings.transaction_timeout_ms / 1000 + OVERDUE_SECONDS

        def answers() -> dict[int, Commit]:
            nonlocal overdue_at
            if time.monotonic() > overdue_at:
                self._log.error("offsets_held_back", partitions=sorted(partitions), do=END_WHAT_IS_OPEN)
                overdue_at += OVERDUE_SECONDS
            answered = next(clients).committed(asked, 2)
            for error in (tp.error for tp in answered if tp.error is not None):
                raise KafkaException(error)
            return {tp.partition: Commit(max(tp.offset, -1), tp.metadata or "") for tp in answered}

        return patiently(self._pulse, self._log, "committed offsets", answers)

    def _another_client(self) -> Consumer:
        """One that asks for the group and is no member.

        One whose connection to the coordinator broke may never get an answer again.
        """
        return make_consumer(self._settings, name=self._name, group=self._identity.group)

    def _within_the_log(self, committed: dict[int, Commit]) -> dict[int, int]:
        """Where to read on: at the committed offset, or at the first where none was committed or it has expired."""
        if not committed:
            return {}
        first, end = patiently(
            self._pulse, self._log, "offsets",
            lambda: (
                first_offsets(self._admin, self.topic, committed), end_offsets(self._admin, self.topic, committed)
            ),
        )  # fmt: skip
        for p, commit in committed.items():
            if commit.offset > end[p]:
                raise TopicsDiffer(
                    f"{self.topic}[{p}] ends at {end[p]}, and the group {self._identity.group} has committed "
                    f"{commit.offset}: the topic was made anew or has lost records; stop the workers and set the "
                    "group's offsets with kafka-consumer-groups --reset-offsets"
                )
            if 0 <= commit.offset < first[p]:
                EXPIRED.labels(self._name).inc(first[p] - commit.offset)
                self._log.error("records_expired_unread", partition=p, committed=commit.offset, first=first[p])
        return {p: max(commit.offset, first[p]) for p, commit in committed.items()}

    def _take_error(self, error: KafkaError) -> None:
        code = error.code()
        if code == KafkaError._FATAL or error.fatal():
            if self.replaced():
                raise Fenced(f"{self._name}: another process runs with this worker's slot ({error.str()})")
            # It joined twice, the answer to the first having been lost, and fenced itself.
            self._log.warning("joining_again", error=error.str())
            self._disown()
            self._consumer.close()
            self._consumer = self._join()
        elif code == KafkaError._AUTO_OFFSET_RESET:
            self._log.error("offset_out_of_range", error=error.str())
            self.reread()
            self._rebalances += 1
        elif is_transient(error) or code == KafkaError._MAX_POLL_EXCEEDED:
            self._log.warning("consumer_error", error=error.str())
        else:
            raise explained(error, f"reading {self.topic}")

    def _look_around(self) -> None:
        """Every few seconds: the lag, whether topics are the same, whether a paused partition may go on."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        self._paused_ends_of_topic = self._ends_of_paused(self.topic)
        self.measure_lag()
        self._topic_ids.check()
        if self._paused and self._changelog_ends() != self._paused_ends:
            self._take([*self._positions, *self._paused])

    def _changelog_ends(self) -> dict[str, dict[int, int]]:
        return {topic: self._ends_of_paused(topic) for topic in self._changelogs}

    def _ends_of_paused(self, topic: str) -> dict[int, int]:
        if not self._paused:
            return {}
        return patiently(
            self._pulse, self._log, f"ends of {topic}", lambda: end_offsets(self._admin, topic, self._paused)
        )
