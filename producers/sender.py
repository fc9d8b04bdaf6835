"""Sends articles and events, counts what the broker took, and waits where the queue is full."""

from __future__ import annotations

from typing import Any

from contract.errors import StoppressError
from contract.messages import Article, Event, encode
from contract.settings import Settings
from contract.topics import Topics
from streams.admin import require_topics
from streams.clients import make_producer

FLUSH_SECONDS = 60.0


def public_topics(settings: Settings) -> Topics:
    """The topics that carry no vectors, so that no generation has to be known.

    Raises :class:`contract.errors.TopicsDiffer` where one is missing, and
    :class:`contract.errors.BrokerUnreachable`.
    """
    topics = Topics(settings, "")
    public = {topics.articles, topics.user_events, topics.recommendations}
    require_topics(settings, [spec for spec in topics.specs() if spec.name in public])
    return topics


class Sender:
    """One producer for both topics; what it sends to one partition arrives in order, ``linger_ms`` later at most."""

    def __init__(self, settings: Settings, topics: Topics, *, name: str, linger_ms: int = 25) -> None:
        self._topics = topics
        self._producer = make_producer(settings, name=name, extra={"linger.ms": linger_ms})
        self._failed: str | None = None
        self.articles = 0
        self.events: dict[str, int] = {}

    def article(self, article: Article) -> None:
        """Queue an article; blocks only where the queue is full."""
        self._send(self._topics.articles, article.article_id, encode(article))
        self.articles += 1

    def event(self, event: Event) -> None:
        """Queue an event; blocks only where the queue is full."""
        self._send(self._topics.user_events, event.user_id, encode(event))
        self.events[event.kind] = self.events.get(event.kind, 0) + 1

    @property
    def events_sent(self) -> int:
        return sum(self.events.values())

    def serve(self) -> None:
        """Take in what the broker answered. Raises :class:`StoppressError` where it refused a record."""
        self._producer.poll(0)
        if self._failed is not None:
            raise StoppressError(f"Kafka did not take a record: {self._failed}")

    def flush(self) -> None:
        """Block until everything queued has been taken. Raises :class:`StoppressError` where it was not."""
        left = self._producer.flush(FLUSH_SECONDS)
        self.serve()
        if left:
            raise StoppressError(f"{left} records were still waiting for Kafka after {FLUSH_SECONDS:.0f} s")

    def _send(self, topic: str, key: str, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(topic, key=key.encode(), value=value, on_delivery=self._answered)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _answered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failed = error.str()
