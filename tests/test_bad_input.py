"""Bad input on a running pipeline: each ends as a dead letter with its reason, and the pipeline goes on."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import quote

import pytest
from confluent_kafka import KafkaError, Producer

from contract.messages import MAX_ARTICLE_BYTES, MAX_EVENT_BYTES, MAX_WAITING_EVENT_BYTES, encode
from contract.schemas import asyncapi
from streams.clients import make_producer
from streams.local_broker import LocalBroker
from tests.command import stoppress
from tests.json_schema import complaints
from tests.pipeline import Pipeline, Seen, Sent, Worker, await_true, event, now_ms, pipeline_on, states_of
from tests.test_contract_messages import BAD_ARTICLES, BAD_EVENTS, CLICK, IMPRESSION, as_bytes

HEADERS = asyncapi()["components"]["messages"]["deadLetter"]["headers"]
# Kafka itself refuses records without a key where only the newest of each key is kept, and records larger than the
# topic takes: see test_topics and below.
ARTICLES_KAFKA_TAKES = [
    name for name, (reason, key, _, _) in BAD_ARTICLES.items() if key is not None and reason != "too_large"
]
EVENTS_KAFKA_TAKES = [name for name in BAD_EVENTS if name != "an event larger than its topic takes"]


@dataclass
class Running:
    """The four workers, and good events among the bad ones."""

    pipeline: Pipeline
    workers: list[Worker]
    numbers: Iterator[int] = field(default_factory=count)

    @property
    def events(self) -> str:
        return self.pipeline.topics.user_events

    @property
    def articles(self) -> str:
        return self.pipeline.topics.articles

    def assert_dead(self, sent: Sent, worker: str, reason: str, key: bytes | None, value: bytes | None) -> Seen:
        """The record at this place became a dead letter that holds what was sent and says where and why."""
        dead = self.pipeline.until_dead(sent)
        assert (dead.key, dead.value) == (key, value)
        told = {name: header.decode() for name, header in dead.headers.items()}
        assert complaints(HEADERS, told) == []
        assert told.pop("detail")
        assert told == {
            "topic": sent.topic, "partition": str(sent.partition), "offset": str(sent.offset),
            "worker": worker, "reason": reason,
        }  # fmt: skip
        return dead

    def assert_goes_on(self, partition: int) -> None:
        """A good event that comes after in the same partition is folded, and causes a list."""
        name = f"good {next(self.numbers)}"
        users = (f"{name} {n}" for n in count())
        user = next(user for user in users if self.pipeline.partition(user) == partition)
        sent = self.pipeline.event(user, "click", "known")
        self.pipeline.until_list(user, lambda shown: shown.cause.at == sent.timestamp, "after a good click")

    def assert_accounted_for(self) -> None:
        """sent = folded + waiting + duplicate + dead, in every partition, and no dead letter is missing or double."""
        sent = Counter(record.partition for record in self.pipeline.records(self.events).to_the_end())
        totals = self.pipeline.until_all_read(sum(sent.values()))
        dead = Counter(
            int(letter.headers["partition"])
            for letter in self.pipeline.records(self.pipeline.topics.dead_letters).to_the_end()
            if letter.headers["worker"] == b"users"
        )
        for partition, total in totals.items():
            assert total.read == sent[partition]
            assert total.folded + total.waiting + total.duplicate + total.dead == total.read
            assert total.dead == dead[partition]

    def folded(self) -> int:
        """How many events are folded by now, all sent ones being read."""
        sent = self.pipeline.records(self.events).to_the_end()
        return sum(total.folded for total in self.pipeline.until_all_read(len(sent)).values())


@pytest.fixture(scope="module")
def running(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    values = {"list_length": 5, "refresh_seconds": 3600, "waiting_hours": 1}
    with pipeline_on(broker, tmp_path_factory.mktemp("bad-input"), **values) as pipeline:
        workers = pipeline.start("articles", "users", "ranker", "feed")
        pipeline.article("known", "Mayor opens the new harbour bridge")
        pipeline.article("other", "Ferry company lowers its prices after the bridge opens")
        pipeline.until_embedded("known", "other")
        yield Running(pipeline, workers)


@pytest.fixture(autouse=True)
def accounted(running: Running) -> Iterator[None]:
    """After every test no worker has ended, and every event is accounted for."""
    yield
    assert [worker.name for worker in running.workers if not worker.running] == []
    running.assert_accounted_for()


@pytest.fixture(scope="module")
def compressing(running: Running) -> Producer:
    """A client whose batches are small on the wire whatever is in them."""
    further = {"compression.type": "zstd", "message.max.bytes": 64 << 20}
    return make_producer(running.pipeline.settings, name="compressing", extra=further)


def send_with(
    producer: Producer, topic: str, key: bytes | None, value: bytes, headers: Any = None
) -> Sent | KafkaError:
    """Write one record; return where it landed, or Kafka's refusal."""
    ended: list[Sent | KafkaError] = []

    def delivered(error: KafkaError | None, message: Any) -> None:
        place = (message.topic(), message.partition(), message.offset(), message.timestamp()[1])
        ended.append(error or Sent(*place))

    producer.produce(topic, value, key, headers=headers, on_delivery=delivered)
    assert producer.flush(30) == 0
    return ended[0]


