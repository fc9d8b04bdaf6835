"""What an editor would insist on: each rule on its own, and exploration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import SettingsError
from contract.messages import language_of
from contract.settings import load
from ranking.candidates import SOURCES
from ranking.catalogue import PINNED, Catalogue
from ranking.exploration import DAY_MS, luck, places_to_explore
from ranking.ranking import Formula, Ranked, rank, rank_traced
from ranking.readers import NO_PAST, Readers
from ranking.rules import BARS, FATES, Rules, may_be_listed
from tests.ranking_world import HOUR, NOW, a_catalogue, a_reader

EAST, NEAR_EAST, NORTH, WEST, UP = (
    (1, 0, 0, 0), (0.98, 0.199, 0, 0), (0, 1, 0, 0), (-1, 0, 0, 0), (0, 0, 0, 1),
)  # fmt: skip
PLAIN = Rules(length=4, minimum=0, exploration=0.0, duplicate_cosine=1.01, diversity=0.0, fatigue_limit=None)


def ranked(readers: Readers, catalogue: Catalogue, **rules: Any) -> Ranked:
    return rank(readers, catalogue, Formula(rules=Rules(**{**vars(PLAIN), **rules})), NOW)


def listed(readers: Readers, catalogue: Catalogue, **rules: Any) -> list[int]:
    return [place for place in ranked(readers, catalogue, **rules).places[0].tolist() if place >= 0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(), st.booleans(), st.sampled_from((NOW - 31 * DAY_MS, NOW - 1, NOW, NOW + 1)),
            st.sampled_from((0, NOW - 1, NOW, NOW + 1)), st.booleans(),
        ),
        max_size=20,
    )
)  # fmt: skip
def test_listed_is_what_is_there_and_neither_held_nor_embargoed_nor_expired_nor_old_nor_barred(
    articles: list[tuple[bool, bool, int, int, bool]],
) -> None:
    columns = list(zip(*articles, strict=True)) or [()] * 5
    found = may_be_listed(
        Rules(), NOW,
        present=np.array(columns[0], np.bool_), held=np.array(columns[1], np.bool_),
        published_at=np.array(columns[2], np.int64), expires_at=np.array(columns[3], np.int64),
        barred=np.array(columns[4], np.bool_),
    ).tolist()  # fmt: skip
    for one, (present, held, published_at, expires_at, barred) in zip(found, articles, strict=True):
        fresh = NOW - 30 * DAY_MS < published_at <= NOW and (expires_at == 0 or expires_at > NOW)
        assert one == (present and not held and not barred and fresh)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 255])
def test_what_was_shown_often_without_a_click_sinks_and_then_leaves(count: int) -> None:
    catalogue = a_catalogue([EAST, NORTH, WEST])
    reader = a_reader(EAST, shown={1: count} if count else {})
    found = ranked(reader, catalogue, fatigue_limit=3)
    assert (0 in found.places[0]) == (count < 3)
    if count < 3:
        assert found.parts[0, found.places[0].tolist().index(0), -1] == pytest.approx(-0.3 * np.log(1 + count))


def test_what_is_muted_is_left_out_whatever_kind_of_label_it_is() -> None:
    labels = {0: ["Globex"], 1: ["sports"], 2: ["Anna Writer"], 3: ["An Agency"]}
    catalogue = a_catalogue([EAST] * 5, labels=labels)
    assert listed(a_reader(EAST, mutes=("Globex", "An Agency")), catalogue) == [1, 2, 4]


def test_a_language_leaves_when_enough_was_read_and_nothing_in_it() -> None:
    catalogue = a_catalogue([EAST] * 7, language=[1, 1, 1, 2, 0, 0, 1])
    in_one = a_reader(EAST, read=[1, 2, 3])
    assert listed(in_one, catalogue, language_reads=3) == [4, 5, 6]
    assert rank_traced(in_one, catalogue, Formula(rules=Rules(language_reads=3)), NOW)[1].barred[0, 3] == BARS.index(
        "language"
    )
    assert listed(in_one, catalogue, language_reads=4) == [3, 4, 5, 6], "too little is known"
    assert listed(in_one, catalogue, language_reads=0) == [3, 4, 5, 6]
    assert listed(a_reader(EAST, read=[1, 2, 4]), catalogue, language_reads=3) == [2, 4, 5, 6], "reads both"
    assert listed(a_reader(EAST, read=[1, 2, 5, 6]), catalogue, language_reads=3) == [2, 3, 6], "no language told"
    held_out = a_reader(EAST, read=[1, 2, 3], personal=False)
    assert listed(held_out, catalogue, language_reads=3) == [4, 5, 6], "also from the popular list"


def test_a_publisher_of_one_language_bars_nobody() -> None:
    catalogue = a_catalogue([EAST] * 4, language=[1, 1, 1, 2], listed=[False, False, False, True])
    assert listed(a_reader(EAST, read=[1, 2, 3]), catalogue, language_reads=3) == [3]


def test_where_nothing_is_listed_in_a_users_languages_all_others_are() -> None:
    catalogue = a_catalogue([EAST] * 4, language=[1, 1, 2, 3], listed=[False, False, True, True])
    assert listed(a_reader(EAST, read=[1, 2]), catalogue, language_reads=2) == [2, 3]
    told = a_reader(EAST, language="de")
    assert listed(told, a_catalogue([EAST] * 2, language=[1, 2], languages={"en": 1, "fr": 2})) == [0, 1]


def test_who_told_a_language_is_listed_that_and_what_else_they_read() -> None:
    catalogue = a_catalogue([EAST] * 6, language=[1, 1, 2, 2, 3, 0], languages={"en": 1, "fr": 2, "de": 3})
    assert listed(a_reader(language="fr", personal=False), catalogue) == [2, 3, 5], "from the first list on"
    assert listed(a_reader(EAST, language="fr", read=[5]), catalogue, length=6) == [2, 3, 5]
    assert listed(a_reader(EAST, language="fr", read=[1]), catalogue, length=6) == [1, 2, 3, 5], (
        "what they read as well"
    )
    assert listed(a_reader(EAST, language="fr"), catalogue, language_reads=0, length=6) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("tag", "language"), [("pt-BR", "pt"), ("PT_br", "pt"), ("de", "de"), (" ", ""), ("", ""), ("x" * 36, ""), (7, "")]
)
def test_a_tags_language_is_its_first_part(tag: object, language: str) -> None:
    assert language_of(tag) == language


def test_no_category_or_source_takes_more_than_its_cap_and_none_counts_as_none() -> None:
    catalogue = a_catalogue([EAST] * 6, category=[7, 7, 7, 0, 0, 8], source=[1, 1, 1, 1, 1, 2])
    assert listed(a_reader(EAST), catalogue, length=6, category_cap=2) == [0, 1, 3, 4, 5]
    assert listed(a_reader(EAST), catalogue, length=6, source_cap=2) == [0, 1, 5]


def test_caps_yield_where_a_list_would_be_shorter_than_the_minimum() -> None:
    catalogue = a_catalogue([EAST] * 6, category=[7] * 6)
    for minimum in (0, 1, 3, 6):
        found = listed(a_reader(EAST), catalogue, length=6, category_cap=2, minimum=minimum)
        assert len(found) == max(2, minimum)


def test_the_newest_pinned_articles_come_first_and_the_others_where_they_belong() -> None:
    placement, ages = [0, PINNED, PINNED, PINNED], [0, 3 * HOUR, HOUR, 2 * HOUR]
    catalogue = a_catalogue([EAST, WEST, WEST, WEST], placement=placement, ages=ages)
    assert listed(a_reader(EAST), catalogue, pinned=2) == [2, 3, 0, 1]
    assert listed(a_reader(EAST), catalogue, pinned=0)[0] == 0
    assert listed(a_reader(EAST, read=(3,)), catalogue, pinned=2) == [3, 1, 0], "not even the editor repeats"


def test_of_near_duplicates_only_the_newest_is_listed() -> None:
    catalogue = a_catalogue([EAST, NEAR_EAST, NORTH], ages=[0, HOUR, 0])
    assert listed(a_reader(EAST), catalogue, duplicate_cosine=0.95) == [0, 2]
    catalogue = a_catalogue([EAST, NEAR_EAST, NORTH], ages=[HOUR, 0, 0])
    assert listed(a_reader(EAST), catalogue, duplicate_cosine=0.95) == [1, 2]
    assert len(listed(a_reader(EAST), catalogue, duplicate_cosine=0.99)) == 3


def test_diversity_puts_something_else_before_more_of_the_same() -> None:
    catalogue = a_catalogue([EAST, NEAR_EAST, NORTH], popularity=[1.0, 0.9, 0.8])
    assert listed(a_reader(), catalogue, diversity=0.0) == [0, 1, 2]
    assert listed(a_reader(), catalogue, diversity=0.5) == [0, 2, 1]


def some_users(count: int, confidence: float = 1.0, spread: float = np.nan) -> Readers:
    seeds = np.random.default_rng(5).integers(1, 2**63, count).astype(np.uint64)
    return Readers.of(
        np.zeros((count, 2, 4), np.float32), [NO_PAST] * count,
        seeds=seeds, confidence=np.full(count, confidence, np.float32), spread=np.full(count, spread, np.float32),
    )  # fmt: skip


NEWS = a_catalogue(
    [EAST, NORTH, WEST, UP] * 5, popularity=[2.0] * 10 + [-1.0] * 5 + [-2.0] * 5, impressions=[1e3] * 10 + [0.0] * 10
)


def explored(readers: Readers, now_ms: int = NOW, **rules: Any) -> Ranked:
    formula = Formula(rules=Rules(**{**vars(PLAIN), "length": 10, "exploration": 0.05, **rules}))
    return rank(readers, NEWS, formula, now_ms)


def test_the_share_of_places_that_explore_is_what_was_asked_for() -> None:
    places = explored(some_users(1000))
    drawn = ~np.isnan(places.propensities)
    assert drawn.sum(axis=1).max() == 1
    assert drawn.mean() == pytest.approx(0.05, abs=0.006)
    assert (places.places[drawn] >= 10).all(), "only what few have seen"
    assert drawn[:, :1].sum() + drawn[:, 5:].sum() == 0, "neither at the head nor far down"
    cold = explored(some_users(1000, confidence=0.2))
    assert (~np.isnan(cold.propensities)).mean() == pytest.approx(0.1, abs=0.006)
    assert np.isnan(explored(some_users(200), exploration=0.0).propensities).all()


@pytest.mark.parametrize(("spread", "share"), [(0.0, 0.05), (0.5, 0.075), (1.0, 0.1), (3.0, 0.1)])
def test_the_less_sure_the_interest_model_is_the_more_is_explored(spread: float, share: float) -> None:
    for confidence in (0.2, 1.0):
        drawn = ~np.isnan(explored(some_users(2000, confidence, spread)).propensities)
        assert drawn.mean() == pytest.approx(share, abs=0.006)


def test_what_is_explored_is_drawn_as_often_as_its_propensity_says() -> None:
    lists = explored(some_users(4000), exploration=0.1)
    drawn = ~np.isnan(lists.propensities)
    places, propensities = lists.places[drawn], lists.propensities[drawn]
    assert len(places) == 4000
    for place in range(10, 20):
        share = (places == place).mean()
        (propensity,) = np.unique(propensities[places == place].round(5))
        assert share == pytest.approx(propensity, abs=0.02)
    assert (places < 15).mean() > (places >= 15).mean(), "the better one more often"


def test_the_draw_is_the_same_all_day_and_another_tomorrow_and_for_another_user() -> None:
    users = some_users(200)
    morning, evening = (explored(users, NOW // DAY_MS * DAY_MS + hour * HOUR, exploration=0.1) for hour in (8, 20))
    tomorrow = explored(users, (NOW // DAY_MS + 1) * DAY_MS + 8 * HOUR, exploration=0.1)
    assert (morning.places == evening.places).mean() > 0.99
    assert (morning.places == tomorrow.places).mean() < 0.95
    picks = luck(users.seeds[:, None], NEWS.hashes, NOW).argmax(axis=1)
    assert len(np.unique(picks)) == len(NEWS)
    assert len(np.unique(places_to_explore(users.seeds, np.ones(200, np.float32), 20, NOW))) > 3


def test_nobody_explores_in_the_popular_list() -> None:
    users = some_users(100)
    users = Readers.of(users.queries, users.pasts, seeds=users.seeds, personal=np.zeros(100, np.bool_))
    assert np.isnan(explored(users).propensities).all()


def test_a_trace_tells_of_every_candidate_what_became_of_it() -> None:
    catalogue = a_catalogue(
        [EAST, NEAR_EAST, NORTH, WEST, UP, UP], ages=[0, HOUR, 0, 0, 0, 0], category=[7, 0, 7, 0, 0, 0],
        labels={3: ["loud"]}, popularity=[2, 1, 1, 1, 1, 0],
    )  # fmt: skip
    reader = a_reader(mutes=("loud",), read=(5,))
    rules = Rules(length=4, minimum=0, category_cap=1, duplicate_cosine=0.95, exploration=0.0)
    _, trace = rank_traced(reader, catalogue, Formula(rules=rules), NOW)
    assert [BARS[code] for code in trace.barred[0]] == ["", "", "", "muted", "read", ""]
    fates = dict(zip(trace.candidates.places[0].tolist(), trace.chosen.fates[0].tolist(), strict=True))
    assert {place: FATES[fate] for place, fate in fates.items()} == {
        0: "chosen", 1: "near duplicate", 2: "cap", 5: "chosen",
    }  # fmt: skip
    assert set(trace.candidates.sources[0].tolist()) <= set(range(len(SOURCES)))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["pinned_articles=30"], "pinned_articles = 30 do not fit into list_length = 20"),
        (["pinned_articles=5", "category_share=0.2"], "category_share = 0.2 allows 4 of list_length = 20, fewer than"),
        (["pinned_articles=3", "source_share=0.1"], "source_share = 0.1 allows 2 of list_length = 20, fewer than"),
    ],
)
def test_rules_that_contradict_each_other_are_refused_in_one_line(overrides: list[str], says: str) -> None:
    with pytest.raises(SettingsError, match="contradict each other") as refused:
        load(overrides, environ={})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_the_settings_are_the_rules() -> None:
    rules = Rules.of(
        load(
            ["list_length=10", "category_share=0.3", "source_share=0.25", "fatigue_limit=0", 'blocked=["a"]',
             "explore_hours=2", "holdout=0.5", "article_ttl_days=2"], environ={},
        )
    )  # fmt: skip
    assert (rules.length, rules.category_cap, rules.source_cap, rules.fatigue_limit) == (10, 3, 3, None)
    assert (rules.blocked, rules.explored_ms, rules.holdout, rules.ttl_ms) == (("a",), 2 * HOUR, 0.5, 2 * DAY_MS)
    assert Rules.of(load(["category_share=1"], environ={})).category_cap is None
    assert Rules.of(load(["list_length=3"], environ={})).minimum == 3
