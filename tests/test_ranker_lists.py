"""Whose list is due and why, and what it is to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from consumers import ranker_lists
from contract.messages import POPULAR
from contract.records import CoReads, UserRecord, encode_user
from encoders.articles import hash64
from ranking.features import PARTS
from tests.ranker_world import (
    DIMS,
    EAST,
    HOUR,
    NORTH,
    NOW,
    NOWHERE,
    PARTITION,
    POPULAR_PARTITION,
    WEST,
    Row,
    World,
    a_state,
    clicked,
    ids,
)  # fmt: skip

NEAR_NORTH, NORTH_EAST = (0.9, 0.3, -0.3, 0.0), (0.8, 0.6, 0.0, 0.0)


@pytest.fixture
def world() -> World:
    """Four articles, three of which fit into a list."""
    world = World(explain=True)
    world.take_articles(
        world.article("north", NORTH), world.article("north-east", NORTH_EAST),
        world.article("east", EAST), world.article("west", WEST),
    )  # fmt: skip
    return world


def settled(world: World, **interests: tuple[float, float, float, float]) -> None:
    """Users who have their list."""
    for user_id, interest in interests.items():
        world.user(user_id, interest, clicked())
    assert world.published().keys() == interests.keys()


def test_an_event_brings_a_list_with_its_cause(world: World) -> None:
    world.user("ann", NORTH, clicked(NOW - 5, "click 7"))
    (publication,) = world.rank()
    shown = publication.result
    assert shown is not None
    assert (publication.user_id, publication.partition) == ("ann", PARTITION)
    assert ids(shown) == ["north", "north-east", "west"] or ids(shown) == ["north", "north-east", "east"]
    assert shown.cause == clicked(NOW - 5, "click 7")
    assert (shown.user_id, shown.generation, shown.generated_at) == ("ann", "00000000", NOW)
    assert not shown.fallback
    assert world.rank() == []


def test_an_item_says_why_it_is_there(world: World) -> None:
    world.counted("west", impressions=100, clicks=90)
    world.later(1000)
    world.take_articles()
    world.user("ann", NORTH, clicked())
    items = {item.article_id: item for item in world.published()["ann"].items}  # type: ignore[union-attr]
    assert (items["north"].reason, items["north"].source) == ("interest", "similar")
    assert (items["west"].reason, items["west"].source) == ("popular", "popular")
    for item in items.values():
        assert list(item.parts) == list(PARTS)
        assert sum(item.parts.values()) == pytest.approx(item.score, abs=5e-4)
        assert item.score == round(item.score, 4)
        assert item.propensity is None


def test_the_parts_are_left_out_unless_asked_for() -> None:
    world = World(explain=False)
    world.take_articles(world.article("north", NORTH))
    world.user("ann", NORTH, clicked())
    assert [item.parts for item in world.published()["ann"].items] == [{}]  # type: ignore[union-attr]


def test_what_was_read_is_not_listed_and_what_was_shown_often_sinks(world: World) -> None:
    world.user("ann", NORTH, clicked(), read=["north"])
    world.user("bob", NORTH, clicked(), shown={"north": 9})
    published = world.published()
    assert "north" not in ids(published["ann"])
    assert "north" not in ids(published["bob"])


def test_a_list_that_stays_as_it_was_is_not_published_again(world: World) -> None:
    settled(world, ann=NORTH)
    world.user("ann", NORTH, clicked(NOW + 1))
    assert world.lists.put_off() == 1
    assert world.rank() == []
    assert world.lists.put_off() == 0
    world.user("ann", EAST, clicked(NOW + 2))
    assert ids(world.published()["ann"])[0] == "east"


def test_several_changes_of_a_user_are_one_ranking_with_the_oldest_cause(world: World) -> None:
    world.take_users(
        *(Row("ann", a_state(where, cause=clicked(NOW + at))) for where, at in ((EAST, 2), (WEST, 1), (NORTH, 3)))
    )
    (publication,) = world.rank()
    assert publication.result is not None
    assert publication.result.cause == clicked(NOW + 1)
    assert ids(publication.result)[0] == "north"


def test_a_state_without_a_cause_waits_for_the_slow_refresh(world: World) -> None:
    world.user("ann", NORTH)
    assert world.rank() == []
    world.later(round(world.settings.refresh_seconds * 1000))
    assert world.rank() == []
    world.later(1)
    shown = world.published()["ann"]
    assert shown is not None
    assert shown.cause.kind == "refresh"
    assert ids(shown)[0] == "north"


def test_of_whom_nothing_is_known_the_list_is_a_fallback(world: World) -> None:
    world.user("ann", NOWHERE, clicked())
    shown = world.published()["ann"]
    assert shown is not None
    assert shown.fallback
    assert len(shown.items) == 3


def test_a_publication_brings_lists_to_whom_it_concerns_and_nobody_else(world: World) -> None:
    settled(world, ann=NORTH, eve=WEST)
    world.take_articles(world.article("news", NEAR_NORTH, at=NOW + 3))
    published = world.published()
    assert published.keys() == {"ann"}
    shown = published["ann"]
    assert shown is not None
    assert "news" in ids(shown)
    assert (shown.cause.kind, shown.cause.id, shown.cause.at) == ("article", "news", NOW + 3)


def test_of_several_publications_the_oldest_that_enters_is_the_cause(world: World) -> None:
    settled(world, ann=NORTH)
    world.take_articles(
        world.article("late", NORTH, at=NOW + 3), world.article("far", (-1, 0, 0, 0), at=NOW + 1),
        world.article("early", NORTH, at=NOW + 2),
    )  # fmt: skip
    shown = world.published()["ann"]
    assert shown is not None
    assert shown.cause.id == "early"
    assert {"late", "early"} <= set(ids(shown))


def test_an_article_read_before_it_was_published_here_concerns_nobody(world: World) -> None:
    world.user("ann", NORTH, clicked(), read=["news"])
    world.published()
    world.take_articles(world.article("news", NORTH))
    assert world.rank() == []


def test_a_withdrawal_brings_new_lists_to_those_who_had_it_and_nobody_else(world: World) -> None:
    settled(world, ann=NORTH, eve=WEST)
    world.take_articles(world.gone("north", NOW + 4))
    published = world.published()
    holders = {user_id for user_id, shown in published.items() if shown is not None}
    assert "ann" in holders
    for shown in published.values():
        assert shown is not None
        assert (shown.cause.kind, shown.cause.id, shown.cause.at) == ("withdrawal", "north", NOW + 4)
        assert "north" not in ids(shown)
    world.take_articles(world.gone("unknown"))
    assert world.rank() == []


def test_of_several_withdrawals_the_oldest_in_the_list_is_the_cause(world: World) -> None:
    settled(world, ann=NORTH)
    world.take_articles(world.gone("north", NOW + 4), world.gone("north-east", NOW + 3))
    shown = world.published()["ann"]
    assert shown is not None
    assert (shown.cause.id, shown.cause.at) == ("north-east", NOW + 3)


def test_a_withdrawal_overtakes_events_and_both_are_one_ranking(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(world, ann=NORTH, bob=NORTH)
    monkeypatch.setattr(ranker_lists, "BATCH_USERS", 1)
    world.user("eve", WEST, clicked(NOW + 1))
    world.user("bob", EAST, clicked(NOW + 2))
    world.take_articles(world.gone("north", NOW + 3))
    causes = {}
    for _ in range(3):
        for user_id, shown in world.published().items():
            assert shown is not None
            causes[user_id] = (shown.cause.kind, shown.cause.at)
    assert list(causes.items()) == [
        ("ann", ("withdrawal", NOW + 3)), ("bob", ("event", NOW + 2)), ("eve", ("event", NOW + 1)),
    ] or list(causes.items()) == [
        ("bob", ("event", NOW + 2)), ("ann", ("withdrawal", NOW + 3)), ("eve", ("event", NOW + 1)),
    ]  # fmt: skip


def test_a_correction_reaches_those_who_had_the_article_though_it_is_no_longer_theirs(world: World) -> None:
    settled(world, ann=NORTH)
    world.take_articles(world.article("north", (-1, 0, 0, 0), at=NOW + 4))
    shown = world.published()["ann"]
    assert shown is not None
    assert "north" not in ids(shown)
    assert (shown.cause.kind, shown.cause.id, shown.cause.at) == ("article", "north", NOW + 4)


def test_a_correction_that_changes_no_list_is_no_publication(world: World) -> None:
    settled(world, ann=NORTH)
    world.take_articles(world.article("north", NORTH, at=NOW + 4))
    assert world.lists.put_off() == 1
    assert world.rank() == []


def test_who_has_read_everything_gets_an_empty_list_in_place_of_the_old(world: World) -> None:
    settled(world, ann=NORTH)
    everything = ["north", "north-east", "east", "west"]
    world.user("ann", NORTH, clicked(NOW + 1), read=everything)
    shown = world.published()["ann"]
    assert shown is not None
    assert (shown.items, shown.empty) == ([], "nothing_left")
    world.user("ann", NORTH, clicked(NOW + 2), read=everything)
    assert world.rank() == []
    world.take_articles(world.article("news", WEST, at=NOW + 3))
    assert ids(world.published()["ann"]) == ["news"]


def test_without_articles_lists_are_empty_and_say_so_and_the_first_one_reaches_everybody() -> None:
    world = World()
    world.user("ann", NORTH, clicked())
    shown = world.published()["ann"]
    assert shown is not None
    assert (shown.items, shown.empty) == ([], "no_articles")
    world.user("ann", NORTH, clicked(NOW + 1))
    assert world.rank() == []
    world.take_articles(world.article("news", WEST))
    assert ids(world.published()["ann"]) == ["news"]


def test_who_is_forgotten_loses_the_list_and_waits_for_none(world: World) -> None:
    settled(world, ann=NORTH)
    world.user("ann", EAST, clicked(NOW + 1))
    world.take_users(Row("ann", None))
    assert world.lists.put_off() == 0
    (publication,) = world.rank()
    assert (publication.user_id, publication.partition, publication.result) == ("ann", PARTITION, None)
    assert world.rank() == []
    assert world.lists.user_count() == 0


def test_who_is_forgotten_and_comes_back_at_once_starts_anew(world: World) -> None:
    world.user("ann", NORTH, clicked(), read=["north"])
    world.published()
    world.take_users(Row("ann", None), Row("ann", a_state(NORTH, cause=clicked(NOW + 1))))
    first, second = world.rank()
    assert first.result is None
    assert second.result is not None
    assert ids(second.result)[0] == "north"
    assert second.result.cause == clicked(NOW + 1)


def test_who_is_forgotten_and_comes_back_without_a_cause_has_no_list_of_before(world: World) -> None:
    settled(world, ann=NORTH)
    world.take_users(Row("ann", None), Row("ann", a_state(NORTH)))
    assert [p.result for p in world.rank()] == [None]


def test_who_comes_and_is_forgotten_in_one_batch_leaves_nothing(world: World) -> None:
    world.take_users(Row("ann", a_state(NORTH, cause=clicked())), Row("ann", None))
    assert world.rank() == []
    assert world.lists.user_count() == 0


def test_the_totals_of_a_partition_are_no_user(world: World) -> None:
    world.take_users(Row("~partition", b"whatever"))
    assert world.lists.user_count() == 0


def test_the_slow_refresh_ranks_everybody_in_turn_and_heals(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranker_lists, "REFRESH_USERS", 2)
    settled(world, ann=NORTH, bob=NORTH, eve=NORTH)
    world.counted("west", impressions=100, clicks=100)
    world.later(60_001)
    world.take_articles()
    healed: dict[str, str] = {}
    for _ in range(2):
        due = world.lists.due(world.now)
        assert len(due) <= 2
        for publication in world.lists.rank(due, world.now):
            assert publication.result is not None
            healed[publication.user_id] = publication.result.cause.kind
    assert healed == dict.fromkeys(("ann", "bob", "eve"), "refresh")
    assert world.lists.due(world.now) == []


def test_nobody_is_due_twice_in_a_batch(world: World) -> None:
    settled(world, ann=NORTH)
    world.later(60_001)
    world.user("ann", EAST, clicked(world.now))
    assert [user_id for user_id, _ in world.lists.due(world.now)] == ["ann"]


def test_under_overload_the_refresh_yields(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(world, ann=NORTH, bob=NORTH, eve=NORTH)
    world.later(60_001)
    monkeypatch.setattr(ranker_lists, "BATCH_USERS", 2)
    for user_id in ("ann", "bob"):
        world.user(user_id, EAST, clicked(world.now))
    assert {user_id for user_id, _ in world.lists.due(world.now)} == {"ann", "bob"}
    world.later(4_000)
    assert world.lists.waiting(world.now)["refresh"] == (3, 4.001), "all three were ranked a minute ago"
    for user_id in ("ann", "bob", "eve"):
        world.user(user_id, EAST, clicked(world.now))
    while due := world.lists.due(world.now):
        list(world.lists.rank(due, world.now))
    assert world.lists.waiting(world.now)["refresh"] == (0, 0.0)


def test_under_overload_events_go_first_publications_get_their_quarter_and_the_refresh_waits_for_both(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = {f"reader-{n}": NORTH for n in range(3)}
    clickers, idle = {f"clicker-{n}": WEST for n in range(6)}, {f"idle-{n}": WEST for n in range(5)}
    settled(world, **readers, **clickers, **idle)
    world.later(60_001)
    monkeypatch.setattr(ranker_lists, "BATCH_USERS", 4)
    monkeypatch.setattr(ranker_lists, "REFRESH_USERS", 3)
    world.take_articles(world.article("news", NEAR_NORTH, at=world.now - 70))
    for user_id in clickers:
        world.user(user_id, EAST, clicked(world.now))
    batches = []
    while due := world.lists.due(world.now):
        batches.append([cause.kind for _, cause in due])
        list(world.lists.rank(due, world.now))
        if len(batches) == 1:
            waiting = world.lists.waiting(world.now)
            assert (waiting["event"], waiting["article"]) == ((3, 0.0), (2, 0.07)), "the metric says what is put off"
    assert batches[:2] == [["event", "event", "event", "article"]] * 2
    assert [kind for batch in batches[2:] for kind in batch] == ["article", *["refresh"] * 5]


def test_an_article_that_would_enter_no_list_has_nobody_ranked(world: World) -> None:
    settled(world, **{f"reader-{n}": NORTH for n in range(5)})
    world.take_articles(world.article("far", (-1.0, 0.0, 0.0, 0.0), published_at=NOW - 20 * HOUR))
    assert world.lists.put_off() == 0
    assert world.lists.due(world.now) == []


def test_the_popular_list_is_published_by_its_owner_alone(world: World) -> None:
    assert POPULAR not in world.published()
    world.own([POPULAR_PARTITION])
    (publication,) = world.rank()
    assert (publication.user_id, publication.partition) == (POPULAR, POPULAR_PARTITION)
    assert publication.result is not None
    assert publication.result.fallback
    world.lists.drop([POPULAR_PARTITION])
    world.counted("east", impressions=100, clicks=100)
    world.later(100_000)
    world.take_articles()
    assert POPULAR not in world.published()


def test_the_popular_list_follows_the_clicks_once_in_its_time(world: World) -> None:
    world.own([POPULAR_PARTITION])
    assert world.published().keys() == {POPULAR}
    world.counted("east", impressions=100, clicks=100)
    world.later(999)
    world.take_articles()
    assert world.published() == {}
    world.later(1)
    assert ids(world.published()[POPULAR])[0] == "east"
    world.later(1000)
    assert world.published() == {}


def test_there_is_no_popular_list_without_articles() -> None:
    world = World(owned=[POPULAR_PARTITION])
    assert world.published() == {}


def test_what_waits_in_a_lost_partition_is_dropped(world: World) -> None:
    settled(world, ann=NORTH, bob=NORTH)
    world.own([POPULAR_PARTITION])
    world.published()
    world.user("guest", NORTH, clicked(), partition=POPULAR_PARTITION)
    world.user("ann", EAST, clicked())
    world.take_users(Row("bob", None))
    world.lists.drop([PARTITION])
    assert world.published().keys() == {"guest"}


def test_a_state_that_cannot_be_read_leaves_the_list_as_it_was(world: World) -> None:
    settled(world, ann=NORTH)
    world.take_users(Row("ann", b"UV but damaged"), Row("bob", a_state(EAST, cause=clicked())))
    assert world.published().keys() == {"bob"}


@pytest.mark.parametrize(
    "state",
    [
        encode_user(UserRecord(np.zeros(2 * DIMS + 4, np.float32).tobytes())),
        encode_user(UserRecord(np.full(2 * DIMS, np.nan, np.float32).tobytes())),
        encode_user(UserRecord(np.full(2 * DIMS, np.inf, np.float32).tobytes())),
    ],
    ids=["of another size", "not a number", "infinite"],
)
def test_a_state_that_cannot_be_used_leaves_the_list_as_it_was(
    world: World, state: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    settled(world, ann=NORTH)
    world.take_users(Row("ann", state), Row("new", state), Row("bob", a_state(EAST, cause=clicked())))
    assert world.published().keys() == {"bob"}
    assert [record.message for record in caplog.records] == ["unusable_state"] * 2


def test_those_held_out_always_get_the_popular_list_less_what_they_read() -> None:
    world = World(holdout=1, explain=True, owned=(PARTITION, POPULAR_PARTITION))
    names = ("north", "north-east", "east", "west")
    places = (NORTH, NORTH_EAST, EAST, WEST)
    world.take_articles(*(world.article(name, where) for name, where in zip(names, places, strict=True)))
    for clicks, name in enumerate(reversed(names)):
        world.counted(name, impressions=100, clicks=10 + 5 * clicks)
    world.later(1000)
    world.take_articles()
    world.user("ann", WEST, clicked())
    world.user("bob", WEST, clicked(), read=["north"])
    published = world.published()
    assert ids(published["ann"]) == ids(published[POPULAR]) == ["north", "north-east", "east"]
    assert ids(published["bob"]) == ["north-east", "east", "west"]
    for shown in published.values():
        assert shown is not None
        assert shown.fallback
        assert not any(item.parts["long"] for item in shown.items)
    assert {item.source for item in published["bob"].items} == {"holdout"}  # type: ignore[union-attr]
    assert {item.source for item in published[POPULAR].items} == {"popular_list"}  # type: ignore[union-attr]


def test_the_holdout_is_of_the_size_asked_for_and_the_same_in_every_process() -> None:
    world = World(holdout=0.1)
    world.take_articles(world.article("north", NORTH))
    for number in range(2000):
        world.user(f"user-{number}", NORTH, clicked())
    held_out: set[str] = set()
    while published := world.published():
        held_out |= {user_id for user_id, shown in published.items() if shown is not None and shown.fallback}
    assert 150 < len(held_out) < 250
    assert held_out == {u for u in (f"user-{n}" for n in range(2000)) if world.fresh.rules.held_out(hash64(u))}


def test_a_publication_reaches_those_who_follow_it_wherever_their_interest_lies(world: World) -> None:
    settled(world, ann=NORTH, eve=NORTH)
    world.user("ann", NORTH, clicked(NOW + 1), follows=("Ferry Union",))
    world.published()
    world.take_articles(world.article("news", (0.0, 0.0, 0.0, -1.0), at=NOW + 3, entities=["Ferry Union"]))
    assert "ann" in world.lists._pending
    items = {item.article_id: item for item in world.published()["ann"].items}  # type: ignore[union-attr]
    assert (items["news"].reason, items["news"].source) == ("followed", "followed")


def test_what_is_muted_is_in_no_list_of_that_user(world: World) -> None:
    world.take_articles(world.article("match", NORTH, category="sports"))
    world.user("ann", NORTH, clicked(), mutes=("sports",))
    world.user("bob", NORTH, clicked())
    published = world.published()
    assert "match" not in ids(published["ann"])
    assert "match" in ids(published["bob"])


def test_a_publication_concerns_nobody_who_muted_it_or_does_not_read_its_language() -> None:
    world = World(language_reads=2)
    old = [
        world.article(f"{language}-{number}", NORTH, language=language, published_at=world.now - 20 * HOUR)
        for language in ("en", "fr") for number in range(6)
    ]  # fmt: skip
    world.take_articles(*old)
    past: dict[str, dict[str, Any]] = {
        "reads both": {"read": ("en-0", "fr-0")},
        "reads english": {"read": ("en-0", "en-1")},
        "told english": {"language": "en"},
        "mutes the category": {"mutes": ("rugby",)},
        "mutes the source": {"mutes": ("agency",)},
        "mutes an author but follows it": {"mutes": ("somebody",), "follows": ("rugby",)},
        "mutes another": {"mutes": ("cricket",)},
    }
    for user_id, known in past.items():
        world.user(user_id, NORTH, clicked(), **known)
    world.published()
    change = world.article(
        "new", NORTH, language="fr", category="rugby", source="agency", authors=["somebody"], published_at=world.now
    )
    world.take_articles(change)
    assert {user_id for user_id in past if user_id in world.lists._pending} == {"reads both", "mutes another"}
    world.published()
    change = world.article("english", NORTH, language="en", category="rugby", published_at=world.now)
    world.take_articles(change)
    concerned = {user_id for user_id in past if user_id in world.lists._pending}
    assert concerned == past.keys() - {"mutes the category"}
    world.published()
    world.user("reads english", NORTH, clicked(), read=("en-0", "fr-0"))
    world.user("mutes the category", NORTH, clicked())
    world.published()
    world.take_articles(world.article("later", NORTH, language="fr", category="rugby", published_at=world.now))
    concerned = {user_id for user_id in past if user_id in world.lists._pending}
    assert concerned >= {"reads english", "mutes the category"}, "whoever changes their mind is told again"


def test_what_the_publisher_blocks_or_is_in_another_language_is_in_no_list() -> None:
    world = World(blocked='["Globex"]', languages='["en"]', list_length=9)
    world.take_articles(
        world.article("plain", NORTH), world.article("blocked", NORTH, source="Globex"),
        world.article("english", NORTH, language="en"), world.article("french", NORTH, language="fr"),
    )  # fmt: skip
    world.user("ann", NORTH, clicked())
    assert set(ids(world.published()["ann"])) == {"plain", "english"}


def test_who_reads_one_language_is_listed_none_in_another_and_both_in_their_region() -> None:
    world = World(language_reads=2, list_length=9)
    tongues = {"a": "en-GB", "b": "EN", "c": "en", "d": "fr", "e": ""}
    world.take_articles(*(world.article(name, NORTH, language=language) for name, language in tongues.items()))
    world.user("ann", NORTH, clicked(), read=["a", "b"])
    world.user("bob", NORTH, clicked(), read=["a", "d"])
    world.user("eve", NORTH, clicked(), read=["d"])
    world.user("new", NOWHERE, clicked(), recents=(), language="fr")
    published = world.published()
    assert {user_id: set(ids(shown)) for user_id, shown in published.items()} == {
        "ann": {"c", "e"}, "bob": {"b", "c", "e"}, "eve": {"a", "b", "c", "e"}, "new": {"d", "e"},
    }  # fmt: skip


def test_editors_put_articles_at_the_head_of_lists_or_raise_them() -> None:
    world = World(pinned_articles=1, list_length=4, owned=(PARTITION, POPULAR_PARTITION))
    world.take_articles(
        world.article("north", NORTH), world.article("east", EAST),
        world.article("pinned", WEST, placement="pinned"), world.article("boosted", (0, 0, 0, -1), placement="boosted"),
    )  # fmt: skip
    world.user("ann", NORTH, clicked())
    for shown in world.published().values():
        assert shown is not None
        assert ids(shown)[:2] == ["pinned", "boosted"]
        assert [item.reason for item in shown.items[:2]] == ["editors_choice"] * 2


def test_what_was_read_together_with_the_last_article_is_a_candidate_with_that_reason(world: World) -> None:
    now, read = world.now, np.array([hash64("west")], np.uint64).tobytes()
    world.co_reads.put(0, hash64("north"), CoReads(now, read, np.array([50.0]).tobytes()))
    world.user("ann", NORTH, clicked(), read=["north"], recents=["north"])
    (first, *_) = world.published()["ann"].items  # type: ignore[union-attr]
    assert (first.article_id, first.reason, first.source) == ("west", "read_together", "co_read")
