"""Users who look at their present lists and click, and a clock on every list that comes of it.

An open loop: what is sent does not wait for what comes back. A click is timed from before it is handed to the
producer until a read_committed reader has the first list of that user which names the click as its cause, or no
longer holds the article that was clicked.
"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from contract.messages import Article, Cause, Event, ShownItem
from producers.current_lists import ListedItem
from producers.newsroom import Newsroom
from producers.sender import Sender
from streams.record import Record
from streams.table import TableReader

TICK_SECONDS = 0.005
ATTENTION = 0.8
"""The place after is looked at so much less."""


class _Shown(msgspec.Struct, frozen=True):
    list_id: str
    cause: Cause
    items: list[ListedItem]
    fallback: bool = False


_decode = msgspec.json.Decoder(_Shown).decode


class Sent(msgspec.Struct, gc=False):
    """A click that no list reflects yet; ``at`` in monotonic seconds."""

    event_id: str
    at: float
    counts: bool


@dataclass
class Measured:
    """What one load brought; latencies in ms. ``personal``: lists of users, by the kind of their cause."""

    event_to_list: array[float] = field(default_factory=lambda: array("d"))
    publish_to_list: array[float] = field(default_factory=lambda: array("d"))
    first_list: array[float] = field(default_factory=lambda: array("d"))
    lists: dict[str, int] = field(default_factory=dict)
    clicks: int = 0
    counted: int = 0
    publications: int = 0
    latest_ms: float = 0.0

    def percentile(self, of: str, percent: float) -> float:
        """Return the percentile of one of the latencies, NaN where there was none."""
        values = np.frombuffer(getattr(self, of), np.float64)
        return float(np.percentile(values, percent, method="inverted_cdf")) if len(values) else float("nan")


class Readers:
    """The users, the newest list of each, and the clicks that are not in one yet."""

    def __init__(
        self, users: Sequence[str], reader: TableReader, sender: Sender, newsroom: Newsroom, seed: int
    ) -> None:
        self._ids = users
        self._numbers = {user_id.encode(): number for number, user_id in enumerate(users)}
        self._lists: list[_Shown | None] = [None] * len(users)
        self._open: list[dict[str, Sent]] = [{} for _ in users]
        self._reader = reader
        self._sender = sender
        self._newsroom = newsroom
        self._draw = random.Random(seed)
        self._places = [ATTENTION**place for place in range(1000)]
        self._published: dict[str, float] = {}
        self._serial = 0
        self._run = f"{time.time_ns():x}"
        self.measured = Measured()
        self.open_clicks = 0

    def personal_lists(self) -> int:
        """How many users have a list that is not the popular one."""
        return sum(shown is not None and not shown.fallback for shown in self._lists)

    def listen(self, seconds: float) -> int:
        """Take in the lists that come within ``seconds``; return how many did."""
        records = self._reader.poll(seconds, limit=1)
        if records:
            records += self._reader.poll(limit=2000)
            now = time.perf_counter()
            for record in records:
                self._take(record, now)
        return len(records)

    def run(
        self, clicks_per_second: float, publications_per_second: float, seconds: float, settling: float, shown: int
    ) -> Measured:
        """Click and publish evenly for ``settling`` + ``seconds``, of which the latter count; blocks."""
        self.measured = Measured()
        began = time.perf_counter()
        clicked = published = 0
        while (since := time.perf_counter() - began) < settling + seconds:
            for _ in range(int(since * clicks_per_second) - clicked):
                self.click(shown, counts=since >= settling)
                clicked += 1
            if since * publications_per_second >= published + 1:
                self.publish(counts=since >= settling)
                published += 1
            self._sender.serve()
            self.listen(TICK_SECONDS)
        return self.measured

    def drain(self, seconds: float, quiet: float = 2.0) -> float:
        """Listen until no list has come for ``quiet`` seconds, at most ``seconds``; return when the last one came."""
        self._sender.flush()
        began = last = time.perf_counter()
        while (now := time.perf_counter()) - last < quiet and now - began < seconds:
            before = self.measured.lists.copy()
            self.listen(0.1)
            if any(
                self.measured.lists.get(kind, 0) > before.get(kind, 0) for kind in ("event", "article", "withdrawal")
            ):
                last = time.perf_counter()
        return last - began

    def forget_open(self) -> int:
        """Wait no longer for lists; return of how many clicks that count none told."""
        told_by_none = sum(sent.counts for waiting in self._open for sent in waiting.values())
        for waiting in self._open:
            waiting.clear()
        self.open_clicks = 0
        return told_by_none

    def click(self, count: int, *, counts: bool) -> None:
        """Let somebody look at the first ``count`` items of their list, and click one of them."""
        for _ in range(100):
            user = self._draw.randrange(len(self._ids))
            current = self._lists[user]
            if current is None:
                continue
            items = current.items[:count]
            free = [place for place, item in enumerate(items) if item.article_id not in self._open[user]]
            if free:
                break
        else:
            raise RuntimeError("nobody has a list to click on")
        assert current is not None
        place = self._draw.choices(free, [self._places[one] for one in free])[0]
        at, now = time.time_ns() // 1_000_000, time.perf_counter()
        self._serial += 1
        event_id, user_id = f"{self._run}-{self._serial}", self._ids[user]
        seen = [
            ShownItem(article_id=item.article_id, position=number, reason=item.reason, source=item.source,
                      propensity=item.propensity)
            for number, item in enumerate(items)
        ]  # fmt: skip
        self._sender.event(
            Event(user_id=user_id, kind="impression", at=at, event_id=f"{event_id}-v", shown=seen,
                  list_id=current.list_id)
        )  # fmt: skip
        item = items[place]
        self._sender.event(
            Event(user_id=user_id, kind="click", at=at, event_id=event_id, article_id=item.article_id,
                  list_id=current.list_id, position=place, reason=item.reason, source=item.source)
        )  # fmt: skip
        self._open[user][item.article_id] = Sent(event_id, now, counts)
        self.open_clicks += 1
        self.measured.clicks += 1
        self.measured.counted += counts

    def publish(self, *, counts: bool) -> None:
        """Publish one article."""
        article: Article = self._newsroom.article(time.time_ns() // 1_000_000)[0]
        if counts:
            self._published[article.article_id] = time.perf_counter()
        self._sender.article(article)
        self.measured.publications += 1

    def _take(self, record: Record, now: float) -> None:
        value = record.value()
        user = self._numbers.get(record.key() or b"")
        if user is None or value is None:
            return
        shown = self._lists[user] = _decode(value)
        measured, cause = self.measured, shown.cause
        measured.lists[cause.kind] = measured.lists.get(cause.kind, 0) + 1
        if cause.kind == "article" and (published := self._published.get(cause.id)) is not None:
            measured.publish_to_list.append((now - published) * 1000)
        waiting = self._open[user]
        if waiting:
            held = {item.article_id for item in shown.items}
            for article_id in [a for a, sent in waiting.items() if a not in held or sent.event_id == cause.id]:
                sent = waiting.pop(article_id)
                self.open_clicks -= 1
                if sent.counts:
                    measured.event_to_list.append((now - sent.at) * 1000)
