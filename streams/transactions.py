"""One transaction a batch: outputs and input offsets become visible together or not at all.

    1. begin
    2. produce every output
    3. send the offsets of all owned partitions, changed or not, with the group's metadata as of now:
       that fences a worker whose partitions went to another slot, though its producer is its own
    4. commit; only a known commit makes the staged state current

After an abort or an unknown outcome the producer is made anew: ``init_transactions`` of the same
transactional id ends whatever the old one left open, so that the committed offsets tell what happened.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import KafkaException, Producer
from prometheus_client import Counter, Histogram

from contract.errors import Fenced, TransactionFailed
from contract.settings import Settings
from streams.clients import make_producer
from streams.group import FENCED_CODES, GroupInput, patiently
from streams.worker import Identity, Log, Stop

TRANSACTIONS = Counter("stoppress_transactions_total", "Transactions by outcome", ["worker", "outcome"])
COMMIT_SECONDS = Histogram(
    "stoppress_transaction_commit_seconds", "From the last output to the known commit", ["worker"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)  # fmt: skip


class TransactionalOutput:
    """The producer of one worker slot. Opening it fences a predecessor; blocks until Kafka answers."""

    def __init__(self, settings: Settings, identity: Identity, *, name: str, stop: Stop) -> None:
        self._settings = settings
        self._identity = identity
        self._name = name
        self._stop = stop
        self._log = Log(name)
        self._producer = self._open()

    def _open(self) -> Producer:
        def initialised() -> Producer:
            producer = make_producer(self._settings, name=self._name, transactional_id=self._identity.instance)
            producer.init_transactions(15)
            return producer

        return patiently(self._stop, self._log, "init_transactions", initialised)

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
        """Commit what the body sends together with ``positions`` of ``source``.

        Returns normally only after a known commit, which ``source`` then adopts. Raises
        :class:`TransactionFailed` where state is to be read again, :class:`Fenced` where another
        process took over.
        """
        try:
            self._producer.begin_transaction()
            yield self
            began = time.perf_counter()
            self._producer.send_offsets_to_transaction(*source.offsets_and_metadata(positions), 15)
            self._producer.commit_transaction(15)
            COMMIT_SECONDS.labels(self._name).observe(time.perf_counter() - began)
        except KafkaException as error:
            reason = error.args[0]
            TRANSACTIONS.labels(self._name, "aborted").inc()
            if reason.code() in FENCED_CODES:
                raise Fenced(f"{self._name}: {reason.str()}; another process runs with this worker's slot") from None
            self._log.warning("transaction_failed", error=reason.str())
            self._renew()
            raise TransactionFailed(reason.str()) from None
        except BaseException:
            self._abort()
            raise
        TRANSACTIONS.labels(self._name, "committed").inc()
        source.adopt(positions)

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction(5)
        except KafkaException as error:
            self._log.warning("abort_failed", error=error.args[0].str())

    def _renew(self) -> None:
        self._abort()
        self._producer = self._open()
