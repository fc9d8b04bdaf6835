"""Who started last in a worker's slot.

Kafka fences a static member or a transactional producer also by itself: a member whose first join was
answered too late joins again, and a transaction that took too long ends as if a successor had begun.
The claim tells that from another process with the same slot, and of two processes which one goes on.
It is the metadata of an offset committed by a group of its own, which nobody joins.
"""

from __future__ import annotations

import secrets

from confluent_kafka import Consumer, KafkaException, TopicPartition

from contract.settings import Settings
from streams.clients import make_consumer
from streams.health import Pulse
from streams.patience import patiently
from streams.worker import Identity, Log


class Claim:
    """This process's claim to ``identity``; it is the last one from now on. Blocks until Kafka has it."""

    def __init__(self, settings: Settings, identity: Identity, topic: str, pulse: Pulse, log: Log) -> None:
        self.token = secrets.token_hex(4)
        self._settings = settings
        self._group = f"{identity.instance}.claim"
        self._topic = topic
        self._pulse = pulse
        self._log = log
        patiently(pulse, log, "claiming the slot", self._write)

    def is_lost(self) -> bool:
        """Whether another process has started in this slot since; blocks until Kafka answers."""
        return patiently(self._pulse, self._log, "the slot's claim", self._read) not in ("", self.token)

    def _write(self) -> None:
        consumer = self._client()
        try:
            consumer.commit(offsets=[TopicPartition(self._topic, 0, 0, self.token)], asynchronous=False)
        finally:
            consumer.close()

    def _read(self) -> str:
        consumer = self._client()
        try:
            (answer,) = consumer.committed([TopicPartition(self._topic, 0)], 5)
        finally:
            consumer.close()
        if answer.error is not None:
            raise KafkaException(answer.error)
        return answer.metadata or ""  # Kafka forgets it in time, and then nobody has claimed the slot since

    def _client(self) -> Consumer:
        # A new one each time: one whose connection to the coordinator broke may never get an answer again.
        return make_consumer(self._settings, name="claim", group=self._group)
