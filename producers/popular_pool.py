"""What a site without personal lists would show: ``~popular``, less what the user has read."""

from __future__ import annotations

import numpy as np

from producers.simulated_users import Ints, Memory

_LONGEST = 200
_HALF_LIFE_MS = 3_600_000


class PopularPool:
    """The popular list, continued by what is clicked most where a user has read through it."""

    def __init__(self) -> None:
        self._order: Ints = np.empty(0, np.int64)
        self._clicks = np.zeros(256)
        self._at = 0

    def count(self, clicked: Ints) -> None:
        """Take in articles clicked, by index."""
        if len(clicked):
            if (top := int(clicked.max())) >= len(self._clicks):
                self._clicks = np.concatenate([self._clicks, np.zeros(max(len(self._clicks), top))])
            np.add.at(self._clicks, clicked, 1.0)

    def refresh(self, popular: Ints, now: int) -> None:
        """Take the popular list of ``now`` (epoch ms), best first; -1 means none."""
        self._clicks *= 0.5 ** (max(0, now - (self._at or now)) / _HALF_LIFE_MS)
        self._at = now
        popular = popular[popular >= 0]
        most = np.argsort(-self._clicks, kind="stable")[:_LONGEST]
        most = most[(self._clicks[most] > 0) & ~np.isin(most, popular)]
        self._order = np.concatenate([popular, most])[:_LONGEST] if len(popular) else popular

    def lists(self, users: Ints, memory: Memory, length: int) -> Ints:
        """The list of each user, ``[n, length]``: the pool less what they clicked, -1 where it has ended."""
        lists = np.full((len(users), length), -1, np.int64)
        if len(self._order):
            pool = np.broadcast_to(self._order, (len(users), len(self._order)))
            fresh = memory.unclicked(users, pool)
            first = np.argsort(~fresh, axis=1, kind="stable")[:, :length]
            taken = np.where(np.take_along_axis(fresh, first, 1), np.take_along_axis(pool, first, 1), -1)
            lists[:, : taken.shape[1]] = taken
        return lists
