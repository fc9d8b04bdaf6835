"""What the feed serves: the latest lists and articles as raw bytes, decoded and joined when read.

One thread applies records, any thread reads. Nothing here raises on what stands in a topic: a list
that cannot be read counts as unknown, an article that cannot be read is left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

import msgspec
from prometheus_client import Counter

from contract.messages import POPULAR, RELATED_TO, Cause, List, Placement

UNREADABLE = Counter("stoppress_feed_unreadable", "Records that could not be read and were left out.", ["topic"])


class Record(Protocol):
    """The part of a consumed Kafka message that the view reads."""

    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...


class Headline(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an Article that a feed shows; the others are skipped, not decoded."""

    article_id: str
    title: str
    published_at: int
    abstract: str = ""
    url: str = ""
    image_url: str = ""
    category: str = ""
    source: str = ""
    expires_at: int | None = None
    placement: Placement = "auto"


class FeedItem(msgspec.Struct, frozen=True, kw_only=True):
    """One place of a feed: the list's item joined with its article. ``source`` says where the ranker found it."""

    article_id: str
    title: str
    abstract: str
    category: str
    url: str
    image_url: str
    publisher: str
    published_at: int
    score: float
    reason: str
    source: str
    parts: dict[str, float]


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """What a client gets. ``latency_ms``: from the cause's Kafka timestamp to this service's receipt
    of the list; null for lists that were there before it started."""

    user_id: str
    list_id: str
    generated_at: int
    generation: str
    cause: Cause | None
    latency_ms: int | None
    fallback: bool
    items: list[FeedItem]


class _Held(msgspec.Struct, frozen=True):
    value: bytes
    received_at: int  # epoch ms; 0: read before the view had caught up


_encoder = msgspec.json.Encoder()
_lists = msgspec.json.Decoder(List)
_headlines = msgspec.json.Decoder(Headline)


def encode_feed(feed: Feed) -> bytes:
    """JSON, without line breaks."""
    return _encoder.encode(feed)


class FeedView:
    """The newest list of each user and the newest version of each article."""

    def __init__(self) -> None:
        self._articles: dict[bytes, bytes] = {}
        self._lists: dict[bytes, _Held] = {}

    @property
    def articles(self) -> int:
        """How many articles are held."""
        return len(self._articles)

    @property
    def lists(self) -> int:
        """How many lists are held, reserved keys included."""
        return len(self._lists)

    def apply_articles(self, records: Iterable[Record]) -> set[str]:
        """Take records of ``articles``; return the ids that changed."""
        changed: set[str] = set()
        for record in records:
            key, value = record.key(), record.value()
            if key is None:
                continue
            if value is None:
                self._articles.pop(key, None)
            else:
                self._articles[key] = value
            changed.add(_text(key))
        return changed

    def apply_lists(self, records: Iterable[Record], *, live: bool) -> set[str]:
        """Take records of ``recommendations``; return the users whose list changed.

        ``live``: the topic had been read to its end before, so receipt is now.
        """
        now = time.time_ns() // 1_000_000 if live else 0
        changed: set[str] = set()
        for record in records:
            key, value = record.key(), record.value()
            if key is None:
                continue
            if value is None:
                self._lists.pop(key, None)
            else:
                self._lists[key] = _Held(value, now)
            changed.add(_text(key))
        return changed

    def read(self, user_id: str) -> tuple[Feed, frozenset[str]]:
        """Return the user's feed and the ids of all articles its list names, shown or not.

        An unknown user gets ``~popular`` with ``fallback`` true, without items where there is none yet; an article
        without related ones gets nothing in their place.
        """
        found = self._decoded(user_id)
        fallback = found is None
        if found is None and not user_id.startswith(RELATED_TO):
            found = self._decoded(POPULAR)
        if found is None:
            nothing = Feed(
                user_id=user_id, list_id="", generated_at=0, generation="", cause=None,
                latency_ms=None, fallback=True, items=[],
            )  # fmt: skip
            return nothing, frozenset()
        shown, received_at = found
        feed = Feed(
            user_id=user_id,
            list_id=shown.list_id,
            generated_at=shown.generated_at,
            generation=shown.generation,
            cause=shown.cause,
            latency_ms=received_at - shown.cause.at if received_at else None,
            fallback=fallback or shown.fallback,
            items=self._joined(shown),
        )
        return feed, frozenset(item.article_id for item in shown.items)

    def _decoded(self, user_id: str) -> tuple[List, int] | None:
        held = self._lists.get(user_id.encode(errors="replace"))
        if held is None:
            return None
        try:
            return _lists.decode(held.value), held.received_at
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            UNREADABLE.labels("recommendations").inc()
            return None

    def _joined(self, shown: List) -> list[FeedItem]:
        now = time.time_ns() // 1_000_000
        items = []
        for item in shown.items:
            value = self._articles.get(item.article_id.encode(errors="replace"))
            if value is None:
                continue
            try:
                article = _headlines.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                UNREADABLE.labels("articles").inc()
                continue
            if article.placement == "held" or (article.expires_at is not None and article.expires_at <= now):
                continue
            items.append(
                FeedItem(
                    article_id=item.article_id,
                    title=article.title,
                    abstract=article.abstract,
                    category=article.category,
                    url=article.url,
                    image_url=article.image_url,
                    publisher=article.source,
                    published_at=article.published_at,
                    score=item.score,
                    reason=item.reason,
                    source=item.source,
                    parts=item.parts,
                )
            )
        return items


def _text(key: bytes) -> str:
    return key.decode(errors="replace")
