"""A steady load of events, and the vectors of the articles that they are about."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any, Self

import msgspec
import numpy as np
from confluent_kafka import KafkaError, Message

from contract.messages import ARTICLE_KINDS, Event, Kind, ShownItem, encode
from contract.records import ArticleMeta, ArticleRecord, encode_article
from contract.settings import Settings
from contract.topics import Topics
from streams.clients import make_producer

KINDS: tuple[tuple[Kind, int], ...] = (
    ("click", 52), ("impression", 20), ("dwell", 6), ("like", 4), ("share", 3), ("dislike", 3),
    ("follow", 5), ("mute", 3), ("merge", 3), ("forget", 1),
)  # fmt: skip
POSITIONS = (None, 0, 1, 2, 4, 7, 15, 40)
REASONS = ("", "similar", "popular", "category")
SOURCES = ("", "vector", "popular")
LANGUAGES = ("de", "EN-gb")
REGIONS = ("DE-BY", "us_ca", "")
DEVICES = ("mobile", "Tablet", "toaster")
CATEGORIES = 10
TARGETS = 80  # more than a user's follows and mutes have places for
ANONYMOUS = 0.25
BOTS = 4
BY_BOTS = 0.1
DUPLICATES = 0.03
BAD = 0.01
LATE = 0.03
LATE_ARTICLES = 40
WITHDRAWABLE = 4
CHANGE_EVERY_SECONDS = 2.0
REWRITE_EVERY_SECONDS = 0.1
TICK_SECONDS = 0.02


@dataclass(frozen=True)
class World:
    """Who reads what. ``changing``: articles come late, get other vectors all the time, and are withdrawn now and then.

    Otherwise all have their vector before the first event, and keep it.
    """

    users: int = 300
    anonymous: int = 60
    articles: int = 80
    events_per_second: int = 400
    changing: bool = False
    seed: int = 1


class Load:
    """Sends from :meth:`start` to :meth:`stop` on a thread of its own, whatever happens to the broker meanwhile.

    All articles but ``late-N`` have a vector before the first event; those get theirs some time after
    somebody clicked on them, and all of them at the end. ``ends`` is, by partition, where the last event that Kafka is
    known to have ends, ``away`` the article that is withdrawn now.
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
        self._late = deque(f"late-{n}" for n in range(LATE_ARTICLES if world.changing else 0))
        self._recent: deque[Event] = deque(maxlen=200)
        self._began_ms = time.time_ns() // 1_000_000
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._failures: list[str] = []
        self.away = ""
        self.sent = 0
        self.delivered = 0
        self.ends: dict[int, int] = defaultdict(int)

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
        next_change = next_rewrite = began + CHANGE_EVERY_SECONDS
        while not self._ended.wait(TICK_SECONDS):
            now = time.monotonic()
            while self.sent < (now - began) * self._world.events_per_second:
                self._send(self._event())
            if self._world.changing and now > next_change:
                if self._late:
                    self._publish(self._late.popleft())
                self._withdraw_another()
                next_change = now + CHANGE_EVERY_SECONDS
            if self._world.changing and now > next_rewrite:
                self._publish(self._random.choice([a for a in self._articles if a != self.away]))
                next_rewrite = now + REWRITE_EVERY_SECONDS
            self._producer.poll(0)

    def _withdraw_another(self) -> None:
        if self.away:
            self._publish(self.away)
        self.away = self._random.choice([a for a in self._articles[-WITHDRAWABLE:] if a != self.away])
        self._produce(self._topics.article_vectors, self.away.encode(), None)

    def _event(self) -> Event:
        if self._recent and self._random.random() < DUPLICATES:
            return self._random.choice(self._recent)
        kinds, weights = zip(*KINDS, strict=True)
        kind: Kind = self._random.choices(kinds, weights)[0]
        event = Event(
            user_id=self._anonymous() if kind == "merge" else self._user(),
            kind=kind,
            at=time.time_ns() // 1_000_000 - self._random.randrange(60_000),
            event_id=f"{self.sent}" if self._random.random() < 0.8 else "",
            context=self._context() if self._random.random() < 0.1 else {},
            **self._about(kind),
        )
        if event.event_id and kind != "forget":
            self._recent.append(event)
        return event

    def _context(self) -> dict[str, str]:
        told = {"language": LANGUAGES, "device": DEVICES}
        if not self._world.changing:  # a click that waited counts where its user is when its article comes
            told["region"] = REGIONS
        return {what: self._random.choice(values) for what, values in told.items()}

    def _about(self, kind: Kind) -> dict[str, Any]:
        if kind == "impression":
            return {"shown": self._shown()}
        if kind == "merge":
            return {"target": self._known_user()}
        if kind in ("follow", "mute"):
            made_on = self._random.choice(self._articles) if self._random.random() < 0.5 else ""
            return {"target": f"target-{self._random.randrange(TARGETS)}", "article_id": made_on}
        if kind == "click":
            return {
                "article_id": self._article(),
                "position": self._random.choice(POSITIONS),
                "reason": self._random.choice(REASONS),
                "source": self._random.choice(SOURCES),
            }
        if kind == "dwell":
            return {"article_id": self._article(), "dwell_ms": self._random.randrange(90_000)}
        return {"article_id": self._article()} if kind in ARTICLE_KINDS else {}

    def _user(self) -> str:
        number = self._random.random()
        if number < BY_BOTS:
            return f"bot-{self._random.randrange(BOTS)}"
        return self._anonymous() if number < BY_BOTS + ANONYMOUS else self._known_user()

    def _anonymous(self) -> str:
        return f"anonymous-{self._random.randrange(self._world.anonymous)}"

    def _known_user(self) -> str:
        return f"user-{min(self._random.randrange(self._world.users), self._random.randrange(self._world.users))}"

    def _shown(self) -> list[ShownItem]:
        first = self._random.choice((0, 0, 3, 18))
        return [
            ShownItem(
                article_id=article_id,
                position=first + n,
                reason=self._random.choice(REASONS),
                source=self._random.choice(SOURCES),
            )
            for n, article_id in enumerate(self._random.sample(self._articles, 3))
        ]

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
        now, number = time.time_ns() // 1_000_000, int(article_id.split("-")[1])
        expires_at = self._began_ms + 10_000 * number if number % 8 == 1 else 0
        meta = ArticleMeta(category=f"category-{number % CATEGORIES}" if number % 5 else "")
        record = ArticleRecord(vector / np.linalg.norm(vector), now, expires_at, now, meta)
        self._produce(self._topics.article_vectors, article_id.encode(), encode_article(record))

    def _produce(self, topic: str, key: bytes, value: bytes | None) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=self._note)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _note(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(error.str())
        elif message.topic() == self._topics.user_events:
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            self.delivered += 1
            self.ends[partition] = max(self.ends[partition], offset + 1)


def decoded(value: bytes | None) -> Event | None:
    """The event in a record of ``user-events``; None for one that cannot be used."""
    try:
        return msgspec.json.decode(value or b"", type=Event)
    except msgspec.DecodeError:
        return None
