"""The fold as one would explain it: one record at a time, lists and sums, nothing shared with encoders/fold.py.

A user's vector is kept as the list of what was added to it and summed only when asked for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from contract.messages import Event
from contract.records import ArticleRecord
from encoders.decay import Decay
from encoders.fold import FoldLimits
from tests.strategies import HOUR, Change, Op, Record

WEIGHTS = {"click": 1.0, "like": 2.0, "share": 2.0, "dislike": -1.0}


@dataclass
class ReferenceUser:
    added: list[tuple[int, list[float], float]] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    waiting: list[Record] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    timestamp: int | None = None

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
    """``outcome`` says what became of every offset; ``dropped`` the offsets that a bound pushed out."""

    def __init__(self, model: Decay, limits: FoldLimits) -> None:
        self.model = model
        self.limits = limits
        self.articles: dict[str, ArticleRecord | None] = {}
        self.users: dict[str, ReferenceUser] = {}
        self.counted: dict[str, list[tuple[int, int, int]]] = {}
        self.outcome: dict[int, str] = {}
        self.dropped: list[int] = []
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
        if change.record is None:
            self.counted.pop(change.article_id, None)
        for user in self.users.values():
            ready = [w for w in user.waiting if w.event and w.event.article_id == change.article_id]
            for wait in ready:
                user.waiting.remove(wait)
                self.fold(user, wait)

    def record(self, record: Record) -> None:
        self.now = max(self.now, record.timestamp)
        self.drop_overdue()
        if record.event is None:
            self.outcome[record.offset] = "dead"
        elif record.event.kind == "forget":
            user = self.users.pop(record.event.user_id, ReferenceUser())
            for wait in [*user.waiting, record]:
                self.outcome[wait.offset] = "folded"
        else:
            self.event(record, record.event)
        self.drop_overdue()

    def event(self, record: Record, event: Event) -> None:
        user = self.users.setdefault(event.user_id, ReferenceUser())
        if user.timestamp is not None and record.timestamp - user.timestamp > self.limits.user_ttl_ms:
            user = self.users[event.user_id] = ReferenceUser(waiting=user.waiting)
        if event.event_id:
            if event.event_id in user.seen:
                self.outcome[record.offset] = "duplicate"
                return
            user.seen = [*user.seen, event.event_id][-self.limits.seen :]
        user.timestamp = record.timestamp
        if event.article_id and event.article_id not in self.articles:
            self.outcome[record.offset] = "waiting"
            user.waiting.append(record)
            if len(user.waiting) > self.limits.waiting_clicks:
                self.drop(user, user.waiting[0])
        else:
            self.fold(user, record)

    def fold(self, user: ReferenceUser, record: Record) -> None:
        event = record.event
        assert event is not None
        self.outcome[record.offset] = "folded"
        user.offsets.append(record.offset)
        at = min(event.at, record.timestamp)
        if event.kind == "impression":
            for item in event.shown:
                self.count(item.article_id, at, 1, 0)
                user.counts[item.article_id] = user.counts.get(item.article_id, 0) + 1
                user.shown = [*(a for a in user.shown if a != item.article_id), item.article_id]
                for forgotten in user.shown[: -self.limits.shown]:
                    del user.counts[forgotten]
                user.shown = user.shown[-self.limits.shown :]
            return
        if event.article_id not in user.read:
            user.read = [*user.read, event.article_id][-self.limits.read :]
        if event.kind == "click":
            self.count(event.article_id, at, 0, 1)
        article = self.articles[event.article_id]
        weight = 0.5 * min(event.dwell_ms or 0, 60_000) / 60_000 if event.kind == "dwell" else WEIGHTS[event.kind]
        expired = article is not None and article.expires_at and article.expires_at <= at
        if article is not None and not expired and weight:
            user.added.append((at, article.vector.tolist(), weight))

    def count(self, article_id: str, at: int, impressions: int, clicks: int) -> None:
        if self.articles.get(article_id) is not None:
            self.counted.setdefault(article_id, []).append((at, impressions, clicks))

    def stats(self, article_id: str) -> tuple[int, float, float]:
        """Event time, impressions and clicks, decayed with a half-life of six hours."""
        counted = self.counted[article_id]
        newest = max(at for at, _, _ in counted)
        kept = [0.5 ** ((newest - at) / (6 * HOUR)) for at, _, _ in counted]
        return (
            newest,
            sum(k * impressions for k, (_, impressions, _) in zip(kept, counted, strict=True)),
            sum(k * clicks for k, (_, _, clicks) in zip(kept, counted, strict=True)),
        )

    def drop_overdue(self) -> None:
        for user in self.users.values():
            for wait in list(user.waiting):
                if wait.timestamp < self.now - self.limits.waiting_ms:
                    self.drop(user, wait)

    def drop(self, user: ReferenceUser, wait: Record) -> None:
        user.waiting.remove(wait)
        self.dropped.append(wait.offset)
        self.outcome[wait.offset] = "dead"
        if wait.event and wait.event.event_id in user.seen:
            user.seen.remove(wait.event.event_id)

    def totals(self) -> Counter[str]:
        return Counter(self.outcome.values())
