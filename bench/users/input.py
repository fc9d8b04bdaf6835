"""The benchmark's input topic, its records' places, and the reading of changelogs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from bench.users.reduced import HALF_LIFE_MS, Events, Reference, fold_one_by_one, splitmix64
from contract.murmur2 import partition_of
from contract.settings import load
from streams.table import read_to_end

PARTITIONS = 4
KEY_BYTES = len(b"user-0000000")
COMPACT = {"cleanup.policy": "compact", "segment.ms": "3600000", "min.cleanable.dirty.ratio": "0.5"}


def create_topic(bootstrap: str, name: str, *, compact: bool = False) -> None:
    """Create a topic of :data:`PARTITIONS` partitions; blocks until it is there."""
    topic = NewTopic(name, num_partitions=PARTITIONS, replication_factor=1, config=COMPACT if compact else {})
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([topic]).values():
        future.result(30)


def send(bootstrap: str, topic: str, records: Iterable[tuple[bytes, bytes]], partitions: Iterable[int]) -> None:
    """Write records to the partitions named, in order; blocks until Kafka has them."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap, "linger.ms": 20, "batch.size": 512 << 10, "enable.idempotence": True,
            "queue.buffering.max.messages": 500_000, "queue.buffering.max.kbytes": 512 << 10,
        }
    )  # fmt: skip
    for (key, value), partition in zip(records, partitions, strict=True):
        while True:
            try:
                producer.produce(topic, value, key, partition)
                break
            except BufferError:
                producer.poll(0.05)
    assert producer.flush(120) == 0


def places(events: Events) -> tuple[np.ndarray, np.ndarray]:
    """Return partition and offset of each event's record, int64 [n]: keys by murmur2, offsets in order from 0."""
    by_user = np.array(
        [partition_of(b"user-%07d" % user, PARTITIONS) for user in range(int(events.user.max()) + 1)], np.int64
    )
    partitions = by_user[events.user]
    offsets = np.empty(len(events), np.int64)
    for partition in range(PARTITIONS):
        mine = partitions == partition
        offsets[mine] = np.arange(int(mine.sum()))
    return partitions, offsets


def reference_of(events: Events, articles: np.ndarray, *, half_life_ms: float = HALF_LIFE_MS) -> Reference:
    """Fold the events one by one in float64."""
    partitions, offsets = places(events)
    return fold_one_by_one(events, splitmix64(partitions, offsets), offsets, articles, half_life_ms)


def read_changelog(bootstrap: str, topic: str) -> tuple[dict[bytes, bytes], int]:
    """Return the newest value of each user, read_committed, and how many records there were.

    Some contenders append to the key.
    """
    settings = load([f"bootstrap_servers={bootstrap}"], environ={})
    states: dict[bytes, bytes] = {}
    count = 0
    for record in read_to_end(settings, topic, name="bench"):
        key, value = record.key(), record.value()
        if key is not None and value is not None and key.startswith(b"user-"):
            count += 1
            states[key[:KEY_BYTES]] = value
    return states, count
