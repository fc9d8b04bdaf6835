"""One record by its place."""

from __future__ import annotations

import time
from typing import cast

from confluent_kafka import KafkaError, TopicPartition

from contract.errors import StoppressError
from contract.settings import Settings
from streams.clients import make_consumer
from streams.patience import explained, is_transient
from streams.record import Record


def read_record(
    settings: Settings, topic: str, partition: int, offset: int, *, name: str, seconds: float = 30.0
) -> Record | None:
    """Return the record at ``offset``, None where it is no longer there. Blocks; raises :class:`StoppressError`."""
    consumer = make_consumer(settings, name=name, extra={"enable.partition.eof": True, "queued.min.messages": 1})
    deadline = time.monotonic() + seconds
    try:
        consumer.assign([TopicPartition(topic, partition, offset)])
        while time.monotonic() < deadline:
            message = consumer.poll(0.1)
            if message is None:
                continue
            error = message.error()
            if error is None:
                return cast(Record, message) if message.offset() == offset else None
            if error.code() == KafkaError._PARTITION_EOF:
                return None
            if not is_transient(error):
                raise explained(error, f"reading {topic}")
        raise StoppressError(f"{topic}[{partition}]@{offset} could not be read within {seconds:.0f} s")
    finally:
        consumer.close()
