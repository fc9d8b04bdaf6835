"""What is known of one user and of one partition of users."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from contract.messages import Cause
from contract.records import ArticleStats, PartitionTotals, UserRecord, Waiting, Windows

MASK64 = (1 << 64) - 1
NEVER = 1 << 62


def event_hash(partition: int, offset: int) -> int:
    """Return the 64-bit hash of a record's place, splitmix64 of ``partition << 48 ^ offset``."""
    z = ((partition << 48 ^ offset) + 0x9E3779B97F4A7C15) & MASK64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK64
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK64
    return z ^ z >> 31


@dataclass(slots=True)
class UserState:
    """One user. Windows hold 64-bit hashes, oldest first; ``shown_counts`` goes with ``shown``."""

    vector: NDArray[np.float32]
    at: int = 0
    timestamp: int = 0
    last_offset: int = -1
    folded: int = 0
    hash_sum: int = 0
    read: array[int] = field(default_factory=lambda: array("Q"))
    seen: array[int] = field(default_factory=lambda: array("Q"))
    shown: array[int] = field(default_factory=lambda: array("Q"))
    shown_counts: bytearray = field(default_factory=bytearray)
    waiting: list[Waiting] = field(default_factory=list)
    cause: Cause | None = None

    def copy(self) -> UserState:
        """A copy to stage changes on, its cause not yet known; the vector is replaced, never written to."""
        return UserState(
            self.vector, self.at, self.timestamp, self.last_offset, self.folded, self.hash_sum,
            self.read[:], self.seen[:], self.shown[:], self.shown_counts[:], self.waiting[:],
        )  # fmt: skip

    def to_record(self) -> UserRecord:
        windows = Windows(
            read=self.read.tobytes(),
            seen=self.seen.tobytes(),
            shown=self.shown.tobytes(),
            shown_counts=bytes(self.shown_counts),
            waiting=self.waiting,
            cause=self.cause,
        )
        return UserRecord(self.vector, self.last_offset, self.folded, self.hash_sum, self.at, self.timestamp, windows)

    @classmethod
    def from_record(cls, record: UserRecord) -> UserState:
        windows = record.windows
        return cls(
            record.vector.copy(), record.at, record.timestamp, record.last_offset, record.folded, record.hash_sum,
            array("Q", windows.read), array("Q", windows.seen), array("Q", windows.shown),
            bytearray(windows.shown_counts), list(windows.waiting), windows.cause,
        )  # fmt: skip


@dataclass(slots=True)
class PartitionState:
    """Everything folded from one partition of ``user-events``."""

    partition: int
    users: dict[str, UserState] = field(default_factory=dict)
    stats: dict[str, ArticleStats] = field(default_factory=dict)
    totals: PartitionTotals = field(default_factory=PartitionTotals)
    waiting_for: dict[str, set[str]] = field(default_factory=dict)
    waits_since: int = NEVER

    def find_oldest_wait(self) -> None:
        """Find ``waits_since`` anew, the timestamp before which nothing waits."""
        waiting = {user_id for users in self.waiting_for.values() for user_id in users}
        self.waits_since = min((w.timestamp for user_id in waiting for w in self.users[user_id].waiting), default=NEVER)

    def put(self, user_id: str, state: UserState | None) -> None:
        """Make ``state`` the current one of a user, None forgets them; keeps the index of waits."""
        before = self.users.get(user_id)
        for wait in before.waiting if before else ():
            users = self.waiting_for.get(wait.article_id)
            if users is not None:
                users.discard(user_id)
                if not users:
                    del self.waiting_for[wait.article_id]
        if state is None:
            self.users.pop(user_id, None)
            return
        self.users[user_id] = state
        for wait in state.waiting:
            self.waits_since = min(self.waits_since, wait.timestamp)
            self.waiting_for.setdefault(wait.article_id, set()).add(user_id)

    def put_stats(self, article_id: str, stats: ArticleStats | None) -> None:
        if stats is None:
            self.stats.pop(article_id, None)
        else:
            self.stats[article_id] = stats
