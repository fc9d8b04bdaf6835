"""Simulated users: who looks, how far down, what they click and how that changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from producers.simulated_users import LIKED, Ints, Memory, SimulatedUsers, attention

NOW = 1_790_000_000_000
HOUR_MS = 3_600_000
CATEGORIES = [line // 20 for line in range(200)]
USERS = 400


def users_of(seed: int = 1, *, taste: bool = True, articles: int = 200) -> tuple[SimulatedUsers, Memory]:
    """Users with one fresh article of each story line, article n of line n, and an empty memory."""
    users = SimulatedUsers(USERS, CATEGORIES, seed=seed, taste=taste)
    memory = Memory(USERS)
    for line in range(articles):
        users.add_article(line, NOW)
    memory.grow(articles)
    return users, memory


def all_pairs(articles: int = 200) -> tuple[Ints, Ints]:
    """Everybody, before every article."""
    return np.arange(USERS), np.tile(np.arange(articles), (USERS, 1))


def probability(users: SimulatedUsers, memory: Memory, now: int = NOW) -> NDArray[np.float32]:
    """How likely everybody is to click every article at the top of a list."""
    everybody, articles = all_pairs()
    return users.click_probability(everybody, articles, np.zeros(200, np.int64), now, memory)


def test_the_same_seed_gives_the_same_users_and_another_seed_others() -> None:
    (first, memory), (again, memory_again), (other, _) = users_of(1), users_of(1), users_of(2)
    assert np.array_equal(first.tastes, again.tastes)
    assert not np.array_equal(first.tastes, other.tastes)
    looking = first.who_looks(50)
    assert np.array_equal(looking, again.who_looks(50))
    lists = np.tile(np.arange(20), (len(looking), 1))
    depths = first.depths(looking, 20)
    assert np.array_equal(depths, again.depths(looking, 20))
    clicked = first.view(looking, lists, depths, NOW, memory, np.random.default_rng(9))
    assert np.array_equal(clicked, again.view(looking, lists, depths, NOW, memory_again, np.random.default_rng(9)))
    assert clicked.any()


def test_everybody_likes_some_lines_mostly_of_few_categories() -> None:
    users, _ = users_of()
    liked = users.tastes[:, :-1] >= LIKED
    assert liked.any(axis=1).all()
    assert 0.03 < liked.mean() < 0.2
    by_category = np.sort(liked.reshape(USERS, 10, 20).sum(axis=2), axis=1)[:, ::-1]
    assert by_category[:, :3].sum() > 0.7 * by_category.sum()
    assert len(np.unique(liked, axis=0)) > 0.95 * USERS, "hardly two users like the same"


def test_what_is_to_their_taste_is_clicked_far_more() -> None:
    users, memory = users_of()
    everybody, articles = all_pairs()
    chance = probability(users, memory)
    liked = users.liked(everybody, articles)
    assert chance[liked].mean() > 5 * chance[~liked].mean()


def test_attention_falls_from_place_to_place() -> None:
    users, memory = users_of()
    one = np.zeros((USERS, 20), np.int64)
    chance = users.click_probability(np.arange(USERS), one, np.arange(20), NOW, memory).mean(axis=0)
    assert (np.diff(chance) < 0).all(), "the same article is clicked less the lower it stands"
    assert np.allclose(chance / chance[0], attention(np.arange(20)), rtol=1e-5)
    depths = users.depths(np.repeat(np.arange(USERS), 20), 20)
    reached = [(depths > place).mean() for place in range(20)]
    assert reached[0] == reached[1] == 1.0
    assert reached[1] > reached[5] > reached[10] > reached[19] > 0, "and fewer come that far"


def test_only_what_was_looked_at_is_clicked_and_remembered() -> None:
    users, memory = users_of()
    everybody, lists = all_pairs()
    lists = lists[:, :20].copy()
    lists[:, 3] = -1
    depths = np.full(USERS, 6)
    clicked = users.view(everybody, lists, depths, NOW, memory, np.random.default_rng(0))
    assert clicked[:, :6].any()
    assert not clicked[:, 6:].any()
    assert not clicked[:, 3].any()
    seen = memory.shown[:, :20] > 0
    assert seen[:, [0, 1, 2, 4, 5]].all()
    assert not seen[:, 6:].any()
    assert not seen[:, 3].any()


def test_they_tire_of_what_they_were_shown_and_never_click_twice() -> None:
    users, memory = users_of()
    fresh = probability(users, memory)
    chances = [fresh]
    for times in (1, 5, 20):
        memory.shown[:, :200] = times
        chances.append(probability(users, memory))
    assert all((after < before).all() for before, after in itertools.pairwise(chances))
    memory.click(np.array([3]), np.array([7]))
    assert probability(users, memory)[3, 7] == 0
    assert probability(users, memory)[3, 8] > 0


def test_old_articles_are_clicked_less() -> None:
    users, memory = users_of()
    by_age = [probability(users, memory, NOW + hours * HOUR_MS).mean() for hours in (0, 6, 24, 240)]
    assert by_age == sorted(by_age, reverse=True)
    assert by_age[-1] < 0.3 * by_age[0]
    assert by_age[-1] > 0


def test_without_taste_all_are_alike_and_nobody_tires() -> None:
    users, memory = users_of(taste=False)
    chance = probability(users, memory)
    assert np.array_equal(chance, np.broadcast_to(chance[0], chance.shape))
    assert chance[0].std() > 0, "some articles appeal to all"
    memory.shown[:, :200] = 20
    assert np.array_equal(chance, probability(users, memory))


def test_tastes_drift_slowly_within_their_category() -> None:
    users, _ = users_of()
    before = users.tastes.copy()
    for _ in range(100):
        users.drift(np.arange(USERS))
    changed = (users.tastes != before).any(axis=1)
    assert 0.1 < changed.mean() < 0.5, "after a hundred looks most are as they were"
    liked_before, liked = before[:, :-1] >= LIKED, users.tastes[:, :-1] >= LIKED
    kept = (liked & liked_before).sum() / liked_before.sum()
    assert 0.9 < kept < 1
    assert np.array_equal(liked.sum(axis=1), liked_before.sum(axis=1))
    per_category = [flags.reshape(USERS, 10, 20).sum(axis=2) for flags in (liked, liked_before)]
    assert np.array_equal(*per_category)


def test_some_are_far_more_active_than_others() -> None:
    users, _ = users_of()
    looks = np.zeros(USERS)
    for _ in range(500):
        looking = users.who_looks(40)
        assert len(np.unique(looking)) == len(looking), "no one looks twice at once"
        looks[looking] += 1
    ordered = np.sort(looks)[::-1]
    assert ordered[: USERS // 10].sum() > 0.25 * looks.sum()
    assert (looks > 0).mean() > 0.95


def test_some_come_upon_articles_elsewhere_that_they_have_not_read_and_like() -> None:
    users, memory = users_of()
    everybody = np.arange(USERS)
    memory.click(everybody, np.zeros(USERS, np.int64))
    found: list[tuple[int, int]] = []
    for _ in range(30):
        finders, articles = users.found_elsewhere(everybody, NOW, memory)
        found += zip(finders.tolist(), articles.tolist(), strict=True)
    assert 0.01 * 30 * USERS < len(found) < 0.2 * 30 * USERS
    assert 0 not in {article for _, article in found}, "everybody has read it"
    liked = np.mean([users.tastes[user, article] >= LIKED for user, article in found])
    assert liked > 4 * (users.tastes[:, :-1] >= LIKED).mean()


def test_nothing_is_found_where_nothing_is_published() -> None:
    users, memory = users_of(articles=0)
    finders, articles = users.found_elsewhere(np.arange(USERS), NOW, memory)
    assert len(finders) == len(articles) == 0


def test_an_article_of_no_known_line_is_nobodys_taste() -> None:
    users, memory = users_of()
    stranger = users.add_article(-1, NOW)
    memory.grow(stranger + 1)
    everybody = np.arange(USERS)
    assert not users.liked(everybody, np.full((USERS, 1), stranger)).any()
    assert (
        users.click_probability(everybody, np.full((USERS, 1), stranger), np.zeros(1, np.int64), NOW, memory) > 0
    ).all()


@pytest.mark.parametrize("articles", [1, 300, 1000])
def test_memories_and_articles_grow(articles: int) -> None:
    users = SimulatedUsers(10, CATEGORIES, seed=1)
    memory = Memory(10)
    for number in range(articles):
        assert users.add_article(number % 200, NOW + number) == number
        memory.grow(number + 1)
    assert users.articles == articles
    assert memory.shown.shape[1] >= articles
    assert users.published[articles - 1] == NOW + articles - 1
