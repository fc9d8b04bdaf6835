"""What an event weighs, what bounds a user's state, and what goes into and comes out of the fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from contract.errors import BadRecord
from contract.messages import Event
from contract.records import Waiting
from contract.settings import Settings
from encoders.decay import HOUR_MS

# A list shown and left alone counts a fifth of one click against what was in it.
IMPRESSION_WEIGHT = -0.01
WEIGHTS = {"click": 1.0, "like": 2.0, "share": 2.0, "dislike": -1.0, "follow": 1.0, "mute": -1.0}
DWELL_FULL_MS = 60_000
DWELL_WEIGHT = 0.5
ASKS_FOR_NO_RANKING = frozenset({"impression", "dwell"})

STATS_HALF_LIFE_MS = 6 * HOUR_MS
# Whole parts of it, so that what is decayed by the one is decayed by the others without a remainder.
SHORT_HALF_LIVES_MINUTES = (60, 15)
AFFINITY_HALF_LIFE_MS = 30 * 24 * HOUR_MS
# A news article is read next for minutes, not days.
CO_READS_HALF_LIFE_MS = 18 * 60_000
CO_READS_WITHIN_MS = HOUR_MS
CO_READS_BACK = 3
ABSORB_BYTES = 900_000
IDLE_AT_ONCE = 200


@dataclass(frozen=True)
class FoldLimits:
    """The bounds of a user's state: window lengths in entries, times in ms; ``co_reads`` is an article's."""

    waiting_clicks: int = 32
    waiting_ms: int = 24 * HOUR_MS
    user_ttl_ms: int = 180 * 24 * HOUR_MS
    recents: int = 50
    read: int = 128
    seen: int = 64
    shown: int = 128
    follows: int = 64
    mutes: int = 64
    affinities: int = 16
    co_reads: int = 32
    events_per_minute: int = 120

    @classmethod
    def of(cls, settings: Settings) -> FoldLimits:
        return cls(
            waiting_clicks=settings.waiting_clicks,
            waiting_ms=round(settings.waiting_hours * HOUR_MS),
            user_ttl_ms=round(settings.user_ttl_days * 24 * HOUR_MS),
            recents=settings.recent_events,
            read=settings.read_articles,
            seen=settings.seen_event_ids,
            shown=settings.shown_articles,
            follows=settings.followed_targets,
            mutes=settings.muted_targets,
            affinities=settings.category_affinities,
            co_reads=settings.co_reads,
            events_per_minute=settings.events_per_minute,
        )


class Arrival(NamedTuple):
    """One good event with the place and Kafka timestamp of its record and its original value."""

    offset: int
    timestamp: int
    event: Event
    value: bytes


@dataclass(frozen=True, slots=True)
class Dropped:
    """A waiting event that a bound pushed out: a dead letter. ``partition`` is where its record lay."""

    user_id: str
    partition: int
    waited: Waiting
    error: BadRecord


@dataclass(frozen=True, slots=True)
class Absorb:
    """An event to be written to ``user-events``, keyed by ``user_id``."""

    user_id: str
    value: bytes


def weight_of(kind: str, dwell_ms: int | None) -> float:
    """What an event on an article weighs."""
    if kind == "dwell":
        return DWELL_WEIGHT * min(dwell_ms or 0, DWELL_FULL_MS) / DWELL_FULL_MS
    return WEIGHTS[kind]
