"""What the users worker counts, taken over by the ranker: ``article-stats`` and ``co-reads``."""

from __future__ import annotations

from collections.abc import Iterable

from contract.errors import UnreadableState
from contract.records import SOURCE_PREFIX, decode_co_reads, decode_stats
from encoders.articles import hash64
from ranking.co_reading import CoReading
from ranking.popularity import Popularity
from streams.record import Record, text_key
from streams.worker import Log


def take_stats(popularity: Popularity, records: Iterable[Record]) -> None:
    """Take over impressions and clicks of articles; what cannot be read is left out and logged."""
    for record in records:
        try:
            key, value = text_key(record), record.value()
            if not key.startswith(SOURCE_PREFIX):
                popularity.put(record.partition(), key, None if value is None else decode_stats(value))
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
