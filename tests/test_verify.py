"""``stoppress verify`` on a real Kafka: a healthy system is equal, and whatever is not is found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import TopicPartition

from consumers.verify import Report, verify
from contract.messages import ShownItem, encode
from contract.records import PARTITION_KEY, UserRecord, decode_totals, decode_user, encode_plain, encode_user
from streams.clients import make_admin
from streams.local_broker import LocalBroker
from streams.worker import Stop
from tests.command import stoppress
from tests.pipeline import Pipeline, Seen, Sent, Worker, await_true, event, now_ms, pipeline_on
from tests.test_worker import ARTICLES, publish_vectors

USERS = [f"user-{n}" for n in range(12)]


def verified(pipeline: Pipeline, sample: int | None = None) -> Report:
    return verify(pipeline.settings, pipeline.topics, pipeline.model, Stop(), seconds=0.1, sample=sample)


def told(report: Report) -> list[tuple[str, str]]:
    return [(d.key, d.what) for d in report.differences]


def newest(pipeline: Pipeline, key: str) -> Seen:
    records = pipeline.records(pipeline.topics.user_vectors).to_the_end()
    return next(r for r in reversed(records) if r.key == key.encode())


def everything_that_can_happen(pipeline: Pipeline) -> int:
    """Events of every kind and every fate, on articles that were known long before; return how many records."""
    old = now_ms() - 3_600_000
    shown = [ShownItem(article_id=a, position=n, reason="similar") for n, a in enumerate(ARTICLES[:4])]
    sent: list[tuple[str, bytes | None, bytes | None, int]] = []

    def send(user: str, kind: str, article: str = "", **fields: Any) -> None:
        sent.append((pipeline.topics.user_events, user.encode(), encode(event(user, kind, article, **fields)), -1))

    for n, user in enumerate(USERS):
        send(user, "impression", shown=shown)
        for article in ARTICLES[: n + 1]:
            send(user, "click", article, event_id=f"{user}-{article}")
        send(user, "dwell", ARTICLES[n], dwell_ms=20_000, at=old)
        send(user, "click", ARTICLES[0], event_id=f"{user}-{ARTICLES[0]}")  # a duplicate
        send(user, "follow", target="football")
    send(USERS[0], "click", "not-yet-there", event_id="waits")
    send(USERS[1], "forget")
    send(USERS[1], "click", ARTICLES[2])
    send(USERS[2], "merge", target=USERS[3])
    send(USERS[4], "merge", target=USERS[4])  # a dead letter
    sent.append((pipeline.topics.user_events, USERS[5].encode(), b"no JSON", -1))
    wrong = (pipeline.partition(USERS[6]) + 1) % 4
    sent.append((pipeline.topics.user_events, USERS[6].encode(), encode(event(USERS[6], "click", ARTICLES[0])), wrong))
    pipeline.send_all(sent)
    return len(sent) + 1  # and an absorb


@pytest.fixture(scope="module")
def pipeline(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with pipeline_on(broker, tmp_path_factory.mktemp("verify"), waiting_clicks=2) as started:
        publish_vectors(started)
        started.worker("users").start()
        published = now_ms()
        await_true(lambda: now_ms() > published + 1100, "articles are surely known")
        started.until_all_read(everything_that_can_happen(started))
        yield started


class TestHealthy:
    def test_all_is_equal(self, pipeline: Pipeline) -> None:
        answer = stoppress(pipeline.settings, "verify", "--json", "--seconds=0")
        assert answer.code == 0, answer
        report = json.loads(answer.out)
        assert report["users"] == len(USERS) - 1, "all but who was merged"
        assert report["vectors"] == report["users"] - 1, "all but who waits for an article"
        assert (report["partitions"], report["unchecked_partitions"], report["unchecked_users"]) == (4, 0, 0)
        assert (report["different"], report["differences"]) == (0, [])

    def test_under_load_and_with_what_comes_between_the_looks(self, pipeline: Pipeline) -> None:
        sent = len(pipeline.records(pipeline.topics.user_events).to_the_end())
        clicks = [event(f"busy-{n % 20}", "click", ARTICLES[n % 20]) for n in range(3000)]
        pipeline.send_all([(pipeline.topics.user_events, c.user_id.encode(), encode(c), -1) for c in clicks])
        assert told(verified(pipeline)) == []
        pipeline.until_all_read(sent + 3000)
        assert verified(pipeline).users == len(USERS) - 1 + 20

    def test_what_waited_and_was_pushed_out_is_accounted_for(self, pipeline: Pipeline) -> None:
        for n in range(4):
            pipeline.event("patient", "click", f"never-{n}", event_id=f"never-{n}")
        pipeline.event("patient", "click", "late", event_id="late")
        sent = len(pipeline.records(pipeline.topics.user_events).to_the_end())
        pipeline.until_all_read(sent)
        assert verified(pipeline).equal
        publish(pipeline, "late")
        partition = pipeline.partition("patient")
        pipeline.until_totals(partition, lambda t: t.dead >= 3, "three were pushed out")
        assert told(verified(pipeline)) == []

    def test_a_sample_checks_so_many_users_and_all_totals(self, pipeline: Pipeline) -> None:
        report = verified(pipeline, sample=5)
        assert (report.equal, report.users, report.partitions) == (True, 5, 4)

    def test_the_table_says_it_to_people(self, pipeline: Pipeline) -> None:
        answer = stoppress(pipeline.settings, "verify", "--seconds=0", "--sample=3")
        assert answer.code == 0, answer
        assert "equal, over" in answer.out
        assert "totals of partitions" in answer.out


def publish(pipeline: Pipeline, article_id: str) -> None:
    vectors = pipeline.records(pipeline.topics.article_vectors).to_the_end()
    pipeline.send(pipeline.topics.article_vectors, article_id.encode(), vectors[0].value)


class TestTampered:
    """Each test puts back what it found."""

    def tampered(self, pipeline: Pipeline, key: str, value: bytes | None) -> tuple[Report, Sent]:
        before = newest(pipeline, key)
        sent = pipeline.send(pipeline.topics.user_vectors, key.encode(), value, before.partition)
        try:
            return verified(pipeline), sent
        finally:
            pipeline.send(pipeline.topics.user_vectors, key.encode(), before.value, before.partition)

    @pytest.mark.parametrize(
        ("what", "change"),
        [
            ("count", lambda s: {"folded": s.folded + 1}),
            ("count", lambda s: {"folded": s.folded - 1}),
            ("hash sum", lambda s: {"hash_sum": s.hash_sum ^ 1}),
            ("last offset", lambda s: {"last_offset": s.last_offset - 1}),
            ("vector", lambda s: {"numbers": (1.01 * s.vector).astype("<f4").tobytes()}),
            ("vector", lambda s: {"at": s.at - 1}),
            ("read", lambda s: {"windows": msgspec.structs.replace(s.windows, read=b"\0" * len(s.windows.read))}),
            ("seen", lambda s: {"windows": msgspec.structs.replace(s.windows, seen=s.windows.seen + b"\0" * 8)}),
            ("affinities", lambda s: {"windows": msgspec.structs.replace(s.windows, affinities=b"\0" * 16)}),
            ("mutes", lambda s: {"windows": msgspec.structs.replace(s.windows, mutes=("what they like",))}),
        ],
    )
    def test_a_wrong_state_is_found_and_named(self, pipeline: Pipeline, what: str, change: Any) -> None:
        user = USERS[8]
        state: UserRecord = decode_user(newest(pipeline, user).value or b"")
        report, sent = self.tampered(pipeline, user, encode_user(msgspec.structs.replace(state, **change(state))))
        assert told(report) == [(user, what)]
        (difference,) = report.differences
        assert (difference.partition, difference.offset) == (sent.partition, sent.offset)

    def test_a_state_that_is_gone(self, pipeline: Pipeline) -> None:
        report, _ = self.tampered(pipeline, USERS[9], None)
        assert told(report) == [(USERS[9], "state")]

    def test_a_state_that_cannot_be_read(self, pipeline: Pipeline) -> None:
        report, _ = self.tampered(pipeline, USERS[9], b"damaged")
        assert told(report) == [(USERS[9], "record")]

    def test_a_state_of_nobody(self, pipeline: Pipeline) -> None:
        state = UserRecord(np.zeros(2 * pipeline.model.dims, "<f4").tobytes(), folded=1)
        sent = pipeline.send(pipeline.topics.user_vectors, b"nobody", encode_user(state), pipeline.partition("nobody"))
        answer = stoppress(pipeline.settings, "verify", "--seconds=0")
        pipeline.send(pipeline.topics.user_vectors, b"nobody", None, sent.partition)
        assert answer.code == 1, answer
        assert "1 records of user-vectors differ" in answer.out
        assert all(word in answer.out for word in ("nobody", str(sent.partition), str(sent.offset)))

    @pytest.mark.parametrize("what", ["read", "duplicate", "hash_sum"])
    def test_wrong_totals(self, pipeline: Pipeline, what: str) -> None:
        partition = 0
        before = next(
            r
            for r in reversed(pipeline.records(pipeline.topics.user_vectors).to_the_end())
            if r.key == PARTITION_KEY and r.partition == partition
        )
        totals = decode_totals(before.value or b"")
        changed = {what: getattr(totals, what) + 1}
        if what != "hash_sum":
            changed["folded"] = totals.folded + (1 if what == "read" else -1)
        wrong = encode_plain(msgspec.structs.replace(totals, **changed))
        pipeline.send(pipeline.topics.user_vectors, PARTITION_KEY, wrong, partition)
        report = verified(pipeline)
        pipeline.send(pipeline.topics.user_vectors, PARTITION_KEY, before.value, partition)
        assert told(report) == [("~partition", what)]


def test_where_retention_took_the_beginning_it_says_how_many_could_not_be_checked(
    broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pipeline_on(broker, tmp_path_factory.mktemp("retention")) as pipeline:
        publish_vectors(pipeline)
        worker = pipeline.worker("users").start()
        clicks(pipeline, USERS, 3)
        clicks(pipeline, ["newcomer"], 2)
        pipeline.until_all_read(3 * len(USERS) + 2)
        take_away_beginning(pipeline, worker)
        forgotten = [user for user in USERS if pipeline.partition(user) == pipeline.partition("newcomer")]
        report = verified(pipeline)
        assert told(report) == []
        assert (report.unchecked_partitions, report.unchecked_users) == (1, len(forgotten))
        assert report.users == len(USERS) + 1 - len(forgotten)


def clicks(pipeline: Pipeline, users: Sequence[str], each: int) -> None:
    for n in range(each):
        pipeline.send_all(
            [(pipeline.topics.user_events, u.encode(), encode(event(u, "click", ARTICLES[n])), -1) for u in users]
        )


def take_away_beginning(pipeline: Pipeline, worker: Worker) -> None:
    """All events of the newcomer's partition but the newcomer's own, as retention does."""
    partition = pipeline.partition("newcomer")
    records = pipeline.records(pipeline.topics.user_events).to_the_end()
    first = next(r.offset for r in records if r.key == b"newcomer")
    admin = make_admin(pipeline.settings)
    for deleted in admin.delete_records([TopicPartition(pipeline.topics.user_events, partition, first)]).values():
        deleted.result(20)
    assert worker.running
