"""What lists are like, by figures that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from consumers import ranker_lists
from consumers.ranker_quality import EVERY_MS, ListQuality, list_quality
from tests.ranker_world import EAST, NORTH, NOW, NOWHERE, World, clicked
from tests.ranking_world import HOUR, a_catalogue

CATALOGUE = a_catalogue(
    [(1, 0, 0, 0), (0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1)],
    ages=[0, 2 * HOUR, 10 * HOUR, HOUR], listed=[True, True, True, False],
)  # fmt: skip


def quality(lists: list[list[int]], fallback: list[bool] | None = None) -> ListQuality | None:
    listed = np.array(lists, np.uint64)
    return list_quality(listed, np.array(fallback or [False] * len(lists), np.bool_), CATALOGUE, NOW)


def test_each_figure_is_the_one_that_it_says() -> None:
    found = quality([[1, 2, 0], [1, 3, 0], [1, 2, 0], [2, 0, 0]], [True, False, False, False])
    assert found is not None
    assert found.age_ms == 2 * HOUR, "0 0 0 2 2 2 10"
    assert found.coverage == 1
    assert found.diversity == pytest.approx((1 + 0 + 1) / 3), "apart, alike, apart; one alone says nothing"
    assert found.distinct == 3 / 4
    assert found.fallback == 1 / 4


def test_what_is_no_longer_listed_covers_nothing_and_what_is_gone_says_nothing() -> None:
    found = quality([[1, 4, 99]])
    assert found is not None
    assert found.coverage == pytest.approx(1 / 3)
    assert found.age_ms == HOUR / 2
    assert found.diversity == 1


def test_empty_lists_and_none_are_no_error() -> None:
    assert quality([]) is None
    assert quality([[0, 0]]) == ListQuality(None, 0, None, 1, 0)


def test_it_is_of_the_lists_that_users_have_and_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World((0, 1), list_length=2)
    world.take_articles(world.article("north", NORTH), world.article("east", EAST))
    assert world.lists.quality(world.now) is None, "there is the popular list alone"
    for user_id, interest in (("ann", NORTH), ("bob", NORTH), ("eve", EAST), ("new", NOWHERE)):
        world.user(user_id, interest, clicked())
    world.rank()
    assert world.lists.quality(world.now) is None
    world.later(EVERY_MS)
    found = world.lists.quality(world.now)
    assert found is not None
    assert (found.coverage, found.distinct, found.fallback) == (1, 2 / 4, 1 / 4)
    world.later(EVERY_MS)
    monkeypatch.setattr(ranker_lists, "SAMPLE_USERS", 1)
    sampled = world.lists.quality(world.now)
    assert sampled is not None
    assert sampled.distinct == 1
