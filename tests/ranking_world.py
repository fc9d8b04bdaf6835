"""Small catalogues and users, made by a test or drawn, in which scores meet and everything happens."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from contract.records import KIND_BITS, RECENT, CoReads
from ranking.catalogue import AUTO, BOOSTED, PINNED, Catalogue, Facts
from ranking.co_reading import CoReading
from ranking.labels import LabelIndex
from ranking.readers import Past, Readers

HOUR = 3_600_000
NOW = 1_750_000_000_000
DIMS = 4
DIRECTIONS = [
    (1, 0, 0, 0), (-1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1), (0, 0.6, 0.8, 0), (0.5, 0.5, 0.5, 0.5),
    (0.5, -0.5, 0.5, -0.5), (0.98, 0.199, 0, 0),
]  # fmt: skip
STRANGER = 99
LABELS = ("harbour", "Globex", "sports")
CATEGORIES = (0, 11, 22)


def window(hashes: Sequence[int]) -> bytes:
    return np.array(hashes, np.uint64).tobytes()


def recents(*articles: int, kind: str = "click") -> bytes:
    return b"".join(RECENT.pack(article, NOW, KIND_BITS[kind] << 16) for article in articles)  # type: ignore[index]


def affinities(weights: dict[int, float]) -> bytes:
    return b"".join(struct.pack("<Qd", category, weight) for category, weight in weights.items())


def a_catalogue(
    vectors: Sequence[Sequence[float]],
    *,
    ages: Sequence[int] | None = None,
    labels: Mapping[int, Sequence[str]] | None = None,
    co_reads: dict[int, dict[int, float]] | None = None,
    languages: Mapping[str, int] | None = None,
    **facts: Any,
) -> Catalogue:
    """Articles whose hashes are 1, 2, 3, ...; ``facts`` as lists."""
    n = len(vectors)
    types = {
        "listed": np.bool_, "category": np.uint64, "source": np.uint64, "language": np.int32, "placement": np.int8,
        "popularity": np.float32, "appeal": np.float32, "impressions": np.float32,
    }  # fmt: skip
    index = LabelIndex()
    for place, names in (labels or {}).items():
        index.put(place, names)
    next_reads = CoReading()
    for article, then in (co_reads or {}).items():
        next_reads.put(0, article, CoReads(NOW, window(list(then)), np.array(list(then.values())).tobytes()))
    columns: dict[str, Any] = {name: np.array(values, types[name]) for name, values in facts.items()}
    return Catalogue(
        [f"a{number}" for number in range(n)],
        np.array(vectors, np.float32).reshape(n, DIMS),
        np.arange(1, n + 1, dtype=np.uint64),
        NOW - np.array(ages if ages is not None else [0] * n, np.int64),
        Facts(labels=index, co_reads=next_reads, languages=languages or {}, **columns),
    )


def a_reader(
    long: Sequence[float] = (0, 0, 0, 0), short: Sequence[float] = (0, 0, 0, 0), *, read: Sequence[int] = (),
    shown: dict[int, int] | None = None, confidence: float = 1.0, seed: int = 0, personal: bool = True, **past: Any,
) -> Readers:  # fmt: skip
    """With a past that makes sure what the user likes, unless told otherwise."""
    windows = Past(read=window(read), shown=window(list(shown or {})), shown_counts=bytes((shown or {}).values()))
    return Readers.of(
        np.array([[long, short]], np.float32),
        [windows._replace(**past)],
        confidence=np.array([confidence], np.float32),
        seeds=np.array([seed], np.uint64),
        personal=np.array([personal]),
    )


@st.composite
def catalogues(draw: st.DrawFn, least: int = 0, most: int = 12) -> Catalogue:
    """Few directions and few other values, so that scores meet; also none at all, or all alike."""
    n = draw(st.integers(least, most))

    def some(*values: Any) -> list[Any]:
        return draw(st.lists(st.sampled_from(values), min_size=n, max_size=n))

    hashes = st.integers(1, most)
    return a_catalogue(
        some(*DIRECTIONS),
        ages=some(-HOUR, 0, HOUR, 30 * HOUR),
        labels=dict(enumerate(draw(st.lists(st.lists(st.sampled_from(LABELS)), min_size=n, max_size=n)))),
        co_reads=draw(st.dictionaries(hashes, st.dictionaries(hashes, st.sampled_from((0.5, 3.0, 40.0))), max_size=3)),
        listed=some(True, True, True, False),
        category=some(*CATEGORIES),
        source=some(0, 5, 6),
        language=some(0, 1, 1, 2),
        languages={"en": 1, "fr": 2, "de": 3},
        placement=some(AUTO, AUTO, AUTO, PINNED, BOOSTED),
        popularity=some(-0.5, 0.0, 0.0, 2.0),
        appeal=some(-0.3, 0.0, 0.4),
        impressions=some(0.0, 1000.0),
    )


@st.composite
def some_readers(draw: st.DrawFn, most: int = 4) -> Readers:
    """Windows also name articles that are not in the catalogue; an interest may be nought."""
    users = draw(st.integers(0, most))
    known = st.lists(st.integers(1, 12) | st.just(STRANGER), unique=True, max_size=8)
    interests = st.sampled_from([*DIRECTIONS, (0, 0, 0, 0)])
    pasts = []
    for _ in range(users):
        shown = draw(known)
        pasts.append(
            Past(
                read=window(draw(known)),
                shown=window(shown),
                shown_counts=bytes(draw(st.sampled_from((1, 2, 255))) for _ in shown),
                recents=b"".join(
                    recents(article, kind=kind)
                    for article, kind in draw(
                        st.lists(
                            st.tuples(
                                st.integers(1, 12) | st.just(STRANGER), st.sampled_from(("click", "dwell", "dislike"))
                            ),
                            max_size=8,
                        )
                    )
                ),
                affinities=affinities(
                    draw(st.dictionaries(st.sampled_from((11, 22, 33)), st.sampled_from((-1.0, 1.0, 9.0))))
                ),
                affinities_at=NOW - HOUR,
                follows=tuple(draw(st.lists(st.sampled_from(LABELS), max_size=2))),
                mutes=tuple(draw(st.lists(st.sampled_from(LABELS), max_size=1))),
                language=draw(st.sampled_from(("", "", "en", "de", "unknown"))),
            )
        )
    return Readers.of(
        np.array([[draw(interests), draw(interests)] for _ in range(users)], np.float32).reshape(users, 2, DIMS),
        pasts,
        confidence=np.array([draw(st.sampled_from((0.25, 1.0))) for _ in range(users)], np.float32),
        personal=np.array([draw(st.sampled_from((True, True, False))) for _ in range(users)], np.bool_),
    )
