"""The articles that may be listed now, and how that set changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from consumers.article_view import ArticleChange
from contract.messages import Cause
from contract.settings import Settings
from encoders.articles import ArticleTable
from ranking.popularity import Popularity
from ranking.scoring import Catalogue, z_scores

REFRESH_MS = 250


@dataclass(frozen=True)
class CatalogueChange:
    """What entered the catalogue (or changed in it) and what left it, each with its cause."""

    entered: Sequence[Cause] = field(default_factory=list)
    left: Sequence[Cause] = field(default_factory=list)


class FreshArticles:
    """Keeps a :class:`ranking.scoring.Catalogue` of what is neither withdrawn, held, expired, nor embargoed."""

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
        same = not changes and np.array_equal(rows, self._rows)
        ids = self.catalogue.ids if same else [a.ids[row] for row in rows]
        rates = self._popularity.click_through_rates(ids, now_ms)
        old = self.catalogue
        self.catalogue = Catalogue(
            ids,
            old.vectors if same else a.vectors[rows],
            old.hashes if same else a.hashes[rows],
            old.published_at if same else a.published_at[rows],
            z_scores(rates) if len(rates) else rates,
        )
        if same:
            return CatalogueChange()
        self._rows = rows
        return self._compare(dict.fromkeys(ids), changes, now_ms)

    def _compare(self, ids: dict[str, None], changes: Sequence[ArticleChange], now_ms: int) -> CatalogueChange:
        before, self._ids = self._ids, ids
        changed_at = {change.article_id: change.at for change in changes}
        entered = [
            Cause(kind="article", id=article_id, at=changed_at.get(article_id) or self._embargo_end(article_id))
            for article_id in ids
            if article_id not in before or article_id in changed_at
        ]
        left = [
            Cause(kind="withdrawal", id=article_id, at=changed_at.get(article_id, now_ms))
            for article_id in before
            if article_id not in ids
        ]
        return CatalogueChange(entered, left)

    def _embargo_end(self, article_id: str) -> int:
        row = self._articles.row(article_id)
        assert row is not None
        return max(int(self._articles.cause_at[row]), int(self._articles.published_at[row]))
