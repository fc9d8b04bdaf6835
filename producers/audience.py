"""Simulated users before two kinds of lists: their own, and the popular one.

At every view the same user is also shown the popular list, with luck and memory of its own and
without anything being sent: what they would have clicked there is the other arm of the comparison.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from producers.judge import TOP, Arm
from producers.newsroom import CATEGORIES, storylines
from producers.popular_pool import PopularPool
from producers.simulated_users import Bools, Ints, Memory, SimulatedUsers


class Viewed(NamedTuple):
    """Lists ``[n, k]`` of article indexes (-1: none), how far down each was looked at, and what was clicked."""

    lists: Ints
    depths: Ints
    clicked: Bools

    @property
    def seen(self) -> Bools:
        """Which places were looked at and held an article."""
        seen: Bools = (np.arange(self.lists.shape[1]) < self.depths[:, None]) & (self.lists >= 0)
        return seen


class Audience:
    """``count`` users with their memories and the judgement of both arms; everything is drawn from ``seed``."""

    def __init__(self, count: int, length: int, *, seed: int, taste: bool = True) -> None:
        """``length``: the most items a list has."""
        categories = [CATEGORIES.index(line.category) for line in storylines()]
        self.users = SimulatedUsers(count, categories, seed=seed, taste=taste)
        self.length = length
        self.personal, self.popular = Arm(count), Arm(count)
        self._own, self._other = Memory(count), Memory(count)
        self._own_luck, self._other_luck = np.random.default_rng([seed, 5]), np.random.default_rng([seed, 6])
        self._past_luck = np.random.default_rng([seed, 7])
        self._pool = PopularPool()

    def add_article(self, line: int, published_at: int) -> int:
        """Take in an article (see :meth:`SimulatedUsers.add_article`) and return its index."""
        index = self.users.add_article(line, published_at)
        self._own.grow(index + 1)
        self._other.grow(index + 1)
        return index

    def see_popular(self, popular: Ints, now: int) -> None:
        """Take the popular list of ``now`` (epoch ms), best first; it may be empty."""
        self._pool.refresh(popular, now)

    def look(self, users: Ints, lists: Ints, own: Bools, now: int) -> tuple[Viewed, Viewed]:
        """Let ``users [n]`` (no one twice) look at ``lists [n, length]``; return that, and the popular arm.

        Judged are those whose list is their ``own [n]`` and not merely the popular one, where there is a
        popular list to hold it against.
        """
        depths = self.users.depths(users, self.length)
        viewed = Viewed(lists, depths, self.users.view(users, lists, depths, now, self._own, self._own_luck))
        others = self._pool.lists(users, self._other, self.length)
        clicked = self.users.view(users, others, depths, now, self._other, self._other_luck)
        other = Viewed(others, depths, clicked)
        both = own & (others[:, 0] >= 0)
        if both.any():
            for arm, one in ((self.personal, viewed), (self.popular, other)):
                liked = self.users.liked(users, one.lists[:, :TOP])
                arm.take(users[both], one.seen[both], one.clicked[both], liked[both])
        self.users.drift(users)
        self._pool.count(lists[viewed.clicked])
        return viewed, other

    def read_elsewhere(self, users: Ints, now: int) -> tuple[Ints, Ints]:
        """Let some of ``users`` (no one twice) read an article that no list showed them; both arms remember it."""
        finders, articles = self.users.found_elsewhere(users, now, self._own)
        self._own.click(finders, articles)
        self._other.click(finders, articles)
        return finders, articles

    def look_back(self, now: int) -> Viewed | None:
        """Let everybody look at a front page of an earlier moment, drawn for each from what was out ``now``.

        Both arms remember the same. None where less was out than fills a page.
        """
        everybody = np.arange(self.users.count)
        out = np.flatnonzero(self.users.published[: self.users.articles] <= now)
        if len(out) < self.length:
            return None
        chance = np.cumsum(self.users.front_page(out, now))
        drawn = np.searchsorted(chance, self._past_luck.random((self.users.count, self.length)) * chance[-1])
        lists = np.sort(out[drawn.clip(max=len(out) - 1)], axis=1)
        lists[:, 1:][lists[:, 1:] == lists[:, :-1]] = -1
        self._past_luck.permuted(lists, axis=1, out=lists)
        depths = self.users.depths(everybody, self.length)
        clicked = self.users.view(everybody, lists, depths, now, self._own, self._past_luck)
        self._other.shown = self._own.shown.copy()
        return Viewed(lists, depths, clicked)
