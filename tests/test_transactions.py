"""Outputs and input offsets become visible together or not at all, and only by who owns the slot."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from prometheus_client import REGISTRY

from contract.errors import Fenced, SetupError, StoppressError, TransactionFailed
from contract.settings import Settings
from streams.clients import make_admin, make_consumer
from streams.local_broker import LocalBroker, process
from streams.record import Record
from streams.table import TableReader, read_to_end
from tests.pipeline import await_true, settings_for
from tests.streaming import Member, make_topic, write

EVENTS = 8


@pytest.fixture
def member(settings: Settings) -> Iterator[Member]:
    """A member that owns two partitions with four unread records in each."""
    events, changelog = make_topic(settings, "events"), make_topic(settings, "counts", max_message_bytes="10000")
    found = Member(settings.model_copy(update={"transaction_timeout_ms": 1000}), events, changelog)
    found.until_assigned([0, 1])
    write(settings, events, *((i % 2, "key", b"") for i in range(EVENTS)))
    yield found
    found.close()


def consume_all(member: Member) -> list[Record]:
    """All records, read but not committed."""
    records: list[Record] = []

    def found() -> bool:
        records.extend(member.source.consume(1000, 0.1))
        return len(records) == EVENTS

    await_true(found, "all records are read", seen=lambda: len(records))
    return records


@contextmanager
def write_one(member: Member, value: bytes) -> Iterator[None]:
    """A transaction over all records, one output of which lies in the topic when the body begins."""
    records = consume_all(member)
    with member.output.transaction(member.source, member.source.positions_after(records)):
        member.output.send(member.tables.changelog, b"key", value, 0)
        assert uncommitted_values(member, 1) == [value]
        yield


def offsets(member: Member) -> list[int]:
    consumer = make_consumer(member.settings, name="test", group=f"{member.settings.namespace}counter.g")
    try:
        return [tp.offset for tp in consumer.committed([TopicPartition(member.events, p) for p in (0, 1)], 20)]
    finally:
        consumer.close()


def values(member: Member) -> list[bytes | None]:
    return [r.value() for r in read_to_end(member.settings, member.tables.changelog, name="test")]


def ended(outcome: str) -> float:
    """How many transactions of this process came to this end."""
    return REGISTRY.get_sample_value("stoppress_transactions_total", {"worker": "counter", "outcome": outcome}) or 0.0


def uncommitted_values(member: Member, count: int) -> Sequence[bytes | None]:
    consumer = make_consumer(member.settings, name="test", read_committed=False)
    try:
        consumer.assign([TopicPartition(member.tables.changelog, p, 0) for p in (0, 1)])
        read: list[bytes | None] = []

        def found() -> bool:  # the producer's own first records have no value
            read.extend(m.value() for m in consumer.consume(1000, 0.1) if m.value() is not None)
            return len(read) >= count

        await_true(found, f"{count} records are written", seen=lambda: read)
        return read
    finally:
        consumer.close()


def test_outputs_and_offsets_are_committed_together(member: Member) -> None:
    records = consume_all(member)
    assert offsets(member) == [-1001, -1001]
    with member.output.transaction(member.source, member.source.positions_after(records)):
        for partition in (0, 1):
            member.output.send(member.tables.changelog, b"key", b"4", partition)
        assert values_now(member) == []
        assert offsets(member) == [-1001, -1001]
    assert values(member) == [b"4", b"4"]
    assert offsets(member) == [4, 4]


def values_now(member: Member) -> list[bytes | None]:
    """What a reader of committed records gets while a transaction may be open."""
    reader = TableReader(member.settings, member.tables.changelog, name="test")
    try:
        return [r.value() for r in reader.poll(0.5)]
    finally:
        reader.close()


def test_the_offsets_of_all_owned_partitions_are_committed_changed_or_not(member: Member) -> None:
    with member.output.transaction(member.source, member.source.positions_after([])):
        member.output.send(member.tables.changelog, b"key", b"by an article", 1)
    assert offsets(member) == [0, 0]


def test_an_error_aborts_and_nobody_sees_what_was_written(member: Member) -> None:
    def fail() -> None:
        with write_one(member, b"never"):
            raise ZeroDivisionError

    before = ended("aborted")
    with pytest.raises(ZeroDivisionError):
        fail()
    assert ended("aborted") == before + 1
    assert values(member) == []
    assert offsets(member) == [-1001, -1001]
    member.source.reread()
    member.until_read(EVENTS)
    assert values(member) == [b"4", b"4"]


def test_a_transaction_that_took_too_long_is_done_again_and_fences_nobody(member: Member) -> None:
    """To its producer, Kafka's abort looks like a successor in the same slot."""

    def take_too_long() -> None:
        with write_one(member, b"too late"):
            assert values(member) == [], "this waits until Kafka has ended the transaction"

    before = ended("aborted")
    with pytest.raises(TransactionFailed):
        take_too_long()
    assert ended("aborted") == before + 1
    member.source.reread()
    member.until_read(EVENTS)
    assert values(member) == [b"4", b"4"]


