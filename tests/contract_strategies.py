"""Messages and records as the contract allows them, for property tests."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.messages import (
    ARTICLE_KINDS,
    DEVICES,
    KINDS,
    LAST_TIME,
    MAX_ID_BYTES,
    PLACEMENTS,
    Article,
    Carried,
    Cause,
    Event,
    Item,
    List,
    ShownItem,
    encode,
)
from contract.records import (
    RECENT,
    ArticleMeta,
    ArticleRecord,
    ArticleStats,
    CoReads,
    PartitionTotals,
    UserRecord,
    Waiting,
    Windows,
)

texts = st.text(st.characters(codec="utf-8"), max_size=40)
ids = texts.filter(lambda text: text != "" and text[0] != "~" and len(text.encode()) <= MAX_ID_BYTES)
times = st.integers(0, LAST_TIME)
positions = st.none() | st.integers(0, 10_000)
probabilities = st.none() | st.floats(0, 1)
anything = st.dictionaries(
    texts,
    st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts, st.lists, max_leaves=5),
    max_size=3,
)
labels = st.lists(texts, max_size=4)
int64 = st.integers(-(2**63), 2**63 - 1)
uint64 = st.integers(0, 2**64 - 1)


@st.composite
def articles(draw: st.DrawFn) -> Article:
    """Articles that the contract takes: with text in at least one part."""
    parts = ("title", "abstract", "body")
    told = draw(st.sets(st.sampled_from(parts), min_size=1))
    text = {part: draw(texts.filter(lambda text: text.strip() != "")) if part in told else "" for part in parts}
    return Article(
        article_id=draw(ids),
        published_at=draw(times),
        **text,
        url=draw(texts),
        image_url=draw(texts),
        category=draw(texts),
        tags=draw(labels),
        entities=draw(labels),
        authors=draw(labels),
        source=draw(texts),
        language=draw(texts),
        expires_at=draw(st.none() | times),
        placement=draw(st.sampled_from(PLACEMENTS)),
        attributes=draw(anything),
    )


shown_items = st.builds(
    ShownItem, article_id=ids, position=positions, reason=texts, source=texts, propensity=probabilities
)


carried = st.builds(
    lambda user_id, article_id, at, offset: Carried(
        event=msgspec.Raw(encode(Event(user_id=user_id, kind="like", at=at, article_id=article_id))), offset=offset
    ),
    ids, ids, times, st.integers(-1, 2**62),
)  # fmt: skip


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Events of every kind."""
    kind = draw(st.sampled_from(KINDS))
    user_id = draw(ids)
    of_kind: dict[str, Any] = {}
    if kind in ("follow", "mute", "merge"):
        of_kind["target"] = draw(ids.filter(lambda target: target != user_id))
    if kind == "absorb":
        of_kind["events"] = draw(st.lists(carried, min_size=1, max_size=3))
    if kind in ARTICLE_KINDS:
        of_kind["article_id"] = draw(ids)
    if kind == "dwell":
        of_kind["dwell_ms"] = draw(st.integers(0, 10**9))
    if kind == "impression":
        of_kind["shown"] = draw(st.lists(shown_items, min_size=1, max_size=3))
    return Event(
        user_id=user_id,
        kind=kind,  # type: ignore[arg-type]
        at=draw(st.integers(0, 2**63)),
        event_id=draw(st.just("") | ids),
        list_id=draw(texts),
        position=draw(positions),
        reason=draw(texts),
        source=draw(texts),
        session_id=draw(texts),
        context=draw(anything),
        **of_kind,
    )


causes = st.builds(
    Cause, kind=st.sampled_from(["event", "article", "withdrawal", "refresh", "start"]), id=texts, at=times
)
items = st.builds(
    Item, article_id=ids, score=st.floats(-100, 100), reason=texts, source=texts, propensity=probabilities,
    parts=st.dictionaries(texts, st.floats(-100, 100), max_size=3),
)  # fmt: skip
lists = st.builds(
    List, user_id=ids, list_id=texts, generated_at=times, cause=causes, generation=texts,
    items=st.lists(items, max_size=3), fallback=st.booleans(),
)  # fmt: skip


@st.composite
def vectors(draw: st.DrawFn) -> NDArray[np.float32]:
    numbers = draw(st.lists(st.floats(width=32), max_size=12))
    return np.array(numbers, np.float32)


article_metas = st.builds(
    ArticleMeta, category=texts, tags=labels, entities=labels, authors=labels, source=texts, language=texts,
    placement=st.sampled_from(PLACEMENTS),
)  # fmt: skip
article_records = st.builds(
    ArticleRecord, vector=vectors(), published_at=int64, expires_at=int64, cause_at=int64, meta=article_metas
)


def entries(size: int) -> st.SearchStrategy[bytes]:
    """A window of up to five entries of ``size`` bytes."""
    return st.integers(0, 5).flatmap(lambda count: st.binary(min_size=size * count, max_size=size * count))


hashes = entries(8)


@st.composite
def windows(draw: st.DrawFn) -> Windows:
    shown, read = draw(hashes), draw(hashes)
    waiting = st.builds(
        Waiting, article_id=ids, offset=int64, timestamp=times, value=st.binary(max_size=40),
        carried_from=st.integers(-1, 1 << 31), counted=st.booleans(),
    )  # fmt: skip
    return Windows(
        read=read,
        read_kinds=draw(st.binary(min_size=len(read) // 8, max_size=len(read) // 8)),
        seen=draw(hashes),
        shown=shown,
        shown_counts=draw(st.binary(min_size=len(shown) // 8, max_size=len(shown) // 8)),
        recents=draw(entries(RECENT.size)),
        affinities=draw(entries(16)),
        affinities_at=draw(times),
        follows=tuple(draw(labels)),
        mutes=tuple(draw(labels)),
        minute=draw(times),
        minute_events=draw(uint64),
        record_minute=draw(times),
        record_minute_events=draw(uint64),
        limited_until=draw(times),
        waiting=tuple(draw(st.lists(waiting, max_size=3))),
        cause=draw(st.none() | causes),
        language=draw(texts),
        region=draw(texts),
        device=draw(st.sampled_from(DEVICES)),
    )


user_records = st.builds(
    UserRecord, numbers=vectors().map(np.ndarray.tobytes), last_offset=int64, folded=uint64, hash_sum=uint64,
    at=int64, timestamp=int64, windows=windows(),
)  # fmt: skip
totals = st.builds(
    PartitionTotals, read=uint64, folded=uint64, waiting=uint64, duplicate=uint64, dead=uint64, hash_sum=uint64,
    timestamp=times, reasons=labels.map(tuple), sources=labels.map(tuple),
    regions=labels.map(tuple),
)  # fmt: skip
counts = st.tuples(st.floats(0, 1e9), st.floats(0, 1e9))
stats = st.builds(
    ArticleStats, at=times, impressions=st.floats(0, 1e9), clicks=st.floats(0, 1e9),
    positions=st.dictionaries(st.integers(0, 20), counts, max_size=3),
    reasons=st.dictionaries(texts, counts, max_size=3),
    regions=st.dictionaries(texts, counts, max_size=3),
    lately=st.dictionaries(st.sampled_from([15, 60]), counts),
)  # fmt: skip
co_reads = st.builds(
    lambda at, sums: CoReads(
        at=at, articles=struct.pack(f"<{len(sums)}Q", *sums), weights=struct.pack(f"<{len(sums)}d", *sums.values())
    ),
    times, st.dictionaries(uint64, st.floats(0, 1e9), max_size=3),
)  # fmt: skip
