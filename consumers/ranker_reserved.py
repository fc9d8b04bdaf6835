"""Lists under reserved keys: of a category's popular articles, and of what is related to an article.

Neither is anybody's, so both wait for users where there is much to do. A category's list is ranked in turn, as the
popular list is; an article's when it comes or changes, when another comes that is near it, and once an hour. What is
withdrawn leaves all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from consumers.ranker_catalogue import CatalogueChange, FreshArticles
from consumers.ranker_counts import POPULAR_LIST, RELATED_LIST
from consumers.ranker_pending import Pending
from consumers.ranker_publication import ListWriter, Publication
from contract.errors import BadRecord
from contract.messages import POPULAR_IN, RELATED_TO, Cause, Item, List, decode
from contract.murmur2 import partition_of
from contract.settings import Settings
from encoders.articles import hash64
from ranking.ranking import Formula, Ranked, rank
from ranking.reader_table import OTHER, ReaderTable
from ranking.reranker import ClickModel
from ranking.reserved import nobody, of_category, readers_of, related, within_category

AT_ONCE = 16
RELATED_REFRESH_MS = 3_600_000
CATEGORY_TURNS = 10
"""A category's list is ranked in every tenth of the popular list's times."""
ABOUT_THE_ARTICLE = frozenset({"interest", "recent_interest", "category"})
"""Reasons that speak of a reader's interest, which here is the article itself."""


