"""``stoppress rebuild user`` on a real Kafka: the state is what a plain fold of the log gives, nothing else moves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka import TopicPartition

from consumers.verify import verify
from contract.messages import Event
from contract.records import PARTITION_KEY, UserRecord, decode_article, encode_user
from encoders.articles import hash64
from encoders.decay import Decay
from encoders.fold_rules import FoldLimits
from encoders.user_state import MASK64, event_hash
from streams.clients import make_admin
from streams.local_broker import LocalBroker
from streams.worker import Stop
from tests.command import Answer, stoppress
from tests.pipeline import Pipeline, Seen, await_true, pipeline_on, states_of, totals_of
from tests.reference_fold import Reference
from tests.replay import hashes
from tests.strategies import Change, Record
from tests.test_worker import ARTICLES, publish_vectors, send_clicks

USER = "user-0"


@pytest.fixture
def pipeline(broker: LocalBroker, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline_on(broker, tmp_path) as started:
        publish_vectors(started)
        yield started


def rebuild(pipeline: Pipeline, *user: str) -> Answer:
    answer = stoppress(pipeline.settings, "rebuild", "user", *user)
    assert answer.code == 0, answer
    return answer


def state_of(pipeline: Pipeline, user: str = USER) -> UserRecord:
    return states_of(pipeline.records(pipeline.topics.user_vectors).to_the_end())[user]


def poison(pipeline: Pipeline, value: bytes = b"damaged") -> None:
    pipeline.send(pipeline.topics.user_vectors, USER.encode(), value, pipeline.partition(USER))


def statistics(pipeline: Pipeline) -> list[Seen]:
    topics = pipeline.topics
    return [r for t in (topics.article_stats, topics.co_reads) for r in pipeline.records(t).to_the_end()]


def assert_as_a_plain_fold(pipeline: Pipeline, user: str = USER) -> None:
    """The state against an independent fold of the partition's log, with the articles of now."""
    partition = pipeline.partition(user)
    vectors = pipeline.records(pipeline.topics.article_vectors).to_the_end()
    articles = [Change((r.key or b"").decode(), decode_article(r.value or b"")) for r in vectors]
    log = [r for r in pipeline.records(pipeline.topics.user_events).to_the_end() if r.partition == partition]
    events = [Record(r.offset, r.timestamp, msgspec.json.decode(r.value or b"", type=Event)) for r in log]
    model = pipeline.model
    assert isinstance(model, Decay)
    reference = Reference(model, FoldLimits.of(pipeline.settings), partition)
    expected, state = reference.run([*articles, *events]).users[user], state_of(pipeline, user)
    assert (state.folded, state.last_offset) == (len(expected.offsets), max(expected.offsets))
    assert state.hash_sum == sum(event_hash(partition, offset) for offset in expected.offsets) & MASK64
    assert (state.at, state.timestamp) == (expected.at(), expected.timestamp)
    assert hashes(state.windows.read) == [hash64(article_id) for article_id in expected.read]
    assert [wait.offset for wait in state.windows.waiting] == [wait.place[1] for wait in expected.waiting]
    np.testing.assert_allclose(state.vector, expected.vector(model), rtol=1e-4, atol=1e-6)


@contextmanager
def steady_load(pipeline: Pipeline) -> Iterator[list[int]]:
    """A transaction's worth of clicks all the time, less than a worker can do; at the end the list says how many."""
    ended, sent = threading.Event(), [0]

    def send() -> None:
        while not ended.wait(0.03):
            sent[0] += send_clicks(pipeline, 20)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        ended.set()
        thread.join()


def assert_all_is_equal(pipeline: Pipeline) -> None:
    report = verify(pipeline.settings, pipeline.topics, pipeline.model, Stop(), seconds=0)
    assert report.differences == []
    assert report.unchecked_users == report.unchecked_partitions == 0


