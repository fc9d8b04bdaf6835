"""What a group has committed, for who is no member of it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import KafkaException, TopicPartition

from contract.settings import Settings
from streams.clients import make_consumer
from streams.patience import explained, is_transient


def committed_offsets(
    settings: Settings, group: str, topic: str, partitions: Sequence[int], *, seconds: float = 10.0
) -> dict[int, tuple[int, str]]:
    """Return by partition the offset (-1: none) and metadata committed last, open transactions left out.

    Blocks briefly; raises :class:`~contract.errors.StoppressError`.
    """
    consumer = make_consumer(settings, name="committed", group=group, read_committed=False)
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                answers = consumer.committed([TopicPartition(topic, p) for p in partitions], seconds)
                for error in (tp.error for tp in answers if tp.error is not None):
                    raise KafkaException(error)
            except KafkaException as error:
                # A coordinator that is being loaded or moved answers so, for a moment.
                if not is_transient(error.args[0]) or time.monotonic() > deadline:
                    raise explained(error.args[0], f"the committed offsets of {group}") from None
                time.sleep(0.1)
            else:
                return {tp.partition: (max(tp.offset, -1), tp.metadata or "") for tp in answers}
    finally:
        consumer.close()
