"""The topics: names, partition counts and settings, as one table."""

from __future__ import annotations

from dataclasses import dataclass, field

from contract.messages import MAX_ARTICLE_BYTES, MAX_EVENT_BYTES
from contract.settings import Settings

MAX_RECORD_BYTES = 9 << 20
_FRAME_BYTES = 1024  # a record's key and its batch
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class TopicSpec:
    """What one topic is to be; ``config`` values are strings as Kafka reports them."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


class Topics:
    """The names of one namespace and generation.

    ``generation`` is the hash of the manifests of the parts whose vectors belong together; topics
    that carry vectors or what was counted beside them end in it. Without one, only the public
    topics can be told.
    """

    def __init__(self, settings: Settings, generation: str = "") -> None:
        self._settings = settings
        self.generation = generation
        prefix = settings.namespace
        self.articles = f"{prefix}articles"
        self.user_events = f"{prefix}user-events"
        self.article_vectors = f"{prefix}article-vectors.{generation}"
        self.user_vectors = f"{prefix}user-vectors.{generation}"
        self.article_stats = f"{prefix}article-stats.{generation}"
        self.co_reads = f"{prefix}co-reads.{generation}"
        self.recommendations = f"{prefix}recommendations"
        self.dead_letters = f"{prefix}dead-letters"

    def public(self) -> list[TopicSpec]:
        """The topics that others may write or read."""
        names = (self.articles, self.user_events, self.recommendations, self.dead_letters)
        return [spec for spec in self.specs() if spec.name in names]

    def specs(self) -> list[TopicSpec]:
        """All topics with what they need to be.

        Compacted topics roll a segment an hour and are cleaned at a tenth of dirt, or they would
        never shrink at Kafka's defaults (1 GiB or 7 days a segment). ``user-events`` takes the
        broker's time, since an event's own time must never be later than its record's. A dead
        letter holds the largest article whole, a user's state as many waiting events as may wait.
        """
        s = self._settings
        compact = {
            "cleanup.policy": "compact",
            "segment.ms": "3600000",
            "min.cleanable.dirty.ratio": "0.1",
            "max.compaction.lag.ms": str(_DAY_MS),
            "delete.retention.ms": str(_DAY_MS),
        }
        article_retention_ms = str(round((s.article_ttl_days + 7) * _DAY_MS))
        compact_delete = compact | {"cleanup.policy": "compact,delete", "retention.ms": article_retention_ms}
        by_time = {
            "cleanup.policy": "delete",
            "retention.ms": str(round(s.event_retention_days * _DAY_MS)),
        }
        log_time = {"message.timestamp.type": "LogAppendTime"}
        event_size = {"max.message.bytes": str(MAX_EVENT_BYTES + _FRAME_BYTES)}
        article_size = {"max.message.bytes": str(MAX_ARTICLE_BYTES + _FRAME_BYTES)}
        largest_size = {"max.message.bytes": str(MAX_RECORD_BYTES)}
        return [
            TopicSpec(self.articles, s.article_partitions, compact_delete | article_size | log_time),
            TopicSpec(self.user_events, s.partitions, by_time | event_size | log_time),
            TopicSpec(self.article_vectors, s.article_partitions, compact_delete),
            TopicSpec(self.user_vectors, s.partitions, compact | largest_size),
            TopicSpec(self.article_stats, s.partitions, compact),
            TopicSpec(self.co_reads, s.partitions, compact),
            TopicSpec(self.recommendations, s.partitions, compact),
            TopicSpec(self.dead_letters, s.article_partitions, by_time | largest_size),
        ]
