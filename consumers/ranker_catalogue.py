"""The articles that may be listed now, and how that set changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from consumers.article_view import ArticleChange
from contract.messages import Cause, CauseKind
from contract.settings import Settings
from encoders.articles import ArticleTable
from ranking.catalogue import Catalogue, z_scores
from ranking.popularity import Popularity

REFRESH_MS = 250


@dataclass(frozen=True)
class CatalogueChange:
    """What came into the catalogue, was altered in it, and left it: each with its cause, oldest first."""

    entered: Sequence[Cause] = field(default_factory=list)
    altered: Sequence[Cause] = field(default_factory=list)
    left: Sequence[Cause] = field(default_factory=list)


class FreshArticles:
    """Keeps a :class:`ranking.catalogue.Catalogue` of what is neither withdrawn, held, expired, nor embargoed."""

    def __init__(self, settings: Settings, articles: ArticleTable, popularity: Popularity) -> None:
        self._ttl_ms = round(settings.article_ttl_days * 86_400_000)
        self._articles = articles
        self._popularity = popularity
        self._due_at = 0
        self._rows = np.zeros(0, np.intp)
        self._ids: dict[str, None] = {}
        self.catalogue = Catalogue(
            [],
            np.zeros((0, articles.dims), np.float32),
            np.zeros(0, np.uint64),
            np.zeros(0, np.int64),
            np.zeros(0, np.float32),
        )

    def refresh(self, changes: Sequence[ArticleChange], now_ms: int) -> CatalogueChange:
        """Bring the catalogue up to date: at once where articles changed, else every 250 ms."""
        if not changes and now_ms < self._due_at:
            return CatalogueChange()
        self._due_at = now_ms + REFRESH_MS
        a = self._articles
        rows = np.flatnonzero(
            a.listed
            & ~a.held
            & (a.published_at <= now_ms)
            & (a.published_at > now_ms - self._ttl_ms)
            & ((a.expires_at == 0) | (a.expires_at > now_ms))
        )
        if not changes and np.array_equal(rows, self._rows):
            popularity = z_scores(self._popularity.click_through_rates(self.catalogue.ids, now_ms))
            self.catalogue = self.catalogue.with_popularity(popularity)
            return CatalogueChange()
        ids = [a.ids[row] for row in rows]
        popularity = z_scores(self._popularity.click_through_rates(ids, now_ms))
        self.catalogue = Catalogue(ids, a.vectors[rows], a.hashes[rows], a.published_at[rows], popularity)
        self._rows = rows
        return self._compare(dict.fromkeys(ids), changes, now_ms)

    def _compare(self, ids: dict[str, None], changes: Sequence[ArticleChange], now_ms: int) -> CatalogueChange:
        before, self._ids = self._ids, ids
        changed_at: dict[str, int] = {}
        for change in changes:
            changed_at.setdefault(change.article_id, change.at)
        entered = {a: self._listable_at(a, changed_at.get(a)) for a in ids if a not in before}
        altered = {a: at for a, at in changed_at.items() if a in ids and a in before}
        left = {a: changed_at[a] if a in changed_at else self._ended_at(a, now_ms) for a in before if a not in ids}
        return CatalogueChange(_causes("article", entered), _causes("article", altered), _causes("withdrawal", left))

    def _listable_at(self, article_id: str, changed_at: int | None) -> int:
        """When it could first be listed: as it was published or released, or at the end of its embargo."""
        row = self._articles.row(article_id)
        assert row is not None
        asked_at = int(self._articles.cause_at[row]) if changed_at is None else changed_at
        return max(asked_at, int(self._articles.published_at[row]))

    def _ended_at(self, article_id: str, now_ms: int) -> int:
        row = self._articles.row(article_id)
        assert row is not None
        ends = int(self._articles.published_at[row]) + self._ttl_ms, int(self._articles.expires_at[row]) or now_ms
        return min(*ends, now_ms)


def _causes(kind: CauseKind, found: dict[str, int]) -> list[Cause]:
    return [Cause(kind=kind, id=found_id, at=at) for found_id, at in sorted(found.items(), key=lambda item: item[1])]
