"""The ranking: scores as the formula says, candidates found exactly, and who is concerned by a publication."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ranking import candidates
from ranking.candidates import SOURCES, Amounts, best_places, find_candidates, similarities
from ranking.catalogue import AUTO, BOOSTED, PINNED, Catalogue, Facts
from ranking.features import PARTS, Weights, click_probability, co_read_shares, common_parts, interests_of, score_parts
from ranking.ranking import Formula, Ranked, Standing, concerned, rank
from ranking.readers import Past, Readers
from ranking.reasons import REASON_OF, WORDS, reasons
from ranking.rules import FREE, Rules, bars
from tests.ranking_world import (
    HOUR,
    NOW,
    STRANGER,
    a_catalogue,
    a_reader,
    affinities,
    catalogues,
    recents,
    some_readers,
)
from tests.ranking_world import window as as_window
from tests.reference_ranking import allowed, list_of, parts_of

PLAIN = Rules(length=3, minimum=0, exploration=0.0, duplicate_cosine=1.01, diversity=0.0, fatigue_limit=None)
weights = st.builds(
    Weights,
    long=st.sampled_from((0.0, 0.3)),
    nearest=st.sampled_from((0.0, 0.3)),
    freshness=st.sampled_from((0.0, 0.5)),
    fatigue=st.sampled_from((0.0, 0.15)),
)


@settings(max_examples=60, deadline=None)
@given(readers=some_readers(), catalogue=catalogues(), weights=weights)
def test_every_part_is_that_of_the_formula(readers: Readers, catalogue: Catalogue, weights: Weights) -> None:
    places = np.tile(np.arange(-1, len(catalogue.vectors)), (len(readers), 1))
    parts = score_parts(readers, catalogue, places, weights, NOW)
    assert parts.shape == (len(PARTS), *places.shape)
    assert parts.dtype == np.float32
    assert not parts[:, :, 0].any(), "no article has no parts"
    for user in range(len(readers)):
        expected = parts_of(readers, user, catalogue, weights, NOW)
        for place, one in enumerate(expected):
            assert list(one) == list(PARTS)
            found = dict(zip(PARTS, parts[:, user, place + 1].tolist(), strict=True))
            assert found == pytest.approx(one, abs=2e-3), place


all_rules = st.builds(
    Rules,
    length=st.integers(1, 14),
    minimum=st.integers(0, 6),
    category_cap=st.sampled_from((None, 1, 2)),
    source_cap=st.sampled_from((None, 2)),
    pinned=st.sampled_from((0, 1)),
    fatigue_limit=st.sampled_from((None, 2)),
    duplicate_cosine=st.sampled_from((0.95, 1.01)),
    diversity=st.sampled_from((0.0, 0.2)),
    exploration=st.just(0.0),
    language_reads=st.sampled_from((0, 1, 3)),
)


@settings(max_examples=100, deadline=None)
@given(readers=some_readers(), catalogue=catalogues(), rules=all_rules)
def test_lists_keep_every_rule(readers: Readers, catalogue: Catalogue, rules: Rules) -> None:
    ranked = rank(readers, catalogue, Formula(rules=rules), NOW)
    for user in range(len(readers)):
        places = allowed(readers, user, catalogue, rules)
        parts = parts_of(readers, user, catalogue, Weights(), NOW)
        found = [place for place in ranked.places[user].tolist() if place >= 0]
        assert ranked.places[user].tolist() == found + [-1] * (rules.length - len(found))
        assert set(found) <= set(places)
        assert len(set(found)) == len(found)
        for column, place in enumerate(found):
            assert ranked.scores[user, column] == pytest.approx(sum(parts[place].values()), abs=5e-3)
            assert ranked.parts[user, column].sum() == pytest.approx(ranked.scores[user, column], abs=1e-4)
        cosines = catalogue.vectors[found] @ catalogue.vectors[found].T
        assert (cosines[~np.eye(len(found), dtype=bool)] < rules.duplicate_cosine).all()
        for of, cap in ((catalogue.category, rules.category_cap), (catalogue.source, rules.source_cap)):
            if cap is not None:
                within = found[rules.minimum :]
                counts = [sum(of[other] == of[place] for other in found[: found.index(place)]) for place in within]
                assert all(count < cap for place, count in zip(within, counts, strict=True) if of[place])
        pinned = [place for place in places if catalogue.placement[place] == PINNED]
        if rules.pinned and pinned and rules.duplicate_cosine > 1:
            assert catalogue.placement[found[0]] == PINNED
            newest = max(catalogue.published_at[place] for place in pinned)
            assert catalogue.published_at[found[0]] == newest
        if len(found) < rules.length and rules.duplicate_cosine > 1:
            capped = rules.category_cap is not None or rules.source_cap is not None
            assert len(found) == len(places) or (capped and len(found) >= min(rules.minimum, len(places)))


@pytest.mark.parametrize("seed", range(12))
def test_lists_are_those_of_the_rules_applied_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranking.catalogue.ANCHORS", 1000)
    monkeypatch.setattr("ranking.rules.SHORTLIST", 1000)
    world = World(seed, articles=80)
    draw = np.random.default_rng(seed)
    rules = Rules(
        length=int(draw.integers(5, 30)),
        minimum=int(draw.integers(0, 12)),
        category_cap=[None, 3, 6][seed % 3],
        source_cap=[None, 4][seed % 2],
        pinned=seed % 4,
        duplicate_cosine=[0.6, 0.8, 1.01][seed % 3],
        diversity=[0.0, 0.3][seed % 2],
        exploration=0.0,
    )
    c = world.catalogue()
    facts = Facts(
        popularity=c.popularity, category=c.category, source=draw.integers(1, 9, 80).astype(np.uint64),
        placement=draw.choice([AUTO, AUTO, AUTO, PINNED, BOOSTED], 80).astype(np.int8),
    )  # fmt: skip
    catalogue = Catalogue(c.ids, c.vectors, c.hashes, c.published_at, facts)
    readers = world.readers.some(slice(0, 12))
    ranked = rank(readers, catalogue, Formula(rules=rules), NOW)
    for user in range(len(readers)):
        places = allowed(readers, user, catalogue, rules)
        parts = parts_of(readers, user, catalogue, Weights(), NOW)
        expected = list_of(places, [sum(parts[place].values()) for place in places], catalogue, rules)
        assert ranked.places[user].tolist() == expected + [-1] * (rules.length - len(expected))


@settings(max_examples=60, deadline=None)
@given(readers=some_readers(), catalogue=catalogues(), k=st.integers(1, 14))
def test_nothing_is_not_a_number(readers: Readers, catalogue: Catalogue, k: int) -> None:
    ranked = rank(readers, catalogue, Formula(rules=Rules(length=k)), NOW)
    for values in (ranked.scores, ranked.parts, ranked.trigger, ranked.entry):
        assert not np.isnan(values).any()
    assert np.isfinite(ranked.parts).all()
    assert np.isfinite(ranked.scores[ranked.places >= 0]).all()
    assert np.isneginf(ranked.scores[ranked.places < 0]).all()
    probability = click_probability(ranked.scores, catalogue)
    assert ((probability >= 0) & (probability < 1)).all()


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


@pytest.mark.parametrize("n", [31, 64, 500, 5001])
@pytest.mark.parametrize("values", ["all different", "a few", "nearly all the same", "mostly none"])
def test_the_best_of_many_are_exactly_the_best(n: int, values: str) -> None:
    draw = np.random.default_rng(n)
    scores = draw.standard_normal((20, n)).astype(np.float32)
    if values == "a few":
        scores = scores.round(1)
    elif values == "nearly all the same":
        scores = (scores > 2.5).astype(np.float32)
    elif values == "mostly none":
        scores[scores < 1.5] = -np.inf
    for k in (1, 2, 7, 30):
        found = best_places(scores, k)
        assert found.tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
        assert np.array_equal(best_places(np.asfortranarray(scores), k), found)


@pytest.mark.parametrize("n", [0, 50, 640, 3001])
def test_products_in_pieces_are_those_at_once_and_lead_to_the_same_best(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PIECE", 256), ("BLOCK", 4), ("PIECES", 2)):
        monkeypatch.setattr(candidates, name, value)
    draw = np.random.default_rng(n)
    vectors, queries = draw.standard_normal((n, 8), np.float32), draw.standard_normal((5, 8), np.float32)
    closed = np.where(draw.random(n) < 0.1, np.float32(-np.inf), np.float32(0))
    barred = draw.random((5, n)) < 0.2
    barred[4] = True
    found = candidates.products(vectors, queries, closed, barred)
    expected = np.where(barred, -np.inf, queries @ vectors.T + closed)
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)
    assert (found.maxima is None) == (n < 512)
    for k in (1, 3, 30):
        if k <= n:
            best = best_places(found.scores, k, found.maxima)
            assert best.tolist() == np.argsort(-found.scores, axis=1, kind="stable")[:, :k].tolist()


def test_what_was_read_is_left_out_and_the_next_takes_its_place() -> None:
    catalogue = a_catalogue([(1, 0, 0, 0), (0.6, 0.8, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1)])
    reader = a_reader((1, 0, 0, 0), read=(1, STRANGER))
    assert rank(reader, catalogue, Formula(rules=PLAIN), NOW).places.tolist()[0][0] == 1


def test_who_has_read_everything_gets_nothing() -> None:
    catalogue = a_catalogue([(1, 0, 0, 0), (0, 1, 0, 0)])
    ranked = rank(a_reader((1, 0, 0, 0), read=(1, 2)), catalogue, Formula(rules=PLAIN), NOW)
    assert ranked.places.tolist() == [[-1, -1, -1]]
    assert not ranked.parts.any()
    assert np.isneginf(ranked.entry).all()


def test_an_empty_catalogue_gives_empty_lists_that_anything_enters() -> None:
    reader = a_reader((1, 0, 0, 0))
    ranked = rank(reader, a_catalogue([]), Formula(rules=PLAIN), NOW)
    assert ranked.places.tolist() == [[-1, -1, -1]]
    newcomer = a_catalogue([(0, -1, 0, 0)])
    liking = np.zeros((1, 1), np.float32)
    found = concerned(standing(ranked, newcomer), liking, newcomer, np.array([0]), Formula(), NOW)
    assert found.tolist() == [0]


def test_the_first_click_moves_a_list_less_than_the_hundredth() -> None:
    catalogue = a_catalogue([(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)])
    long = [
        score_parts(a_reader((1, 0, 0, 0), confidence=sure), catalogue, np.array([[0]]), Weights(), NOW)[0, 0, 0]
        for sure in (0.0, 0.5, 0.75, 0.99)
    ]
    assert long == sorted(long)
    assert long[0] == 0


def test_freshness_halves_with_age_and_the_future_is_no_fresher_than_now() -> None:
    catalogue = a_catalogue([(1, 0, 0, 0)] * 4, ages=[0, 6 * HOUR, 12 * HOUR, -5 * HOUR])
    freshness = common_parts(catalogue, Weights(freshness=1.0), NOW)[2]
    assert freshness == pytest.approx([1, 0.5, 0.25, 1])


def test_places_are_found_by_hash_and_strangers_are_nowhere() -> None:
    c = a_catalogue([(1, 0, 0, 0)] * 4)
    hashes = np.array([2**64 - 1, 7, 0, 1], np.uint64)
    catalogue = Catalogue(c.ids, c.vectors, hashes, c.published_at)
    asked = np.array([7, 1, 0, 2**64 - 1, 8, 2**63], np.uint64)
    assert catalogue.places(asked).tolist() == [1, 3, -1, 0, -1, -1]
    assert a_catalogue([]).places(asked).tolist() == [-1] * 6


@pytest.mark.parametrize("first_bits_alike", [False, True])
def test_all_places_are_found_however_hashes_are_spread(first_bits_alike: bool) -> None:
    draw = np.random.default_rng(1)
    spread = draw.integers(1, 2**63, 300).astype(np.uint64)
    alike = np.arange(1, 300, dtype=np.uint64)
    hashes = draw.permutation(np.concatenate([alike if first_bits_alike else spread, np.zeros(100, np.uint64)]))
    catalogue = Catalogue([], np.zeros((len(hashes), 2), np.float32), hashes, np.zeros(len(hashes), np.int64))
    asked = np.concatenate([hashes, hashes + np.uint64(1)])
    stands_at = {number: place for place, number in enumerate(hashes.tolist()) if number}
    assert catalogue.places(asked).tolist() == [stands_at.get(number, -1) for number in asked.tolist()]


def test_a_reason_is_the_part_that_carried_the_score_and_has_words() -> None:
    parts = np.zeros((1, 4, len(PARTS)), np.float32)
    for column, (name, value) in enumerate([("long", 2), ("nearest", 1), ("popularity", 3), ("fatigue", -9)]):
        parts[0, column, PARTS.index(name)] = value
    nothing = np.zeros((1, 4), np.bool_)
    found = reasons(parts, drawn=np.array([[False, True, False, False]]), pinned=nothing)
    assert found == [["interest", "exploration", "popular", "new"]]
    assert {*REASON_OF.values(), "exploration"} == WORDS.keys()


class World:
    """Articles around 12 subjects and 200 users who read two of them, as in a small newsroom."""

    def __init__(self, seed: int, articles: int = 300) -> None:
        self.draw = np.random.default_rng(seed)
        self.subjects = self.units(12)
        self.about = self.draw.integers(0, 12, articles)
        self.articles = self.around(self.about)
        self.ages = self.draw.integers(0, 24 * HOUR, articles)
        self.popularity = self.draw.normal(0, 0.5, articles).astype(np.float32)
        likes = self.draw.integers(0, 12, 200)
        read = [self.draw.choice(np.flatnonzero(self.about == like), 6) for like in likes]
        interests = self.scaled(np.stack([self.articles[articles].sum(axis=0) for articles in read]))
        self.readers = Readers.of(
            np.stack([interests, interests], axis=1),
            [
                Past(
                    read=as_window(sorted(set((articles + 1).tolist()))),
                    recents=recents(*(articles + 1).tolist()),
                    affinities=affinities({int(like) + 100: 6.0}),
                    affinities_at=NOW,
                )
                for like, articles in zip(likes, read, strict=True)
            ],
            confidence=np.full(200, 0.8, np.float32),
        )

    def units(self, n: int) -> NDArray[np.float32]:
        return self.scaled(self.draw.standard_normal((n, 16)))

    def around(self, subjects: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.scaled(self.subjects[subjects] + 0.6 * self.units(len(subjects)))

    @staticmethod
    def scaled(vectors: NDArray[Any]) -> NDArray[np.float32]:
        unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
        return unit

    def catalogue(self, new: int = 0) -> Catalogue:
        """The old articles and, behind them, ``new`` ones of this moment."""
        about = self.draw.integers(0, 12, new)
        n = len(self.articles) + new
        return Catalogue(
            [str(number) for number in range(n)],
            np.concatenate([self.articles, self.around(about)]),
            np.arange(1, n + 1, dtype=np.uint64),
            NOW - np.concatenate([self.ages, np.zeros(new, np.int64)]),
            Facts(
                popularity=np.concatenate([self.popularity, np.zeros(new, np.float32)]),
                category=np.concatenate([self.about, about]).astype(np.uint64) + 100,
            ),
        )


FORMULA = Formula(rules=Rules(category_cap=10, exploration=0.0))


def a_standing(
    trigger: tuple[float, ...], entry: float, *, listed: Any = (0, 0, 0), entries: Any = None
) -> Standing:  # fmt: skip
    """Of one user."""
    held = np.full(len(listed), -np.inf) if entries is None else entries
    floats = (np.array([values], np.float32) for values in (trigger, entry, held))
    one, reach, above = floats
    return Standing(one, reach, np.array([listed], np.uint64), above)


def standing(ranked: Ranked, catalogue: Catalogue) -> Standing:
    listed = np.append(catalogue.hashes, np.uint64(0))[ranked.places]
    return Standing(ranked.trigger, ranked.entry, listed, ranked.entries)


def test_those_concerned_are_those_whom_ranking_everybody_finds() -> None:
    truly = triggered = both = 0
    for seed in range(30):
        world = World(seed)
        before = rank(world.readers, world.catalogue(), FORMULA, NOW)
        after = world.catalogue(new=1)
        entered = (rank(world.readers, after, FORMULA, NOW).places == 300).any(axis=1)
        _, numbers, _ = after.categories
        likings = before.likings[:, numbers[300:]].T
        found = concerned(standing(before, after), likings, after, np.array([300]), FORMULA, NOW) >= 0
        truly, triggered, both = truly + entered.sum(), triggered + found.sum(), both + (entered & found).sum()
    assert 500 < truly < 0.9 * 30 * 200, "the publications concern some and not others"
    assert both / truly >= 0.95
    assert both / triggered >= 0.9


def test_of_several_new_articles_the_first_that_enters_is_named() -> None:
    catalogue = a_catalogue([(-1, 0, 0, 0), (0.9, 0, 0, 0), (1, 0, 0, 0)], popularity=[1, 9, 9])
    reader, liking = a_standing((1, 0, 0, 0), 5), np.zeros((3, 1), np.float32)

    def first(*places: int) -> list[int]:
        new = np.array(places)
        found: list[int] = concerned(reader, liking[: len(new)], catalogue, new, Formula(), NOW).tolist()
        return found

    assert first(0, 1, 2) == [1]
    assert first(0) == [-1]


def test_who_has_much_the_same_listed_is_not_concerned_and_a_twin_takes_its_place() -> None:
    catalogue = a_catalogue([(1, 0, 0, 0), (0.8, 0.6, 0, 0), (1, 0.01, 0, 0)])
    formula = Formula(weights=Weights(freshness=0), rules=Rules(diversity=0.2, duplicate_cosine=0.95))
    liking = np.zeros((1, 1), np.float32)

    def enters(place: int, *listed: int) -> bool:
        reader = a_standing((1, 0, 0, 0), 0.9, listed=catalogue.hashes[list(listed)])
        return bool(concerned(reader, liking, catalogue, np.array([place]), formula, NOW)[0] == 0)

    assert enters(0)
    assert not enters(0, 1), "0.2 times the cosine of 0.8 is more than it has to spare"
    assert enters(0, 2)


def test_of_a_category_at_its_cap_an_article_has_to_be_better_than_one_that_is_listed() -> None:
    catalogue = a_catalogue([(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)], category=[11, 11, 22])
    liking = np.zeros((1, 1), np.float32)

    def enters(place: int, *, cap: int | None) -> bool:
        reader = a_standing((1, 0, 0.9, 0), 0.5, listed=catalogue.hashes[[1]], entries=[2.0])
        formula = Formula(weights=Weights(freshness=0), rules=Rules(category_cap=cap))
        return bool(concerned(reader, liking, catalogue, np.array([place]), formula, NOW)[0] == 0)

    assert enters(0, cap=None)
    assert enters(0, cap=2)
    assert not enters(0, cap=1)
    assert enters(2, cap=1)


def test_a_pinned_article_concerns_everybody() -> None:
    catalogue = a_catalogue([(0, 0, 0, 1)], placement=[PINNED])
    for entry, whom in ((5, 0), (np.inf, -1)):  # who has no list yet gets one anyway
        reader = a_standing((0, 0, 0, 0), entry)
        found = concerned(reader, np.zeros((1, 1), np.float32), catalogue, np.array([0]), Formula(), NOW)
        assert found.tolist() == [whom]


def test_many_users_and_articles_are_held_against_each_other_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(0)
    catalogue = world.catalogue(new=30)
    ranked = rank(world.readers, world.catalogue(), FORMULA, NOW)
    readers = standing(ranked, catalogue)
    new, nothing = np.arange(300, 330), np.zeros((30, 200), np.float32)

    def found() -> list[int]:
        places: list[int] = concerned(readers, nothing, catalogue, new, FORMULA, NOW).tolist()
        return places

    at_once = found()
    monkeypatch.setattr("ranking.ranking.CONCERNED_AT_ONCE", 100)
    assert found() == at_once
    assert max(at_once) >= 0


def test_a_ranking_in_pieces_is_that_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1)
    catalogue = world.catalogue()
    whole = rank(world.readers, catalogue, FORMULA, NOW)
    monkeypatch.setattr("ranking.ranking.CHUNK_USERS", 7)
    pieces = rank(world.readers, catalogue, FORMULA, NOW)
    for name in Ranked.__dataclass_fields__:
        assert np.allclose(getattr(whole, name), getattr(pieces, name), atol=1e-5, equal_nan=True), name


def test_lists_are_the_same_whether_or_not_the_cosines_of_articles_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1)
    kept = rank(world.readers, world.catalogue(), FORMULA, NOW)
    monkeypatch.setattr("ranking.catalogue.MOST_ALIKE", 0)
    found = rank(world.readers, world.catalogue(), FORMULA, NOW)
    for name in Ranked.__dataclass_fields__:
        assert np.allclose(getattr(kept, name), getattr(found, name), atol=1e-5, equal_nan=True), name


def test_among_many_articles_the_nearest_the_popular_and_the_newest_are_candidates() -> None:
    world = World(2, articles=3000)
    catalogue, amounts = world.catalogue(), Amounts(similar=50)
    interests = interests_of(world.readers, catalogue, Weights())
    similar = similarities(interests, catalogue, bars(world.readers, catalogue, co_shown(world), Rules()) != FREE)
    co_reads = co_read_shares(world.readers, catalogue, NOW)
    found = find_candidates(world.readers, catalogue, similar, co_reads, Weights(), amounts, NOW)
    common = common_parts(catalogue, Weights(), NOW).sum(axis=0)
    for user, past in enumerate(world.readers.pasts):
        read = set((np.frombuffer(past.read, np.uint64).astype(int) - 1).tolist())
        mine = [place for place in found.places[user].tolist() if place >= 0]
        assert len(set(mine)) == len(mine)
        assert not read & set(mine)
        exact = catalogue.vectors @ interests.trigger[user]
        exact[list(read)] = -np.inf
        assert set(np.argsort(-exact)[:50].tolist()) <= set(mine)
        for first in (np.argsort(-common, kind="stable")[:30], np.argsort(world.ages, kind="stable")[:20]):
            assert set(first.tolist()) - read <= set(mine)
        source = dict(zip(found.places[user].tolist(), found.sources[user].tolist(), strict=True))
        assert {SOURCES[source[place]] for place in np.argsort(-exact)[:50].tolist()} == {"similar"}


def co_shown(world: World) -> NDArray[np.float32]:
    return np.zeros((len(world.readers), len(world.articles)), np.float32)


def test_who_mutes_nearly_everything_gets_what_is_left_wherever_it_stands() -> None:
    world = World(3, articles=2000)
    catalogue = world.catalogue()
    for place in range(2000):
        catalogue.labels.put(place, ["loud"] if place not in (5, 700, 1999) else ["quiet"])
    readers = replace(world.readers, pasts=[past._replace(mutes=("loud",), read=b"") for past in world.readers.pasts])
    ranked = rank(readers.some(slice(0, 5)), catalogue, Formula(rules=PLAIN), NOW)
    assert np.sort(ranked.places, axis=1).tolist() == [[5, 700, 1999]] * 5


def test_weights_scale_their_part() -> None:
    catalogue = a_catalogue([(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1)], popularity=[1.0, -1.0, 0.0])
    reader, places = a_reader((1, 0, 0, 0), (0, 1, 0, 0)), np.array([[0, 1, 2]])
    once = score_parts(reader, catalogue, places, Weights(), NOW)
    twice = score_parts(reader, catalogue, places, Weights(long=0.6, short=0.3, popularity=2.0, freshness=1.0), NOW)
    assert twice == pytest.approx(2 * once, abs=1e-5)
