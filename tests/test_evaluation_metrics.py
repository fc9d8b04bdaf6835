"""Metrics, intervals and calibration against values worked out by hand or by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.bootstrap import interval, p_value, resampled_means
from evaluation.decayed_counts import DecayedCounts
from evaluation.metrics import auc, best, hit_at, mrr, mrr_at, ndcg_at, ranks_of
from evaluation.probabilities import ProbabilityJudge

SCORES = np.array([0.9, 0.1, 0.8, 0.5, 0.3, 0.7])
CLICKED = np.array([False, True, True, False, True, False])
# In order: 0.9 no, 0.8 yes, 0.7 no, 0.5 no, 0.3 yes, 0.1 yes.


def test_a_list_by_hand() -> None:
    ranks = ranks_of(SCORES, CLICKED)
    assert ranks.tolist() == [2, 5, 6]
    assert auc(SCORES, CLICKED) == pytest.approx(2 / 9)
    assert mrr(ranks) == pytest.approx((1 / 2 + 1 / 5 + 1 / 6) / 3)
    assert mrr_at(ranks, 10) == 1 / 2
    assert mrr_at(ranks, 1) == hit_at(ranks, 1) == 0
    assert hit_at(ranks, 2) == 1
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert ndcg_at(ranks, 5) == pytest.approx((1 / math.log2(3) + 1 / math.log2(6)) / ideal)
    assert ndcg_at(ranks, 10) == pytest.approx((1 / math.log2(3) + 1 / math.log2(6) + 1 / math.log2(7)) / ideal)


def test_ndcg_of_fewer_places_than_clicks_is_over_what_could_be_reached() -> None:
    assert ndcg_at(np.array([1, 2, 3]), 2) == pytest.approx(1)


def test_ties_count_half_in_auc_and_go_by_place_in_ranks() -> None:
    scores, clicked = np.zeros(4), np.array([False, True, False, False])
    assert auc(scores, clicked) == 0.5
    assert ranks_of(scores, clicked).tolist() == [2]
    assert ranks_of(scores, np.array([False, True, False, True])).tolist() == [2, 4]


def test_what_was_not_to_be_ranked_is_a_miss() -> None:
    ranks = ranks_of(np.array([0.2, 0.1]), np.zeros(2, np.bool_))
    assert [mrr(ranks), mrr_at(ranks, 10), hit_at(ranks, 10), ndcg_at(ranks, 10)] == [0, 0, 0, 0]


lists = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40).filter(
    lambda items: 0 < sum(clicked for _, clicked in items) < len(items)
)


@given(lists)
def test_auc_is_the_share_of_pairs_in_the_right_order(items: list[tuple[int, bool]]) -> None:
    pairs = [(p, n) for p, clicked in items if clicked for n, other in items if not other]
    expected = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)
    scores, clicked = np.array([float(s) for s, _ in items]), np.array([c for _, c in items])
    assert auc(scores, clicked) == pytest.approx(expected)


@given(lists, st.integers(1, 12))
def test_ranks_and_the_best_are_those_of_a_stable_sort(items: list[tuple[int, bool]], k: int) -> None:
    scores, clicked = np.array([float(s) for s, _ in items]), np.array([c for _, c in items])
    order = sorted(range(len(items)), key=lambda place: -items[place][0])
    assert ranks_of(scores, clicked).tolist() == [rank for rank, place in enumerate(order, 1) if items[place][1]]
    assert best(scores, k).tolist() == order[:k]
    many = np.tile(scores, 30)
    assert best(many, k).tolist() == np.argsort(-many, kind="stable")[:k].tolist()


def test_intervals_are_those_of_the_normal_where_there_are_many_requests() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0.5, 0.2, size=(2000, 1))
    low, high = interval(resampled_means(values, rng)[:, 0])
    standard_error = values.std() / math.sqrt(2000)
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.25 * standard_error)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.25 * standard_error)


def test_paired_resamples_find_a_small_difference_that_unpaired_ones_hide() -> None:
    rng = np.random.default_rng(4)
    common = rng.uniform(size=800)
    values = np.stack([common, common + rng.normal(0.01, 0.02, size=800)], axis=1)
    means = resampled_means(values, np.random.default_rng(1))
    assert interval(means[:, 0])[1] > interval(means[:, 1])[0]
    low, high = interval(means[:, 1] - means[:, 0])
    assert 0 < low < 0.01 < high
    assert p_value(means[:, 1] - means[:, 0]) == 1 / len(means)
    assert p_value(means[:, 0] - means[:, 0]) == 1
    assert np.array_equal(means, resampled_means(values, np.random.default_rng(1)))


def test_calibrated_probabilities_have_no_calibration_error_and_the_loss_of_their_entropy() -> None:
    rng = np.random.default_rng(5)
    said, clicks = rng.uniform(0.02, 0.4, size=(3000, 20)), rng.uniform(size=(3000, 20))
    honest, doubled = ProbabilityJudge(), ProbabilityJudge()
    for probabilities, chance in zip(said, clicks, strict=True):
        honest.take(probabilities, chance < probabilities)
        doubled.take(2 * probabilities, chance < probabilities)
    found, twice = honest.result(), doubled.result()
    assert found is not None
    assert twice is not None
    entropy = -(said * np.log(said) + (1 - said) * np.log(1 - said)).mean()
    assert found.log_loss == pytest.approx(entropy, rel=0.01)
    assert found.ece < 0.01
    assert twice.ece == pytest.approx(said.mean(), abs=0.01)
    assert [point.items for point in found.curve] == pytest.approx([60_000 / 15] * 15, rel=0.1)
    assert all(abs(point.said - point.clicked) < 0.03 for point in found.curve)
    assert found.threshold == pytest.approx(twice.threshold / 2, abs=0.02), "the same items are recommended"
    assert found.recall == pytest.approx(twice.recall, abs=0.03)


def test_precision_recall_and_accuracy_by_hand() -> None:
    judge = ProbabilityJudge()
    judge.take(np.array([0.8, 0.2]), np.array([True, False]))  # from here on the threshold is that of 0.8
    judge.take(np.array([0.9, 0.85, 0.1, 0.3]), np.array([True, False, False, True]))
    found = judge.result()
    assert found is not None
    assert (found.threshold, found.precision, found.recall, found.accuracy) == (0.8, 0.5, 0.5, 0.5)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4000)), min_size=1, max_size=30))
def test_counts_halve_however_long_it_takes(additions: list[tuple[int, int]]) -> None:
    counts, half_life, at = DecayedCounts(10.0), 10.0, 0
    expected = np.zeros(6)
    for article, later in additions:
        expected *= 2.0 ** (-later / half_life)
        at += later
        counts.add(np.array([article]), at)
        expected[article] += 1
    assert counts.of(np.arange(6), at + 10) == pytest.approx(expected / 2)
