"""One transaction a batch: outputs and input offsets become visible together or not at all.

    1. begin
    2. produce every output
    3. send the offsets of all owned partitions, changed or not, with the group's metadata as of now:
       that fences a worker whose partitions went to another slot, though its producer is its own
    4. commit; only a known commit makes the staged state current

After an abort or an unknown outcome the producer is made anew: ``init_transactions`` of the same
transactional id ends whatever the old one left open, so that the committed offsets tell what happened.
Kafka 4.3 and 4.4 may lose that end where a broker restarts meanwhile (KAFKA-20734): the coordinator finds no
leader for the partitions, takes them for deleted, and calls the transaction complete without having marked
its end anywhere. Nobody can read past it then. Therefore a new producer that finds a
transaction open where it writes aborts one that touches those partitions and its offsets, which ends there
whatever its predecessors left.
To the producer a transaction that Kafka ended because it took too long looks like a successor in the
same slot; the slot's claim tells which of the two it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition
from prometheus_client import Counter, Histogram

from contract.errors import Fenced, StoppressError, TransactionFailed
from contract.settings import Settings
from streams.clients import make_admin, make_consumer, make_producer
from streams.group import GroupInput
from streams.health import Pulse
from streams.patience import patiently
from streams.table import open_partitions
from streams.worker import Identity, Log

TRANSACTIONS = Counter("stoppress_transactions_total", "Transactions by outcome", ["worker", "outcome"])
COMMIT_SECONDS = Histogram(
    "stoppress_transaction_commit_seconds", "From the last output to the known commit", ["worker"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)  # fmt: skip
FAILURES_IN_A_ROW = 10
_SWEPT = b"~opened"
FENCED_CODES = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.FENCED_INSTANCE_ID,
}
_EXPELLED_CODES = {KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION}


class TransactionalOutput:
    """The producer of one worker slot. Opening it fences a predecessor; blocks until Kafka answers.

    ``reads`` is the topic whose offsets it commits, ``writes`` are all that it writes to.
    """

    def __init__(
        self, settings: Settings, identity: Identity, *, name: str, pulse: Pulse, reads: str, writes: Sequence[str]
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._name = name
        self._pulse = pulse
        self._reads = reads
        self._writes = writes
        self._log = Log(name)
        self._seconds = settings.transaction_timeout_ms / 1000
        self._failures = 0
        self._undelivered = ""
        self._trouble = ""
        self._producer = self._open()

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int = -1,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> None:
        """Queue one record of the open transaction; waits where the queue is full."""
        while True:
            try:
                self._producer.produce(topic, value, key, partition, headers=list(headers) if headers else None)
                return
            except BufferError:
                self._producer.poll(0.02)

    @contextmanager
    def transaction(self, source: GroupInput, positions: dict[int, int]) -> Iterator[TransactionalOutput]:
        """Commit what the body sends together with ``positions`` of ``source``, which must not be empty.

        Returns normally only after a known commit, which ``source`` then adopts. Raises
        :class:`TransactionFailed` where state is to be read again, :class:`Fenced` where another
        process took over, and :class:`StoppressError` where one transaction after the other fails.
        """
        assert positions, "a transaction without offsets would not be fenced"
        self._undelivered = ""
        self._producer.poll(0)
        if self._trouble:  # a client that lost its connection may wait for the coordinator for ever
            self._producer = self._open()
        try:
            self._producer.begin_transaction()
            TRANSACTIONS.labels(self._name, "begun").inc()
            yield self
            began = time.perf_counter()
            self._producer.send_offsets_to_transaction(*source.offsets_and_metadata(positions), self._seconds)
            self._producer.commit_transaction(self._seconds)
            COMMIT_SECONDS.labels(self._name).observe(time.perf_counter() - began)
            self._producer.poll(0)
            if self._trouble:  # a broker went away meanwhile: whether the commit can be read is to be seen
                raise KafkaException(KafkaError(KafkaError._TRANSPORT, self._trouble))
        except KafkaException as error:
            raise self._failed(error.args[0], source) from None
        except BaseException:
            TRANSACTIONS.labels(self._name, "aborted").inc()
            self._abort()
            raise
        self._failures = 0
        TRANSACTIONS.labels(self._name, "committed").inc()
        source.adopt(positions)

    def _failed(self, reason: KafkaError, source: GroupInput) -> StoppressError:
        """End the transaction, and return what its failure means; the producer is a new one if it may go on."""
        TRANSACTIONS.labels(self._name, "aborted").inc()
        self._failures += 1
        self._abort()
        why = " ".join(filter(None, (reason.str(), self._undelivered)))
        if reason.code() in FENCED_CODES and source.replaced():
            return Fenced(f"{self._name}: another process runs with this worker's slot ({why})")
        if self._failures == FAILURES_IN_A_ROW:
            return StoppressError(f"{self._name}: {FAILURES_IN_A_ROW} transactions in a row failed, the last: {why}")
        self._log.warning("transaction_failed", error=why)
        if reason.code() in _EXPELLED_CODES:
            source.expelled()
        self._producer = self._open()
        return TransactionFailed(why)

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction(5)
        except KafkaException as error:  # fenced, or out of reach: Kafka ends it, or the new producer does
            self._log.info("abort_failed", error=error.args[0].str())

    def _open(self) -> Producer:
        return patiently(self._pulse, self._log, "init_transactions", self._opened)

    def _opened(self) -> Producer:
        producer = make_producer(
            self._settings,
            name=self._name,
            transactional_id=self._identity.instance,
            extra={
                "delivery.report.only.error": True,
                "on_delivery": self._note_undelivered,
                "error_cb": self._note_trouble,
            },
        )
        producer.init_transactions(5)
        self._sweep(producer)
        producer.poll(0)
        self._trouble = ""
        return producer

    def _sweep(self, producer: Producer) -> None:
        """Where a transaction is open, abort one that touches those partitions and the offsets.

        Not where none is: on a broker that has just started, sending offsets was seen never to return.
        """
        admin = make_admin(self._settings)
        left_open = [(topic, partition) for topic in self._writes for partition in open_partitions(admin, topic)]
        if not left_open:
            return
        asking = make_consumer(self._settings, name=self._name, group=self._identity.group)
        producer.begin_transaction()
        try:
            for topic, partition in left_open:
                producer.produce(topic, None, _SWEPT, partition)
            offsets = [TopicPartition(self._reads, 0, 0)]
            producer.send_offsets_to_transaction(offsets, asking.consumer_group_metadata(), 5)
            if producer.flush(5):
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "not all partitions answer"))
            producer.abort_transaction(5)
        finally:
            asking.close()

    def _note_trouble(self, error: KafkaError) -> None:
        self._trouble = error.str()

    def _note_undelivered(self, error: KafkaError | None, message: Message) -> None:
        """That a record was refused is what a commit tells; which and why only this report does."""
        if error is not None:
            self._undelivered = f"{message.topic()}: {error.str()}"
