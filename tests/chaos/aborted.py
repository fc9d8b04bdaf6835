"""Records that no transaction committed: they lie in the log, and readers of committed records never see them."""

from __future__ import annotations

from typing import cast

from confluent_kafka import TopicPartition

from contract.settings import Settings
from streams.clients import make_admin, make_consumer
from streams.record import Record
from streams.table import end_offsets, read_to_end
from tests.chaos.witness import Place


def aborted_places(settings: Settings, topic: str) -> set[Place]:
    """Return where in ``topic`` records lie that were aborted. Nobody may be writing meanwhile."""
    committed = {(r.partition(), r.offset()) for r in read_to_end(settings, topic, name="chaos.committed")}
    admin = make_admin(settings)
    ends = end_offsets(admin, topic, admin.list_topics(topic, timeout=10).topics[topic].partitions)
    consumer = make_consumer(settings, name="chaos.aborted", read_committed=False, extra={"enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, p, 0) for p in ends])
    places, behind = set(), {p for p, end in ends.items() if end}
    while behind:
        for message in consumer.consume(10_000, 1.0):
            record = cast(Record, message)
            if message.error() is None:
                places.add((record.partition(), record.offset()))
            elif record.offset() >= ends[record.partition()]:
                behind.discard(record.partition())
    consumer.close()
    return places - committed
