"""The sender: what is queued arrives in order, counted, or somebody is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.errors import BrokerUnreachable, StoppressError, TopicsDiffer
from contract.messages import Article, Event, Kind, decode
from contract.murmur2 import partition_of
from contract.settings import Settings, load
from producers.embedded import wait_for_vectors
from producers.sender import Sender, public_topics
from streams.local_broker import LocalBroker
from streams.worker import Stop
from tests.pipeline import pipeline_on

NOW = 1_790_000_000_000


def test_what_is_sent_arrives_under_its_key_in_order(broker: LocalBroker, tmp_path: Path) -> None:
    with pipeline_on(broker, tmp_path) as pipeline:
        sender = Sender(pipeline.settings, pipeline.topics, name="test")
        sender.article(Article(article_id="a", title="Bread", published_at=NOW))
        for number in range(300):
            kind: Kind = "impression" if number % 3 else "click"
            sender.event(Event(user_id=f"u{number % 7}", kind=kind, at=NOW, event_id=str(number), article_id="a"))
        sender.flush()
        assert (sender.articles, sender.events) == (1, {"click": 100, "impression": 200})
        assert sender.events_sent == 300
        (article,) = pipeline.records(pipeline.topics.articles).to_the_end()
        assert article.key == b"a"
        events = pipeline.records(pipeline.topics.user_events).to_the_end()
        assert len(events) == 300
        by_user: dict[str, list[int]] = {}
        for record in sorted(events, key=lambda record: (record.partition, record.offset)):
            event = decode(Event, record.value)
            assert record.key == event.user_id.encode()
            assert record.partition == partition_of(record.key, pipeline.settings.partitions)
            by_user.setdefault(event.user_id, []).append(int(event.event_id))
        assert {tuple(sent) for sent in by_user.values()} == {tuple(range(user, 300, 7)) for user in range(7)}


def test_a_full_queue_makes_the_sender_wait_and_loses_nothing(broker: LocalBroker, tmp_path: Path) -> None:
    with pipeline_on(broker, tmp_path) as pipeline:
        settings = pipeline.settings.model_copy(update={"kafka": {"queue.buffering.max.messages": "50"}})
        sender = Sender(settings, pipeline.topics, name="test")
        for number in range(1000):
            sender.event(Event(user_id="u", kind="click", at=NOW, event_id=str(number), article_id="a"))
        sender.flush()
        assert len(pipeline.records(pipeline.topics.user_events).to_the_end()) == 1000


def test_a_record_that_kafka_refuses_is_an_error(broker: LocalBroker, tmp_path: Path) -> None:
    with pipeline_on(broker, tmp_path) as pipeline:
        sender = Sender(pipeline.settings, pipeline.topics, name="test")
        sender.event(Event(user_id="u", kind="click", at=NOW, article_id="a", context={"much": "x" * (3 << 20)}))
        with pytest.raises(StoppressError, match="did not take a record"):
            sender.flush()


def test_missing_topics_and_a_missing_broker_are_said_at_once(settings: Settings) -> None:
    with pytest.raises(TopicsDiffer, match="topics create"):
        public_topics(settings)
    with pytest.raises(BrokerUnreachable):
        public_topics(load(["bootstrap_servers=127.0.0.1:1"], environ={}))


def test_the_wait_for_vectors_ends_where_none_come(broker: LocalBroker, tmp_path: Path) -> None:
    with pipeline_on(broker, tmp_path) as pipeline:
        topic = pipeline.topics.article_vectors
        assert wait_for_vectors(pipeline.settings, topic, [], Stop())
        assert not wait_for_vectors(pipeline.settings, topic, ["a"], Stop(), patience=0.3)
        stop = Stop()
        stop.request()
        assert not wait_for_vectors(pipeline.settings, topic, ["a"], stop)
        pipeline.send(topic, b"b", b"anything")
        pipeline.send(topic, b"a", b"anything")
        told: list[tuple[int, int]] = []
        assert wait_for_vectors(pipeline.settings, topic, ["a", "b"], Stop(), on_more=lambda *state: told.append(state))
        assert told[-1] == (2, 2)
