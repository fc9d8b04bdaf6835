"""What the users worker tells of itself at /metrics: counted after each commit, measured once a second."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import Counter, Gauge, Histogram

from consumers.user_tables import Batch, UserTables
from streams.group import GroupInput
from streams.record import Record

EVENTS = Counter("stoppress_events_total", "Events by kind and what became of them", ["kind", "outcome"])
SHOWN = Counter("stoppress_impressions_total", "Items seen, as counted in statistics", ["position", "reason"])
CLICKED = Counter("stoppress_clicks_total", "Clicks, as counted in statistics", ["position", "reason"])
LIMITED = Counter("stoppress_rate_limited_events_total", "Events of users too fast to count in statistics")
ABSORBS = Counter("stoppress_absorbs_written_total", "What merged users handed over, in records")
EXPIRED = Counter("stoppress_expired_users_total", "Users dropped since no event of theirs came for user_ttl")
BATCH = Histogram("stoppress_users_batch_events", "Events in a batch", buckets=(1, 4, 16, 64, 256, 1024, 4096, 16384))
WRITE_SECONDS = Histogram(
    "stoppress_users_write_seconds", "Encoding what a batch changed and handing it to the producer",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1),
)  # fmt: skip
USERS = Gauge("stoppress_users", "Users whose state is held here")
USER_BYTES = Gauge("stoppress_users_state_bytes", "Bytes of the states held, without what Python needs around them")
WAITING = Gauge("stoppress_waiting_events", "Events that wait for their article's vector")
WAITING_SECONDS = Gauge("stoppress_waiting_oldest_seconds", "Since Kafka got the one of them that waits longest")
LAG_SECONDS = Gauge("stoppress_users_lag_seconds", "Age of the oldest event that is not folded, 0 where none is")

MEASURE_SECONDS = 1.0


def count(batch: Batch, records: Sequence[Record]) -> None:
    """Count a batch whose transaction is committed."""
    if records:
        BATCH.observe(len(records))
    for fold in batch.folds.values():
        for outcome in ("folded", "waiting", "duplicate", "dead"):
            for kind, number in getattr(fold.account, outcome).items():
                EVENTS.labels(kind, outcome).inc(number)
        for way, number in fold.statistics.ways().items():
            metric = SHOWN if way.kind == "impression" else CLICKED
            metric.labels("" if way.position is None else way.position, way.reason).inc(number)
        LIMITED.inc(fold.limited)
        ABSORBS.inc(len(fold.absorbs))
        EXPIRED.inc(fold.expired)


class Measured:
    """What is measured now and then, since it also moves where nothing is folded."""

    def __init__(self) -> None:
        self._at = 0.0
        self._behind_since: dict[int, int] = {}

    def update(self, tables: UserTables, source: GroupInput, records: Sequence[Record]) -> None:
        """Measure, where the last time was a second ago. ``records`` are in hand, not committed yet."""
        now = time.monotonic()
        if now - self._at < MEASURE_SECONDS:
            return
        self._at = now
        USERS.set(tables.user_count())
        USER_BYTES.set(tables.state_bytes())
        WAITING.set(tables.waiting_count())
        oldest = tables.oldest_wait()
        WAITING_SECONDS.set(0 if oldest is None else _age_seconds(oldest))
        in_hand = {record.partition(): record.timestamp()[1] for record in reversed(records)}
        now_ms = time.time_ns() // 1_000_000
        LAG_SECONDS.set(self.lag_ms(source.measure_lag(), in_hand, tables.folded_at(), now_ms) / 1000)

    def lag_ms(
        self, behind: Iterable[int], in_hand: Mapping[int, int], folded_at: Mapping[int, int], now_ms: int
    ) -> int:
        """Return the age of the oldest event that is not folded, by what is known of partitions that are ``behind``.

        That is the first ``in_hand``. Of one that nobody has read, it is only known that it is no older than what was
        folded last, and was there when its partition was first seen behind: the first counts from the second look on,
        since in a partition that was quiet it is far too old.
        """
        self._behind_since = {p: self._behind_since.get(p, now_ms) for p in behind}
        oldest = now_ms
        for partition, since in self._behind_since.items():
            unread = since if since == now_ms else folded_at.get(partition) or since
            oldest = min(oldest, in_hand.get(partition, unread))
        return now_ms - oldest


def _age_seconds(timestamp_ms: int) -> float:
    return max(0.0, time.time() - timestamp_ms / 1000)
