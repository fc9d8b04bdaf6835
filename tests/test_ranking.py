"""The ranking: exactly the best by the formula, and who is concerned by a publication."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ranking.catalogue import Catalogue, z_scores
from ranking.reasons import REASONS, carriers
from ranking.scoring import PARTS, Ranked, Readers, Weights, best_places, common_parts, concerned, rank
from tests.reference_ranking import rank_all, score_all

HOUR = 3_600_000
NOW = 1_750_000_000_000
DIMS = 4
DIRECTIONS = [
    (1, 0, 0, 0), (-1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1), (0, 0.6, 0.8, 0), (0.5, 0.5, 0.5, 0.5),
    (0.5, -0.5, 0.5, -0.5),
]  # fmt: skip
STRANGER = 99


def window(hashes: list[int]) -> bytes:
    return np.array(hashes, np.uint64).tobytes()


def a_catalogue(
    vectors: list[tuple[float, ...]], *, ages: list[int] | None = None, popularity: list[float] | None = None
) -> Catalogue:
    """Articles whose hashes are 1, 2, 3, ..."""
    n = len(vectors)
    return Catalogue(
        [f"a{number}" for number in range(n)],
        np.array(vectors, np.float32).reshape(n, DIMS),
        np.arange(1, n + 1, dtype=np.uint64),
        NOW - np.array(ages if ages is not None else [0] * n, np.int64),
        np.array(popularity if popularity is not None else [0.0] * n, np.float32),
    )


def a_reader(
    long: tuple[float, ...] = (0, 0, 0, 0),
    short: tuple[float, ...] = (0, 0, 0, 0),
    *,
    read: tuple[int, ...] = (),
    shown: dict[int, int] | None = None,
) -> Readers:
    return Readers(
        np.array([[long, short]], np.float32),
        [window(list(read))],
        [window(list(shown or {}))],
        [bytes((shown or {}).values())],
    )


@st.composite
def catalogues(draw: st.DrawFn) -> Catalogue:
    """Few directions and few other values, so that scores meet; also none at all, or all alike."""
    n = draw(st.integers(0, 12))
    return a_catalogue(
        draw(st.lists(st.sampled_from(DIRECTIONS), min_size=n, max_size=n)),
        ages=draw(st.lists(st.sampled_from((-HOUR, 0, HOUR, 30 * HOUR)), min_size=n, max_size=n)),
        popularity=draw(st.lists(st.sampled_from((-0.5, 0.0, 0.0, 3.0)), min_size=n, max_size=n)),
    )


@st.composite
def some_readers(draw: st.DrawFn) -> Readers:
    """Windows also name articles that are not in the catalogue; an interest may be nought."""
    users = draw(st.integers(0, 4))
    known = st.lists(st.integers(1, 12) | st.just(STRANGER), unique=True, max_size=12)
    read, shown = ([draw(known) for _ in range(users)] for _ in range(2))
    interests = st.sampled_from([*DIRECTIONS, (0, 0, 0, 0)])
    return Readers(
        np.array([[draw(interests), draw(interests)] for _ in range(users)], np.float32).reshape(users, 2, DIMS),
        [window(hashes) for hashes in read],
        [window(hashes) for hashes in shown],
        [bytes(draw(st.sampled_from((1, 2, 255))) for _ in hashes) for hashes in shown],
    )


weights = st.builds(
    Weights,
    long=st.sampled_from((0.0, 1.0)),
    short=st.sampled_from((0.0, 0.5)),
    popularity=st.sampled_from((0.0, 1.0)),
    freshness=st.sampled_from((0.0, 1.0)),
    fatigue=st.sampled_from((0.0, 0.4)),
)


@settings(max_examples=300, deadline=None)
@given(readers=some_readers(), catalogue=catalogues(), weights=weights, k=st.integers(1, 14))
def test_the_best_are_those_of_the_formula_scored_one_by_one(
    readers: Readers, catalogue: Catalogue, weights: Weights, k: int
) -> None:
    ranked = rank(readers, catalogue, weights, k, NOW)
    for user in range(len(readers.queries)):
        expected = rank_all(readers, user, catalogue, weights, k, NOW)
        by_place = {scored.place: scored for scored in score_all(readers, user, catalogue, weights, NOW)}
        places = ranked.places[user].tolist()
        found = places[: len(expected)]
        assert places[len(expected) :] == [-1] * (k - len(expected))
        assert len(set(found)) == len(found)
        assert set(found) <= by_place.keys()
        assert ranked.scores[user][: len(found)] == pytest.approx([scored.score for scored in expected], abs=1e-3)
        for i, place in enumerate(found):
            assert by_place[place].score == pytest.approx(expected[i].score, abs=1e-3)
            assert ranked.parts[user, i] == pytest.approx(by_place[place].parts, abs=1e-3)


@settings(max_examples=100, deadline=None)
@given(readers=some_readers(), catalogue=catalogues(), weights=weights, k=st.integers(1, 14))
def test_nothing_is_not_a_number(readers: Readers, catalogue: Catalogue, weights: Weights, k: int) -> None:
    ranked = rank(readers, catalogue, weights, k, NOW)
    for values in (ranked.scores, ranked.parts, ranked.trigger, ranked.entry):
        assert not np.isnan(values).any()
    assert np.isfinite(ranked.parts).all()
    assert np.isfinite(ranked.scores[ranked.places >= 0]).all()
    assert np.isneginf(ranked.scores[ranked.places < 0]).all()


@settings(max_examples=200, deadline=None)
@given(
    scores=st.lists(
        st.lists(st.sampled_from((-np.inf, -1.0, 0.0, 0.0, 2.0)), min_size=7, max_size=7), min_size=1, max_size=4
    ),
    k=st.integers(1, 7),
)
def test_ties_go_to_the_first_in_the_catalogue(scores: list[list[float]], k: int) -> None:
    best = best_places(np.array(scores, np.float32), k)
    for user, values in enumerate(scores):
        assert best[user].tolist() == sorted(range(7), key=lambda place: (-values[place], place))[:k]


def test_what_was_read_is_left_out_and_the_next_takes_its_place() -> None:
    catalogue = a_catalogue([(1, 0, 0, 0), (0.6, 0.8, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1)])
    reader = a_reader((1, 0, 0, 0), read=(1, STRANGER))
    assert rank(reader, catalogue, Weights(), 2, NOW).places.tolist()[0][0] == 1


def test_who_has_read_everything_gets_nothing() -> None:
    catalogue = a_catalogue([(1, 0, 0, 0), (0, 1, 0, 0)])
    ranked = rank(a_reader((1, 0, 0, 0), read=(1, 2)), catalogue, Weights(), 3, NOW)
    assert ranked.places.tolist() == [[-1, -1, -1]]
    assert not ranked.parts.any()
    assert np.isneginf(ranked.entry).all()


def test_an_empty_catalogue_gives_empty_lists_that_anything_enters() -> None:
    ranked = rank(a_reader((1, 0, 0, 0)), a_catalogue([]), Weights(), 3, NOW)
    assert ranked.places.tolist() == [[-1, -1, -1]]
    newcomer = np.array([(0, -1, 0, 0)], np.float32)
    assert concerned(ranked.trigger, ranked.entry, newcomer, np.zeros(1, np.float32)).tolist() == [0]


def test_fatigue_grows_with_every_showing() -> None:
    catalogue = a_catalogue([(1, 0, 0, 0), (0, 1, 0, 0)])
    fatigues = []
    for count in (0, 1, 2, 255):
        reader = a_reader((1, 0, 0, 0), shown={1: count} if count else {})
        ranked = rank(reader, catalogue, Weights(fatigue=0.4), 2, NOW)
        at = ranked.places[0].tolist().index(0)
        fatigues.append(ranked.parts[0, at, PARTS.index("fatigue")])
    assert fatigues == pytest.approx([0, -0.4, -0.8, -102.0])


def test_freshness_halves_with_age_and_the_future_is_no_fresher_than_now() -> None:
    catalogue = a_catalogue([(1, 0, 0, 0)] * 4, ages=[0, 6 * HOUR, 12 * HOUR, -5 * HOUR])
    freshness = common_parts(catalogue, Weights(freshness_half_life_ms=6 * HOUR), NOW)[1]
    assert freshness == pytest.approx([1, 0.5, 0.25, 1])


def test_an_interest_to_which_all_articles_are_alike_scores_nothing() -> None:
    catalogue = a_catalogue([(0.6, 0.8, 0, 0), (-0.6, 0.8, 0, 0), (0, 0.8, 0.6, 0)])
    ranked = rank(a_reader((0, 1, 0, 0), (0, 1, 0, 0)), catalogue, Weights(), 3, NOW)
    assert not ranked.parts[..., :2].any()
    assert ranked.places.tolist() == [[0, 1, 2]]


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30))
def test_z_scores_have_mean_nought_and_deviation_one(values: list[float]) -> None:
    scores = z_scores(np.array(values, np.float32))
    assert scores.dtype == np.float32
    if np.std(values) > 1e-3:
        assert scores.mean() == pytest.approx(0, abs=1e-3)
        assert scores.std() == pytest.approx(1, abs=1e-3)
    elif np.ptp(values) == 0:
        assert not scores.any()


def test_z_scores_of_nothing_are_nothing() -> None:
    assert z_scores(np.zeros(0, np.float32)).shape == (0,)


def test_places_are_found_by_hash_and_strangers_are_nowhere() -> None:
    catalogue = replace_hashes(a_catalogue([(1, 0, 0, 0)] * 4), [2**64 - 1, 7, 2**63, 1])
    hashes = np.array([7, 1, 0, 2**64 - 1, 8, 2**63], np.uint64)
    assert catalogue.places(hashes).tolist() == [1, 3, -1, 0, -1, 2]
    assert a_catalogue([]).places(hashes).tolist() == [-1] * 6


def test_a_reason_is_the_part_that_carried_the_score() -> None:
    parts = np.array([[2, 1, 0, 0, 0], [0, 1, 0.5, 0, 0], [-1, -1, 3, 1, -9], [-1, -1, -2, 0.1, 0]], np.float32)
    assert [REASONS[i] for i in carriers(parts)] == ["interest", "recent_interest", "popular", "new"]


class World:
    """300 articles around 12 subjects and 200 users who read two of them, as in a small newsroom."""

    def __init__(self, seed: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.subjects = self.units(12)
        self.articles = self.some_articles(300)
        self.ages = self.draw.integers(0, 24 * HOUR, 300)
        self.popularity = z_scores(self.draw.gamma(2.0, 1.0, 300).astype(np.float32))
        likes = self.draw.integers(0, 12, (200, 2))
        nearby = self.subjects[likes] + 0.3 * self.units(400).reshape(200, 2, 16)
        self.readers = Readers(
            self.scaled(nearby),
            [window(sorted(set(self.draw.integers(1, 301, 10).tolist()))) for _ in range(200)],
            [window(list(range(1, 301, 30)))] * 200,
            [bytes([2] * 10)] * 200,
        )

    def units(self, n: int) -> NDArray[np.float32]:
        return self.scaled(self.draw.standard_normal((n, 16)))

    def some_articles(self, n: int) -> NDArray[np.float32]:
        return self.scaled(self.subjects[self.draw.integers(0, 12, n)] + 0.4 * self.units(n))

    @staticmethod
    def scaled(vectors: NDArray[Any]) -> NDArray[np.float32]:
        unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
        return unit

    def catalogue(self, vectors: NDArray[np.float32], popularity: NDArray[np.float32]) -> Catalogue:
        """The old articles and, behind them, new ones of this moment."""
        n, new = len(self.articles) + len(vectors), len(vectors)
        return Catalogue(
            [str(number) for number in range(n)],
            np.concatenate([self.articles, vectors]),
            np.arange(1, n + 1, dtype=np.uint64),
            NOW - np.concatenate([self.ages, np.zeros(new, np.int64)]),
            np.concatenate([self.popularity, popularity]),
        )

    def ranked(self, catalogue: Catalogue) -> Ranked:
        return rank(self.readers, catalogue, Weights(), 20, NOW)


def test_those_concerned_are_those_whom_ranking_everybody_finds() -> None:
    truly = triggered = both = 0
    for seed in range(40):
        world = World(seed)
        before = world.ranked(world.catalogue(np.zeros((0, 16), np.float32), np.zeros(0, np.float32)))
        vector, popularity = world.some_articles(1), np.full(1, world.draw.choice(world.popularity))
        after = world.catalogue(vector, popularity)
        entered = (world.ranked(after).places == 300).any(axis=1)
        common = common_parts(after, Weights(), NOW).sum(axis=0)[300:]
        found = concerned(before.trigger, before.entry, vector, common) >= 0
        truly, triggered, both = truly + entered.sum(), triggered + found.sum(), both + (entered & found).sum()
    assert 500 < truly < 0.9 * 40 * 200, "the publications concern some and not others"
    assert both / truly > 0.97
    assert both / triggered > 0.9


def test_of_several_new_articles_the_first_that_enters_is_named() -> None:
    ranked = rank(a_reader((1, 0, 0, 0)), a_catalogue([(1, 0, 0, 0), (0, 1, 0, 0)]), Weights(short=0), 1, NOW)
    new = np.array([(-1, 0, 0, 0), (0.9, 0, 0, 0), (1, 0, 0, 0)], np.float32)
    first = concerned(ranked.trigger, ranked.entry, new, np.array([1, 9, 9], np.float32))
    assert first.tolist() == [1]
    assert concerned(ranked.trigger, ranked.entry, new[:1], np.ones(1, np.float32)).tolist() == [-1]


def test_many_users_and_articles_are_held_against_each_other_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(0)
    ranked = world.ranked(world.catalogue(np.zeros((0, 16), np.float32), np.zeros(0, np.float32)))
    vectors, common = world.some_articles(30), np.full(30, 0.5, np.float32)
    at_once = concerned(ranked.trigger, ranked.entry, vectors, common)
    monkeypatch.setattr("ranking.scoring.CONCERNED_AT_ONCE", 100)
    in_pieces = concerned(ranked.trigger, ranked.entry, vectors, common)
    assert in_pieces.tolist() == at_once.tolist()
    assert (at_once >= 0).any()


def replace_hashes(catalogue: Catalogue, hashes: list[int]) -> Catalogue:
    c = catalogue
    return Catalogue(c.ids, c.vectors, np.array(hashes, np.uint64), c.published_at, c.popularity)


def test_weights_scale_their_part() -> None:
    catalogue = a_catalogue([(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1)], popularity=[1.0, -1.0, 0.0])
    reader = a_reader((1, 0, 0, 0), (0, 1, 0, 0))
    once = rank(reader, catalogue, Weights(), 3, NOW)
    twice = rank(reader, catalogue, replace(Weights(), long=2.0, short=1.0, popularity=2.0, freshness=2.0), 3, NOW)
    by_place = [dict(zip(r.places[0].tolist(), r.parts[0].tolist(), strict=True)) for r in (once, twice)]
    for place in range(3):
        assert by_place[1][place] == pytest.approx([2 * part for part in by_place[0][place]], abs=1e-5)
