"""Simulated users: who looks, how far down, and with what probability they click.

The hidden truth of a simulation. A user likes some story lines, mostly of one to three favourite
categories, some of them very much; what they like moves slowly as they read. They tire of what was
shown to them, never click twice, look at the top of a list more than at its end, and like fresh and
appealing articles better, as everybody does; now and then they come upon an article elsewhere, by a
search or a friend. Nothing of this is ever sent: Kafka sees ids and clicks. The constants were chosen so that
days of it look like real ones (:mod:`producers.beside`).

With ``taste=False`` appeal, freshness and position alone decide, the same for all, and nobody tires.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

LIKED: Final = 1.5
"""Log-odds from which on a story line counts as truly liked."""

_BASE = -2.2
_FAVOURITES = (0.30, 0.45, 0.25)
_IN_FAVOURITE, _ELSEWHERE, _SHARED = -0.2, -2.2, 0.0
_LIKED_IN_FAVOURITE, _LIKED_ELSEWHERE = 0.30, 0.015
_APPEAL_OF_ARTICLE, _APPEAL_OF_LINE = 0.55, 0.3
_ELSEWHERE_SHARE = 0.07
_STALE, _FRESH_HALF_LIFE_MS = 0.2, 14 * 3_600_000
_TIRING = 0.25
_ATTENTION_PLACES, _ATTENTION_FALL = 6.0, 0.8
_DEPTH_MEDIAN, _DEPTH_SPREAD, _DEPTH_LEAST = 7.0, 0.55, 2
_ACTIVITY_SPREAD = 0.9
_DRIFT = 0.003
_CLICKED = 255


class Memory:
    """What each user was shown in one arm of an experiment, and clicked: uint8 ``[users, articles]``.

    An entry counts how often the article was shown without a click; 255 means clicked.
    """

    def __init__(self, users: int) -> None:
        self.shown: NDArray[np.uint8] = np.zeros((users, 256), np.uint8)

    def grow(self, articles: int) -> None:
        """Make room for ``articles`` columns."""
        if articles > self.shown.shape[1]:
            wider = np.zeros((len(self.shown), max(articles, 2 * self.shown.shape[1])), np.uint8)
            wider[:, : self.shown.shape[1]] = self.shown
            self.shown = wider

    def click(self, users: Ints, articles: Ints) -> None:
        """Note that each of ``users [n]`` clicked its one of ``articles [n]``."""
        self.shown[users, articles] = _CLICKED

    def unclicked(self, users: Ints, articles: Ints) -> Bools:
        """Whether each of ``articles [n, k]`` is real (not -1) and not yet clicked by its row's user."""
        unclicked: Bools = (articles >= 0) & (self.shown[users[:, None], articles] != _CLICKED)
        return unclicked