def test_a_second_process_in_the_slot_fences_the_first_while_it_works(member: Member) -> None:
    records = consume_all(member)
    second = Member(member.settings, member.events, member.tables.changelog)
    second.until_assigned([0, 1])
    try:
        with pytest.raises(Fenced, match="slot"):
            member.commit(records)
        assert values(member) == []
        second.until_read(EVENTS)
        assert values(second) == [b"4", b"4"]
    finally:
        second.close()


def test_a_predecessor_that_left_a_transaction_open_is_ended_by_its_successor(member: Member) -> None:
    """As after kill -9: the successor need not wait until Kafka gives up on the transaction."""
    member.output._producer.begin_transaction()
    member.output.send(member.tables.changelog, b"key", b"left open", 0)
    assert uncommitted_values(member, 1) == [b"left open"]
    patient = member.settings.model_copy(update={"transaction_timeout_ms": 600_000})
    second = Member(patient, member.events, member.tables.changelog)
    try:
        second.until_read(EVENTS)
        assert values(second) == [b"4", b"4"]
    finally:
        second.close()


def test_a_transaction_whose_end_kafka_lost_is_ended_by_a_successor(tmp_path: Path) -> None:
    """Its end came due while the only broker started again: KAFKA-20734, in Kafka 4.3 and 4.4."""
    with LocalBroker.start(tmp_path / "kafka") as broker:
        settings = settings_for(broker, transaction_timeout_ms=1000)
        events, changelog = make_topic(settings, "events"), make_topic(settings, "counts")
        write(settings, events, *((i % 2, "key", b"") for i in range(EVENTS)))
        dead = Member(settings, events, changelog)
        dead.until_assigned([0, 1])
        dead.output._producer.begin_transaction()
        dead.output.send(changelog, b"key", b"left open", 0)
        offsets_of_all = dead.source.offsets_and_metadata(dead.source.positions_after([]))
        dead.output._producer.send_offsets_to_transaction(*offsets_of_all, 5)
        assert uncommitted_values(dead, 1) == [b"left open"]
        broker.kill()
        time.sleep(1.5)
        broker.restart()
        successor = Member(settings, events, changelog)
        try:
            successor.until_read(EVENTS)
            assert values(successor) == [b"4", b"4"]
        finally:
            successor.close()
            dead.close()


def test_what_cannot_be_written_at_all_ends_the_worker_with_the_topic_and_the_reason(member: Member) -> None:
    too_large = os.urandom(20_000)

    def try_again() -> None:
        while True:
            try:
                with member.output.transaction(member.source, member.source.positions_after([])):
                    member.output.send(member.tables.changelog, b"key", too_large, 0)
            except TransactionFailed:
                member.source.reread()

    with pytest.raises(StoppressError, match=rf"in a row failed.*{member.tables.changelog}.*too large"):
        try_again()
    assert values(member) == []


def test_a_broker_that_refuses_transactions_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authorizer = (
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
        "allow.everyone.if.no.acl.found=true\n"
    )
    monkeypatch.setattr(process, "_PROPERTIES", process._PROPERTIES + authorizer)
    with LocalBroker.start(tmp_path) as broker:
        settings = settings_for(broker)
        denied = AclBinding(
            ResourceType.TRANSACTIONAL_ID, settings.namespace, ResourcePatternType.PREFIXED,
            "User:ANONYMOUS", "*", AclOperation.ALL, AclPermissionType.DENY,
        )  # fmt: skip
        admin = make_admin(settings)
        for created in admin.create_acls([denied]).values():
            created.result(20)
        events, changelog = make_topic(settings, "events"), make_topic(settings, "counts")

        def refused() -> SetupError | None:
            try:
                Member(settings, events, changelog).close()
            except SetupError as error:
                return error
            return None

        error = await_true(refused, "the rule holds")
    assert "Kafka refuses init_transactions" in str(error)
    assert "\n" not in str(error)
