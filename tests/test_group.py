"""A group member's tables are those of the offsets it reads from, whatever happens to the group."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from confluent_kafka import TopicPartition
from prometheus_client import REGISTRY

from contract.errors import Fenced, TopicsDiffer
from contract.settings import Settings
from streams import group
from streams.clients import make_admin, make_consumer, make_producer
from streams.table import read_to_end
from streams.worker import Stopped
from tests.pipeline import await_true
from tests.streaming import DAMAGED, Member, make_topic, open_transaction, write


@dataclass
class Counting:
    """Events, the changelog of their counts, and the members that count them."""

    settings: Settings
    events: str
    changelog: str
    members: list[Member]
    sent: int = 0

    def member(self, slot: str = "0") -> Member:
        self.members.append(Member(self.settings, self.events, self.changelog, slot))
        return self.members[-1]

    def send(self, count: int) -> None:
        """As many events to each partition, each partition with keys of its own."""
        write(self.settings, self.events, *((i % 4, f"key {i % 4}-{i % 3}", b"") for i in range(4 * count)))
        self.sent += 4 * count

    def counts(self) -> dict[str, int]:
        """What the changelog says, by key."""
        newest = {r.key(): r.value() for r in read_to_end(self.settings, self.changelog, name="test")}
        return {key.decode(): int(value) for key, value in newest.items() if key and value}

    def assert_each_read_once(self) -> None:
        read = [place for member in self.members for place in member.read]
        assert len(read) == len(set(read)) == self.sent
        assert sum(self.counts().values()) == self.sent

    def commit_as_another(self, member: Member, offset: int, key: str) -> None:
        """A transaction that another process might have made for partition 0: a count and an offset."""
        with open_transaction(self.settings, self.changelog, (0, key, b"41")) as producer:
            metadata = member.source.offsets_and_metadata({})[1]
            producer.send_offsets_to_transaction([TopicPartition(self.events, 0, offset)], metadata, 20)
            producer.commit_transaction(20)


def expired() -> float:
    return REGISTRY.get_sample_value("stoppress_expired_offsets_total", {"worker": "counter"}) or 0.0


@pytest.fixture
def counting(settings: Settings) -> Iterator[Counting]:
    found = Counting(settings, make_topic(settings, "events", 4), make_topic(settings, "counts", 4), [])
    yield found
    for member in found.members:
        member.close()


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[str], bool]:
    """Whether this process has logged an event of this name."""
    caplog.set_level(logging.INFO, "stoppress")
    return lambda event: any(record.message == event for record in caplog.records)


class TestAssignment:
    def test_a_pending_transaction_on_the_offsets_is_waited_for_before_tables_are_restored(
        self, counting: Counting, logged: Callable[[str], bool]
    ) -> None:
        write(counting.settings, counting.events, *((0, "key", b"") for _ in range(5)))
        predecessor = make_consumer(counting.settings, name="test", group=f"{counting.settings.namespace}counter.g")
        with open_transaction(counting.settings, counting.changelog, (0, "key", b"3")) as producer:
            offsets = [TopicPartition(counting.events, 0, 3)]
            producer.send_offsets_to_transaction(offsets, predecessor.consumer_group_metadata(), 20)
            member = counting.member()
            thread = threading.Thread(target=member.until_assigned, args=([0, 1, 2, 3],))
            thread.start()
            await_true(lambda: logged("waiting_for_kafka"), "the member waits for the committed offsets")
            assert member.tables.restored == []
            assert member.source.assigned == []
            producer.commit_transaction(20)
            thread.join()
        predecessor.close()
        assert member.tables.restored == [{0: 3, 1: 0, 2: 0, 3: 0}]
        assert member.tables.values[0] == {"key": b"3"}
        member.until_read(2)
        assert member.read == [(0, 3), (0, 4)]
        assert counting.counts() == {"key": 5}

    def test_tables_are_restored_to_the_end_that_the_changelog_has_after_the_offsets(self, counting: Counting) -> None:
        """Also where its end is a transaction that is still open."""
        with open_transaction(counting.settings, counting.changelog, (2, "left over", b"7")) as producer:
            member = counting.member()
            thread = threading.Thread(target=member.until_assigned, args=([0, 1, 2, 3],))
            thread.start()
            await_true(lambda: member.tables.restored, "the restore has begun")
            assert member.source.assigned == []
            producer.abort_transaction(20)
            thread.join()
        assert member.tables.values == {0: {}, 1: {}, 2: {}, 3: {}}

    def test_a_stop_ends_the_wait_for_a_pending_transaction(
        self, counting: Counting, logged: Callable[[str], bool]
    ) -> None:
        predecessor = make_consumer(counting.settings, name="test", group=f"{counting.settings.namespace}counter.g")
        with open_transaction(counting.settings, counting.changelog, (0, "key", b"3")) as producer:
            offsets = [TopicPartition(counting.events, 0, 0)]
            producer.send_offsets_to_transaction(offsets, predecessor.consumer_group_metadata(), 20)
            member = counting.member()
            with ThreadPoolExecutor(1) as pool:
                ended = pool.submit(member.until_assigned, [0, 1, 2, 3])
                await_true(lambda: logged("waiting_for_kafka"), "it waits")
                member.stop.request()
                with pytest.raises(Stopped):
                    ended.result(10)
            producer.abort_transaction(20)
        predecessor.close()

    def test_it_is_ready_once_it_has_restored_and_not_before(self, counting: Counting) -> None:
        member = counting.member()
        assert not member.health.is_ready()
        member.until_assigned([0, 1, 2, 3])
        assert member.health.is_ready()


class TestRebalance:
    def test_partitions_that_stay_keep_their_tables_and_those_that_come_are_restored(self, counting: Counting) -> None:
        first = counting.member("0")
        first.until_assigned([0, 1, 2, 3])
        counting.send(25)
        first.until_read(100)
        second = counting.member("1")
        second.until_assigned([2, 3], first)
        first.until_assigned([0, 1], second)
        assert first.tables.restored == [dict.fromkeys(range(4), 0)], "restored once, when it began"
        assert first.tables.dropped == [{2, 3}]
        assert set(first.tables.values) == {0, 1}
        assert set(second.tables.values) == {2, 3}
        assert first.counts() | second.counts() == counting.counts()
        second.close()
        first.until_assigned([0, 1, 2, 3])
        assert set(first.tables.restored[-1]) == {2, 3}
        assert first.counts() == counting.counts()

    def test_under_load_each_record_is_read_once_and_only_by_its_owner(self, counting: Counting) -> None:
        first = counting.member("0")
        first.until_assigned([0, 1, 2, 3])
        ended = threading.Event()

        def load() -> None:
            while not ended.is_set():
                counting.send(50)

        loading = threading.Thread(target=load)
        loading.start()
        second = counting.member("1")
        running = threading.Thread(target=lambda: second.until_assigned([2, 3]))
        running.start()

        def met() -> bool:
            records = first.source.consume(1_000_000, 0.5)  # long enough for the rebalance to fall inside
            assert {r.partition() for r in records} <= set(first.source.assigned)
            if records:
                first.commit(records)
            return first.source.assigned == [0, 1] and not running.is_alive()

        await_true(met, "the second member has its half")
        ended.set()
        loading.join()
        running.join()
        await_true(
            lambda: (first.step(), second.step()) and len(first.read) + len(second.read) >= counting.sent,
            "all is read", seen=lambda: (len(first.read), len(second.read), counting.sent),
        )  # fmt: skip
        counting.assert_each_read_once()

    def test_after_a_failed_transaction_tables_stay_where_nobody_else_committed(self, counting: Counting) -> None:
        member = counting.member()
        counting.send(5)
        member.until_read(20)
        restored = list(member.tables.restored)
        member.source.reread()
        assert member.tables.restored == restored
        assert not member.tables.dropped
        counting.send(5)
        member.until_read(40)
        counting.assert_each_read_once()

    @pytest.mark.parametrize("moved", [0, 2], ids=["the same offset", "another offset"])
    def test_after_a_commit_by_another_tables_are_restored(self, counting: Counting, moved: int) -> None:
        """The offset need not move: an article that comes changes states without any event."""
        member = counting.member()
        counting.send(5)
        member.until_read(20)
        counting.send(moved)
        counting.commit_as_another(member, 5 + moved, "by another")
        member.source.reread()
        assert member.tables.dropped == [{0}]
        assert member.tables.restored[-1] == {0: 5 + moved}, "only where somebody committed"
        assert member.tables.values[0]["by another"] == b"41"

    def test_what_was_never_committed_is_not_kept(self, counting: Counting) -> None:
        member = counting.member()
        counting.send(1)
        member.until_read(4)
        member.tables.values[0]["key"] = b"not committed"
        member.source.reread(keep=False)
        assert member.tables.dropped == [{0, 1, 2, 3}]
        assert "key" not in member.tables.values[0]

    def test_a_second_member_in_the_same_slot_fences_the_first_that_reads_nothing(self, counting: Counting) -> None:
        first = counting.member("0")
        first.until_assigned([0, 1, 2, 3])
        second = counting.member("0")
        second.until_assigned([0, 1, 2, 3])
        with pytest.raises(Fenced, match="slot"):
            first.until_it_ends()


class TestTopics:
    @pytest.fixture(autouse=True)
    def _look_often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(group, "LOOK_SECONDS", 0.1)

    def test_records_that_were_deleted_unread_are_counted_and_the_rest_is_read(
        self, counting: Counting, logged: Callable[[str], bool]
    ) -> None:
        member = counting.member()
        counting.send(3)
        member.until_read(12)
        member.close()
        counting.members.clear()
        write(counting.settings, counting.events, *((0, "late", b"") for _ in range(7)))
        admin = make_admin(counting.settings)
        for deleted in admin.delete_records([TopicPartition(counting.events, 0, 8)]).values():
            deleted.result(20)
        before = expired()
        member = counting.member()
        member.until_read(2)
        assert member.read == [(0, 8), (0, 9)]
        assert expired() == before + 5
        assert logged("records_expired_unread")

    def test_records_that_are_deleted_under_it_are_counted_too(self, counting: Counting) -> None:
        member = counting.member()
        member.until_assigned([0, 1, 2, 3])
        write(counting.settings, counting.events, (0, "key", b""))
        member.until_read(1)
        before = expired()
        write(counting.settings, counting.events, *((0, "key", b"") for _ in range(8)))
        admin = make_admin(counting.settings)
        for deleted in admin.delete_records([TopicPartition(counting.events, 0, 8)]).values():
            deleted.result(20)
        member.source._read_from({0: 1})  # as if it had fetched nothing of it yet
        member.until_read(2)
        assert member.read == [(0, 0), (0, 8)]
        assert expired() == before + 7

    def test_an_offset_behind_the_end_ends_the_start_with_what_to_do(self, counting: Counting) -> None:
        consumer = make_consumer(counting.settings, name="test", group=f"{counting.settings.namespace}counter.g")
        consumer.commit(offsets=[TopicPartition(counting.events, 1, 100)], asynchronous=False)
        consumer.close()
        member = counting.member()
        with pytest.raises(TopicsDiffer, match=r"events\[1\] ends at 0, .*committed 100.*--reset-offsets"):
            member.until_assigned([0, 1, 2, 3])

    @pytest.mark.parametrize("which", ["events", "changelog", "beside"])
    def test_a_topic_that_is_made_anew_under_it_is_noticed(self, counting: Counting, which: str) -> None:
        beside = make_topic(counting.settings, "beside", 1)
        member = Member(counting.settings, counting.events, counting.changelog, also_read=[beside])
        counting.members.append(member)
        member.until_assigned([0, 1, 2, 3])
        topic = beside if which == "beside" else getattr(counting, which)
        admin = make_admin(counting.settings)
        admin.delete_topics([topic])[topic].result(20)
        with pytest.raises(TopicsDiffer, match=f"topic {topic} "):
            member.until_it_ends()

    def test_an_unreadable_record_pauses_its_partition_alone_until_it_is_replaced(
        self, counting: Counting, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(
            counting.settings,
            counting.changelog,
            (1, "key 1-0", DAMAGED),
            (2, "key 2-0", DAMAGED),
            (2, "key 2-0", b"0"),
        )
        member = counting.member()
        member.until_assigned([0, 2, 3])
        assert not member.health.is_ready()
        (said,) = [record for record in caplog.records if record.message == "partition_paused"]
        fields = said.__dict__["fields"]
        assert fields["partition"] == 1
        assert fields["record"] == f"{counting.changelog}[1]@0: it says so"
        assert "tombstone" in fields["do"]
        counting.send(10)
        member.until_read(30)
        assert {partition for partition, _ in member.read} == {0, 2, 3}
        member.source._look_at = 0.0
        member.step()
        assert member.source.measure_lag() == {1: 10}, "what nobody reads is behind too"
        write(counting.settings, counting.changelog, (1, "key 1-0", None))
        member.until_read(40)
        assert member.source.measure_lag() == {}
        assert member.health.is_ready()
        counting.assert_each_read_once()

    def test_a_paused_partition_stays_paused_over_a_rebalance(self, counting: Counting) -> None:
        write(counting.settings, counting.changelog, (3, "key", DAMAGED))
        first = counting.member("0")
        first.until_assigned([0, 1, 2])
        second = counting.member("1")
        second.until_assigned([2], first)
        assert not second.health.is_ready()
        first.until_assigned([0, 1], second)
        assert first.health.is_ready()


def test_events_of_an_aborted_transaction_are_never_read_and_open_ones_only_once_committed(counting: Counting) -> None:
    with open_transaction(counting.settings, counting.events, (0, "aborted", b""), (1, "aborted", b"")) as producer:
        producer.abort_transaction(20)
    member = counting.member()
    member.until_assigned([0, 1, 2, 3])
    with open_transaction(counting.settings, counting.events, (0, "late", b"")) as producer:
        write(counting.settings, counting.events, (1, "plain", b""))
        member.until_read(1)
        assert member.counts() == {"plain": 1}
        producer.commit_transaction(20)
    member.until_read(2)
    assert member.counts() == counting.counts() == {"plain": 1, "late": 1}


def test_without_partitions_nothing_can_be_written(counting: Counting) -> None:
    member = counting.member()
    with pytest.raises(AssertionError, match="fenced"):
        member.commit([])


def test_the_lag_is_what_was_sent_and_not_committed(counting: Counting) -> None:
    member = counting.member()
    counting.send(10)
    member.until_read(40)
    assert member.source.measure_lag() == {}
    producer = make_producer(counting.settings, name="test")
    for _ in range(7):
        producer.produce(counting.events, b"", b"key", 0)
    assert producer.flush(20) == 0
    assert await_true(lambda: member.source.consume(1000, 0.1), "they come")
    assert member.source.measure_lag() == {0: 7}
