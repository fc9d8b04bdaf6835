"""The users worker as a process: what signals, rivals, stalls and damage do to it, and that nothing is lost by them."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from contract.messages import Event, decode, encode
from contract.records import ArticleMeta, ArticleRecord, decode_user, encode_article
from encoders.articles import hash64
from streams.clients import make_admin, make_consumer
from streams.local_broker import LocalBroker
from tests.pipeline import Pipeline, Seen, Worker, await_true, event, now_ms, pipeline_on, states_of
from tests.replay import hashes
from tests.streaming import open_transaction

ARTICLES = [f"article-{n}" for n in range(20)]


@pytest.fixture
def pipeline(broker: LocalBroker, tmp_path: Path) -> Iterator[Pipeline]:
    """Topics with the vectors of some articles in them."""
    with pipeline_on(broker, tmp_path) as started:
        publish_vectors(started)
        yield started


def publish_vectors(pipeline: Pipeline) -> None:
    random = np.random.default_rng(1)
    for article_id in ARTICLES:
        vector = random.standard_normal(pipeline.model.dims).astype(np.float32)
        meta = ArticleMeta(category=article_id[-1])
        record = ArticleRecord(vector / np.linalg.norm(vector), now_ms(), 0, now_ms(), meta)
        pipeline.send(pipeline.topics.article_vectors, article_id.encode(), encode_article(record))


def send_clicks(pipeline: Pipeline, count: int, patience: float = 30) -> int:
    """Clicks of many users, one after the other; blocks until Kafka has them."""
    clicks = (event(f"user-{n % 50}", "click", ARTICLES[n % len(ARTICLES)]) for n in range(count))
    records = [(pipeline.topics.user_events, click.user_id.encode(), encode(click), -1) for click in clicks]
    pipeline.send_all(records, patience)
    return count


@contextmanager
def load(pipeline: Pipeline) -> Iterator[list[int]]:
    """Clicks all the time; at the end the one number in the list says how many there were."""
    ended = threading.Event()
    sent = [0]

    def send() -> None:
        while not ended.is_set():
            sent[0] += send_clicks(pipeline, 100, patience=90)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        ended.set()
        thread.join()


def read_count(pipeline: Pipeline, worker: Worker) -> float:
    return worker.metric("stoppress_events_total")


def assert_every_version_is_consistent(states: Sequence[Seen]) -> None:
    """The states of a user as a reader of committed records saw them: never back, each event once."""
    before: dict[bytes, tuple[int, int]] = {}
    for record in states:
        if record.value is None or record.key is None or record.key.startswith(b"~"):
            continue
        user = decode_user(record.value)
        folded, last_offset = before.get(record.key, (0, -1))
        assert user.folded > folded, f"{record} after {folded} events"
        assert user.last_offset > last_offset
        before[record.key] = user.folded, user.last_offset


def open_ends(pipeline: Pipeline) -> list[int]:
    """Partitions of user-vectors at whose end a transaction is open."""
    admin = make_admin(pipeline.settings)
    asked = {
        TopicPartition(pipeline.topics.user_vectors, p): OffsetSpec.latest()  # type: ignore[no-untyped-call]
        for p in range(pipeline.settings.partitions)
    }
    ends = [
        {
            tp.partition: answer.result().offset
            for tp, answer in admin.list_offsets(asked, isolation_level=level).items()
        }
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
    ]
    return [p for p, end in ends[0].items() if end != ends[1][p]]


def test_it_is_ready_only_after_its_restore(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users")
    with open_transaction(pipeline.settings, pipeline.topics.user_vectors, (0, "somebody", None)) as producer:
        worker.start(ready=False)
        worker.await_log("listening")
        await_true(lambda: pipeline_group_has_a_member(pipeline), "it has joined")
        assert worker.get("/readyz")[0] == 503
        assert worker.get("/healthz")[0] == 200
        producer.abort_transaction(20)
    worker.await_ready()
    worker.await_log("restored")
    assert worker.metric("stoppress_ready") == 1


def pipeline_group_has_a_member(pipeline: Pipeline) -> bool:
    admin = make_admin(pipeline.settings)
    group = f"{pipeline.settings.namespace}users.{pipeline.topics.generation}"
    try:
        return bool(admin.describe_consumer_groups([group])[group].result().members)
    except KafkaException:
        return False


def test_sigterm_under_load_ends_in_time_with_nothing_open_and_nothing_lost(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users").start()
    with load(pipeline) as sent:
        await_true(lambda: read_count(pipeline, worker) > 500, "it is busy")
        assert worker.stop() == 0
        assert open_ends(pipeline) == []
        worker.start()
        await_true(lambda: read_count(pipeline, worker) > 500, "it is busy again")
        assert worker.stop() == 0
    worker.start()
    totals = pipeline.until_all_read(sent[0])
    assert sum(t.folded for t in totals.values()) == sent[0]
    assert_every_version_is_consistent(pipeline.records(pipeline.topics.user_vectors).to_the_end())


def test_sigterm_during_a_restore_ends_it_at_once(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users")
    with open_transaction(pipeline.settings, pipeline.topics.user_vectors, (0, "somebody", None)) as producer:
        worker.start(ready=False)
        await_true(lambda: pipeline_group_has_a_member(pipeline), "it has joined")
        assert worker.stop() == 0
        producer.abort_transaction(20)


def test_a_second_process_in_the_slot_takes_over_and_the_first_ends_with_exit_code_1(pipeline: Pipeline) -> None:
    first = pipeline.worker("users").start()
    with load(pipeline) as sent:
        await_true(lambda: read_count(pipeline, first) > 500, "the first is busy")
        second = pipeline.worker("users").start()
        assert first.exit_code() == 1
        assert "slot" in first.lines()[-1]["text"]
        await_true(lambda: read_count(pipeline, second) > 500, "the second is busy")
        assert second.running
    pipeline.until_all_read(sent[0])
    assert_every_version_is_consistent(pipeline.records(pipeline.topics.user_vectors).to_the_end())


def test_a_second_set_with_the_same_slots_takes_over_and_the_first_stays_down(pipeline: Pipeline) -> None:
    first = [pipeline.worker("users", slot).start() for slot in "ab"]
    with load(pipeline) as sent:
        await_true(lambda: all(read_count(pipeline, worker) > 100 for worker in first), "the first set is busy")
        second = [pipeline.worker("users", slot).start(ready=False) for slot in "ab"]
        for worker in first:
            assert worker.exit_code(60) == 1
            (line,) = worker.lines("fenced")
            assert line["slot"] == worker.settings.slot
            assert "no two may have a slot" in line["do"]
        for worker in second:
            worker.await_ready()
        await_true(lambda: all(read_count(pipeline, worker) > 100 for worker in second), "the second set is busy")
    assert all(worker.running and not worker.lines("fenced") for worker in second)
    totals = pipeline.until_all_read(sent[0])
    assert sum(t.folded for t in totals.values()) == sent[0]
    assert_every_version_is_consistent(pipeline.records(pipeline.topics.user_vectors).to_the_end())


def test_a_kill_while_users_merge_hands_each_over_once(pipeline: Pipeline) -> None:
    pairs = [(f"old-{n}", f"new-{n}", ARTICLES[n % len(ARTICLES)]) for n in range(300)]
    events = [e for old, new, article in pairs for e in (event(old, "click", article), event(old, "merge", target=new))]
    worker = pipeline.worker("users", batch_events=5).start()
    pipeline.send_all([(pipeline.topics.user_events, e.user_id.encode(), encode(e), -1) for e in events])
    await_true(lambda: worker.metric("stoppress_absorbs_written_total") > 20, "it is in the middle of it")
    worker.kill()
    worker.start()
    pipeline.until_all_read(3 * len(pairs))
    assert worker.metric("stoppress_absorbs_written_total") > 0, "some merges were left"
    log = pipeline.records(pipeline.topics.user_events).to_the_end()
    absorbs = [r.key for r in log if decode(Event, r.value or b"").kind == "absorb"]
    assert sorted(absorbs, key=str) == sorted((new.encode() for _, new, _ in pairs), key=str)
    states = states_of(pipeline.records(pipeline.topics.user_vectors).to_the_end())
    assert states.keys() == {new for _, new, _ in pairs}
    assert {user: (s.folded, hashes(s.windows.read)) for user, s in states.items()} == {
        new: (1, [hash64(article)]) for _, new, article in pairs
    }


def test_a_stalled_worker_publishes_nothing_after_its_successor_and_comes_back(pipeline: Pipeline) -> None:
    """SIGSTOP past the session: another slot takes the partitions, then the stalled one goes on where it stood."""
    stalled = pipeline.worker("users", slot="a").start()
    successor = pipeline.worker("users", slot="b")
    with load(pipeline) as sent:
        await_true(lambda: read_count(pipeline, stalled) > 500, "the first is busy")
        stalled.signal(signal.SIGSTOP)
        successor.start()
        await_true(lambda: successor.metric("stoppress_partitions_assigned") == 4, "the successor has all partitions")
        await_true(lambda: read_count(pipeline, successor) > 500, "the successor is busy")
        stalled.signal(signal.SIGCONT)
        await_true(lambda: stalled.metric("stoppress_rebalances_total", kind="lost") == 1, "it learns what it lost")
        await_true(
            lambda: all(w.metric("stoppress_partitions_assigned") == 2 for w in (stalled, successor)), "they share"
        )
    assert stalled.running
    pipeline.until_all_read(sent[0])
    assert_every_version_is_consistent(pipeline.records(pipeline.topics.user_vectors).to_the_end())


def test_an_unreadable_state_pauses_its_partition_until_it_is_replaced(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users").start()
    sent = send_clicks(pipeline, 400)
    pipeline.until_all_read(sent)
    assert worker.stop() == 0
    partition = pipeline.partition("user-0")
    damaged = pipeline.send(pipeline.topics.user_vectors, b"user-0", b"damaged", partition)
    worker.start(ready=False)
    line = worker.await_log("partition_paused")
    assert line["record"].startswith(f"{pipeline.topics.user_vectors}[{partition}]@{damaged.offset}: ")
    send_clicks(pipeline, 400)
    others = {p for p in range(4) if p != partition}
    await_true(
        lambda: (
            read_count(pipeline, worker) == sum(pipeline.partition(f"user-{n % 50}") != partition for n in range(400))
        ),
        f"partitions {others} go on",
    )
    assert worker.get("/readyz")[0] == 503
    assert worker.metric("stoppress_partitions_paused") == 1
    state = next(r for r in reversed(pipeline.records(pipeline.topics.user_vectors).all) if r.key == b"user-0")
    assert state.value is not None
    pipeline.send(pipeline.topics.user_vectors, b"user-0", None, partition)
    worker.await_ready()
    await_true(lambda: read_count(pipeline, worker) == 400, "the rest is read")
    folded = {
        user: s.folded for user, s in states_of(pipeline.records(pipeline.topics.user_vectors).to_the_end()).items()
    }
    assert folded == {f"user-{n}": 8 if n == 0 else 16 for n in range(50)}, "only the replaced state began anew"


def set_back(pipeline: Pipeline, metadata: str) -> None:
    """Commit offset 0 for partition 1."""
    consumer = make_consumer(
        pipeline.settings, name="test", group=f"{pipeline.settings.namespace}users.{pipeline.topics.generation}"
    )

    def committed() -> bool:
        try:
            consumer.commit(offsets=[TopicPartition(pipeline.topics.user_events, 1, 0, metadata)], asynchronous=False)
        except KafkaException:  # until the session of the stopped worker ends
            return False
        return True

    await_true(committed, "the offset is set back")
    consumer.close()


def test_an_offset_that_kafka_lost_is_found_in_the_changelog(pipeline: Pipeline) -> None:
    """As it answers after a crash: with an offset that a worker committed long before."""
    worker = pipeline.worker("users").start()
    sent = send_clicks(pipeline, 100)
    pipeline.until_all_read(sent)
    assert worker.stop() == 0
    set_back(pipeline, "a worker's token")
    worker.start()
    assert worker.await_log("offsets_lost")["partition"] == 1
    pipeline.until_all_read(sent + send_clicks(pipeline, 100))


def test_offsets_that_were_set_back_end_the_start_with_what_to_do(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users").start()
    pipeline.until_all_read(send_clicks(pipeline, 100))
    assert worker.stop() == 0
    set_back(pipeline, "")
    worker.start(ready=False)
    assert worker.exit_code() == 2
    assert "would read them again from 0" in worker.lines()[-1]["text"]
    assert "--reset-offsets" in worker.lines()[-1]["text"]


def test_the_log_names_no_user(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users", log_level="debug").start()
    user = "a-reader-whom-nobody-names"
    pipeline.event(user, "click", ARTICLES[0])
    pipeline.event(user, "click", "an-unknown-article")
    pipeline.until_dead(pipeline.send(pipeline.topics.user_events, user.encode(), b"{}"))
    pipeline.until_dead(pipeline.send(pipeline.topics.user_events, user.encode(), b'{"user_id": "another-reader"}'))
    pipeline.event(user, "forget")
    pipeline.until_all_read(5)
    assert worker.stop() == 0
    log = json.dumps(worker.lines())
    assert "reader" not in log
    assert worker.lines("starting")
    assert not worker.lines("?"), "each line is JSON"


def test_while_kafka_is_away_it_waits_and_a_signal_still_ends_it(tmp_path: Path) -> None:
    with (
        LocalBroker.start(tmp_path / "kafka") as own,
        pipeline_on(own, tmp_path, transaction_timeout_ms=2000) as pipeline,
    ):
        publish_vectors(pipeline)
        worker = pipeline.worker("users").start()
        with load(pipeline) as sent:
            await_true(lambda: read_count(pipeline, worker) > 500, "it is busy")
            own.kill()
            worker.await_log("waiting_for_kafka", count=2)
            assert worker.get("/healthz")[0] == 200
            own.restart()
            read = read_count(pipeline, worker)
            await_true(lambda: read_count(pipeline, worker) > read + 500, "it goes on", 60)
        pipeline.until_all_read(sent[0])
        assert_every_version_is_consistent(pipeline.records(pipeline.topics.user_vectors).to_the_end())
        own.kill()
        assert worker.stop() in (0, 1)
