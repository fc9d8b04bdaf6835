"""The two arms of a simulation, the popular list that is its other arm, and the pace of looking."""

from __future__ import annotations

import math

import numpy as np
import pytest

from producers.audience import Audience, Viewed
from producers.judge import Arm
from producers.pace import MOST_VIEWS, Pace
from producers.popular_pool import PopularPool
from producers.simulated_users import Memory

NOW = 1_790_000_000_000
HOUR_MS = 3_600_000


def test_an_arm_counts_what_was_seen_clicked_and_liked() -> None:
    arm = Arm(4)
    assert arm.ctr() == arm.precision() == (None, None)
    seen = np.array([[True, True, True], [True, True, False]])
    clicked = np.array([[True, False, False], [False, False, False]])
    liked = np.array([[True, True, False], [True, False, False]])
    arm.take(np.array([0, 2]), seen, clicked, liked)
    ctr, error = arm.ctr()
    assert ctr == pytest.approx(1 / 5)
    assert error == pytest.approx(math.sqrt((1 - 3 / 5) ** 2 + (2 / 5) ** 2) / 5)
    assert arm.precision()[0] == pytest.approx(3 / 6)
    assert arm.clicks == 1
    assert arm.by_position[:, :3].tolist() == [[1, 0, 0], [2, 2, 1]]


def test_the_standard_error_covers_the_truth() -> None:
    draw = np.random.default_rng(1)
    misses = 0
    for _ in range(200):
        arm = Arm(100)
        rates = draw.beta(2, 18, 100)
        for _ in range(5):
            clicked = draw.random((100, 10)) < rates[:, None]
            arm.take(np.arange(100), np.ones((100, 10), np.bool_), clicked, clicked)
        ctr, error = arm.ctr()
        assert ctr is not None
        assert error is not None
        misses += abs(ctr - 0.1) > 2 * error
    assert misses < 0.1 * 200, "the truth lies outside two standard errors about once in twenty times"


def test_the_pool_is_the_popular_list_continued_by_what_is_clicked_most() -> None:
    pool, memory, users = PopularPool(), Memory(3), np.arange(3)
    assert (pool.lists(users, memory, 5) == -1).all(), "nothing is popular yet"
    pool.count(np.array([7, 7, 8, 1, 9, 9, 9]))
    pool.refresh(np.array([2, 1, -1]), NOW)
    assert pool.lists(users, memory, 5).tolist() == [[2, 1, 9, 7, 8]] * 3
    memory.click(np.array([1, 1]), np.array([1, 9]))
    assert pool.lists(users, memory, 5).tolist() == [[2, 1, 9, 7, 8], [2, 7, 8, -1, -1], [2, 1, 9, 7, 8]]
    assert pool.lists(users, memory, 2).tolist() == [[2, 1], [2, 7], [2, 1]]


def test_what_was_clicked_long_ago_leaves_the_pool_to_what_is_clicked_now() -> None:
    pool, memory = PopularPool(), Memory(1)
    pool.refresh(np.array([0]), NOW)
    pool.count(np.repeat(5, 100))
    pool.refresh(np.array([0]), NOW + 12 * HOUR_MS)
    pool.count(np.repeat(300, 2))
    pool.refresh(np.array([0]), NOW + 12 * HOUR_MS)
    memory.grow(301)
    assert pool.lists(np.array([0]), memory, 3).tolist() == [[0, 300, 5]]


def audience_of(articles: int = 60) -> Audience:
    audience = Audience(50, 10, seed=4)
    for number in range(articles):
        audience.add_article(number, NOW)
    return audience


def test_the_same_users_look_at_both_lists_equally_far() -> None:
    audience = audience_of()
    audience.see_popular(np.arange(30, 40), NOW)
    users = np.arange(0, 50, 2)
    own, other = audience.look(users, np.tile(np.arange(10), (25, 1)), np.ones(25, np.bool_), NOW)
    assert np.array_equal(own.depths, other.depths)
    assert (other.lists == np.arange(30, 40)).all()
    assert audience.personal.by_position[1].sum() == own.seen.sum() == audience.popular.by_position[1].sum()
    assert audience.personal.clicks == own.clicked.sum()
    assert audience.popular.clicks == other.clicked.sum()