def landed(sent: Sent | KafkaError) -> Sent:
    assert isinstance(sent, Sent), sent
    return sent


def padded(message: dict[str, Any], size: int) -> bytes:
    """The message as JSON of ``size`` bytes; what fills it compresses well."""
    bare = len(json.dumps(message | {"padding": ""}))
    return json.dumps(message | {"padding": "x" * (size - bare)}).encode()


@pytest.mark.parametrize("name", EVENTS_KAFKA_TAKES)
def test_a_bad_event_becomes_a_dead_letter(running: Running, name: str) -> None:
    reason, key, bad, _ = BAD_EVENTS[name]
    value = as_bytes(bad)
    sent = running.pipeline.send(running.events, key, value)
    running.assert_dead(sent, "users", reason, key, value)
    running.assert_goes_on(sent.partition)


@pytest.mark.parametrize("name", ARTICLES_KAFKA_TAKES)
def test_a_bad_article_becomes_a_dead_letter(running: Running, name: str) -> None:
    reason, key, bad, _ = BAD_ARTICLES[name]
    value = as_bytes(bad)
    sent = running.pipeline.send(running.articles, key, value)
    running.assert_dead(sent, "articles", reason, key, value)
    article_id = f"after {name}"
    running.pipeline.send(running.articles, article_id.encode(), article(article_id), sent.partition)
    running.pipeline.until_embedded(article_id)


def article(article_id: str, **fields: Any) -> bytes:
    told = {"article_id": article_id, "title": "Bridge toll stays as it is", "published_at": now_ms() - 1000}
    return json.dumps(told | fields).encode()


def test_an_event_in_a_partition_its_key_does_not_hash_to(running: Running) -> None:
    right = running.pipeline.partition("stray")
    value = encode(event("stray", "click", "known"))
    for partition in range(running.pipeline.settings.partitions):
        if partition != right:
            sent = running.pipeline.send(running.events, b"stray", value, partition)
            dead = running.assert_dead(sent, "users", "wrong_partition", b"stray", value)
            assert f"into partition {right}, not {partition}".encode() in dead.headers["detail"]
            assert b"murmur2_random" in dead.headers["detail"]


def test_a_forget_in_a_wrong_partition_forgets_nothing(running: Running) -> None:
    running.pipeline.event("kept", "click", "known")
    wrong = (running.pipeline.partition("kept") + 1) % running.pipeline.settings.partitions
    value = encode(event("kept", "forget"))
    sent = running.pipeline.send(running.events, b"kept", value, wrong)
    running.assert_dead(sent, "users", "wrong_partition", b"kept", value)
    running.folded()
    assert "kept" in states_of(running.pipeline.records(running.pipeline.topics.user_vectors).to_the_end())


def test_a_click_on_an_unknown_article_waits_and_folds_when_the_article_comes(running: Running) -> None:
    partition = running.pipeline.partition("early bird")
    running.pipeline.event("early bird", "click", "not yet there")
    running.pipeline.until_totals(partition, lambda total: total.waiting == 1, "the click waits")
    folded = running.folded()
    running.pipeline.article("not yet there", "Bridge closed for an hour after a barge hits a pier")
    running.pipeline.until_totals(partition, lambda total: total.waiting == 0, "it waits no longer")
    assert running.folded() == folded + 1
    shown = running.pipeline.until_list("early bird", lambda x: x.cause.id == "not yet there", "caused by the article")
    assert shown.cause.kind == "article"


def test_a_time_in_the_far_future_counts_as_the_moment_it_came(running: Running) -> None:
    folded = running.folded()
    sent = running.pipeline.event("time traveller", "click", "known", at=10**30)
    assert running.folded() == folded + 1
    states = states_of(running.pipeline.records(running.pipeline.topics.user_vectors).to_the_end())
    assert states["time traveller"].at == sent.timestamp


def test_the_same_event_id_counts_once(running: Running) -> None:
    partition = running.pipeline.partition("stutterer")
    before = running.folded()
    for _ in range(3):
        running.pipeline.event("stutterer", "click", "known", event_id="once")
    assert running.folded() == before + 1
    running.pipeline.until_totals(partition, lambda total: total.duplicate == 2, "two are duplicates")
    assert running.folded() == before + 1