class ReservedLists:
    """The lists under one prefix in the owned partitions. They are nobody's: what is ranked for has no state."""

    def __init__(self, prefix: str, length: int, partitions: int, formula: Formula) -> None:
        self.prefix = prefix
        self._formula = formula
        self.table = ReaderTable(0, max(1, length))
        self.waiting = Pending()
        self._length = max(1, length)
        self._partitions = partitions
        self._owned: set[int] = set()
        self._gone: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.table)

    def serve(self, model: ClickModel | None) -> None:
        """Rank by ``model`` from now on; None: by the hand-made formula."""
        self._formula = replace(self._formula, model=model)

    def own(self, partitions: Iterable[int]) -> None:
        self._owned.update(partitions)

    def owns(self, name: str) -> bool:
        return self.partition(name) in self._owned

    def partition(self, name: str) -> int:
        return _partition_of(self.prefix + name, self._partitions)

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget everything about these partitions."""
        gone = set(partitions)
        self.table.drop_partitions(gone)
        self._owned -= gone
        self.waiting.keep(lambda name: self.table.row(name) is not None)
        self._gone = {name: partition for name, partition in self._gone.items() if partition not in gone}

    def put(self, name: str, partition: int, value: bytes | None) -> None:
        """Take over what stands in the topic; as of its own time, so that the oldest is refreshed first."""
        self._gone.pop(name, None)
        if value is None or not name:
            self.table.drop(name)
            return
        row = self.table.add(name, partition, personal=False)
        self.table.listed[row], self.table.ranked_at[row] = OTHER, 0
        try:
            shown = decode(List, value)
        except BadRecord:
            return
        hashes = [hash64(item.article_id) for item in shown.items]
        if len(hashes) <= self._length:
            self.table.listed[row] = np.array(hashes + [0] * (self._length - len(hashes)), np.uint64)
            self.table.ranked_at[row] = shown.generated_at

    def add(self, name: str) -> int:
        """Return the row of a list that is to be, made where there was none."""
        row = self.table.row(name)
        if row is None:
            self._gone.pop(name, None)
            row = self.table.add(name, self.partition(name), personal=False)
        return row

    def remove(self, name: str) -> None:
        """Take a list away, where there is one."""
        row = self.table.row(name)
        if row is not None:
            self._gone[name] = int(self.table.partition[row])
            self.waiting.discard(name)
            self.table.drop(name)

    def leave(self, causes: Sequence[Cause]) -> None:
        """Let those lists wait, before all others, which hold an article that ``causes`` name."""
        by_hash = {hash64(cause.id): cause for cause in causes}
        for row in self.table.holding(np.fromiter(by_hash, np.uint64, len(by_hash))).tolist():
            held = [by_hash[h] for h in self.table.listed[row].tolist() if h in by_hash]
            self.waiting.add(self.table.ids[row], min(held, key=lambda cause: cause.at), urgent=True)

    def urgent(self) -> int:
        """How many wait that hold what is gone."""
        return self.waiting.put_off(0)["urgent"][0]

    def put_off(self, now_ms: int) -> tuple[int, float]:
        """Return how many wait, and for how many seconds who came first has."""
        return len(self.waiting), max(seconds for _, seconds in self.waiting.put_off(now_ms).values())

    def tombstones(self) -> Iterator[Publication]:
        """Yield what takes lists away; once."""
        gone, self._gone = self._gone, {}
        for name, partition in gone.items():
            yield Publication(self.prefix + name, partition, None)

    def relist(self, names: Sequence[str], hashes: NDArray[np.uint64], now_ms: int) -> NDArray[np.intp]:
        """Make ``hashes`` [n, k] the present lists; return which are other than they were."""
        rows = [self.add(name) for name in names]
        self.table.ranked_at[rows] = now_ms
        return np.flatnonzero(self.table.relist(rows, hashes))


class CategoryLists(ReservedLists):
    """``~popular/CATEGORY`` for the categories with the most articles."""

    def __init__(self, settings: Settings, fresh: FreshArticles, formula: Formula, writer: ListWriter) -> None:
        super().__init__(POPULAR_IN, settings.list_length, settings.partitions, within_category(formula))
        self._most = settings.category_lists
        self._every_ms = round(settings.popular_seconds * 1000)
        self._fresh = fresh
        self._writer = writer
        self._due_at = 0

    def rank(self, now_ms: int, *, busy: bool) -> Iterator[Publication]:
        """Yield the lists that are not as they were, those with what is gone first; no others while ``busy``."""
        due = self.waiting.take(self.urgent())
        if not busy and now_ms >= self._due_at and self._owned:
            self._due_at = now_ms + self._every_ms
            self._choose()
            turn = -(-len(self.table) // CATEGORY_TURNS)
            cause = Cause(kind="refresh", id="", at=now_ms)
            named = {name for name, _ in due}
            rows = self.table.overdue(now_ms, turn).tolist()
            due += [(self.table.ids[row], cause) for row in rows if self.table.ids[row] not in named]
        yield from self.tombstones()
        for name, cause in due:
            catalogue = of_category(self._fresh.catalogue, hash64(name))
            ranked = rank(nobody(catalogue), catalogue, self._formula, now_ms)
            changed = self.relist([name], _hashes(ranked, catalogue.hashes), now_ms)
            for items in self._writer.items(ranked, catalogue, changed, [POPULAR_LIST]):
                key = self.prefix + name
                shown = self._writer.compose(key, items, cause, catalogue, now_ms, fallback=True)
                yield Publication(key, self.partition(name), shown)

    def take_articles(self, changed: CatalogueChange) -> None:
        """Find the lists that withdrawals concern; what is new is seen in their turn."""
        if changed.left:
            self.leave(changed.left)

    def _choose(self) -> None:
        """Add the largest categories, and let those go that are empty, or far from being among the largest."""
        sizes = self._fresh.category_sizes(2 * self._most)
        for name in [name for name in self.table.ids if name and name not in sizes]:
            self.remove(name)
        for name in list(sizes)[: self._most]:
            if self.owns(name) and self.table.row(name) is None:
                self.table.ranked_at[self.add(name)] = 0


class RelatedLists(ReservedLists):
    """``~related/ARTICLE`` for all articles that may be listed."""

    def __init__(self, settings: Settings, fresh: FreshArticles, formula: Formula, writer: ListWriter) -> None:
        length = settings.related_length
        super().__init__(RELATED_TO, length, settings.partitions, related(formula, max(1, length)))
        self._off = not settings.related_length
        self._per_ms = settings.related_per_second / 1000
        self._fresh = fresh
        self._writer = writer
        self._allowed, self._allowed_at = 0.0, 0
        self._new: set[int] = set()

    def own(self, partitions: Iterable[int]) -> None:
        super().own(partitions)
        self._new.update(partitions)

    def drop(self, partitions: Iterable[int]) -> None:
        super().drop(partitions)
        self._new &= self._owned

    def take_articles(self, changed: CatalogueChange) -> None:
        """Find the lists that publications and withdrawals concern."""
        if self._off or not self._owned:
            return
        for cause in changed.left:
            self.remove(cause.id)
        if changed.left:
            self.leave(changed.left)
        for cause in (*changed.entered, *changed.altered):
            if self.owns(cause.id):
                self.add(cause.id)
                self.waiting.add(cause.id, cause)
        if changed.entered:
            for row in np.flatnonzero((self.table.listed[: len(self.table.ids)] == 0).any(axis=1)).tolist():
                # Whatever comes, a list that is short takes.
                self.waiting.add(self.table.ids[row], changed.entered[0], last=True)

    def rank(self, now_ms: int, *, busy: bool) -> Iterator[Publication]:
        """Yield the lists that are not as they were, those with what is gone first; no others while ``busy``."""
        if self._new:
            self._compare(now_ms)
        yield from self.tombstones()
        due = self._due(now_ms, busy=busy)
        catalogue = self._fresh.catalogue
        places = catalogue.places(np.array([hash64(name) for name, _ in due], np.uint64))
        known = [one for one, place in zip(due, places.tolist(), strict=True) if place >= 0]
        places = places[places >= 0]
        if not known:
            return
        readers = readers_of(catalogue, places, self._formula.rules, now_ms)
        ranked = rank(readers, catalogue, self._formula, now_ms)
        for (name, cause), found in zip(known, ranked.places.tolist(), strict=True):
            if cause.kind == "article" and cause.id == name:
                self._tell_neighbours(cause, [catalogue.ids[place] for place in found if place >= 0])
        changed = self.relist([name for name, _ in known], _hashes(ranked, catalogue.hashes), now_ms)
        all_items = self._writer.items(ranked, catalogue, changed, [RELATED_LIST] * len(changed))
        for number, items in zip(changed.tolist(), all_items, strict=True):
            name, cause = known[number]
            key = self.prefix + name
            told = [_of_the_article(item) for item in items]
            shown = self._writer.compose(key, told, cause, catalogue, now_ms, fallback=False)
            yield Publication(key, self.partition(name), shown)

    def _compare(self, now_ms: int) -> None:
        """Hold what was found in partitions that are newly owned against the articles that there are."""
        catalogue, new = self._fresh.catalogue, self._new
        self._new = set()
        start = Cause(kind="start", id="", at=now_ms)
        wanted = set() if self._off else {catalogue.ids[place] for place in catalogue.open.tolist()}
        for name in [name for name in self.table.ids if name and name not in wanted]:
            self.remove(name)
        open_now = np.append(catalogue.hashes[catalogue.open], [np.uint64(0), OTHER])
        outdated = np.logical_not(np.isin(self.table.listed[: len(self.table.ids)], open_now).all(axis=1)).tolist()
        for name in wanted:
            row = self.table.row(name)
            if row is None:
                if self.partition(name) in new:
                    self.add(name)
                    self.waiting.add(name, start)
            elif outdated[row]:
                self.waiting.add(name, start, urgent=True)
            elif self.table.ranked_at[row] < (changed_at := self._fresh.changed_at(name)):
                self.waiting.add(name, Cause(kind="article", id=name, at=changed_at))

    def _due(self, now_ms: int, *, busy: bool) -> list[tuple[str, Cause]]:
        since, self._allowed_at = max(0, now_ms - self._allowed_at), now_ms
        self._allowed = min(AT_ONCE, self._allowed + since * self._per_ms)
        urgent = self.waiting.take(min(self.urgent(), AT_ONCE))
        allowed = 0 if busy else int(self._allowed)
        if allowed < min(AT_ONCE, len(self.waiting) or AT_ONCE):
            return urgent  # many at once cost little more than one
        due = self.waiting.take(allowed)
        if len(due) < allowed:
            named = {name for name, _ in (*urgent, *due)}
            rows = self.table.overdue(now_ms - RELATED_REFRESH_MS, allowed - len(due)).tolist()
            cause = Cause(kind="refresh", id="", at=now_ms)
            due += [(self.table.ids[row], cause) for row in rows if self.table.ids[row] not in named]
        self._allowed -= len(due)
        return urgent + due

    def _tell_neighbours(self, cause: Cause, names: Iterable[str]) -> None:
        """An article that has just come belongs into the lists of those that are nearest to it."""
        for name in names:
            if self.table.row(name) is not None:
                self.waiting.add(name, cause, last=True)


@lru_cache(200_000)
def _partition_of(key: str, partitions: int) -> int:
    return partition_of(key.encode(), partitions)


def _hashes(ranked: Ranked, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.append(hashes, np.uint64(0))[ranked.places]


def _of_the_article(item: Item) -> Item:
    return msgspec.structs.replace(item, reason="similar_to_read") if item.reason in ABOUT_THE_ARTICLE else item
