"""The shapes of reading: how popularity is spread, how long articles live, where in a list it is clicked.

:class:`Traffic` takes clicks and lists one by one, of a simulation or of a data set, and
:func:`shape_of` says what they look like, in figures that can be held against each other.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

HOUR_MS = 3_600_000
POSITIONS = (1, 2, 3, 5, 10, 20)
LIFETIME_CLICKS = 10
_RANKS = 100
_SLOTS = 512

Counts = NDArray[np.int64]


class Popularity(msgspec.Struct, frozen=True):
    """How ``clicks`` are spread over the articles clicked, most clicked first; shares of all of them.

    ``slope`` is that of log clicks over log rank, of the first hundred ranks.
    """

    clicks: int
    articles: int
    top_10: float
    top_100: float
    top_1_percent: float
    top_10_percent: float
    slope: float


class Lifetime(msgspec.Struct, frozen=True):
    """Hours from the first click to half and to nine tenths of them: medians over articles with ten clicks and more."""

    articles: int
    half_hours: float
    nine_tenths_hours: float


class Activity(msgspec.Struct, frozen=True):
    """Clicks per user, of those with two and more; ``top_10_percent``: the most active tenth's share of them."""

    users: int
    mean: float
    median: float
    p90: float
    p99: float
    top_10_percent: float


class Lists(msgspec.Struct, frozen=True):
    """Of lists with a click: how many they got, and by place how much more than if places were all alike."""

    clicks_per_list: float
    by_position: dict[int, float]


class Shape(msgspec.Struct, frozen=True):
    """All shapes of one traffic; None where it does not have what is asked for."""

    clicks: int
    articles: int
    users: int
    popularity: Popularity | None
    lifetime: Lifetime | None
    activity: Activity | None
    lists: Lists | None


class Traffic:
    """Clicks and lists, held as a few numbers each."""

    def __init__(self) -> None:
        self._article_numbers: dict[Hashable, int] = {}
        self._user_numbers: dict[Hashable, int] = {}
        self._articles, self._times = array("q"), array("q")
        self._user_clicks = array("q")
        self._clicked_at, self._expected_at = np.zeros(_SLOTS), np.zeros(_SLOTS)
        self._lists_clicked = 0
        self._list_clicks = 0

    @property
    def clicks(self) -> int:
        return len(self._articles)

    def click(self, user: Hashable, article: Hashable, at: int) -> None:
        """Take in one click; ``at`` in epoch ms."""
        self._articles.append(self._article_numbers.setdefault(article, len(self._article_numbers)))
        self._times.append(at)
        self.past(user, 1)

    def past(self, user: Hashable, clicks: int) -> None:
        """Take in clicks of which no more is known than whose they were."""
        number = self._user_numbers.setdefault(user, len(self._user_numbers))
        if number == len(self._user_clicks):
            self._user_clicks.append(0)
        self._user_clicks[number] += clicks

    def look(self, clicked: Sequence[bool] | NDArray[np.bool_]) -> None:
        """Take in a list as it was looked at, by place; without a click it tells nothing of places."""
        hits = np.asarray(clicked, np.bool_)[:_SLOTS]
        count = int(hits.sum())
        if count:
            self._lists_clicked += 1
            self._list_clicks += count
            self._clicked_at[: len(hits)] += hits
            self._expected_at[: len(hits)] += count / len(hits)

    def shape(self, sample: int | None = None) -> Shape:
        """Return the shapes. Popularity is that of ``sample`` clicks drawn by chance, for comparison's sake."""
        articles, times = np.asarray(self._articles), np.asarray(self._times)
        return Shape(
            clicks=len(articles),
            articles=len(self._article_numbers),
            users=len(self._user_numbers),
            popularity=_popularity(articles, sample or len(articles)),
            lifetime=_lifetime(articles, times),
            activity=_activity(np.asarray(self._user_clicks)),
            lists=self._lists(),
        )

    def _lists(self) -> Lists | None:
        if not self._lists_clicked:
            return None
        return Lists(
            clicks_per_list=self._list_clicks / self._lists_clicked,
            by_position={
                place: float(self._clicked_at[place - 1] / self._expected_at[place - 1])
                for place in POSITIONS
                if self._expected_at[place - 1] > 0
            },
        )


def _popularity(articles: Counts, sample: int) -> Popularity | None:
    if not len(articles):
        return None
    chosen = np.random.default_rng(0).permutation(articles)[:sample]
    counts = np.sort(np.bincount(chosen))[::-1]
    counts = counts[counts > 0]
    total = len(chosen)

    def share(ranks: float) -> float:
        return float(counts[: max(1, round(ranks))].sum() / total)

    ranks = np.arange(1, min(_RANKS, len(counts)) + 1)
    slope = float(np.polyfit(np.log(ranks), np.log(counts[: len(ranks)]), 1)[0]) if len(ranks) > 1 else 0.0
    return Popularity(
        total, len(counts), share(10), share(100), share(len(counts) / 100), share(len(counts) / 10), slope
    )


def _lifetime(articles: Counts, times: Counts) -> Lifetime | None:
    order = np.lexsort((times, articles))
    starts = np.flatnonzero(np.diff(articles[order], prepend=-1))
    lives = [
        (of_one[len(of_one) // 2] - of_one[0], of_one[len(of_one) * 9 // 10] - of_one[0])
        for of_one in np.split(times[order], starts[1:])
        if len(of_one) >= LIFETIME_CLICKS
    ]
    if not lives:
        return None
    half, nine_tenths = np.median(np.array(lives), axis=0) / HOUR_MS
    return Lifetime(len(lives), float(half), float(nine_tenths))


def _activity(clicks: Counts) -> Activity | None:
    clicks = np.sort(clicks[clicks >= 2])[::-1]
    if not len(clicks):
        return None
    median, p90, p99 = np.percentile(clicks, [50, 90, 99])
    top = clicks[: max(1, round(len(clicks) / 10))].sum()
    return Activity(len(clicks), float(clicks.mean()), float(median), float(p90), float(p99), float(top / clicks.sum()))
