"""What an operator is told to do about a record for which a partition is paused."""

from __future__ import annotations

from contract.records import PARTITION_KEY
from streams.record import Record

REBUILD_ALL = "`stoppress rebuild user` without an ID"


def mending_of_user(record: Record) -> str:
    """What mends a record of ``user-vectors``, for whom its partition is paused."""
    if record.key() == PARTITION_KEY:
        return f"{REBUILD_ALL} counts the partition's totals anew from the log"
    return (
        f"`stoppress rebuild user ID`, ID being the record's key, makes the state anew from the log, {REBUILD_ALL} "
        "everybody's that cannot be read (a tombstone would lose their events); where the user is to be forgotten, "
        "send their `forget` event before"
    )


def mending_of_counts(_record: Record) -> str:
    """What mends a record of ``article-stats`` or ``co-reads``."""
    return (
        f"{REBUILD_ALL} writes a tombstone under the same key: what was counted of this article or source begins "
        "anew, and no user's state is touched"
    )
