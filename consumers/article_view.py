"""The topic ``article-vectors`` as rows of arrays, as the users worker and the ranker see it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from prometheus_client import Gauge

from contract.errors import UnreadableState
from contract.records import ArticleRecord, decode_article
from contract.settings import Settings
from encoders.articles import ArticleTable
from streams.health import Pulse
from streams.record import Record, text_key
from streams.table import TableReader
from streams.worker import Log

ARTICLES = Gauge("stoppress_articles", "Articles that have a vector here", ["worker"])
CAUSE_HEADER = "cause-at"


@dataclass(frozen=True)
class ArticleChange:
    """An article got a vector or metadata, or is gone (``row`` None); ``at`` is what its cause says."""

    article_id: str
    row: int | None
    at: int


class ArticleView:
    """Follows ``topic``; all partitions, no group."""

    def __init__(self, settings: Settings, topic: str, *, dims: int, name: str) -> None:
        self.table = ArticleTable(dims)
        self._name = name
        self._log = Log(name)
        self._reader = TableReader(settings, topic, name=f"{name}.articles")

    def catch_up(self, pulse: Pulse | None = None) -> list[ArticleChange]:
        """Block until all that is in the topic now has been taken in."""
        return self._apply(self._reader.catch_up(pulse=pulse))

    def poll(self) -> list[ArticleChange]:
        """Take in what has come since; does not block."""
        return self._apply(self._reader.poll())

    def close(self) -> None:
        self._reader.close()

    def _apply(self, records: Iterable[Record]) -> list[ArticleChange]:
        changes = []
        for record in records:
            try:
                changes.append(self._apply_one(record))
            except UnreadableState as error:  # what was there before stays, and clicks on what is new wait
                place = f"{record.topic()}[{record.partition()}]@{record.offset()}"
                self._log.error("unusable_vector", record=place, what=f"{error}; left out")
        if changes:
            ARTICLES.labels(self._name).set(len(self.table))
        return changes

    def _apply_one(self, record: Record) -> ArticleChange:
        article_id = text_key(record)
        value = record.value()
        if value is None:
            self.table.withdraw(article_id)
            at = dict(record.headers() or []).get(CAUSE_HEADER)
            return ArticleChange(article_id, None, int(at) if at else record.timestamp()[1])
        article = vector_of(record, self.table.dims)
        return ArticleChange(article_id, self.table.put(article_id, article), article.cause_at)


def vector_of(record: Record, dims: int) -> ArticleRecord:
    """Return what a record that is no tombstone says. Raises :class:`UnreadableState`."""
    article = decode_article(record.value() or b"")
    if len(article.vector) != dims:
        raise UnreadableState(
            f"{record.topic()} has a vector of {len(article.vector)} numbers where this generation has {dims}; "
            "something else than the articles worker wrote it"
        )
    if not np.isfinite(article.vector).all():
        raise UnreadableState("not all of its numbers are finite")
    return article