def test_the_same_event_id_of_two_users_counts_twice(running: Running) -> None:
    before = running.folded()
    for user in ("one", "two"):
        running.pipeline.event(user, "click", "known", event_id="shared")
    assert running.folded() == before + 2


def test_headers_of_the_sender_say_nothing(running: Running) -> None:
    producer = make_producer(running.pipeline.settings, name="headers")
    headers = [("topic", b"elsewhere"), ("reason", b"none"), ("reason", None), ("\xe9", b"\xff")]
    sent = landed(send_with(producer, running.events, b"u", b"no JSON", headers))
    running.assert_dead(sent, "users", "not_json", b"u", b"no JSON")


def test_an_event_of_5_mb_is_refused_by_kafka(running: Running) -> None:
    value = padded(IMPRESSION, 5_000_000)
    producer = make_producer(running.pipeline.settings, name="large")
    refusal = send_with(producer, running.events, b"u", value)
    assert isinstance(refusal, KafkaError)
    assert refusal.code() == KafkaError.MSG_SIZE_TOO_LARGE


def test_an_event_of_5_mb_in_a_compressed_batch_is_kept_whole(running: Running, compressing: Producer) -> None:
    value = padded(IMPRESSION, 5_000_000)
    sent = landed(send_with(compressing, running.events, b"u", value))
    running.assert_dead(sent, "users", "too_large", b"u", value)
    running.assert_goes_on(sent.partition)


def test_the_largest_event_is_folded(running: Running) -> None:
    folded = running.folded()
    running.pipeline.send(running.events, b"u", padded(IMPRESSION, MAX_EVENT_BYTES))
    assert running.folded() == folded + 1


def test_as_many_of_the_largest_clicks_as_may_wait_do_wait(running: Running) -> None:
    """Their user's state is one record, which must not be larger than its topic takes."""
    partition = running.pipeline.partition("patient")
    count_of = running.pipeline.settings.waiting_clicks
    clicks = [CLICK | {"user_id": "patient", "article_id": f"awaited {n}"} for n in range(count_of)]
    for click in clicks:
        running.pipeline.send(running.events, b"patient", padded(click, MAX_WAITING_EVENT_BYTES))
    running.pipeline.until_totals(partition, lambda total: total.waiting == count_of, "they wait")
    one_more = padded(CLICK | {"user_id": "patient", "article_id": "one more"}, MAX_WAITING_EVENT_BYTES)
    running.pipeline.send(running.events, b"patient", one_more)
    letters = running.pipeline.records(running.pipeline.topics.dead_letters)
    oldest = letters.until(
        lambda all_: next((x for x in all_ if x.key == b"patient"), None), "the oldest is pushed out"
    )
    assert oldest.value == padded(clicks[0], MAX_WAITING_EVENT_BYTES)
    assert oldest.headers["reason"] == b"no_vector_in_time"
    running.pipeline.event("patient", "forget")
    running.pipeline.until_totals(partition, lambda total: total.waiting == 0, "none waits for one who is forgotten")


def test_an_article_with_a_body_of_5_mb_is_embedded(running: Running) -> None:
    body = "The bridge is open. " * 250_000
    running.pipeline.send(running.articles, b"long read", article("long read", body=body))
    running.pipeline.until_embedded("long read")


def test_5_mb_that_are_no_article_are_kept_whole(running: Running) -> None:
    value = os.urandom(5_000_000)
    sent = running.pipeline.send(running.articles, b"noise", value)
    running.assert_dead(sent, "articles", "invalid_utf8", b"noise", value)


def test_an_article_larger_than_its_topic_takes_is_refused_by_kafka(running: Running) -> None:
    producer = make_producer(running.pipeline.settings, name="large")
    refusal = send_with(producer, running.articles, b"huge", article("huge", body="x" * (MAX_ARTICLE_BYTES + 2000)))
    assert isinstance(refusal, KafkaError)
    assert refusal.code() == KafkaError.MSG_SIZE_TOO_LARGE


def test_an_article_too_large_to_be_kept_is_kept_in_part(running: Running, compressing: Producer) -> None:
    value = article("huge", body="x" * 20_000_000)
    sent = landed(send_with(compressing, running.articles, b"huge", value))
    dead = running.pipeline.until_dead(sent)
    assert dead.headers["reason"] == b"too_large"
    assert dead.headers["cut-from"] == str(len(value) + len(b"huge")).encode()
    assert (dead.key, dead.value) == (b"huge", value[: 1 << 20])


def test_a_key_of_20_mb_is_kept_in_part(running: Running, compressing: Producer) -> None:
    key, value = b"k" * 20_000_000, encode(event("u", "click", "known"))
    sent = landed(send_with(compressing, running.events, key, value))
    dead = running.pipeline.until_dead(sent)
    assert dead.headers["reason"] == b"key_mismatch"
    assert (dead.key, dead.value) == (key[: 1 << 20], value)
    running.assert_goes_on(sent.partition)


