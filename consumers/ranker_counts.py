"""What the users worker counts, taken over by the ranker: ``article-stats`` and ``co-reads``."""

from __future__ import annotations

import math
from collections.abc import Iterable

from prometheus_client import Gauge

from contract.errors import UnreadableState
from contract.records import SOURCE_PREFIX, ArticleStats, decode_co_reads, decode_stats
from encoders.articles import hash64
from ranking.candidates import SOURCES
from ranking.co_reading import CoReading
from ranking.feedback import Feedback
from ranking.popularity import Popularity
from ranking.regions import RegionalCounts
from streams.record import Record, text_key
from streams.worker import Log

HOLDOUT, POPULAR_LIST, RELATED_LIST = "holdout", "popular_list", "related_list"
"""Sources of items in the lists of those held out, and in those made for nobody; personal lists tell a candidate's."""
_GROUPS = {
    HOLDOUT: HOLDOUT,
    POPULAR_LIST: POPULAR_LIST,
    RELATED_LIST: RELATED_LIST,
    **dict.fromkeys(SOURCES, "personal"),
}
CTR = Gauge("stoppress_ctr", "Clicks per item shown in the last hours, by whose list it was in", ["group"])
CTR_LOW = Gauge("stoppress_ctr_low", "Where the 95 % interval of it begins", ["group"])
CTR_HIGH = Gauge("stoppress_ctr_high", "Where the 95 % interval of it ends", ["group"])


class GroupCounts:
    """Impressions and clicks by whose list an item was in: personal, held out, popular or related ones; other
    is what clients send of their own."""

    def __init__(self, partitions: int, half_life_ms: float) -> None:
        self._counts = Popularity(partitions, half_life_ms)
        self.feedback = Feedback(half_life_ms)
        self._sources: dict[str, None] = {}

    def put(self, partition: int, source: str, stats: ArticleStats | None) -> None:
        """Replace what one partition counted for a source."""
        self._sources[source] = None
        self._counts.put(partition, source, stats)
        self.feedback.put(partition, source, stats)

    def rates(self, now_ms: int) -> dict[str, tuple[float, float, float]]:
        """Return click-through rate and its 95 % interval by group, where anything was shown."""
        sources = list(self._sources)
        counted: dict[str, list[float]] = {}
        for source, impressions, clicks in zip(sources, *self._counts.counts(sources, now_ms).tolist(), strict=True):
            group = _GROUPS.get(source, "other")
            sums = counted.setdefault(group, [0.0, 0.0])
            sums[0] += impressions
            sums[1] += clicks
        return {group: wilson(*sums) for group, sums in counted.items() if sums[0] >= 1}

    def publish(self, now_ms: int) -> None:
        """Set the metrics."""
        for group, (rate, low, high) in self.rates(now_ms).items():
            CTR.labels(group).set(rate)
            CTR_LOW.labels(group).set(low)
            CTR_HIGH.labels(group).set(high)


def wilson(shown: float, clicked: float) -> tuple[float, float, float]:
    """Return the rate and its 95 % interval (Wilson 1927)."""
    rate, z = min(1.0, clicked / shown), 1.96
    middle = (rate + z * z / (2 * shown)) / (1 + z * z / shown)
    half = z / (1 + z * z / shown) * math.sqrt(rate * (1 - rate) / shown + z * z / (4 * shown * shown))
    return rate, max(0.0, min(rate, middle - half)), min(1.0, max(rate, middle + half))


def take_stats(
    popularity: Popularity, regions: RegionalCounts, groups: GroupCounts, records: Iterable[Record]
) -> None:  # fmt: skip
    """Take over impressions and clicks of articles and sources; what cannot be read is left out and logged."""
    for record in records:
        try:
            key, value = text_key(record), record.value()
            stats = None if value is None else decode_stats(value)
            if key.startswith(SOURCE_PREFIX):
                groups.put(record.partition(), key.removeprefix(SOURCE_PREFIX), stats)
            else:
                popularity.put(record.partition(), key, stats)
                regions.put(record.partition(), hash64(key), stats)
        except UnreadableState as error:
            _left_out(record, error)


def take_co_reads(co_reads: CoReading, records: Iterable[Record]) -> None:
    """Take over what was read next; what cannot be read is left out and logged."""
    for record in records:
        try:
            article, value = hash64(text_key(record)), record.value()
            co_reads.put(record.partition(), article, None if value is None else decode_co_reads(value))
        except UnreadableState as error:
            _left_out(record, error)


def _left_out(record: Record, error: UnreadableState) -> None:
    place = f"{record.topic()}[{record.partition()}]@{record.offset()}"
    Log("ranker").error("unreadable_counts", record=f"{place}: {error}")