def test_a_state_that_cannot_be_read_is_made_anew_and_the_paused_partition_goes_on(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users").start()
    pipeline.event(USER, "click", "comes-while-paused")
    pipeline.event(USER, "click", "never-comes")
    sent = send_clicks(pipeline, 200) + 2
    pipeline.until_all_read(sent)
    assert worker.stop() == 0
    counted = statistics(pipeline)
    poison(pipeline)
    vector = pipeline.records(pipeline.topics.article_vectors).to_the_end()[0].value
    pipeline.send(pipeline.topics.article_vectors, b"comes-while-paused", vector)
    worker.start(ready=False)
    assert "`stoppress rebuild user ID`" in worker.await_log("partition_paused")["do"]
    later = send_clicks(pipeline, 100)
    answer = rebuild(pipeline)
    assert answer.lines[0].startswith(f"{USER}: a state of 5 events, 1 waiting, up to offset ")
    assert [r for r in statistics(pipeline) if r.partition == pipeline.partition(USER)] == [
        r for r in counted if r.partition == pipeline.partition(USER)
    ], "nothing is counted twice"
    worker.await_ready()
    totals = pipeline.until_all_read(sent + later)
    assert sum(t.waiting for t in totals.values()) == 1
    assert worker.metric("stoppress_partitions_paused") == 0
    assert_as_a_plain_fold(pipeline)
    assert_all_is_equal(pipeline)
    assert rebuild(pipeline).lines == ["no state is damaged"]


def test_totals_that_cannot_be_read_are_counted_anew_also_where_a_state_is_damaged_too(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users").start()
    pipeline.event(USER, "click", ARTICLES[0], event_id="once")
    pipeline.event(USER, "click", ARTICLES[0], event_id="once")
    pipeline.event(USER, "click", "never-comes", source="mail", reason="similar")
    pipeline.event(USER, "click", ARTICLES[1], source="mail", reason="similar")
    pipeline.send(pipeline.topics.user_events, USER.encode(), b"no JSON")
    sent = send_clicks(pipeline, 100) + 5
    totals = pipeline.until_all_read(sent)[pipeline.partition(USER)]
    assert (totals.waiting, totals.duplicate, totals.dead) == (1, 1, 1)
    assert worker.stop() == 0
    poison(pipeline)
    pipeline.send(pipeline.topics.user_vectors, PARTITION_KEY, b"damaged", pipeline.partition(USER))
    worker.start(ready=False)
    line = worker.await_log("partition_paused")
    assert "`stoppress rebuild user` without an ID counts the partition's totals anew" in line["do"]
    refused = stoppress(pipeline.settings, "rebuild", "user", USER)
    assert refused.code == 1
    assert "without an ID counts them anew first" in refused.err
    told = rebuild(pipeline).lines
    assert told[-1].startswith(f"partition {pipeline.partition(USER)}: totals of {totals.read} events up to offset ")
    worker.await_ready()
    again = totals_of(pipeline.records(pipeline.topics.user_vectors).to_the_end())[pipeline.partition(USER)]
    assert again == totals
    pipeline.until_all_read(sent + send_clicks(pipeline, 100))
    assert_all_is_equal(pipeline)
    assert rebuild(pipeline).lines == ["no state is damaged"]


@pytest.mark.parametrize("kind", ["article-stats", "co-reads"])
def test_statistics_that_cannot_be_read_begin_anew(pipeline: Pipeline, kind: str) -> None:
    topic = pipeline.topics.article_stats if kind == "article-stats" else pipeline.topics.co_reads
    worker = pipeline.worker("users").start()
    sent = send_clicks(pipeline, 200)
    pipeline.until_all_read(sent)
    assert worker.stop() == 0
    states = states_of(pipeline.records(pipeline.topics.user_vectors).to_the_end())
    partition = pipeline.partition(USER)
    counted = next(r for r in pipeline.records(topic).to_the_end() if r.partition == partition)
    pipeline.send(topic, counted.key, b"damaged", partition)
    worker.start(ready=False)
    assert "writes a tombstone under the same key" in worker.await_log("partition_paused")["do"]
    assert rebuild(pipeline).lines == [f"partition {partition}: 1 statistics begin anew"]
    worker.await_ready()
    newest = [r for r in pipeline.records(topic).to_the_end() if (r.partition, r.key) == (partition, counted.key)][-1]
    assert newest.value is None
    assert states_of(pipeline.records(pipeline.topics.user_vectors).to_the_end()) == states
    pipeline.until_all_read(sent + send_clicks(pipeline, 100))
    assert_all_is_equal(pipeline)
    assert rebuild(pipeline).lines == ["no state is damaged"]


def test_while_its_worker_is_busy_nothing_is_lost_and_nothing_counted_twice(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users").start()
    with steady_load(pipeline) as sent:
        await_true(lambda: worker.metric("stoppress_events_total") > 300, "it is busy")
        for _ in range(2):
            rebuild(pipeline, USER)
            read = worker.metric("stoppress_events_total")
            await_true(lambda: worker.metric("stoppress_events_total") > read + 300, "it goes on")  # noqa: B023
    assert worker.running
    totals = pipeline.until_all_read(sent[0])
    assert sum(t.folded for t in totals.values()) == sent[0]
    assert worker.metric("stoppress_transactions_total", outcome="aborted") >= 1, "it was held up"
    assert_all_is_equal(pipeline)


def test_an_idle_worker_takes_the_new_state_over_before_it_writes_another(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users").start()
    pipeline.until_all_read(send_clicks(pipeline, 100))
    state = state_of(pipeline)
    assert worker.stop() == 0
    wrong = encode_user(msgspec.structs.replace(state, numbers=(2 * state.vector).astype("<f4").tobytes()))
    poison(pipeline, wrong)
    worker.start()
    rebuild(pipeline, USER)
    np.testing.assert_allclose(state_of(pipeline).vector, state.vector, rtol=1e-4)
    send_clicks(pipeline, 100)
    pipeline.until_all_read(200)
    assert_as_a_plain_fold(pipeline)
    assert_all_is_equal(pipeline)


def test_a_second_process_of_the_slot_may_start_meanwhile(pipeline: Pipeline) -> None:
    """Whoever comes first: both end well, and nothing is lost."""
    worker = pipeline.worker("users").start()
    pipeline.until_all_read(send_clicks(pipeline, 100))
    worker.kill()
    rebuilding = threading.Thread(target=rebuild, args=(pipeline, USER))
    rebuilding.start()
    worker.start()
    rebuilding.join()
    send_clicks(pipeline, 100)
    pipeline.until_all_read(200)
    assert_as_a_plain_fold(pipeline)
    assert_all_is_equal(pipeline)


def test_without_a_worker_and_after_a_forget(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users").start()
    sent = send_clicks(pipeline, 100)
    pipeline.until_all_read(sent)
    assert worker.stop() == 0
    poison(pipeline)
    forget = pipeline.event(USER, "forget")
    rebuild(pipeline, USER)
    assert state_of(pipeline).folded == 2
    worker.start()
    pipeline.until_all_read(sent + 1)
    assert USER not in states_of(pipeline.records(pipeline.topics.user_vectors).to_the_end())
    assert rebuild(pipeline, USER).out.startswith(f"{USER}: no state, up to offset {forget.offset + 1} ")
    assert_all_is_equal(pipeline)


def test_what_retention_took_is_not_thrown_away_where_the_state_still_has_it(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users").start()
    pipeline.until_all_read(send_clicks(pipeline, 200))
    partition = pipeline.partition(USER)
    second = [r for r in pipeline.records(pipeline.topics.user_events).to_the_end() if r.key == USER.encode()][1]
    place = TopicPartition(pipeline.topics.user_events, partition, second.offset)
    admin = make_admin(pipeline.settings)
    for deleted in admin.delete_records([place]).values():
        deleted.result(20)
    before = state_of(pipeline)
    answer = stoppress(pipeline.settings, "rebuild", "user", USER)
    assert (answer.code, answer.out) == (1, "")
    assert "holds 4 events" in answer.err
    assert "still has 3" in answer.err
    assert state_of(pipeline) == before
    poison(pipeline)
    assert f"the log begins at offset {second.offset}" in rebuild(pipeline, USER).out
    assert state_of(pipeline).folded == 3
    assert worker.running


def test_who_was_never_there(pipeline: Pipeline) -> None:
    answer = stoppress(pipeline.settings, "rebuild", "user", "nobody")
    assert (answer.code, answer.out) == (1, "")
    assert "has committed nothing yet" in answer.err
    worker = pipeline.worker("users").start()
    pipeline.until_all_read(send_clicks(pipeline, 200))
    assert rebuild(pipeline, "nobody").out.startswith("nobody: no state")
    assert worker.running
    refused = stoppress(pipeline.settings, "rebuild", "user", "~partition")
    assert (refused.code, refused.err) == (2, "stoppress: '~partition' is no user_id\n")


def test_a_state_of_another_interest_model_pauses_its_partition(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users").start()
    pipeline.until_all_read(send_clicks(pipeline, 100))
    assert worker.stop() == 0
    state = state_of(pipeline)
    poison(pipeline, encode_user(msgspec.structs.replace(state, numbers=state.numbers[: 4 * 64])))
    worker.start(ready=False)
    said = worker.await_log("partition_paused")["record"]
    assert f"64 numbers where the interest model keeps {pipeline.model.state_size}" in said
    rebuild(pipeline)
    worker.await_ready()
    # Where a batch is cut decides how the numbers are rounded.
    np.testing.assert_allclose(state_of(pipeline).vector, state.vector, atol=1e-5)
    assert totals_of(pipeline.records(pipeline.topics.user_vectors).to_the_end())
