"""Statistics of one batch: who was shown, who was clicked, what was read next."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from contract.records import OTHER_NAME, RECENT, SOURCE_PREFIX, ArticleStats, PartitionTotals
from encoders.articles import ArticleTable
from encoders.decayed import DecayedSums
from encoders.fold_rules import (
    CO_READS_BACK,
    CO_READS_HALF_LIFE_MS,
    CO_READS_WITHIN_MS,
    SHORT_HALF_LIVES_MINUTES,
    STATS_HALF_LIFE_MS,
)
from encoders.user_state import PartitionState
from encoders.windows import MINUTE_MS

POSITIONS = (0, 1, 2, 3, 5, 10, 20)
NAMES = 32
NAME_LENGTH = 64
NOTHING = (0.0, 0.0)
Key = TypeVar("Key", int, str)
Counts = tuple[float, float]
"""Impressions and clicks."""


class Way(NamedTuple):
    """How an article came before a user and what they did: an impression or a click."""

    kind: str
    position: int | None
    reason: str
    source: str
    region: str


class Statistics:
    """Counts one batch of one partition; use once.

    ``totals`` are the staged ones, whose names of reasons, sources and regions grow here. ``co_reads`` are the staged
    sums of the articles touched.
    """

    def __init__(self, current: PartitionState, totals: PartitionTotals, articles: ArticleTable, capacity: int) -> None:
        self._current = current
        self._totals = totals
        self._articles = articles
        self._capacity = capacity
        self._ways: dict[Way, int] = {}
        self._told: dict[tuple[str, int | None, str, str, str], int] = {}
        self._rows = array("q")
        self._ats = array("q")
        self._numbers = array("q")
        self.co_reads: dict[str, DecayedSums] = {}

    def count(
        self, row: int, at: int, kind: str, position: int | None, reason: str, source: str, region: str
    ) -> None:  # fmt: skip
        """Count an impression or a click of the article in ``row``, as of ``at``, by a user in ``region``."""
        told = (kind, position, reason, source, region)
        way = self._told.get(told)
        if way is None:
            way = self._way(*told)
            self._told[told] = way
        self._rows.append(row)
        self._ats.append(at)
        self._numbers.append(way)

    def count_next(self, recents: bytes, article: int, at: int) -> None:
        """Count that the article with this hash was read after the last different ones in ``recents``."""
        met = {article}
        for start in range(len(recents) - RECENT.size, -1, -RECENT.size):
            before, then, _ = RECENT.unpack_from(recents, start)
            if at - then > CO_READS_WITHIN_MS:
                break
            if then > at or before in met:
                continue
            met.add(before)
            row = self._articles.row_of_hash(before)
            if row is not None:
                sums = self._sums_of(self._articles.ids[row])
                sums.add(article, at, 1.0 / (len(met) - 1), CO_READS_HALF_LIFE_MS, self._capacity)
            if len(met) > CO_READS_BACK:
                break

    def ways(self) -> Counter[Way]:
        """How often each way was counted."""
        numbers = Counter(self._numbers)
        return Counter({way: numbers[number] for way, number in self._ways.items()})

    def stats(self) -> dict[str, ArticleStats]:
        """The new statistics of all articles and sources counted, by key."""
        if not self._rows:
            return {}
        rows, ats, numbers = (np.frombuffer(part, np.int64) for part in (self._rows, self._ats, self._numbers))
        ways = list(self._ways)
        staged = {}
        clicks = np.array([way.kind == "click" for way in ways])
        for row, epoch, sums, lately in _sums_by(rows, ats, numbers, clicks):
            key = self._articles.ids[row]
            staged[key] = _added(self._current.stats.get(key), epoch, sums, lately, ways)
        sources = list(dict.fromkeys(way.source for way in ways if way.source))
        source_of = np.array([sources.index(way.source) if way.source else -1 for way in ways])[numbers]
        told = source_of >= 0
        for source, epoch, sums, lately in _sums_by(source_of[told], ats[told], numbers[told], clicks):
            key = SOURCE_PREFIX + sources[source]
            staged[key] = _added(self._current.stats.get(key), epoch, sums, lately, ways)
        return staged

    def _sums_of(self, article_id: str) -> DecayedSums:
        sums = self.co_reads.get(article_id)
        if sums is None:
            current = self._current.co_reads.get(article_id)
            sums = self.co_reads[article_id] = current.copy() if current else DecayedSums()
        return sums

    def _way(self, kind: str, position: int | None, reason: str, source: str, region: str) -> int:
        totals = self._totals
        totals.reasons, reason = _known(totals.reasons, reason)
        totals.sources, source = _known(totals.sources, source)
        totals.regions, region = _known(totals.regions, region)
        bucket = None if position is None or position < 0 else POSITIONS[bisect_right(POSITIONS, position) - 1]
        return self._ways.setdefault(Way(kind, bucket, reason, source, region), len(self._ways))


def _known(names: tuple[str, ...], name: str) -> tuple[tuple[str, ...], str]:
    """Return the names kept apart and the one to use: clients may send any, but only so many are kept apart."""
    if not name or name in names:
        return names, name
    if name == OTHER_NAME or len(name) > NAME_LENGTH or len(names) >= NAMES:
        return names, OTHER_NAME
    return (*names, name), name


def _sums_by(
    keys: NDArray[np.int64], ats: NDArray[np.int64], ways: NDArray[np.int64], clicks: NDArray[np.bool_]
) -> Iterator[tuple[int, int, Sequence[tuple[int, float]], list[list[float]]]]:
    """Yield each key, the half-life its newest count lies in, and sums as of that one's beginning: by way, and of
    impressions and clicks by short half-life. ``clicks`` says of each way whether it is one.
    """
    way_count = len(clicks)
    distinct, places = np.unique(keys, return_inverse=True)
    epochs = ats // STATS_HALF_LIFE_MS
    newest = np.full(len(distinct), np.iinfo(np.int64).min)
    np.maximum.at(newest, places, epochs)
    since = ats - newest[places] * STATS_HALF_LIFE_MS
    counts = np.exp2(since / STATS_HALF_LIFE_MS)
    columns, size = places * 2 + clicks[ways], 2 * len(distinct)
    short = (np.exp2(since / (minutes * MINUTE_MS)) for minutes in SHORT_HALF_LIVES_MINUTES)
    lately = np.stack([np.bincount(columns, weights, size).reshape(-1, 2) for weights in short], axis=1).tolist()
    pairs, pair_of = np.unique(places * way_count + ways, return_inverse=True)
    sums = np.bincount(pair_of, counts, len(pairs)).tolist()
    found = zip(*(part.tolist() for part in np.divmod(pairs, way_count)), sums, strict=True)
    for place, group in groupby(found, key=lambda pair: pair[0]):
        yield int(distinct[place]), int(newest[place]), [(way, total) for _, way, total in group], lately[place]


def _added(
    before: ArticleStats | None, epoch: int, sums: Sequence[tuple[int, float]], lately: Sequence[Sequence[float]],
    ways: Sequence[Way],
) -> ArticleStats:  # fmt: skip
    at = epoch * STATS_HALF_LIFE_MS
    before = before or ArticleStats(at, 0.0, 0.0)
    newest = max(at, before.at)
    kept, added = (2.0 ** ((then - newest) / STATS_HALF_LIFE_MS) for then in (before.at, at))
    total = [before.impressions * kept, before.clicks * kept]
    positions, reasons, regions = (_lessened(of, kept) for of in (before.positions, before.reasons, before.regions))
    for number, count in sums:
        way, count = ways[number], count * added
        is_click = way.kind != "impression"
        total[is_click] += count
        if way.position is not None:
            _count(positions, way.position, count, is_click)
        if way.reason:
            _count(reasons, way.reason, count, is_click)
        if way.region:
            _count(regions, way.region, count, is_click)
    short = {}
    for minutes, new in zip(SHORT_HALF_LIVES_MINUTES, lately, strict=True):
        old = before.lately.get(minutes, NOTHING)
        kept, added = (2.0 ** ((then - newest) / (minutes * MINUTE_MS)) for then in (before.at, at))
        short[minutes] = (old[0] * kept + new[0] * added, old[1] * kept + new[1] * added)
    return ArticleStats(
        at=newest, impressions=total[0], clicks=total[1], positions=positions, reasons=reasons, lately=short,
        regions=regions,
    )  # fmt: skip


def _lessened(counts: Mapping[Key, Counts], kept: float) -> dict[Key, Counts]:
    return dict(counts) if kept == 1.0 else {key: (i * kept, c * kept) for key, (i, c) in counts.items()}


def _count(counts: dict[Key, Counts], key: Key, count: float, is_click: bool) -> None:
    impressions, clicks = counts.get(key, NOTHING)
    counts[key] = (impressions, clicks + count) if is_click else (impressions + count, clicks)
