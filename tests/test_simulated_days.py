"""Days of simulated news in this process: the fold and the ranking that serve, without Kafka."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from producers.audience import Audience, Viewed
from producers.judge import Arm
from producers.newsroom import Newsroom
from producers.offline import DAY_MS, START_MS, Found, Site, WordVectors, simulate_days
from producers.simulated_users import Ints
from ranking.ranking import Formula
from ranking.rules import Rules

NOW = 1_790_000_000_000
Look = tuple[Ints, int, Viewed, Viewed, Found]


def live(*, taste: bool = True, seed: int = 1, users: int = 800, days: int = 3) -> tuple[Audience, list[Look]]:
    looks: list[Look] = []
    audience = simulate_days(
        users=users, days=days, articles_a_day=150, seed=seed, taste=taste, on_look=lambda *look: looks.append(look)
    )
    return audience, looks


def difference(arms: Sequence[Arm]) -> float:
    """How many standard errors the first arm's CTR lies above the second's."""
    (personal, personal_error), (popular, popular_error) = (arm.ctr() for arm in arms)
    assert personal is not None
    assert popular is not None
    assert personal_error is not None
    assert popular_error is not None
    return float((personal - popular) / np.hypot(personal_error, popular_error))


def test_lists_of_their_own_suit_users_who_differ_in_taste() -> None:
    audience, _ = live()
    assert difference((audience.personal, audience.popular)) > 3
    personal, popular = audience.personal.precision()[0], audience.popular.precision()[0]
    assert personal is not None
    assert popular is not None
    assert personal > 1.5 * popular


def test_lists_of_their_own_are_of_no_use_to_users_who_are_all_alike() -> None:
    audience, _ = live(taste=False)
    assert difference((audience.personal, audience.popular)) < 0


def test_the_same_seed_lives_the_same_days() -> None:
    (first, looks), (again, looks_again), (other, _) = (live(users=60, days=2, seed=seed) for seed in (5, 5, 6))
    assert first.personal.ctr() == again.personal.ctr() != other.personal.ctr()
    assert first.popular.ctr() == again.popular.ctr() != other.popular.ctr()
    assert len(looks) == len(looks_again)
    for one, two in zip(looks, looks_again, strict=True):
        assert np.array_equal(one[0], two[0])
        assert np.array_equal(one[2].lists, two[2].lists)
        assert np.array_equal(one[2].clicked, two[2].clicked)


def test_a_day_has_a_night_and_no_list_holds_what_is_not_out_or_was_read() -> None:
    audience, looks = live(users=200, days=2)
    per_hour = np.zeros(24)
    read: set[tuple[int, int]] = set()
    for users, now, personal, popular, elsewhere in looks:
        assert START_MS <= now < START_MS + 2 * DAY_MS
        per_hour[now % DAY_MS // 3_600_000] += len(users)
        for viewed in (personal, popular):
            shown = viewed.lists[viewed.lists >= 0]
            assert (audience.users.published[shown] <= now).all()
        assert (audience.users.published[elsewhere[1]] <= now).all()
        for row, user in enumerate(users.tolist()):
            assert not {(user, article) for article in personal.lists[row].tolist()} & read
        rows, places = np.nonzero(personal.clicked)
        read |= set(zip(users[rows].tolist(), personal.lists[rows, places].tolist(), strict=True))
        read |= set(zip(*(column.tolist() for column in elsewhere), strict=True))
    assert per_hour[8] > 2 * per_hour[3]
    assert len(read) > 100


def test_a_click_brings_articles_with_the_same_words_to_the_top() -> None:
    texts = ["ferry harbour quay", "bread oven flour"] * 8
    vectors = WordVectors(texts)
    site = Site(["u"], 4, Formula(rules=Rules(length=4, duplicate_cosine=1.01, diversity=0.0)))
    for index, text in enumerate(texts):
        site.publish(index, vectors(text), NOW - 1000)
    user = np.array([0])
    nothing = (np.empty(0, np.int64), np.empty(0, np.int64))
    looked = Viewed(np.array([[0, 1]]), np.array([2]), np.array([[False, True]]))
    site.take(user, looked, nothing, NOW)
    lists, popular = site.lists(user, NOW)
    assert (lists % 2 == 1).all(), "all are about bread"
    assert 1 not in lists, "what was read is left out"
    assert popular[0] == 1, "what was clicked is popular"


def test_word_vectors_are_near_where_words_are_shared() -> None:
    articles = Newsroom(2).archive(300, NOW)
    texts = [f"{article.title} {article.abstract}" for article, _ in articles]
    vectors = WordVectors(texts)
    found = np.stack([vectors(text) for text in texts])
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.array_equal(found, np.stack([WordVectors(texts)(text) for text in texts[:1]] + [*found[1:]]))
    lines = np.array([line for _, line in articles])
    cosines = found @ found.T
    same = (lines[:, None] == lines) & ~np.eye(len(lines), dtype=bool)
    assert cosines[same].mean() > cosines[lines[:, None] != lines].mean() + 0.15
    assert np.isfinite(vectors("")).all()
