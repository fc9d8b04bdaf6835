"""Messages and records as the contract allows them, for property tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.messages import (
    ARTICLE_KINDS,
    LAST_TIME,
    MAX_ID_BYTES,
    PLACEMENTS,
    Article,
    Cause,
    Event,
    Item,
    List,
    ShownItem,
)
from contract.records import ArticleMeta, ArticleRecord, ArticleStats, PartitionTotals, UserRecord, Waiting, Windows

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


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Events of the kinds that are about articles, impressions, and forget."""
    kind = draw(st.sampled_from([*sorted(ARTICLE_KINDS), "impression", "forget"]))
    of_kind: dict[str, Any] = {}
    if kind in ARTICLE_KINDS:
        of_kind["article_id"] = draw(ids)
    if kind == "dwell":
        of_kind["dwell_ms"] = draw(st.integers(0, 10**9))
    if kind == "impression":
        of_kind["shown"] = draw(st.lists(shown_items, min_size=1, max_size=3))
    return Event(
        user_id=draw(ids),
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
hashes = st.integers(0, 5).flatmap(lambda count: st.binary(min_size=8 * count, max_size=8 * count))


@st.composite
def windows(draw: st.DrawFn) -> Windows:
    shown = draw(hashes)
    waiting = st.builds(Waiting, article_id=ids, offset=int64, timestamp=times, value=st.binary(max_size=40))
    return Windows(
        read=draw(hashes),
        seen=draw(hashes),
        shown=shown,
        shown_counts=draw(st.binary(min_size=len(shown) // 8, max_size=len(shown) // 8)),
        waiting=draw(st.lists(waiting, max_size=3)),
        cause=draw(st.none() | causes),
    )


user_records = st.builds(
    UserRecord, vector=vectors(), last_offset=int64, folded=uint64, hash_sum=uint64, at=int64, timestamp=int64,
    windows=windows(),
)  # fmt: skip
totals = st.builds(
    PartitionTotals, read=uint64, folded=uint64, waiting=uint64, duplicate=uint64, dead=uint64, hash_sum=uint64,
    timestamp=times,
)  # fmt: skip
stats = st.builds(ArticleStats, at=times, impressions=st.floats(0, 1e9), clicks=st.floats(0, 1e9))
