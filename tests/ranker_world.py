"""The ranker's tables without Kafka around them: articles, states and lists as records that a test makes itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from consumers import ranker_lists
from consumers.article_view import ArticleChange
from consumers.ranker_catalogue import CatalogueChange, FreshArticles
from consumers.ranker_lists import RankerLists
from consumers.ranker_publication import Publication
from contract.messages import POPULAR, Cause, List, Placement
from contract.murmur2 import partition_of
from contract.records import (
    KIND_BITS,
    RECENT,
    ArticleMeta,
    ArticleRecord,
    ArticleStats,
    UserRecord,
    Windows,
    encode_user,
)
from contract.settings import Settings, load
from contract.topics import Topics
from encoders.articles import ArticleTable, hash64
from encoders.decay import Decay
from ranking.co_reading import CoReading
from ranking.popularity import Popularity
from ranking.regions import RegionalCounts

HOUR = 3_600_000
NOW = 1_750_000_000_000
DIMS = 4
MODEL = Decay(DIMS, 48 * HOUR, 2 * HOUR)
POPULAR_PARTITION = partition_of(POPULAR.encode(), 2)
PARTITION = 1 - POPULAR_PARTITION
"""Where users live unless told otherwise."""
Vector = tuple[float, float, float, float]
NORTH, EAST, WEST = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0)
NOWHERE = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Row:
    """A record as a topic holds it."""

    key_text: str
    content: bytes | None
    at_partition: int = PARTITION
    at_offset: int = 0

    def topic(self) -> str:
        return "made-by-a-test"

    def partition(self) -> int:
        return self.at_partition

    def offset(self) -> int:
        return self.at_offset

    def key(self) -> bytes | None:
        return self.key_text.encode()

    def value(self) -> bytes | None:
        return self.content

    def timestamp(self) -> tuple[int, int]:
        return 1, NOW

    def headers(self) -> list[tuple[str, bytes]] | None:
        return None


def a_state(
    interest: Vector, *, cause: Cause | None = None, read: Sequence[str] = (), shown: dict[str, int] | None = None,
    recents: Sequence[str] = ("something",), follows: tuple[str, ...] = (), mutes: tuple[str, ...] = (),
    language: str = "", region: str = "",
) -> bytes:  # fmt: skip
    """The value under a user's key in ``user-vectors``; both interests point the same way."""
    windows = Windows(
        read=np.array([hash64(article_id) for article_id in read], np.uint64).tobytes(),
        shown=np.array([hash64(article_id) for article_id in shown or {}], np.uint64).tobytes(),
        shown_counts=bytes((shown or {}).values()),
        recents=b"".join(RECENT.pack(hash64(article_id), NOW, KIND_BITS["click"] << 16) for article_id in recents),
        follows=follows,
        mutes=mutes,
        language=language,
        region=region,
        cause=cause,
    )
    return encode_user(UserRecord(np.array([*interest, *interest], np.float32).tobytes(), 0, 1, 0, NOW, NOW, windows))


def clicked(at: int = NOW, event_id: str = "") -> Cause:
    return Cause(kind="event", id=event_id, at=at)


class World:
    """Tables of a ranker that owns ``owned``, with a clock that stands still until a test moves it.

    Rules that would hide what most tests look at are off unless ``values`` say otherwise.
    """

    def __init__(self, owned: Iterable[int] = (PARTITION,), **values: object) -> None:
        plain = {"duplicate_cosine": 1.01, "diversity": 0, "exploration": 0, "holdout": 0, "category_share": 1}
        plain |= {"category_lists": 0, "related_length": 0}
        chosen = {"partitions": 2, "list_length": 3, **plain, **values}
        self.settings: Settings = load([f"{name}={value}" for name, value in chosen.items()], environ={})
        self.table = ArticleTable(DIMS)
        self.popularity = Popularity(self.settings.partitions, 6 * HOUR)
        self.co_reads = CoReading()
        self.regions = RegionalCounts(6 * HOUR)
        self.fresh = FreshArticles(self.settings, self.table, self.popularity, self.co_reads, self.regions)
        self.topics = Topics(self.settings, "00000000")
        self.lists = RankerLists(self.settings, self.topics, MODEL, self.fresh)
        self.own(owned)
        self.now = NOW

    def own(self, partitions: Iterable[int]) -> None:
        owned = set(partitions)
        self.lists._owned.update(owned)
        self.lists._categories.own(owned)
        self.lists._related.own(owned)

    def article(
        self, article_id: str, vector: Vector, *, at: int = NOW - 1000, published_at: int = NOW - HOUR,
        expires_at: int = 0, placement: Placement = "auto", **meta: Any,
    ) -> ArticleChange:  # fmt: skip
        """Put an article into the table; return the change for the ranker to take."""
        record = ArticleRecord(
            np.array(vector, np.float32), published_at, expires_at, at, ArticleMeta(placement=placement, **meta)
        )
        return ArticleChange(article_id, self.table.put(article_id, record), at)

    def gone(self, article_id: str, at: int = NOW) -> ArticleChange:
        self.table.withdraw(article_id)
        return ArticleChange(article_id, None, at)

    def take_articles(self, *changes: ArticleChange) -> None:
        self.lists.take_articles(changes, self.now)

    def refresh(self, *changes: ArticleChange) -> CatalogueChange:
        return self.fresh.refresh(changes, self.now)

    def take_users(self, *records: Row) -> None:
        self.lists.take_users(records, self.now)

    def user(
        self, user_id: str, interest: Vector = NORTH, cause: Cause | None = None, *, partition: int = PARTITION,
        **past: Any,
    ) -> None:  # fmt: skip
        """Take in a user's state; ``past`` as in :func:`a_state`."""
        self.take_users(Row(user_id, a_state(interest, cause=cause, **past), partition))

    def counted(
        self, article_id: str, impressions: float, clicks: float, partition: int = 0,
        regions: dict[str, tuple[float, float]] | None = None,
    ) -> None:  # fmt: skip
        stats = ArticleStats(self.now, impressions, clicks, regions=regions or {})
        self.popularity.put(partition, article_id, stats)
        self.regions.put(partition, hash64(article_id), stats)

    def later(self, ms: int) -> None:
        self.now += ms

    def rank(self) -> list[Publication]:
        """Rank who is due now; return what is to be published."""
        due = self.lists.due(self.now)
        busy = len(due) >= ranker_lists.BATCH_USERS
        return [*self.lists.rank(due, self.now), *self.lists.rank_reserved(self.now, busy=busy)]

    def published(self) -> dict[str, List | None]:
        """The same by user."""
        publications = self.rank()
        assert len({p.user_id for p in publications}) == len(publications)
        return {p.user_id: p.result for p in publications}


def ids(shown: List | None) -> list[str]:
    assert shown is not None
    return [item.article_id for item in shown.items]