def test_who_has_no_list_of_their_own_is_not_judged() -> None:
    audience = audience_of()
    audience.see_popular(np.arange(10), NOW)
    own = np.zeros(50, np.bool_)
    own[7] = True
    audience.look(np.arange(50), np.tile(np.arange(10), (50, 1)), own, NOW)
    assert audience.personal.by_position[1, 0] == audience.popular.by_position[1, 0] == 1


def test_nobody_is_judged_before_there_is_a_popular_list() -> None:
    audience = audience_of()
    audience.look(np.arange(50), np.tile(np.arange(10), (50, 1)), np.ones(50, np.bool_), NOW)
    assert audience.personal.ctr() == audience.popular.ctr() == (None, None)


def test_what_is_clicked_in_one_arm_stays_in_the_other() -> None:
    audience = audience_of()
    users, lists = np.arange(50), np.tile(np.arange(10), (50, 1))
    for _ in range(30):
        audience.see_popular(np.arange(10), NOW)
        audience.look(users, lists, np.ones(50, np.bool_), NOW)
    _, other = audience.look(users, lists, np.ones(50, np.bool_), NOW)
    assert (other.lists >= 0).sum() < 500, "what was clicked in the popular list is no longer in it"
    assert audience.personal.by_position[1].sum() > audience.popular.by_position[1].sum()


def test_the_past_is_the_same_for_both_arms() -> None:
    audience = audience_of()
    assert audience.look_back(NOW - HOUR_MS) is None, "nothing was out then"
    past = audience.look_back(NOW)
    assert past is not None
    assert past.lists.shape == (50, 10)
    assert past.clicked.any()
    assert not (past.clicked & ~past.seen).any()
    for row in past.lists:
        shown = row[row >= 0]
        assert len(set(shown.tolist())) == len(shown), "no page shows an article twice"
    audience.see_popular(np.arange(60), NOW)
    _, other = audience.look(np.arange(50), past.lists, np.ones(50, np.bool_), NOW)
    for user in range(50):
        assert not set(past.lists[user][past.clicked[user]]) & set(other.lists[user])


def test_what_is_read_elsewhere_leaves_the_popular_list_too() -> None:
    audience = audience_of()
    found: set[tuple[int, int]] = set()
    while len(found) < 20:
        finders, articles = audience.read_elsewhere(np.arange(50), NOW)
        found |= set(zip(finders.tolist(), articles.tolist(), strict=True))
    audience.see_popular(np.arange(10), NOW)
    own, other = audience.look(np.arange(50), np.tile(np.arange(10), (50, 1)), np.ones(50, np.bool_), NOW)
    for user, article in found:
        assert article not in other.lists[user]
        assert article >= 10 or not own.clicked[user, article]


def test_places_that_hold_nothing_are_not_seen() -> None:
    viewed = Viewed(np.array([[3, -1, 5, 6]]), np.array([3]), np.zeros((1, 4), np.bool_))
    assert viewed.seen.tolist() == [[True, False, True, False]]


@pytest.mark.parametrize("clicks_per_view", [0.4, 1.0, 3.0])
def test_the_pace_brings_the_wanted_clicks(clicks_per_view: float) -> None:
    pace, clicks = Pace(200.0, began=0.0, users=2000), 0.0
    at_ten = 0.0
    for tick in range(1, 60 * 40 + 1):
        views = pace.views(tick / 40, int(clicks))
        clicks += views * clicks_per_view
        pace.learn(views, round(views * clicks_per_view))
        at_ten = clicks if tick == 400 else at_ten
    assert (clicks - at_ten) / 50 == pytest.approx(200, rel=0.05)


def test_where_people_click_little_there_are_fewer_clicks_rather_than_ever_more_views() -> None:
    pace, views = Pace(100.0, began=0.0, users=2000), 0
    for tick in range(1, 60 * 40 + 1):
        due = pace.views(tick / 40, clicks=0)
        pace.learn(due, 0)
        views += due
    assert views / 60 <= 1.5 * MOST_VIEWS * 100


def test_after_a_stall_the_pace_catches_up_without_a_burst() -> None:
    pace = Pace(100.0, began=0.0, users=80)
    pace.learn(500, 500)
    assert pace.views(600.0, clicks=0) <= 80 // 4
