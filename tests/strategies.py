"""What the tests of the fold draw from: a log of one partition, in a world of a few users and articles.

The bounds are small and the times far apart, so that a short log meets all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.messages import ARTICLE_KINDS, Carried, Event, ShownItem, encode
from contract.records import ArticleMeta, ArticleRecord
from encoders.decay import Decay
from encoders.fold_rules import Arrival, FoldLimits

HOUR = 3_600_000
DAY = 24 * HOUR
START = 1_750_000_000_000
PARTITION = 3
USERS = ("ann", "bob", "eve")
ARTICLES = ("a0", "a1", "a2", "a3", "a4")
CATEGORIES = {"a0": "x", "a1": "x", "a2": "y", "a3": "z"}
MODEL = Decay(dims=4, long_half_life_ms=48 * HOUR, short_half_life_ms=2 * HOUR)
LIMITS = FoldLimits(
    waiting_clicks=2, waiting_ms=24 * HOUR, user_ttl_ms=10 * DAY, recents=4, read=4, seen=3, shown=4,
    follows=2, mutes=2, affinities=2, co_reads=2, events_per_minute=6,
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """A record of ``user-events``; ``event`` None is one that could not be used."""

    offset: int
    timestamp: int
    event: Event | None

    def arrival(self) -> Arrival:
        assert self.event is not None
        return Arrival(self.offset, self.timestamp, self.event, encode(self.event))


@dataclass(frozen=True)
class Change:
    """An article gets the vector ``record`` or is withdrawn (None)."""

    article_id: str
    record: ArticleRecord | None


Op = Record | Change


def unit_vector(seed: int, dims: int = MODEL.dims) -> NDArray[np.float32]:
    vector = np.random.default_rng(seed).standard_normal(dims)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def published(article_id: str, version: int = 0, expires_at: int = 0, cause_at: int = START) -> Change:
    vector = unit_vector(100 * version + int(article_id[1:]))
    meta = ArticleMeta(category=CATEGORIES.get(article_id, ""))
    return Change(article_id, ArticleRecord(vector, START, expires_at, cause_at, meta))


def carried(event: Event, partition: int = -1, offset: int = -1, timestamp: int = 0) -> Carried:
    return Carried(event=msgspec.Raw(encode(event)), partition=partition, offset=offset, timestamp=timestamp)


KINDS = (
    "click", "click", "click", "click", "impression", "impression", "dwell", "like", "dislike", "share",
    "follow", "mute", "merge", "absorb", "forget",
)  # fmt: skip
GAPS = (0, 0, 0, 1, 60_000, 600_000, 5 * HOUR, 13 * HOUR, 25 * HOUR, 11 * DAY)
SKEWS = (0, 0, -1, -40_000, -HOUR, -30 * HOUR, 5 * HOUR, 400 * DAY, -START)
NAMES = ("", "similar", "popular")
CONTEXTS: tuple[dict[str, object], ...] = (
    {},
    {},
    {},
    {"language": "de"},
    {"language": "EN-gb"},
    {"language": 7},
    {"region": "DE-BY", "device": "mobile"},
    {"region": "us_ca"},
    {"region": "x" * 40, "device": "toaster"},
    {"device": "Tablet", "region": None},
    {"a": 1},
)


@st.composite
def events(
    draw: st.DrawFn,
    timestamp: int,
    *,
    kinds: tuple[str, ...] = KINDS,
    event_ids: tuple[str, ...] = ("",),
    users: tuple[str, ...] = USERS,
) -> Event:
    kind, user_id = draw(st.sampled_from(kinds)), draw(st.sampled_from(users))
    at = max(0, timestamp + draw(st.sampled_from(SKEWS)))
    position, name = st.sampled_from((None, 0, 4, 17, 40)), st.sampled_from(NAMES)
    article_id = target = ""
    shown: list[ShownItem] = []
    inside: list[Carried] = []
    if kind == "impression":
        shown = [
            ShownItem(article_id=article_id, position=draw(position), reason=draw(name), source=draw(name))
            for article_id in draw(st.lists(st.sampled_from(ARTICLES), min_size=1, max_size=3))
        ]
    elif kind in ARTICLE_KINDS:
        article_id = draw(st.sampled_from(ARTICLES))
    elif kind in ("follow", "mute"):
        article_id, target = draw(st.sampled_from(("", *ARTICLES))), draw(st.sampled_from(("x", "y", "z")))
    elif kind == "merge":
        target = draw(st.sampled_from([user for user in users if user != user_id]))
    elif kind == "absorb":
        inside = draw(st.lists(carried_events(timestamp), min_size=1, max_size=4))
    return Event(
        user_id=user_id,
        kind=kind,  # type: ignore[arg-type]
        at=at,
        event_id=draw(st.sampled_from(event_ids)),
        article_id=article_id,
        target=target,
        shown=shown,
        events=inside,
        dwell_ms=draw(st.sampled_from((0, 15_000, 200_000))) if kind == "dwell" else None,
        position=draw(position) if kind == "click" else None,
        reason=draw(name) if kind == "click" else "",
        source=draw(name) if kind == "click" else "",
        context=draw(st.sampled_from(CONTEXTS)),
    )


@st.composite
def carried_events(draw: st.DrawFn, timestamp: int) -> Carried:
    """What an absorb may carry: done already, or still waiting where it comes from."""
    if draw(st.booleans()):
        kinds = ("click", "dwell", "like", "dislike", "share", "follow", "mute")
        return carried(draw(events(timestamp, kinds=kinds, users=("old",))))
    event = draw(events(timestamp, kinds=("click", "dwell"), event_ids=("", "e0"), users=("old",)))
    then = timestamp - draw(st.sampled_from((0, HOUR, 25 * HOUR)))
    return carried(event, draw(st.integers(0, 3)), draw(st.integers(0, 9)), then)


@st.composite
def logs(
    draw: st.DrawFn,
    *,
    kinds: tuple[str, ...] = KINDS,
    gaps: tuple[int, ...] = GAPS,
    event_ids: tuple[str, ...] = ("", "", "e0", "e1", "e2", "e3"),
    changes: bool = True,
    bad: bool = True,
    known: tuple[str, ...] = (),
    max_size: int = 40,
) -> list[Op]:
    """Records with rising offsets and timestamps, and among them articles that come, change and go.

    ``known`` are the articles that have a vector from the beginning.
    """
    ops: list[Op] = [published(article_id) for article_id in known]
    offset, timestamp = draw(st.integers(0, 1 << 40)), START
    choices = ["event"] * 8 + ["bad"] * bad + ["publish", "publish", "withdraw"] * changes
    for what in draw(st.lists(st.sampled_from(choices), max_size=max_size)):
        timestamp += draw(st.sampled_from(gaps))
        if what == "withdraw":
            ops.append(Change(draw(st.sampled_from(ARTICLES)), None))
        elif what == "publish":
            expires_at = draw(st.sampled_from((0, 0, timestamp + HOUR)))
            version = draw(st.integers(0, 1))
            ops.append(published(draw(st.sampled_from(ARTICLES)), version, expires_at, timestamp))
        else:
            event = None if what == "bad" else draw(events(timestamp, kinds=kinds, event_ids=event_ids))
            ops.append(Record(offset, timestamp, event))
            offset += draw(st.integers(1, 3))
    return ops


@st.composite
def cut_logs(draw: st.DrawFn, log: Callable[..., st.SearchStrategy[list[Op]]] = logs) -> tuple[list[Op], set[int]]:
    """A log and the places at which its batches end."""
    ops = draw(log())
    return ops, draw(st.sets(st.integers(0, max(0, len(ops) - 1))))
