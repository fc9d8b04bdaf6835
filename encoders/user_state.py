"""What is known of one partition of users."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from contract.records import ArticleStats, PartitionTotals, UserRecord
from encoders.decayed import DecayedSums

MASK64 = (1 << 64) - 1
NEVER = 1 << 62


def event_hash(partition: int, offset: int) -> int:
    """Return the 64-bit hash of a record's place, splitmix64 of ``partition << 48 ^ offset``."""
    z = ((partition << 48 ^ offset) + 0x9E3779B97F4A7C15) & MASK64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK64
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK64
    return z ^ z >> 31


def event_hashes(partition: int, offsets: Sequence[int]) -> list[int]:
    """Return :func:`event_hash` of many offsets at once."""
    z = np.array(offsets, np.uint64) ^ np.uint64(partition << 48)
    z += np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    hashes: list[int] = (z ^ z >> np.uint64(31)).tolist()
    return hashes


def staged_copy(state: UserRecord) -> UserRecord:
    """A copy to stage changes on, its cause not yet known."""
    staged: UserRecord = state.__copy__()  # type: ignore[attr-defined]
    staged.windows = state.windows.__copy__()  # type: ignore[attr-defined]
    staged.windows.cause = None
    return staged


def size_of(state: UserRecord) -> int:
    """Return the bytes of a state's numbers, of its windows, and of what waits in it."""
    w = state.windows
    size = len(state.numbers) + len(w.read) + len(w.read_kinds) + len(w.seen) + len(w.shown) + len(w.shown_counts)
    size += len(w.recents) + len(w.affinities)
    return size + sum(len(wait.value) for wait in w.waiting) if w.waiting else size


@dataclass(slots=True)
class PartitionState:
    """Everything folded from one partition of ``user-events``.

    ``users`` begin with whose state changed longest ago, as their changelog does; ``bytes`` is how large their states
    are. ``stats`` is by article_id or ``~source/NAME``; ``co_reads`` by article_id, sums by the hash of the article
    read next. ``waiting_for`` says who waits for an article.
    """

    partition: int
    users: OrderedDict[str, UserRecord] = field(default_factory=OrderedDict)
    stats: dict[str, ArticleStats] = field(default_factory=dict)
    co_reads: dict[str, DecayedSums] = field(default_factory=dict)
    totals: PartitionTotals = field(default_factory=PartitionTotals)
    waiting_for: dict[str, set[str]] = field(default_factory=dict)
    waits_since: int = NEVER
    bytes: int = 0

    def oldest_wait(self) -> int:
        """Return the timestamp before which nothing waits, found anew where anything does."""
        waiting = {user_id for users in self.waiting_for.values() for user_id in users}
        self.waits_since = min(
            (wait.timestamp for user_id in waiting for wait in self.users[user_id].windows.waiting), default=NEVER
        )
        return self.waits_since

    def put(self, user_id: str, state: UserRecord | None) -> None:
        """Make ``state`` the current one of a user, None forgets them; keeps the index of waits."""
        before = self.users.get(user_id)
        if before is not None:
            self.bytes -= size_of(before)
        for wait in before.windows.waiting if before else ():
            users = self.waiting_for.get(wait.article_id)
            if users is not None:
                users.discard(user_id)
                if not users:
                    del self.waiting_for[wait.article_id]
        if state is None:
            self.users.pop(user_id, None)
            return
        self.users[user_id] = state
        self.users.move_to_end(user_id)
        self.bytes += size_of(state)
        for wait in state.windows.waiting:
            self.waits_since = min(self.waits_since, wait.timestamp)
            self.waiting_for.setdefault(wait.article_id, set()).add(user_id)

    def put_stats(self, key: str, stats: ArticleStats | None) -> None:
        if stats is None:
            self.stats.pop(key, None)
        else:
            self.stats[key] = stats

    def put_co_reads(self, article_id: str, sums: DecayedSums | None) -> None:
        if sums is None:
            self.co_reads.pop(article_id, None)
        else:
            self.co_reads[article_id] = sums
