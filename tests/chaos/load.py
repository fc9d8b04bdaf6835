"""A steady load of events, and the vectors of the articles that they are about."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Self

import msgspec
import numpy as np
from confluent_kafka import KafkaError, Message

from contract.messages import Event, Kind, ShownItem, encode
from contract.records import ArticleMeta, ArticleRecord, encode_article
from contract.settings import Settings
from contract.topics import Topics
from streams.clients import make_producer

KINDS: tuple[tuple[Kind, int], ...] = (
    ("click", 60), ("impression", 20), ("dwell", 6), ("like", 5), ("share", 3), ("dislike", 3), ("forget", 2),
)  # fmt: skip
DUPLICATES = 0.03
BAD = 0.01
LATE = 0.03
LATE_EVERY_SECONDS = 2.0
TICK_SECONDS = 0.02


@dataclass(frozen=True)
class World:
    """Who reads what. ``rewrites``: articles get other vectors all the time."""

    users: int = 300
    articles: int = 80
    late_articles: int = 40
    events_per_second: int = 400
    rewrites: bool = False
    seed: int = 1


class Load:
    """Sends from :meth:`start` to :meth:`stop` on a thread of its own, whatever happens to the broker meanwhile.

    All articles but ``late-N`` have a vector before the first event; those get theirs some time after
    somebody clicked on them, and all of them at the end.
    """

    def __init__(self, settings: Settings, topics: Topics, dims: int, world: World) -> None:
        self._topics = topics
        self._world = world
        self._dims = dims
        self._random = random.Random(world.seed)
        self._vectors = np.random.default_rng(world.seed)
        # Nothing is given up on: a broker that is away for a while must not make the load lose anything itself.
        self._producer = make_producer(settings, name="chaos.load", extra={"message.timeout.ms": 0})
        self._articles = [f"article-{n}" for n in range(world.articles)]
        self._late = deque(f"late-{n}" for n in range(world.late_articles))
        self._recent: deque[Event] = deque(maxlen=200)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._failures: list[str] = []
        self.sent = 0
        self.delivered = 0

    def start(self) -> Self:
        for article_id in self._articles:
            self._publish(article_id)
        assert self._producer.flush(60) == 0
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop sending; blocks until Kafka has every event and the vector of every article."""
        self._ended.set()
        self._thread.join()
        while self._late:
            self._publish(self._late.popleft())
        assert self._producer.flush(120) == 0
        assert not self._failures, self._failures[:3]

    def _run(self) -> None:
        began = time.monotonic()
        next_late = next_rewrite = began + LATE_EVERY_SECONDS
        while not self._ended.wait(TICK_SECONDS):
            now = time.monotonic()
            while self.sent < (now - began) * self._world.events_per_second:
                self._send(self._event())
            if self._late and now > next_late:
                self._publish(self._late.popleft())
                next_late = now + LATE_EVERY_SECONDS
            if self._world.rewrites and now > next_rewrite:
                self._publish(self._random.choice(self._articles))
                next_rewrite = now + 0.1
            self._producer.poll(0)

    def _event(self) -> Event:
        if self._recent and self._random.random() < DUPLICATES:
            return self._random.choice(self._recent)
        kinds, weights = zip(*KINDS, strict=True)
        kind: Kind = self._random.choices(kinds, weights)[0]
        user_id = f"user-{min(self._random.randrange(self._world.users), self._random.randrange(self._world.users))}"
        event = Event(
            user_id=user_id,
            kind=kind,
            at=time.time_ns() // 1_000_000 - self._random.randrange(60_000),
            event_id=f"{self.sent}" if self._random.random() < 0.8 else "",
            article_id="" if kind in ("impression", "forget") else self._article(),
            shown=self._shown() if kind == "impression" else [],
            dwell_ms=self._random.randrange(90_000) if kind == "dwell" else None,
        )
        if event.event_id and kind != "forget":
            self._recent.append(event)
        return event

    def _shown(self) -> list[ShownItem]:
        return [ShownItem(article_id=a, position=n) for n, a in enumerate(self._random.sample(self._articles, 3))]

    def _article(self) -> str:
        if self._late and self._random.random() < LATE:
            return self._late[0]
        return self._random.choice(self._articles)

    def _send(self, event: Event) -> None:
        value = b"not an event" if self._random.random() < BAD else encode(event)
        self.sent += 1
        self._produce(self._topics.user_events, event.user_id.encode(), value)

    def _publish(self, article_id: str) -> None:
        vector = self._vectors.standard_normal(self._dims).astype(np.float32)
        now = time.time_ns() // 1_000_000
        record = ArticleRecord(vector / np.linalg.norm(vector), now, 0, now, ArticleMeta())
        self._produce(self._topics.article_vectors, article_id.encode(), encode_article(record))

    def _produce(self, topic: str, key: bytes, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=self._note)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _note(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(error.str())
        self.delivered += message.topic() == self._topics.user_events


def decoded(value: bytes | None) -> Event | None:
    """The event in a record of the load; None for one that cannot be used."""
    try:
        return msgspec.json.decode(value or b"", type=Event)
    except msgspec.DecodeError:
        return None
