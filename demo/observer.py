"""An account of a running system that believes none of its parts: it reads the topics itself.

Events are counted by reading them, never by offsets, and are held against what the users worker
says became of them in the totals of each partition. Lists are timed on receipt.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

import msgspec

from contract.messages import Cause
from contract.records import PARTITION_KEY, PartitionTotals, decode_totals
from contract.settings import Settings
from contract.topics import Topics
from demo.audience import Audience
from demo.latencies import Latencies
from streams.dead_letters import read as read_dead_letter
from streams.table import TableReader
from streams.worker import Log

LIST_POLL_SECONDS = 0.05
COUNT_EVERY_SECONDS = 0.05
REACH_POINTS = 200
TOTALS_AHEAD = 1000
ARTICLES = "articles"
REACH_SECONDS = 10.0


@dataclass(frozen=True)
class Account:
    """sent = folded + waiting + duplicate + dead + in_flight + lost."""

    sent: int
    read: int
    folded: int
    waiting: int
    duplicate: int
    dead: int
    lost: int

    @property
    def in_flight(self) -> int:
        """Sent and not yet read by the users worker."""
        return self.sent - self.read

    @property
    def unaccounted(self) -> int:
        """Sent, and nobody says what became of it: what is lost once the workers have come to the end."""
        return self.sent - self.folded - self.waiting - self.duplicate - self.dead


@dataclass
class Reach:
    """In whose lists an article came to stand; ``curve``: milliseconds since publication, users reached by then."""

    article_id: str
    title: str
    at: int
    users: set[str] = field(default_factory=set)
    curve: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class _Partition:
    """One partition of ``user-events``: what was sent into it, and what the worker says it read.

    Both come from topics of their own, either of which may be ahead here: totals wait in ``ahead``
    until all that they speak of has been counted.
    """

    sent: int = 0
    totals: PartitionTotals = field(default_factory=PartitionTotals)
    ahead: deque[PartitionTotals] = field(default_factory=lambda: deque(maxlen=TOTALS_AHEAD))
    unconfirmed: deque[int] = field(default_factory=deque)  # timestamps of records the totals may not include yet
    confirmed: int = 0

    def settle(self) -> None:
        """Take the newest totals of which every event has been counted."""
        while self.ahead and self.ahead[0].read <= self.sent:
            self.totals = self.ahead.popleft()

    def missing(self) -> int:
        """Records older than the last one that the worker read, and yet not among those it read."""
        while self.unconfirmed and self.unconfirmed[0] < self.totals.timestamp:
            self.unconfirmed.popleft()
            self.confirmed += 1
        t = self.totals
        return max(0, self.confirmed - t.read) + t.read - t.folded - t.waiting - t.duplicate - t.dead


class _SeenItem(msgspec.Struct, frozen=True):
    article_id: str


class _SeenList(msgspec.Struct, frozen=True):
    cause: Cause
    items: list[_SeenItem]


_decode_list = msgspec.json.Decoder(_SeenList).decode


class Observer:
    """Reads all topics from their beginning on two threads, from :meth:`start` to :meth:`close`."""

    def __init__(self, settings: Settings, topics: Topics) -> None:
        self._lists = TableReader(settings, topics.recommendations, name="demo-lists")
        self._events = TableReader(settings, topics.user_events, name="demo-events")
        self._states = TableReader(settings, topics.user_vectors, name="demo-totals")
        self._articles = TableReader(settings, topics.articles, name="demo-articles")
        self._vectors = TableReader(settings, topics.article_vectors, name="demo-vectors")
        self._dead = TableReader(settings, topics.dead_letters, name="demo-dead-letters")
        self._partitions = [_Partition() for _ in range(settings.partitions)]
        self._published: set[bytes] = set()
        self._embedded: set[bytes] = set()
        self._refused: set[bytes] = set()
        self._measure_from = float("inf")
        self._live_from_ms = 0
        self._audience = Audience()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, args=(step,), name=f"observer-{name}", daemon=True)
            for name, step in (("lists", self._read_lists), ("counts", self._read_counts))
        ]
        self.lists_published = 0
        self.event_to_list = Latencies()
        self.publish_to_list = Latencies()
        self.reach: Reach | None = None
        self.failure: BaseException | None = None

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads and close the readers; blocks briefly."""
        self._ended.set()
        for thread in self._threads:
            thread.join(10)
        for reader in (self._lists, self._events, self._states, self._articles, self._vectors, self._dead):
            reader.close()

    def begin(self, settling_seconds: float) -> None:
        """The source is live: latencies are those of what is sent from now on, and count after some seconds."""
        self._live_from_ms = time.time_ns() // 1_000_000
        self._measure_from = time.monotonic() + settling_seconds

    def account(self) -> Account:
        """What was sent and what became of it, as far as has been read."""
        with self._lock:
            totals = [p.totals for p in self._partitions]
            return Account(
                sent=sum(p.sent for p in self._partitions),
                read=sum(t.read for t in totals),
                folded=sum(t.folded for t in totals),
                waiting=sum(t.waiting for t in totals),
                duplicate=sum(t.duplicate for t in totals),
                dead=sum(t.dead for t in totals),
                lost=sum(p.missing() for p in self._partitions),
            )

    def sent_by_partition(self) -> list[int]:
        """How many events were sent into each partition."""
        return [p.sent for p in self._partitions]

    def has_read(self, counts: list[int]) -> bool:
        """Whether the users worker has read at least so many events of each partition."""
        return all(p.totals.read >= count for p, count in zip(self._partitions, counts, strict=True))

    @property
    def articles(self) -> tuple[int, int]:
        """Distinct articles published, and those of them that have a vector."""
        return len(self._published), len(self._embedded)

    @property
    def users(self) -> int:
        """How many users have had a list."""
        return len(self._audience)

    def choose_users(self, count: int) -> list[str]:
        """Users whose feeds are worth showing side by side; empty while there are none."""
        with self._lock:
            return self._audience.choose(count, time.monotonic())

    def watch(self, article_id: str, title: str, at: int) -> None:
        """From now on, follow into whose lists this article comes; ``at`` in epoch ms."""
        self.reach = Reach(article_id, title, at)

    def wait_accounted(self, seconds: float) -> bool:
        """Block until every event sent has been read, and every article has its vector or is a dead letter."""
        deadline = time.monotonic() + seconds
        quiet_since, before = time.monotonic(), -1
        while time.monotonic() < deadline and self.failure is None:
            account = self.account()
            unanswered = self._published - self._embedded - self._refused
            if account.sent != before or account.in_flight or unanswered:
                quiet_since, before = time.monotonic(), account.sent
            elif time.monotonic() - quiet_since > 1.0:
                return True
            time.sleep(0.05)
        return False

    def _follow(self, step: object) -> None:
        assert callable(step)
        try:
            while not self._ended.is_set():
                step()
        except Exception as error:  # noqa: BLE001 - the supervisor ends the demo with it
            Log("demo").error("observer_failed", error=str(error))
            self.failure = error

    def _read_lists(self) -> None:
        records = self._lists.poll(LIST_POLL_SECONDS, limit=1)
        if not records:
            return
        records += self._lists.poll(limit=5000)
        now, now_ms = time.monotonic(), time.time_ns() // 1_000_000
        counts = now >= self._measure_from
        reach = self.reach
        with self._lock:
            for record in records:
                key, value = record.key(), record.value()
                if key is None or value is None or key.startswith((b"~popular/", b"~related/")):
                    continue
                self.lists_published += 1
                seen = _decode_list(value)
                if not 0 < self._live_from_ms <= seen.cause.at:
                    pass
                elif seen.cause.kind == "event":
                    self.event_to_list.add(now_ms - seen.cause.at, now, counts=counts)
                elif seen.cause.kind == "article":
                    self.publish_to_list.add(now_ms - seen.cause.at, now, counts=counts)
                if key.startswith(b"~"):
                    continue
                user = key.decode(errors="replace")
                articles = frozenset([item.article_id for item in seen.items])
                self._audience.take(user, articles, now)
                if reach is not None and reach.article_id in articles:
                    reach.users.add(user)
        if reach is not None and reach.users:
            _note_reach(reach, now_ms)

    def _read_counts(self) -> None:
        events = self._events.poll(limit=10_000)
        states = self._states.poll(limit=10_000)
        with self._lock:
            for record in events:
                partition = self._partitions[record.partition() or 0]
                partition.sent += 1
                partition.unconfirmed.append(record.timestamp()[1])
            for record in states:
                value = record.value()
                if record.key() == PARTITION_KEY and value is not None:
                    self._partitions[record.partition() or 0].ahead.append(decode_totals(value))
            for partition in self._partitions:
                partition.settle()
            for record in self._articles.poll(limit=10_000):
                if record.value() is not None:
                    self._published.add(record.key() or b"")
            for record in self._vectors.poll(limit=10_000):
                if record.value() is not None:
                    self._embedded.add(record.key() or b"")
            for record in self._dead.poll(limit=10_000):
                if read_dead_letter(record).worker == ARTICLES:
                    self._refused.add(record.key() or b"")
        if not events and not states:
            self._ended.wait(COUNT_EVERY_SECONDS)


def _note_reach(reach: Reach, now_ms: int) -> None:
    since, users = now_ms - reach.at, len(reach.users)
    if since > REACH_SECONDS * 1000 or (reach.curve and reach.curve[-1][1] == users):
        return
    reach.curve.append((since, users))
    if len(reach.curve) > REACH_POINTS:
        del reach.curve[1:-1:2]
