"""The fold as one would explain it: one record at a time, lists and sums, nothing shared with the worker's fold.

What decays is kept as the list of what was added to it, and summed only when asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from math import ldexp
from typing import Any

import msgspec

from contract.messages import Carried, Event, Kind, encode
from contract.records import ArticleRecord
from encoders.decay import Decay
from encoders.fold_rules import FoldLimits
from tests.strategies import HOUR, Change, Op, Record

MINUTE = 60_000
READING = ("click", "dwell", "like", "share", "dislike")
WEIGHTS = {"click": 1.0, "like": 2.0, "share": 2.0, "dislike": -1.0, "follow": 1.0, "mute": -1.0}
BUCKETS = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 9), (10, 19), (20, 10**9))
STATS_HALF_LIFE = 6 * HOUR
AFFINITY_HALF_LIFE = 720 * HOUR
CO_READ_HALF_LIFE = 18 * MINUTE


@dataclass
class Sums:
    """Decayed sums by key: the least goes where there are too many, and what is 2^-10 or less of one addition."""

    half_life: int
    capacity: int
    added: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    newest: int = -(10**9)

    def add(self, key: str, at: int, weight: float) -> None:
        span = at // self.half_life
        if span > self.newest:
            self.newest = span
            self.added = {k: a for k, a in self.added.items() if abs(self.sum(k)) >= 2.0**-10}
        if span < self.newest - 10:
            return
        self.added.setdefault(key, []).append((at, weight))
        if len(self.added) > self.capacity:
            del self.added[min(self.added, key=lambda k: abs(self.sum(k)))]

    def sum(self, key: str) -> float:
        """As of the beginning of the half-life of the newest addition."""
        total = 0.0
        for at, weight in self.added[key]:
            spans = at // self.half_life - self.newest
            total += ldexp(weight * 2.0 ** (at % self.half_life / self.half_life), max(spans, -2000))
        return total

    def sums(self) -> dict[str, float]:
        return {key: self.sum(key) for key in self.added}


@dataclass(frozen=True)
class Wait:
    """Something that waits: ``place`` is where its record lies, ``mine`` whether it is accounted for here."""

    place: tuple[int, int]
    timestamp: int
    event: Event
    value: bytes
    mine: bool = True
    counted: bool = False


@dataclass
class ReferenceUser:
    affinities: Sums
    added: list[tuple[int, list[float], float]] = field(default_factory=list)
    read: dict[str, set[Kind]] = field(default_factory=dict)
    recents: list[tuple[str, int, str, int]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    follows: list[str] = field(default_factory=list)
    mutes: list[str] = field(default_factory=list)
    language: str = ""
    region: str = ""
    device: str = ""
    waiting: list[Wait] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    timestamp: int | None = None
    minute: int = 0
    minute_events: int = 0
    record_minute: int = 0
    record_minute_events: int = 0
    limited_until: int = 0

    def at(self) -> int:
        return max((at for at, _, _ in self.added), default=0)

    def vector(self, model: Decay) -> list[float]:
        """The long sum and the short, as of the latest event."""
        sums = []
        for half_life in (model.long_half_life_ms, model.short_half_life_ms):
            for i in range(model.dims):
                sums.append(sum(w * 0.5 ** ((self.at() - at) / half_life) * v[i] for at, v, w in self.added))
        return sums


class Reference:
    """``outcome`` says what became of every offset; ``dropped`` the places that a bound pushed out.

    ``absorbs`` are what merges hand over: the user who is to have it, and the events in it.
    """

    def __init__(self, model: Decay, limits: FoldLimits, partition: int) -> None:
        self.model = model
        self.limits = limits
        self.partition = partition
        self.articles: dict[str, ArticleRecord | None] = {}
        self.vectors: dict[str, list[float]] = {}
        self.users: dict[str, ReferenceUser] = {}
        self.counted: dict[str, list[tuple[int, str, int | None, str, str]]] = {}
        self.co_reads: dict[str, Sums] = {}
        self.absorbs: list[tuple[str, list[Any]]] = []
        self.outcome: dict[int, str] = {}
        self.dropped: list[tuple[int, int]] = []
        self.now = 0

    def run(self, ops: list[Op]) -> Reference:
        for op in ops:
            if isinstance(op, Change):
                self.change(op)
            else:
                self.record(op)
        return self

    def change(self, change: Change) -> None:
        self.articles[change.article_id] = change.record
        if change.record is not None:
            self.vectors[change.article_id] = change.record.vector.tolist()
        if change.record is None:
            self.counted.pop(change.article_id, None)
            self.co_reads.pop(change.article_id, None)
        for user_id in sorted(self.users):
            user = self.users[user_id]
            ready = [wait for wait in user.waiting if wait.event.article_id == change.article_id]
            user.waiting = [wait for wait in user.waiting if wait not in ready]
            for wait in ready:
                self.reading(user, wait.event, min(wait.event.at, wait.timestamp), counts=not wait.counted)
                if wait.mine:
                    self.folded(user, wait.place[1])

    def record(self, record: Record) -> None:
        self.now = max(self.now, record.timestamp)
        self.drop_overdue()
        if record.event is None:
            self.outcome[record.offset] = "dead"
        elif record.event.kind == "forget":
            self.remove(self.user(record.event.user_id), record)
        else:
            self.event(record, record.event)
        self.drop_overdue()

    def user(self, user_id: str) -> ReferenceUser:
        if user_id not in self.users:
            self.users[user_id] = ReferenceUser(Sums(AFFINITY_HALF_LIFE, self.limits.affinities))
        return self.users[user_id]

    def event(self, record: Record, event: Event) -> None:
        user = self.user(event.user_id)
        if user.timestamp is not None and record.timestamp - user.timestamp > self.limits.user_ttl_ms:
            waiting = user.waiting
            del self.users[event.user_id]
            user = self.user(event.user_id)
            user.waiting = waiting
        if event.event_id:
            if event.event_id in user.seen:
                self.outcome[record.offset] = "duplicate"
                return
            user.seen = [*user.seen, event.event_id][-self.limits.seen :]
        user.timestamp = record.timestamp
        at = min(event.at, record.timestamp)
        self.rate(user, at, record.timestamp)
        user.language = {"de": "de", "EN-gb": "en"}.get(event.context.get("language", ""), user.language)
        user.region = {"DE-BY": "DE-BY", "us_ca": "US-CA"}.get(event.context.get("region", ""), user.region)
        user.device = {"mobile": "mobile", "Tablet": "tablet"}.get(event.context.get("device", ""), user.device)
        if event.kind in READING and event.article_id not in self.articles:
            self.outcome[record.offset] = "waiting"
            self.wait(user, Wait((self.partition, record.offset), record.timestamp, event, encode(event)))
            self.bound(user)
            return
        if event.kind == "merge":
            self.merge(user, event, at)
            self.remove(user, record)
            return
        if event.kind == "impression":
            self.impression(user, event, at)
        elif event.kind in READING:
            self.reading(user, event, at, counts=True)
        elif event.kind == "absorb":
            for inside in event.events:
                self.carried(user, inside, record)
            self.drop_overdue()
            self.bound(user)
        else:
            self.target(user, event, at)
        self.folded(user, record.offset)

    def rate(self, user: ReferenceUser, at: int, timestamp: int) -> None:
        if at // MINUTE > user.minute:
            user.minute, user.minute_events = at // MINUTE, 0
        user.minute_events += 1
        if user.minute_events > self.limits.events_per_minute:
            user.limited_until = max(user.limited_until, user.minute * MINUTE + HOUR)
        if timestamp // MINUTE > user.record_minute:
            user.record_minute, user.record_minute_events = timestamp // MINUTE, 0
        user.record_minute_events += 1
        if user.record_minute_events > 2 * self.limits.events_per_minute:
            user.limited_until = max(user.limited_until, user.record_minute * MINUTE + HOUR)

    def folded(self, user: ReferenceUser, offset: int) -> None:
        self.outcome[offset] = "folded"
        user.offsets.append(offset)

    def remove(self, user: ReferenceUser, record: Record) -> None:
        for wait in user.waiting:
            if wait.mine:
                self.outcome[wait.place[1]] = "folded"
        self.outcome[record.offset] = "folded"
        self.users = {user_id: other for user_id, other in self.users.items() if other is not user}

    def merge(self, user: ReferenceUser, event: Event, at: int) -> None:
        handed: list[Any] = [("follow", target, at, None) for target in user.follows]
        handed += [("mute", target, at, None) for target in user.mutes]
        for article_id, then, kind, dwell_ms in user.recents:
            if self.articles.get(article_id) is not None:
                handed.append((kind, article_id, then, dwell_ms if kind == "dwell" else None))
        for wait in user.waiting:
            handed.append((wait.value, None if wait.counted else wait.place, wait.timestamp))
        if handed:
            self.absorbs.append((event.target, handed))

    def carried(self, user: ReferenceUser, inside: Carried, record: Record) -> None:
        value = bytes(inside.event)
        event = msgspec.json.decode(value, type=Event)
        timestamp = min(inside.timestamp or record.timestamp, record.timestamp)
        waited = inside.offset >= 0
        if event.kind not in READING:
            self.target(user, event, min(event.at, timestamp))
        elif event.article_id in self.articles:
            self.reading(user, event, min(event.at, timestamp), counts=waited)
        else:
            place = (max(0, inside.partition), inside.offset) if waited else (self.partition, record.offset)
            self.wait(user, Wait(place, timestamp, event, value, mine=False, counted=not waited))

    def impression(self, user: ReferenceUser, event: Event, at: int) -> None:
        items = {item.article_id: item for item in event.shown}
        for article_id, item in items.items():
            if article_id not in user.shown and at >= user.limited_until:
                self.count(article_id, at, "impression", item.position, item.reason, item.source, user.region)
            user.counts[article_id] = user.counts.get(article_id, 0) + 1
            self.move(user, article_id, at, -0.01, affinity=False)
        newest = [*(article_id for article_id in user.shown if article_id not in items), *items]
        for forgotten in newest[: -self.limits.shown]:
            del user.counts[forgotten]
        user.shown = newest[-self.limits.shown :]

    def reading(self, user: ReferenceUser, event: Event, at: int, *, counts: bool) -> None:
        article_id, kind = event.article_id, event.kind
        first = kind not in user.read.get(article_id, ())
        user.read.setdefault(article_id, set()).add(kind)
        if len(user.read) > self.limits.read:
            del user.read[next(iter(user.read))]
        before = user.recents
        dwell_ms = min(event.dwell_ms or 0, 60_000) if kind == "dwell" else 0
        user.recents = [*before, (article_id, at, kind, dwell_ms)][-self.limits.recents :]
        if kind == "click" and counts and first and at >= user.limited_until:
            self.count(article_id, at, "click", event.position, event.reason, event.source, user.region)
            if self.articles[article_id] is not None:
                self.read_next(before, article_id, at)
        weight = 0.5 * dwell_ms / 60_000 if kind == "dwell" else WEIGHTS[kind]
        self.move(user, article_id, at, weight)

    def read_next(self, before: list[tuple[str, int, str, int]], article_id: str, at: int) -> None:
        met: list[str] = []
        for previous, then, _, _ in reversed(before):
            if then < at - HOUR or len(met) == 3:
                break
            if then <= at and previous != article_id and previous not in met:
                met.append(previous)
                if self.articles.get(previous) is not None:
                    sums = self.co_reads.setdefault(previous, Sums(CO_READ_HALF_LIFE, self.limits.co_reads))
                    sums.add(article_id, at, 1 / len(met))

    def target(self, user: ReferenceUser, event: Event, at: int) -> None:
        user.follows = [target for target in user.follows if target != event.target]
        user.mutes = [target for target in user.mutes if target != event.target]
        if event.kind == "follow":
            user.follows = [*user.follows, event.target][-self.limits.follows :]
        else:
            user.mutes = [*user.mutes, event.target][-self.limits.mutes :]
        self.move(user, event.article_id, at, WEIGHTS[event.kind])

    def move(self, user: ReferenceUser, article_id: str, at: int, weight: float, *, affinity: bool = True) -> None:
        article = self.articles.get(article_id)
        if article is None or not weight or (article.expires_at and article.expires_at <= at):
            return
        user.added.append((at, self.vectors[article_id], weight))
        if affinity and article.meta.category:
            user.affinities.add(article.meta.category, at, weight)

    def count(
        self, article_id: str, at: int, kind: str, position: int | None, reason: str, source: str, region: str
    ) -> None:  # fmt: skip
        if self.articles.get(article_id) is not None:
            bucket = next((low for low, high in BUCKETS if position is not None and low <= position <= high), None)
            for key in (article_id, "~source/" + source)[: 2 if source else 1]:
                self.counted.setdefault(key, []).append((at, kind, bucket, reason, region))

    def stats(self, key: str, without: Collection[int] = ()) -> tuple[int, dict[Any, float]]:
        """The time they are as of, and decayed sums by kind, (kind, position), (kind, reason),
        (kind, half-life) and (kind, region).

        ``without`` leaves some of ``counted`` out of the sums.
        """
        counted = self.counted[key]
        as_of = max(at for at, *_ in counted) // STATS_HALF_LIFE * STATS_HALF_LIFE
        sums: dict[Any, float] = {}
        for at, kind, bucket, reason, region in (one for number, one in enumerate(counted) if number not in without):
            for what in (kind, (kind, bucket), (kind, reason), (kind, f"in {region}" if region else "")):
                sums[what] = sums.get(what, 0) + 0.5 ** ((as_of - at) / STATS_HALF_LIFE)
            for minutes in (60, 15):
                what = kind, f"{minutes} min"
                sums[what] = sums.get(what, 0) + 0.5 ** ((as_of - at) / (60_000 * minutes))
        return as_of, sums

    def wait(self, user: ReferenceUser, wait: Wait) -> None:
        user.waiting.append(wait)

    def bound(self, user: ReferenceUser) -> None:
        while len(user.waiting) > self.limits.waiting_clicks:
            self.drop(user, user.waiting[0])

    def drop_overdue(self) -> None:
        for user in self.users.values():
            for wait in list(user.waiting):
                if wait.timestamp < self.now - self.limits.waiting_ms:
                    self.drop(user, wait)

    def drop(self, user: ReferenceUser, wait: Wait) -> None:
        user.waiting.remove(wait)
        self.dropped.append(wait.place)
        if wait.mine:
            self.outcome[wait.place[1]] = "dead"
            if wait.event.event_id in user.seen:
                user.seen.remove(wait.event.event_id)

    def totals(self) -> Counter[str]:
        return Counter(self.outcome.values())