class SimulatedUsers:
    """``count`` users over story lines; everything is drawn from ``seed``.

    Articles are known by their index, the order in which :meth:`add_article` was called; -1 stands
    for none. Each draw that belongs to one arm of an experiment takes that arm's own generator.
    """

    def __init__(self, count: int, categories: Sequence[int], *, seed: int, taste: bool = True) -> None:
        """``categories``: the category of each story line, as a small number."""
        self.count = count
        self.has_taste = taste
        self._category = np.asarray(categories, np.int64)
        self._draw = np.random.default_rng([seed, 1])
        self._looks = np.random.default_rng([seed, 2])
        self._articles = np.random.default_rng([seed, 3])
        self._drift = np.random.default_rng([seed, 4])
        self.tastes = self._draw_tastes()
        self._line_appeal = self._articles.normal(0.0, _APPEAL_OF_LINE, len(self._category) + 1)
        activity = self._draw.lognormal(0.0, _ACTIVITY_SPREAD, count)
        self._activity = np.cumsum(activity / activity.sum())
        self._size = 0
        self._line: Ints = np.zeros(256, np.int64)
        self._appeal: Floats = np.zeros(256, np.float32)
        self.published: Ints = np.zeros(256, np.int64)

    def __len__(self) -> int:
        return self.count

    @property
    def articles(self) -> int:
        """How many articles there are."""
        return self._size

    def add_article(self, line: int, published_at: int) -> int:
        """Take in an article of a story line (-1: of none that is known here) and return its index."""
        if self._size == len(self._line):
            self._line = np.concatenate([self._line, self._line])
            self._appeal = np.concatenate([self._appeal, self._appeal])
            self.published = np.concatenate([self.published, self.published])
        index = self._size
        self._line[index] = line
        self._appeal[index] = self._line_appeal[line] + self._articles.normal(0.0, _APPEAL_OF_ARTICLE)
        self.published[index] = published_at
        self._size += 1
        return index

    def who_looks(self, views: int) -> Ints:
        """Draw who looks at their list now, the active ones more often; sorted, each at most once."""
        return np.unique(np.searchsorted(self._activity, self._looks.random(views)).clip(max=self.count - 1))

    def depths(self, users: Ints, longest: int) -> Ints:
        """Draw how many items each of ``users`` looks at, at least two and at most ``longest``."""
        drawn = self._looks.lognormal(np.log(_DEPTH_MEDIAN), _DEPTH_SPREAD, len(users))
        depths: Ints = np.rint(drawn).astype(np.int64).clip(_DEPTH_LEAST, max(longest, _DEPTH_LEAST))
        return depths

    def click_probability(self, users: Ints, articles: Ints, positions: Ints, now: int, memory: Memory) -> Floats:
        """The truth: the probability that each of ``users [n]`` clicks each of ``articles [n, k]`` (-1: none)
        shown at ``positions [n, k]`` or ``[k]`` at ``now`` (epoch ms), given what ``memory`` says they were shown."""
        taste = self.taste(users, articles) if self.has_taste else _SHARED
        attraction = 1.0 / (1.0 + np.exp(-(_BASE + taste + self._appeal[articles])))
        probability = attraction * self._freshness(articles, now) * attention(positions)
        if self.has_taste:
            probability = probability * (1.0 + memory.shown[users[:, None], articles]) ** -_TIRING
        return np.where(memory.unclicked(users, articles), probability, 0.0).astype(np.float32)

    def view(
        self, users: Ints, lists: Ints, depths: Ints, now: int, memory: Memory, draw: np.random.Generator
    ) -> Bools:
        """Let ``users [n]`` (no one twice) look at the first ``depths [n]`` of their ``lists [n, k]``.

        Returns what they clicked, bool ``[n, k]``, and keeps in ``memory`` what they saw.
        """
        positions = np.arange(lists.shape[1])
        seen = (positions < depths[:, None]) & (lists >= 0)
        probability = self.click_probability(users, lists, positions, now, memory)
        clicked: Bools = seen & (draw.random(lists.shape) < probability)
        rows, columns = np.nonzero(seen)
        cells = users[rows], lists[rows, columns]
        before = memory.shown[cells]
        memory.shown[cells] = np.where(clicked[rows, columns], _CLICKED, before + (before < _CLICKED - 1))
        return clicked

    def found_elsewhere(self, users: Ints, now: int, memory: Memory) -> tuple[Ints, Ints]:
        """Draw which of ``users [n]`` come upon an article in another way than by a list, and upon which.

        They read what is to their taste, appealing and fresh; returns those users and their articles.
        """
        finders = users[self._looks.random(len(users)) < _ELSEWHERE_SHARE]
        out = np.flatnonzero(self.published[: self._size] <= now)
        articles = np.broadcast_to(out, (len(finders), len(out)))
        if not articles.size:
            return finders[:0], finders[:0]
        taste = self.taste(finders, articles) if self.has_taste else _SHARED
        readiness = taste + self._appeal[articles] + np.log(self._freshness(articles, now))
        readiness = np.where(memory.unclicked(finders, articles), readiness, -np.inf)
        return finders, out[np.argmax(readiness + self._looks.gumbel(size=articles.shape), axis=1)]

    def front_page(self, articles: Ints, now: int) -> NDArray[np.float64]:
        """How readily an editor puts each of ``articles [n]`` on a page for all, by appeal and freshness."""
        readiness: NDArray[np.float64] = np.exp(self._appeal[articles].astype(np.float64))
        return readiness * self._freshness(articles, now)

    def drift(self, users: Ints) -> None:
        """Let the tastes of those who read move: now and then one story line takes another's place."""
        for user in users[self._drift.random(len(users)) < _DRIFT]:
            tastes = self.tastes[user]
            old = int(self._drift.choice(np.flatnonzero(tastes[:-1] >= LIKED)))
            alike = np.flatnonzero((self._category == self._category[old]) & (tastes[:-1] < LIKED))
            new = int(self._drift.choice(alike)) if len(alike) else old
            tastes[old], tastes[new] = tastes[new], tastes[old]

    def taste(self, users: Ints, articles: Ints) -> Floats:
        """Hidden log-odds of ``users [n]`` for the story lines of ``articles [n, k]``."""
        tastes: Floats = self.tastes[users[:, None], self._line[articles]]
        return tastes

    def liked(self, users: Ints, articles: Ints) -> Bools:
        """Whether each user truly likes the story line of each of ``articles [n, k]``."""
        return (articles >= 0) & (self.taste(users, articles) >= LIKED)

    def _freshness(self, articles: Ints, now: int) -> NDArray[np.float64]:
        age = np.maximum(now - self.published[articles], 0)
        freshness: NDArray[np.float64] = _STALE + (1.0 - _STALE) * np.exp2(-age / _FRESH_HALF_LIFE_MS)
        return freshness

    def _draw_tastes(self) -> Floats:
        """float32 ``[users, lines + 1]``; the last column is for articles of no known line."""
        draw, kinds = self._draw, int(self._category.max()) + 1
        appetite = draw.dirichlet(np.full(kinds, 4.0))
        order = np.argsort(draw.gumbel(size=(self.count, kinds)) + np.log(appetite), axis=1)[:, ::-1]
        wanted = draw.choice(len(_FAVOURITES), self.count, p=_FAVOURITES) + 1
        favourite = np.zeros((self.count, kinds), np.bool_)
        np.put_along_axis(favourite, order, np.arange(kinds) < wanted[:, None], axis=1)
        near = favourite[:, self._category]
        shape = near.shape
        liked = draw.random(shape) < np.where(near, _LIKED_IN_FAVOURITE, _LIKED_ELSEWHERE)
        liked[np.arange(self.count), draw.integers(0, shape[1], self.count)] = True
        strength = LIKED + draw.lognormal(0.0, 0.6, shape)
        mild = np.where(near, _IN_FAVOURITE, _ELSEWHERE) + draw.normal(0.0, 0.2, shape)
        tastes = np.where(liked, strength, np.minimum(mild, LIKED - 0.1))
        return np.concatenate([tastes, np.zeros((self.count, 1))], axis=1).astype(np.float32)


def attention(positions: Ints) -> NDArray[np.float64]:
    """How likely an item is looked at properly, by its place, given that the user came so far."""
    fall: NDArray[np.float64] = (1.0 + positions / _ATTENTION_PLACES) ** -_ATTENTION_FALL
    return fall
