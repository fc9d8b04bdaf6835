"""How many views bring the wanted clicks a second."""

from __future__ import annotations

MOST_VIEWS = 4.0
"""Views for each wanted click: where people click less, there are fewer clicks rather than more views."""


class Pace:
    """How many views bring the wanted clicks: learns the clicks a view brings, and catches up slowly."""

    def __init__(self, clicks_per_second: float, began: float, users: int) -> None:
        self._wanted = clicks_per_second
        self._began = self._last = began
        self._most = max(1, users // 4)
        self._per_view = 0.5
        self._owed = 0.0
        self._given_up = 0.0

    def views(self, now: float, clicks: int) -> int:
        """How many views are due at ``now`` (monotonic seconds), ``clicks`` having been made so far."""
        behind = self._wanted * (now - self._began) - self._given_up - clicks
        if behind > 2 * self._wanted:
            self._given_up += behind - 2 * self._wanted
        step = now - self._last
        self._last = now
        rate = self._wanted + min(max(behind / 4.0, -0.5 * self._wanted), 0.5 * self._wanted)
        self._owed = min(self._owed + rate * step / self._per_view, self._most)
        due = int(self._owed)
        self._owed -= due
        return due

    def learn(self, views: int, clicks: int) -> None:
        """Take in what came of some views."""
        if views:
            weight = min(1.0, views / 500)
            self._per_view = max(1 / MOST_VIEWS, (1 - weight) * self._per_view + weight * clicks / views)
