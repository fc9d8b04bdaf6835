"""The partitioner: Kafka's own, to the bit."""

from __future__ import annotations

import random

import pytest
from confluent_kafka import KafkaError, Message
from confluent_kafka.admin import NewTopic

from contract.murmur2 import murmur2, partition_of
from contract.settings import Settings
from streams.clients import make_admin, make_producer

# What org.apache.kafka.common.utils.Utils.murmur2 returns, as signed 32-bit integers.
JAVA = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}


@pytest.mark.parametrize(("key", "signed"), JAVA.items())
def test_hashes_are_those_of_the_java_client(key: str, signed: int) -> None:
    assert murmur2(key.encode()) == signed % 2**32


@pytest.mark.parametrize("partitions", [1, 7, 12])
def test_partitions_are_those_that_a_producer_chooses(settings: Settings, partitions: int) -> None:
    topic = f"{settings.namespace}partitions"
    admin = make_admin(settings)
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(20)
    chosen: dict[bytes, int] = {}

    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        key, partition = message.key(), message.partition()
        assert isinstance(key, bytes)
        assert partition is not None
        chosen[key] = partition

    draw = random.Random(1)
    keys = {draw.randbytes(length) for length in range(1, 41) for _ in range(25)} | {b"", "Zoë".encode(), b"user-1"}
    producer = make_producer(settings, name="test")
    for key in keys:
        producer.produce(topic, b"", key, on_delivery=delivered)
    assert producer.flush(20) == 0
    assert chosen == {key: partition_of(key, partitions) for key in keys}
