"""Lists that are nobody's: a category's popular one, and that of what is related to an article."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from consumers import ranker_lists, ranker_reserved
from contract.messages import POPULAR, POPULAR_IN, RELATED_TO, List
from contract.murmur2 import partition_of
from contract.records import CoReads
from encoders.articles import hash64
from tests.ranker_world import EAST, HOUR, NORTH, NOW, WEST, World, clicked, ids

BOTH = (0, 1)
NORTH_EAST, EAST_NORTH = (0.8, 0.6, 0.0, 0.0), (0.6, 0.8, 0.0, 0.0)


def a_world(owned: Iterable[int] = BOTH, **values: object) -> World:
    return World(owned, **{"related_length": 2, "related_per_second": 10_000, **values})


@pytest.fixture
def world() -> World:
    """Four articles, each of which has its list of two."""
    world = a_world()
    world.take_articles(
        world.article("north", NORTH), world.article("north-east", NORTH_EAST), world.article("east", EAST),
        world.article("west", WEST),
    )  # fmt: skip
    return world


def reserved(world: World, prefix: str = RELATED_TO) -> dict[str, List | None]:
    """What is published under a prefix, until nothing more is."""
    found: dict[str, List | None] = {}
    for _ in range(20):
        world.later(20)
        published = {p.user_id: p.result for p in world.rank() if p.user_id.startswith(prefix)}
        found |= {key.removeprefix(prefix): shown for key, shown in published.items()}
        if not published:
            break
    return found


def test_each_article_has_a_list_of_what_is_nearest_without_itself(world: World) -> None:
    found = reserved(world)
    assert found.keys() == {"north", "north-east", "east", "west"}
    assert ids(found["north"])[0] == ids(found["east"])[0] == "north-east"
    assert set(ids(found["north-east"])) == {"north", "east"}
    for name, shown in found.items():
        assert shown is not None
        assert name not in ids(shown)
        assert (shown.user_id, len(shown.items), shown.fallback) == (RELATED_TO + name, 2, False)
        assert {item.source for item in shown.items} == {"related_list"}
        assert (shown.cause.kind, shown.cause.id) == ("article", name)
    assert found["north"].items[0].reason == "similar_to_read"  # type: ignore[union-attr]
    assert reserved(world) == {}


def test_a_list_lies_in_its_keys_partition_and_only_its_owner_publishes_it() -> None:
    halves = [a_world([number]) for number in BOTH]
    keys: list[str] = []
    for number, world in enumerate(halves):
        world.take_articles(*(world.article(f"article-{n}", NORTH, category="arts") for n in range(9)))
        for publication in world.rank():
            if publication.user_id != POPULAR:
                keys.append(publication.user_id)
                assert publication.partition == number == partition_of(publication.user_id.encode(), 2)
    assert sorted(keys) == sorted(f"{RELATED_TO}article-{n}" for n in range(9))


def test_what_tells_the_same_story_is_related_only_where_it_is_newer() -> None:
    world = a_world(duplicate_cosine=0.95)
    world.take_articles(
        world.article("first", NORTH, published_at=NOW - HOUR),
        world.article("update", NORTH, published_at=NOW - HOUR // 2), world.article("east", EAST),
    )  # fmt: skip
    found = reserved(world)
    assert set(ids(found["first"])) == {"update", "east"}
    assert ids(found["update"]) == ["east"]


def test_what_readers_went_on_to_is_related(world: World) -> None:
    read = np.array([hash64("west")], np.uint64).tobytes()
    world.co_reads.put(0, hash64("north"), CoReads(NOW, read, np.array([50.0]).tobytes()))
    (first, *_) = reserved(world)["north"].items  # type: ignore[union-attr]
    assert (first.article_id, first.reason) == ("west", "read_together")


def test_what_is_related_is_in_the_articles_language_or_in_none_that_is_told() -> None:
    world = a_world(related_length=3)
    tongues = {"a": "en", "b": "en-GB", "c": "fr", "d": ""}
    world.take_articles(*(world.article(name, NORTH, language=language) for name, language in tongues.items()))
    found = reserved(world)
    assert {name: set(ids(shown)) for name, shown in found.items()} == {
        "a": {"b", "d"}, "b": {"a", "d"}, "c": {"d"}, "d": {"a", "b", "c"},
    }  # fmt: skip


def test_editors_pin_nothing_into_it_and_nothing_is_explored() -> None:
    world = a_world(pinned_articles=1, exploration=0.5, related_length=1)
    world.take_articles(
        world.article("north", NORTH), world.article("north-east", NORTH_EAST),
        world.article("west", WEST, placement="pinned"),
    )  # fmt: skip
    for shown in (found := reserved(world)).values():
        assert all(item.propensity is None for item in shown.items)  # type: ignore[union-attr]
    assert ids(found["north"]) == ["north-east"]


def test_what_is_withdrawn_leaves_all_lists_at_once_and_its_own_is_taken_away(world: World) -> None:
    reserved(world)
    world.take_articles(world.gone("north-east", NOW + 4))
    published = {p.user_id: p.result for p in world.rank()}
    assert published[RELATED_TO + "north-east"] is None
    for name in ("north", "east"):
        shown = published[RELATED_TO + name]
        assert shown is not None
        assert "north-east" not in ids(shown)
        assert (shown.cause.kind, shown.cause.id, shown.cause.at) == ("withdrawal", "north-east", NOW + 4)


def test_what_an_editor_holds_is_taken_away_and_comes_back_with_its_release(world: World) -> None:
    reserved(world)
    world.take_articles(world.article("north", NORTH, placement="held"))
    assert reserved(world)["north"] is None
    world.take_articles(world.article("north", NORTH))
    assert ids(reserved(world)["north"])[0] == "north-east"


def test_a_new_article_comes_into_the_lists_of_those_it_is_near(world: World) -> None:
    reserved(world)
    world.take_articles(world.article("news", EAST_NORTH, at=NOW + 3))
    found = reserved(world)
    assert set(ids(found["news"])) == {"east", "north-east"}
    assert {"east", "north-east"} <= found.keys()
    assert "west" not in found
    for name in ("east", "north-east"):
        shown = found[name]
        assert shown is not None
        assert "news" in ids(shown)
        assert (shown.cause.kind, shown.cause.id, shown.cause.at) == ("article", "news", NOW + 3)


def test_a_new_articles_own_list_comes_before_those_it_is_to_come_into(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved(world)
    monkeypatch.setattr(ranker_reserved, "AT_ONCE", 1)
    world.take_articles(world.article("news", EAST_NORTH))
    order = []
    for number in range(2):
        world.later(20)
        order += [p.user_id.removeprefix(RELATED_TO) for p in world.rank()]
        if not number:
            world.take_articles(world.article("later news", EAST_NORTH))
    assert [name for name in order if name != POPULAR] == ["news", "later news"]
    assert {"east", "north-east"} <= reserved(world).keys()


def test_a_list_that_is_short_takes_whatever_comes() -> None:
    world = a_world(related_length=4)
    world.take_articles(world.article("north", NORTH), world.article("east", EAST))
    assert ids(reserved(world)["north"]) == ["east"]
    world.take_articles(world.article("west", WEST), world.article("other west", WEST))
    assert set(ids(reserved(world)["north"])) == {"east", "west", "other west"}


def test_a_changed_text_changes_its_list(world: World) -> None:
    reserved(world)
    world.take_articles(world.article("west", (0.0, 0.95, 0.3, 0.0), at=NOW + 3))
    assert ids(reserved(world)["west"])[0] == "east"


def test_the_refresh_comes_once_an_hour_and_publishes_only_what_is_new(world: World) -> None:
    reserved(world)
    read = np.array([hash64("west")], np.uint64).tobytes()
    world.later(HOUR - 10_000)
    world.co_reads.put(0, hash64("north"), CoReads(world.now, read, np.array([50.0]).tobytes()))
    world.take_articles()
    assert reserved(world) == {}
    world.later(10_001)
    found = reserved(world)
    assert found.keys() == {"north"}
    assert found["north"].cause.kind == "refresh"  # type: ignore[union-attr]


def test_no_more_are_made_than_a_second_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranker_reserved, "AT_ONCE", 4)
    world = a_world(related_per_second=2)
    world.take_articles(*(world.article(f"article-{n}", NORTH) for n in range(10)))
    assert len(world.rank()) == 4 + 1, "and the popular one"
    world.later(1000)
    assert len(world.rank()) == 0
    world.later(1000)
    assert len(world.rank()) == 4
    count, seconds = world.lists.waiting(world.now)["related"]
    assert count >= 2
    assert seconds == 3


def test_while_users_wait_nothing_is_done_but_what_withdrawals_ask_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved(world)
    monkeypatch.setattr(ranker_lists, "BATCH_USERS", 1)
    world.take_articles(world.article("news", EAST_NORTH), world.gone("west"))
    for user_id in ("ann", "bob", "eve"):
        world.user(user_id, NORTH, clicked())
    published = world.published()
    assert published.keys() & {"ann", "bob", "eve"}
    assert RELATED_TO + "news" not in published
    assert published[RELATED_TO + "west"] is None
    for key in published.keys() - {"ann", "bob", "eve", POPULAR, RELATED_TO + "west"}:
        assert published[key].cause.kind == "withdrawal"  # type: ignore[union-attr]
    monkeypatch.undo()
    assert "news" in reserved(world)


def test_without_their_length_there_are_none() -> None:
    world = a_world(related_length=0)
    world.take_articles(world.article("north", NORTH), world.article("east", EAST))
    assert reserved(world) == {}


def test_what_is_in_a_lost_partition_is_forgotten(world: World) -> None:
    world.lists.drop(BOTH)
    assert reserved(world) == {}
    world.take_articles(world.gone("north"))
    assert world.rank() == []


CATEGORIES = {"arts": 4, "sport": 3, "chess": 1}


def a_world_of_categories(**values: object) -> World:
    world = World(BOTH, **{"category_lists": 2, "popular_seconds": 1, "category_share": 0.4, **values})
    for category, count in CATEGORIES.items():
        world.take_articles(*(world.article(f"{category}-{n}", NORTH, category=category) for n in range(count)))
    world.take_articles(world.article("none", NORTH))
    return world


def in_turn(world: World, turns: int = 3) -> dict[str, List | None]:
    """What is published of categories while some time goes by."""
    found: dict[str, List | None] = {}
    for _ in range(turns):
        world.later(1000)
        found |= reserved(world, POPULAR_IN)
    return found


def test_the_largest_categories_have_a_popular_list_of_their_own() -> None:
    world = a_world_of_categories()
    found = in_turn(world)
    assert found.keys() == {"arts", "sport"}
    for category, shown in found.items():
        assert shown is not None
        assert {name.split("-")[0] for name in ids(shown)} == {category}
        assert (len(shown.items), shown.fallback) == (3, True), "whatever the cap of a category"
        assert {item.source for item in shown.items} == {"popular_list"}
    assert in_turn(world) == {}


def test_a_categorys_list_follows_its_clicks() -> None:
    world = a_world_of_categories()
    in_turn(world)
    world.counted("arts-3", impressions=100, clicks=90)
    world.later(1000)
    world.take_articles()
    found = in_turn(world)
    assert ids(found["arts"])[0] == "arts-3"
    assert found.keys() == {"arts"}


def test_what_is_withdrawn_leaves_its_categorys_list_at_once_and_an_empty_one_is_taken_away() -> None:
    world = a_world_of_categories(category_lists=3)
    in_turn(world)
    world.take_articles(world.gone("sport-0", NOW + 4), world.gone("chess-0", NOW + 4))
    published = world.published()
    shown = published[POPULAR_IN + "sport"]
    assert shown is not None
    assert set(ids(shown)) == {"sport-1", "sport-2"}
    assert shown.cause.kind == "withdrawal"
    assert in_turn(world) == {"chess": None}


def test_a_category_that_shrinks_a_little_keeps_its_list_and_far_behind_loses_it() -> None:
    world = a_world_of_categories()
    in_turn(world)
    world.take_articles(*(world.article(f"food-{n}", NORTH, category="food") for n in range(5)))
    assert in_turn(world).keys() == {"food"}, "two have one, and the third keeps its own"
    for name in ("cars", "books"):
        world.take_articles(*(world.article(f"{name}-{n}", NORTH, category=name) for n in range(6)))
    found = in_turn(world)
    assert found.keys() == {"cars", "books", "sport"}
    assert found["sport"] is None
