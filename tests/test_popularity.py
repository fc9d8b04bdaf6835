"""Click-through rates summed over partitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.records import ArticleStats
from ranking.popularity import PRIOR_CLICKS, PRIOR_IMPRESSIONS, Popularity

HOUR = 3_600_000
HALF_LIFE = 6 * HOUR
NOW = 1_750_000_000_000
PRIOR = PRIOR_CLICKS / PRIOR_IMPRESSIONS


def rate(popularity: Popularity, article_id: str, now_ms: int = NOW) -> float:
    return float(popularity.click_through_rates([article_id], now_ms)[0])


def test_what_nobody_saw_has_the_prior() -> None:
    popularity = Popularity(2, HALF_LIFE)
    popularity.put(0, "other", ArticleStats(NOW, 1000, 500))
    assert popularity.click_through_rates(["unknown", "nothing"], NOW) == pytest.approx([PRIOR, PRIOR])
    assert popularity.click_through_rates([], NOW).shape == (0,)


def test_counts_decay_by_their_half_life_until_the_time_asked_for() -> None:
    popularity = Popularity(1, HALF_LIFE)
    popularity.put(0, "a", ArticleStats(NOW, 80, 40))
    for half_lives in (0, 1, 2):
        kept = 0.5**half_lives
        expected = (40 * kept + PRIOR_CLICKS) / (80 * kept + PRIOR_IMPRESSIONS)
        assert rate(popularity, "a", NOW + half_lives * HALF_LIFE) == pytest.approx(expected, rel=1e-5)


def test_counts_for_a_time_to_come_are_not_blown_up() -> None:
    popularity = Popularity(1, HALF_LIFE)
    popularity.put(0, "a", ArticleStats(NOW + 100 * HALF_LIFE, 80, 40))
    assert rate(popularity, "a") == pytest.approx((40 + PRIOR_CLICKS) / (80 + PRIOR_IMPRESSIONS), rel=1e-5)


counts = st.tuples(
    st.integers(0, 3), st.sampled_from("abc"), st.integers(0, 40), st.integers(0, 500), st.integers(0, 99)
)


@settings(max_examples=100, deadline=None)
@given(st.lists(counts, max_size=30))
def test_the_sum_over_partitions_is_one_big_partition(puts: list[tuple[int, str, int, int, int]]) -> None:
    """The last of each partition and article counts, decayed to one moment and added up."""
    split, whole = Popularity(4, HALF_LIFE), Popularity(1, HALF_LIFE)
    last: dict[tuple[int, str], ArticleStats] = {}
    for partition, article_id, hours, impressions, clicks in puts:
        stats = ArticleStats(NOW - hours * HOUR, impressions, clicks)
        split.put(partition, article_id, stats)
        last[partition, article_id] = stats
    for article_id in "abc":
        mine = [stats for (_, named), stats in last.items() if named == article_id]
        kept = [2.0 ** ((stats.at - NOW) / HALF_LIFE) for stats in mine]
        impressions = sum(stats.impressions * k for stats, k in zip(mine, kept, strict=True))
        clicks = sum(stats.clicks * k for stats, k in zip(mine, kept, strict=True))
        whole.put(0, article_id, ArticleStats(NOW, impressions, clicks))
    later = NOW + 3 * HOUR
    assert split.click_through_rates(list("abc"), later) == pytest.approx(
        whole.click_through_rates(list("abc"), later), rel=1e-5
    )


def test_a_partition_that_takes_its_counts_back_leaves_those_of_the_others() -> None:
    popularity = Popularity(2, HALF_LIFE)
    popularity.put(0, "a", ArticleStats(NOW, 100, 50))
    popularity.put(1, "a", ArticleStats(NOW, 200, 10))
    popularity.put(0, "a", None)
    assert rate(popularity, "a") == pytest.approx((10 + PRIOR_CLICKS) / (200 + PRIOR_IMPRESSIONS), rel=1e-5)
    popularity.put(1, "a", None)
    popularity.put(1, "a", None)
    assert rate(popularity, "a") == pytest.approx(PRIOR)


def test_a_row_that_is_used_again_counts_from_nought() -> None:
    popularity = Popularity(2, HALF_LIFE)
    popularity.put(0, "old", ArticleStats(NOW, 100, 50))
    popularity.put(0, "old", None)
    popularity.put(1, "new", ArticleStats(NOW, 200, 10))
    assert rate(popularity, "new") == pytest.approx((10 + PRIOR_CLICKS) / (200 + PRIOR_IMPRESSIONS), rel=1e-5)
    assert rate(popularity, "old") == pytest.approx(PRIOR)


def test_more_articles_come_and_go_than_there_was_room_for() -> None:
    popularity = Popularity(2, HALF_LIFE)
    for number in range(1000):
        popularity.put(number % 2, f"a{number}", ArticleStats(NOW, 100, number % 50))
    for number in range(0, 1000, 3):
        popularity.put(number % 2, f"a{number}", None)
    for number in range(1000, 1400):
        popularity.put(number % 2, f"a{number}", ArticleStats(NOW, 100, number % 50))
    ids = [f"a{number}" for number in range(1400)]
    expected = [
        PRIOR if number < 1000 and number % 3 == 0 else (number % 50 + PRIOR_CLICKS) / (100 + PRIOR_IMPRESSIONS)
        for number in range(1400)
    ]
    rates = popularity.click_through_rates(ids, NOW)
    assert rates.dtype == np.float32
    assert rates == pytest.approx(expected, rel=1e-5)
