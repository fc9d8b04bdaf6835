"""A table reader knows when it has caught up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from confluent_kafka import TopicPartition

from contract.errors import StoppressError, TopicsDiffer
from contract.settings import Settings
from streams.clients import make_admin
from streams.health import HealthServer, Pulse
from streams.table import TableReader, read_to_end
from streams.worker import Stop, Stopped
from tests.pipeline import await_true
from tests.streaming import make_topic, open_transaction, write

Read = list[tuple[int, bytes | None, bytes | None]]


def read(settings: Settings, topic: str) -> Read:
    return sorted((r.partition(), r.key(), r.value()) for r in read_to_end(settings, topic, name="test"))


@pytest.fixture
def pulse() -> Iterator[tuple[Stop, Pulse]]:
    stop = Stop()
    with HealthServer("127.0.0.1", 0) as health:
        yield stop, Pulse(stop, health)


def test_it_yields_everything_with_tombstones_and_then_what_comes_later(settings: Settings) -> None:
    topic = make_topic(settings, "table")
    write(settings, topic, (0, "a", b"1"), (1, "b", b"2"), (0, "a", None))
    with closing(TableReader(settings, topic, name="test")) as reader:
        assert sorted((r.key(), r.value() or b"") for r in reader.catch_up()) == [
            (b"a", b""),
            (b"a", b"1"),
            (b"b", b"2"),
        ]
        assert reader.caught_up
        write(settings, topic, (1, "c", b"3"))
        assert await_true(lambda: reader.poll(0.1) or None, "the new record comes")[0].key() == b"c"
        write(settings, topic, (0, "d", b"4"))
        assert [r.key() for r in reader.catch_up()] == [b"d"], "to the end as it is now"


def test_of_some_partitions_it_reads_no_other(settings: Settings) -> None:
    topic = make_topic(settings, "table", partitions=3)
    write(settings, topic, (0, "a", b"1"), (1, "b", b"2"), (2, "c", b"3"))
    assert {r.key() for r in read_to_end(settings, topic, name="test", partitions=[0, 2])} == {b"a", b"c"}


def test_an_empty_topic_is_read_at_once(settings: Settings) -> None:
    assert read(settings, make_topic(settings, "table", partitions=4)) == []


def test_a_partition_whose_records_were_all_deleted_is_read_at_once(settings: Settings) -> None:
    topic = make_topic(settings, "table", cleanup_policy="delete")
    write(settings, topic, (0, "a", b"1"), (0, "b", b"2"), (1, "c", b"3"))
    admin = make_admin(settings)
    for deleted in admin.delete_records([TopicPartition(topic, 0, 2)]).values():
        deleted.result(20)
    assert read(settings, topic) == [(1, b"c", b"3")]


@pytest.mark.parametrize("outcome", ["commit", "abort"])
def test_an_open_transaction_at_the_end_is_waited_for(settings: Settings, outcome: str) -> None:
    topic = make_topic(settings, "table", partitions=1)
    write(settings, topic, (0, "a", b"1"))
    with (
        open_transaction(settings, topic, (0, "b", b"2")) as producer,
        closing(TableReader(settings, topic, name="test")) as reader,
    ):
        assert [r.key() for r in reader.poll(1.0)] == [b"a"]
        assert reader.poll(0.3) == []
        assert not reader.caught_up
        producer.commit_transaction(20) if outcome == "commit" else producer.abort_transaction(20)
        assert [r.key() for r in reader.catch_up(20)] == ([b"b"] if outcome == "commit" else [])
        assert reader.caught_up


def test_what_was_aborted_is_never_seen_and_what_stands_behind_it_is(settings: Settings) -> None:
    topic = make_topic(settings, "table", partitions=1)
    with open_transaction(settings, topic, (0, "a", b"aborted"), (0, "b", b"aborted")) as producer:
        producer.abort_transaction(20)
    write(settings, topic, (0, "a", b"1"))
    with open_transaction(settings, topic, (0, "c", b"aborted")) as producer:
        producer.abort_transaction(20)
    assert read(settings, topic) == [(0, b"a", b"1")]


def test_after_compaction_the_last_value_of_each_key_is_there(settings: Settings) -> None:
    topic = make_topic(
        settings, "table", partitions=1, cleanup_policy="compact", segment_ms="100",
        min_cleanable_dirty_ratio="0.01", max_compaction_lag_ms="100",
    )  # fmt: skip
    write(settings, topic, *((0, f"k{i % 5}", str(i).encode()) for i in range(1000)))

    def compacted() -> bool:
        write(settings, topic, (0, "tick", b""))  # a segment ends when something comes after its time
        return len(read(settings, topic)) < 500

    await_true(compacted, "the log is compacted")
    newest = {key: value for _, key, value in read(settings, topic) if key != b"tick"}
    assert newest == {f"k{i}".encode(): str(995 + i).encode() for i in range(5)}


def test_where_nothing_comes_it_says_which_partitions_are_held_up(settings: Settings) -> None:
    topic = make_topic(settings, "table")
    with (
        open_transaction(settings, topic, (1, "b", b"2")) as producer,
        closing(TableReader(settings, topic, name="test")) as reader,
    ):
        with pytest.raises(StoppressError, match=r"partitions \[1\] .* open"):
            list(reader.catch_up(0.3))
        producer.abort_transaction(20)


def test_a_stop_ends_the_wait(settings: Settings, pulse: tuple[Stop, Pulse]) -> None:
    stop, beating = pulse
    topic = make_topic(settings, "table", partitions=1)
    with open_transaction(settings, topic, (0, "b", b"2")) as producer:
        threading.Timer(0.2, stop.request).start()
        with pytest.raises(Stopped):
            list(read_to_end(settings, topic, name="test", pulse=beating))
        producer.abort_transaction(20)


def test_a_missing_topic_is_named(settings: Settings) -> None:
    with pytest.raises(TopicsDiffer, match="absent is missing; run `stoppress topics create`"):
        TableReader(settings, f"{settings.namespace}absent", name="test")
