"""One partition's changelog written to in its owner's place, while the owner runs.

The owner, its successor in the slot and a new owner after a rebalance must each either have committed before, or
restore what is written here before they commit again. So:

    1. ask the group who owns the partition, and begin with the owner's transactional id: that aborts what the owner has
       open, and nothing more of it commits unless it begins anew, which fences this process
    2. read the committed offset, and let the caller make the records as of there
    3. write them, and send the same offset with a token of its own: whoever is assigned the partition from now on waits
       for this transaction before it reads offset and changelog
    4. ask again: where owner, offset and token are still those of 1 and 2, nobody has come in between; commit

The owner's next transaction fails, it reads its offsets again, and restores the partition whose token is not its own.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, ConsumerGroupState, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from contract.errors import StoppressError
from contract.settings import Settings
from streams.clients import make_admin, make_consumer, make_producer
from streams.committed import committed_offsets
from streams.patience import explained, is_transient
from streams.transactions import FENCED_CODES

SECONDS = 15.0
PATIENCE_SECONDS = 60.0


class Output(NamedTuple):
    """A record for the partition."""

    topic: str
    key: bytes
    value: bytes | None


class _Interrupted(Exception):
    """Somebody came in between; nothing was written."""


def write_in_owners_place(
    settings: Settings, group: str, topic: str, partition: int, make: Callable[[int], Sequence[Output]]
) -> None:
    """Commit what ``make`` returns for the offset of ``topic`` that ``group`` has committed; blocks.

    ``make`` is called once before anything is stopped, so that what takes long is done by then, and once or more
    after. Raises :class:`StoppressError` where nothing was committed yet, or others come in between for a minute.
    """
    make(_offset(committed_offsets(settings, group, topic, [partition])[partition], group))
    admin = make_admin(settings)
    consumer = make_consumer(settings, name="rebuild", group=group)
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while time.monotonic() < deadline:
            try:
                _write(settings, admin, consumer, group, topic, partition, make)
            except _Interrupted:
                time.sleep(0.2)
            except KafkaException as error:
                code = error.args[0]
                if code.code() not in FENCED_CODES and not is_transient(code) and not code.txn_requires_abort():
                    raise explained(code, f"writing in the place of the owner of {topic}[{partition}]") from None
                time.sleep(0.2)
            else:
                return
    finally:
        consumer.close()
    raise StoppressError(
        f"{topic}[{partition}] changes hands all the time; wait until the workers of {group} are ready, or stop them"
    )


def _write(
    settings: Settings, admin: AdminClient, consumer: Consumer, group: str, topic: str, partition: int,
    make: Callable[[int], Sequence[Output]],
) -> None:  # fmt: skip
    owner = _owner(admin, group, topic, partition)
    producer = make_producer(settings, name="rebuild", transactional_id=owner or f"{group}.rebuild")
    producer.init_transactions(SECONDS)
    (stable,) = consumer.committed([TopicPartition(topic, partition)], SECONDS)  # waits for what is pending
    if stable.error is not None:
        raise KafkaException(stable.error)
    before = max(stable.offset, -1), stable.metadata or ""
    offset = _offset(before, group)
    outputs = make(offset)
    producer.begin_transaction()
    try:
        for output in outputs:
            producer.produce(output.topic, output.value, output.key, partition)
        producer.flush(SECONDS)
        token = TopicPartition(topic, partition, offset, f"rebuild.{secrets.token_hex(4)}")
        producer.send_offsets_to_transaction([token], consumer.consumer_group_metadata(), SECONDS)
        after = committed_offsets(settings, group, topic, [partition])[partition]
        if _owner(admin, group, topic, partition) != owner or after != before:
            raise _Interrupted
        producer.commit_transaction(SECONDS)
    except BaseException:
        _abort(producer)
        raise


def _owner(admin: AdminClient, group: str, topic: str, partition: int) -> str | None:
    """Return the instance id of the member that owns the partition, None where the group has no members.

    Raises :class:`_Interrupted` while it is being decided who does.
    """
    found = admin.describe_consumer_groups([group], request_timeout=SECONDS)[group].result()
    if found.state in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD):
        return None
    for member in found.members:
        if any((tp.topic, tp.partition) == (topic, partition) for tp in member.assignment.topic_partitions):
            return str(member.group_instance_id)
    raise _Interrupted


def _offset(committed: tuple[int, str], group: str) -> int:
    if committed[0] < 0:
        raise StoppressError(f"the group {group} has committed nothing yet: there is no state to make anew")
    return committed[0]


def _abort(producer: Producer) -> None:
    try:
        producer.abort_transaction(5)
    except KafkaException:  # fenced: its successor has ended it
        pass
