"""Who is there: users by how often their list changed, and whose feeds are worth showing side by side."""

from __future__ import annotations

from collections import Counter

LISTS = 4
"""How often a list must have changed before its user is shown."""
BUSIEST_LEFT_OUT = 0.1
CANDIDATES = 60
PATIENCE_SECONDS = 15.0


class Audience:
    """Counts the lists of each user and holds which articles the last one had. Not thread-safe."""

    def __init__(self) -> None:
        self._lists: Counter[str] = Counter()
        self._last: dict[str, frozenset[str]] = {}
        self._began: float | None = None

    def __len__(self) -> int:
        return len(self._lists)

    def take(self, user_id: str, articles: frozenset[str], now: float) -> None:
        """Take a list received at ``now`` (monotonic seconds)."""
        if self._began is None:
            self._began = now
        self._lists[user_id] += 1
        self._last[user_id] = articles

    def choose(self, count: int, now: float) -> list[str]:
        """Return ``count`` busy users, though not the very busiest, whose lists have least in common.

        Empty until a tenth of the users have had :data:`LISTS` lists, or :data:`PATIENCE_SECONDS` have passed.
        """
        if self._began is None:
            return []
        least = LISTS if now - self._began < PATIENCE_SECONDS else 1
        busy = [user for user, lists in self._lists.most_common() if lists >= least]
        if len(busy) < max(count, len(self._lists) // 10):
            return []
        first = min(round(BUSIEST_LEFT_OUT * len(busy)), len(busy) - count)
        candidates = busy[first : first + CANDIDATES]
        chosen = candidates[:1]
        while len(chosen) < count:
            others = (user for user in candidates if user not in chosen)
            chosen.append(min(others, key=lambda user: sum(len(self._last[user] & self._last[c]) for c in chosen)))
        return chosen