def test_as_many_labels_as_an_article_may_have_pass_to_the_ranker(running: Running) -> None:
    """They go with its vector, in a record that must not be larger than its topic takes."""
    labels = [f"{n:03d}" + "\N{OLD PERSIAN SIGN A}" * 253 for n in range(128)]
    most = article("labelled", tags=labels, entities=labels, authors=labels, category=labels[0], source=labels[0])
    running.pipeline.send(running.articles, b"labelled", most)
    running.pipeline.until_embedded("labelled")


def test_a_bad_version_of_an_article_leaves_the_good_one_in_lists_and_every_feed_served(running: Running) -> None:
    sent = running.pipeline.event("subscriber", "click", "known")
    shown = running.pipeline.until_list("subscriber", lambda x: x.cause.at == sent.timestamp, "after a click")
    assert "other" in {item.article_id for item in shown.items}
    feed = running.workers[-1]
    nested = article("other")[:-1] + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for bad in (nested, b"\xff", b"{}", b"0" * 5000):
        dead = running.pipeline.send(running.articles, b"other", bad)
        running.assert_dead(
            dead, "articles", running.pipeline.until_dead(dead).headers["reason"].decode(), b"other", bad
        )
        await_true(lambda: feed.get(f"/v1/feed/{quote('subscriber')}")[0] == 200, "the feed is served")
    assert feed.get("/v1/feed/nobody")[0] == 200
    again = running.pipeline.event("subscriber", "like", "known")
    running.pipeline.event("second subscriber", "click", "known")
    listed = running.pipeline.until_list("second subscriber", lambda x: x.cause.kind == "event", "after a click")
    assert "other" in {item.article_id for item in listed.items}
    assert again.timestamp >= sent.timestamp


def test_a_ranker_starts_again_whatever_stands_among_its_lists(running: Running) -> None:
    lists = running.pipeline.topics.recommendations
    for key in (b"\xff", b"stranger", b"~popular", b"~popular/arts", b"~related/known", b"~stranger", b""):
        for value in (b"no list", b"\xff", b"{}", b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
            running.pipeline.send(lists, key, value)
    ranker = running.workers[2]
    ranker.kill()
    ranker.start()
    for partition in range(running.pipeline.settings.partitions):
        running.assert_goes_on(partition)


def test_dead_letters_are_listed_and_sent_again_once_the_cause_is_mended(running: Running) -> None:
    """Here the cause is the sender's partitioner: a requeue finds the right partition."""
    right = running.pipeline.partition("lost and found")
    value = encode(event("lost and found", "click", "known"))
    sent = running.pipeline.send(running.events, b"lost and found", value, (right + 1) % 4)
    running.assert_dead(sent, "users", "wrong_partition", b"lost and found", value)
    settings = running.pipeline.settings

    listed = stoppress(settings, "dead-letters", "list", "--reason", "wrong_partition", "--json")
    places = [(letter["topic"], letter["partition"], letter["offset"]) for letter in map(json.loads, listed.lines)]
    assert (sent.topic, sent.partition, sent.offset) in places

    first = stoppress(settings, "dead-letters", "requeue", "--reason", "wrong_partition")
    assert (first.code, first.out) == (0, f"{len(places)} sent again\n")
    shown = running.pipeline.until_list("lost and found", lambda x: x.cause.kind == "event", "of the event sent again")
    assert shown.user_id == "lost and found"
    second = stoppress(settings, "dead-letters", "requeue", "--reason", "wrong_partition")
    assert (second.code, second.out) == (0, "0 sent again\n")


def test_what_is_sent_again_and_still_bad_is_dead_again(running: Running) -> None:
    sent = running.pipeline.send(running.events, b"hopeless", b"hopeless")
    running.assert_dead(sent, "users", "not_json", b"hopeless", b"hopeless")
    letters = running.pipeline.records(running.pipeline.topics.dead_letters)
    assert stoppress(running.pipeline.settings, "dead-letters", "requeue", "--reason", "not_json").code == 0
    letters.until(lambda all_: sum(x.key == b"hopeless" for x in all_) == 2, "it is dead again")


def test_dead_letters_are_counted_by_worker_and_reason(running: Running) -> None:
    users = running.workers[1]
    name = "stoppress_dead_letters_total"
    before = users.metric(name, worker="users", reason="unknown_kind")
    sent = running.pipeline.send(running.events, b"u", as_bytes(CLICK | {"kind": "stare"}))
    running.pipeline.until_dead(sent)
    assert users.metric(name, worker="users", reason="unknown_kind") == before + 1
