"""The run of the broker that fills Java's AOT cache: everything once that clients will ask of it."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from contract.errors import StoppressError
from streams.local_broker.broker import LocalBroker
from streams.local_broker.install import Installation

_RECORDS = 200
_DUMP_SECONDS = 120.0


def train(installation: Installation, target: Path) -> None:
    """Start a broker, use it, stop it, and leave what Java recorded in ``target``.

    Raises :class:`StoppressError` where the broker or Java's dump fails.
    """
    with tempfile.TemporaryDirectory(prefix="train-", dir=target.parent) as scratch:
        recorded = Path(scratch, target.name)
        broker = LocalBroker(
            installation, Path(scratch, "kafka"), die_with_parent=True, options=(f"-XX:AOTCacheOutput={recorded}",)
        )
        try:
            broker.launch()
            _exercise(broker.bootstrap_servers)
        except KafkaException as error:
            raise StoppressError(f"the training run failed: {error}") from None
        finally:
            broker.stop(_DUMP_SECONDS)
        if not recorded.exists():
            raise StoppressError("Java wrote no AOT cache")
        recorded.rename(target)


def _exercise(bootstrap_servers: str) -> None:
    """A topic, a transaction with offsets, both kinds of group, a compacted topic's settings, a deletion."""
    common: dict[str, Any] = {
        "bootstrap.servers": bootstrap_servers,
        "log_level": 0,
        "logger": logging.Logger("training", 100),
    }
    admin = AdminClient(common)
    topics = [NewTopic("plain", 4, 1), NewTopic("compacted", 4, 1, config={"cleanup.policy": "compact"})]
    for created in admin.create_topics(topics).values():
        created.result(30)
    producer = Producer({**common, "transactional.id": "training", "partitioner": "murmur2_random"})
    producer.init_transactions(30)
    for protocol in ("classic", "consumer"):
        consumer = Consumer(
            {
                **common,
                "group.id": f"training-{protocol}",
                "group.protocol": protocol,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
        )
        consumer.subscribe(["plain"])
        try:
            producer.begin_transaction()
            for number in range(_RECORDS):
                producer.produce("plain", key=str(number), value=b"x" * 200)
            producer.commit_transaction(30)
            read = consumer.consume(_RECORDS, 10.0)
            producer.begin_transaction()
            for message in read:
                producer.produce("compacted", key=message.key(), value=message.value())
            positions = consumer.position([TopicPartition("plain", p) for p in range(4)])
            moved = [position for position in positions if position.offset >= 0]
            producer.send_offsets_to_transaction(moved, consumer.consumer_group_metadata(), 30)
            producer.commit_transaction(30)
            consumer.committed(moved, timeout=10)
        finally:
            consumer.close()
    for deleted in admin.delete_topics(["plain"]).values():
        deleted.result(30)
