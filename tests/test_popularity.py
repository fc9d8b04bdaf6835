"""Click-through rates summed over partitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.records import ArticleStats
from ranking.popularity import PRIOR_CLICKS, PRIOR_IMPRESSIONS, RATES, Popularity, base_rate, smoothed
from ranking.popularity import popularity as popularity_of

HOUR = 3_600_000
HALF_LIFE = 6 * HOUR
NOW = 1_750_000_000_000
PRIOR = PRIOR_CLICKS / PRIOR_IMPRESSIONS


def rate(popularity: Popularity, article_id: str, now_ms: int = NOW) -> float:
    return float(rates(popularity, [article_id], now_ms)[0])


def rates(popularity: Popularity, article_ids: list[str], now_ms: int = NOW) -> Any:
    """Drawn to the prior, which is what each text is said to promise here."""
    impressions, clicks = popularity.counts(article_ids, now_ms)
    return smoothed(impressions, clicks, np.full(len(article_ids), PRIOR))


def test_what_nobody_saw_has_the_prior() -> None:
    popularity = Popularity(2, HALF_LIFE)
    popularity.put(0, "other", ArticleStats(NOW, 1000, 500))
    assert rates(popularity, ["unknown", "nothing"]) == pytest.approx([PRIOR, PRIOR])
    assert popularity.counts([], NOW).shape == (2, 0)


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
    assert split.counts(list("abc"), later) == pytest.approx(whole.counts(list("abc"), later), rel=1e-5)


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
    assert rates(popularity, ids) == pytest.approx(expected, rel=1e-5)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(-2, 2, width=32)), min_size=1, max_size=20))
def test_however_few_clicked_or_many_popularity_is_bounded(articles: list[tuple[float, float, float]]) -> None:
    impressions, clicks, appeal = (np.array(column) for column in zip(*articles, strict=True))
    rate = base_rate(impressions, clicks)
    assert RATES[0] <= rate <= RATES[1]
    found = popularity_of(impressions, clicks, rate, appeal.astype(np.float32))
    assert found.dtype == np.float32
    assert (np.abs(found) < 17).all()


def test_one_click_on_a_quiet_day_does_not_drown_everything_else() -> None:
    impressions, clicks = np.full(1000, 5.0), np.zeros(1000)
    clicks[7] = 5
    found = popularity_of(impressions, clicks, base_rate(impressions, clicks), np.zeros(1000, np.float32))
    assert found.argmax() == 7
    assert 1 < found[7] < 4


def test_popularity_grows_with_clicks_and_falls_with_impressions() -> None:
    impressions, clicks = np.array([100.0, 100, 100, 1000]), np.array([0.0, 4, 20, 20])
    found = popularity_of(impressions, clicks, 0.04, np.zeros(4, np.float32)).tolist()
    assert found[0] < found[3] < found[1] < found[2]
    assert found[1] == pytest.approx(0, abs=1e-6)


def test_with_few_impressions_the_text_decides_and_with_many_the_readers() -> None:
    appeal = np.array([1.0, -1.0], np.float32)
    nobody = popularity_of(np.zeros(2), np.zeros(2), 0.04, appeal)
    assert nobody == pytest.approx([0, 0], abs=1e-6)
    many = popularity_of(np.full(2, 1e6), np.full(2, 4e4), 0.04, appeal)
    assert appeal + many == pytest.approx([0, 0], abs=0.01)


def test_a_count_that_is_no_number_counts_nothing() -> None:
    popularity = Popularity(1, HALF_LIFE)
    popularity.put(0, "a", ArticleStats(NOW, float("nan"), float("inf")))
    assert popularity.counts(["a"], NOW).tolist() == [[0], [0]]


def test_what_is_clicked_now_tells_apart_what_the_long_half_life_does_not() -> None:
    """Both were clicked as often in all; short counts decay by their own half-lives."""
    popularity = Popularity(2, HALF_LIFE, (60, 15))
    popularity.put(0, "now", ArticleStats(NOW - HOUR, 0, 9, lately={60: (0, 8), 15: (0, 16)}))
    popularity.put(1, "before", ArticleStats(NOW - HOUR, 0, 9, lately={60: (0, 2), 15: (0, 0.5)}))
    long, hour, quarter = popularity.all_counts_in(popularity.rows(["now", "before"]), NOW)[:, 1]
    assert long[0] == long[1]
    assert hour == pytest.approx([4, 1])
    assert quarter == pytest.approx([1, 0.03125])
