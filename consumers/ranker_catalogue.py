"""The articles that may be listed now, and how that set changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from consumers.article_view import ArticleChange
from contract.messages import Cause, CauseKind, language_of
from contract.records import ArticleMeta
from contract.settings import Settings
from encoders.articles import ArticleTable, hash64
from ranking.appeal import appeal_of, fit_appeal
from ranking.catalogue import PLACEMENTS, Catalogue, Facts, Moments
from ranking.co_reading import CoReading
from ranking.labels import LabelIndex
from ranking.popularity import Popularity, base_rate, popularity
from ranking.regions import NO_REGIONS, RegionalCounts
from ranking.rules import Rules, may_be_listed

REFRESH_MS = 250
APPEAL_MS = 5_000
MOST_LANGUAGES = 200
ALL_MOMENTS = 4_000
"""Up to so many listed articles their mean and covariance are computed anew at every change, beyond when a
fiftieth of them changed."""


@dataclass(frozen=True)
class CatalogueChange:
    """What came into the catalogue, was altered in it, and left it: each with its cause, oldest first."""

    entered: Sequence[Cause] = field(default_factory=list)
    altered: Sequence[Cause] = field(default_factory=list)
    left: Sequence[Cause] = field(default_factory=list)


class FreshArticles:
    """Keeps a :class:`ranking.catalogue.Catalogue` over the rows of an article table, which are its places."""

    def __init__(
        self, settings: Settings, articles: ArticleTable, popularity: Popularity, co_reads: CoReading | None = None,
        regions: RegionalCounts | None = None,
    ) -> None:  # fmt: skip
        self.rules = Rules.of(settings)
        self._articles = articles
        self._popularity = popularity
        self._co_reads = CoReading() if co_reads is None else co_reads
        self._regions = regions
        self._regional = NO_REGIONS
        self._regional_of = np.zeros(0, np.uint64)
        self._labels = LabelIndex()
        self._blocked = frozenset(self.rules.blocked)
        self._languages = frozenset(self.rules.languages)
        self._numbers: dict[str, int] = {}
        self._columns = _Columns(0)
        self._due_at = 0
        self._appeal_at = 0
        self._appeal = np.zeros(articles.dims + 1)
        self._before: dict[int, str] = {}
        self._listed_before = np.zeros(0, np.bool_)
        self._hashes_before = np.zeros(0, np.uint64)
        self._moments_of = -1, 0
        self._counted_in = np.zeros(0, np.intp)
        self._counted_as_of = -1, -1
        self._articles_taken = 0
        self.catalogue = Catalogue(
            [], np.zeros((0, articles.dims), np.float32), np.zeros(0, np.uint64), np.zeros(0, np.int64)
        )

    def refresh(self, changes: Sequence[ArticleChange], now_ms: int) -> CatalogueChange:
        """Bring the catalogue up to date: at once where articles changed, else every 250 ms."""
        if not changes and now_ms < self._due_at:
            return CatalogueChange()
        self._due_at = now_ms + REFRESH_MS
        self._describe(changes)
        self._articles_taken += len(changes)
        a, size = self._articles, len(self._articles.ids)
        listed = may_be_listed(
            self.rules, now_ms, present=a.listed[:size], held=a.held[:size], published_at=a.published_at[:size],
            expires_at=a.expires_at[:size], barred=self._columns.barred[:size],
        )  # fmt: skip
        same = not changes and np.array_equal(listed, self._listed_before)
        if not same:
            columns = self._columns
            facts = Facts(
                listed=listed, category=columns.category[:size], source=columns.source[:size],
                language=columns.language[:size], languages=self._numbers, placement=columns.placement[:size],
                labels=self._labels, co_reads=self._co_reads, moments=self._moments(listed, len(changes)),
            )  # fmt: skip
            self.catalogue = Catalogue(a.ids, a.vectors[:size], a.hashes[:size], a.published_at[:size], facts)
        self._count(now_ms)
        return CatalogueChange() if same else self._compare(listed, changes, now_ms)

    def changed_at(self, article_id: str) -> int:
        """Return when the article was published as it is now, epoch ms; 0 where it is not here."""
        row = self._articles.row(article_id)
        return 0 if row is None else int(self._articles.cause_at[row])

    def category_sizes(self, most: int) -> dict[str, int]:
        """Return how many listed articles each category has, the largest first, at most so many."""
        names, numbers, _ = self.catalogue.categories
        places = self.catalogue.open[::-1]
        sizes = np.bincount(numbers[places], minlength=len(names)) * (names != 0)
        first = np.zeros(len(names), np.intp)
        first[numbers[places]] = places
        largest = np.argsort(-sizes, kind="stable")[:most]
        return {self._articles.meta[first[n]].category: int(sizes[n]) for n in largest.tolist() if sizes[n]}

    def _describe(self, changes: Sequence[ArticleChange]) -> None:
        """Take over what the changed articles' metadata say."""
        if len(self._columns.category) < len(self._articles.listed):
            self._columns = self._columns.grown(len(self._articles.listed))
        for change in changes:
            if change.row is None:
                continue
            meta, row = self._articles.meta[change.row], change.row
            labels = labels_of(meta)
            self._labels.put(row, labels)
            language = language_of(meta.language)
            foreign = bool(self._languages and language) and self._languages.isdisjoint((meta.language, language))
            self._columns.barred[row] = foreign or not self._blocked.isdisjoint(labels)
            self._columns.category[row] = _hash(meta.category)
            self._columns.source[row] = _hash(meta.source)
            self._columns.language[row] = self._number_of(language)
            self._columns.placement[row] = PLACEMENTS[meta.placement]

    def _number_of(self, language: str) -> int:
        """Return the language's number, 0: not told; so are those past :data:`MOST_LANGUAGES`, which nobody has."""
        if language and language not in self._numbers and len(self._numbers) < MOST_LANGUAGES:
            self._numbers[language] = 1 + len(self._numbers)
        return self._numbers.get(language, 0)

    def _moments(self, listed: NDArray[np.bool_], changed: int) -> Moments | None:
        count, since = self._moments_of
        total = int(listed.sum())
        if total > ALL_MOMENTS and abs(total - count) + since + changed < total // 50:
            self._moments_of = count, since + changed
            return self.catalogue.moments
        self._moments_of = total, 0
        return None

    def _count(self, now_ms: int) -> None:
        """Find anew how articles are clicked and, every five seconds, what their texts promise and regions prefer."""
        c = self.catalogue
        counts = self._popularity.all_counts_in(self._counts_of(c.ids), now_ms)
        impressions, clicks = counts[0]
        rate = base_rate(impressions, clicks)
        regions_due = False
        if now_ms >= self._appeal_at:
            self._appeal_at = now_ms + APPEAL_MS
            self._appeal = fit_appeal(c.vectors, impressions, clicks, rate, self._appeal)
            regions_due = True
        appeal = appeal_of(c.vectors, self._appeal)
        liked = popularity(impressions, clicks, rate, appeal)
        if self._regions is not None and (regions_due or self._regional_of is not c.hashes):
            everywhere = 1 / (1 + np.exp(-(np.log(rate / (1 - rate)) + appeal.astype(np.float64) + liked)))
            self._regional = self._regions.regional(c.places(self._regions.hashes), everywhere, now_ms)
            self._regional_of = c.hashes
        self.catalogue = c.with_popularity(liked, appeal, counts, rate, self._regional)

    def _counts_of(self, article_ids: Sequence[str]) -> NDArray[np.intp]:
        as_of = self._popularity.version, self._articles_taken
        if as_of != self._counted_as_of:
            self._counted_as_of, self._counted_in = as_of, self._popularity.rows(article_ids)
        return self._counted_in

    def _compare(self, listed: NDArray[np.bool_], changes: Sequence[ArticleChange], now_ms: int) -> CatalogueChange:
        a, hashes = self._articles, self._articles.hashes[: len(listed)].copy()
        size = len(self._listed_before)
        before = np.zeros(len(listed), np.bool_)
        before[:size] = self._listed_before
        other = np.ones(len(listed), np.bool_)
        other[:size] = self._hashes_before != hashes[:size]
        came = np.flatnonzero(listed & (~before | other))
        went = np.flatnonzero(before & (~listed | other))
        changed_at: dict[str, int] = {}
        for change in changes:
            changed_at.setdefault(change.article_id, change.at)
        gone = {self._before[row]: changed_at.get(self._before[row]) for row in went.tolist()}
        new = {a.ids[row]: changed_at.get(a.ids[row]) for row in came.tolist()}
        for row in went.tolist():
            del self._before[row]
        self._before.update((row, a.ids[row]) for row in came.tolist())
        self._listed_before, self._hashes_before = listed, hashes
        altered = {x: at for x, at in changed_at.items() if (at_row := a.row(x)) is not None and listed[at_row]}
        return CatalogueChange(
            _causes("article", {x: self._listable_at(x, at) for x, at in new.items() if x not in gone}),
            _causes("article", {x: at for x, at in altered.items() if x in gone or x not in new}),
            _causes(
                "withdrawal",
                {x: self._ended_at(x, now_ms) if at is None else at for x, at in gone.items() if x not in new},
            ),
        )

    def _listable_at(self, article_id: str, changed_at: int | None) -> int:
        """When it could first be listed: as it was published or released, or at the end of its embargo."""
        row = self._articles.row(article_id)
        assert row is not None
        asked_at = int(self._articles.cause_at[row]) if changed_at is None else changed_at
        return max(asked_at, int(self._articles.published_at[row]))

    def _ended_at(self, article_id: str, now_ms: int) -> int:
        row = self._articles.row(article_id)
        assert row is not None
        expires_at = int(self._articles.expires_at[row]) or now_ms
        return min(int(self._articles.published_at[row]) + self.rules.ttl_ms, expires_at, now_ms)


class _Columns:
    """What the article table does not keep by row."""

    def __init__(self, size: int) -> None:
        self.category = np.zeros(size, np.uint64)
        self.source = np.zeros(size, np.uint64)
        self.language = np.zeros(size, np.int32)
        self.placement = np.zeros(size, np.int8)
        self.barred = np.zeros(size, np.bool_)

    def grown(self, size: int) -> _Columns:
        other = _Columns(size)
        for name, old in vars(self).items():
            getattr(other, name)[: len(old)] = old
        return other


def labels_of(meta: ArticleMeta) -> list[str]:
    """Return what users may follow or mute, and publishers block."""
    return [*meta.entities, *meta.authors, meta.category, meta.source]


@lru_cache(10_000)
def _hash(label: str) -> int:
    return hash64(label) if label else 0


def _causes(kind: CauseKind, found: dict[str, int]) -> list[Cause]:
    return [Cause(kind=kind, id=found_id, at=at) for found_id, at in sorted(found.items(), key=lambda item: item[1])]
