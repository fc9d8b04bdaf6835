"""What may be listed now, and since when."""

from __future__ import annotations

import numpy as np
import pytest

from consumers.ranker_catalogue import REFRESH_MS, CatalogueChange
from contract.messages import Cause, CauseKind
from encoders.articles import hash64
from tests.ranker_world import EAST, HOUR, NORTH, NOW, WEST, World

DAY = 24 * HOUR


def cause(kind: CauseKind, article_id: str, at: int) -> Cause:
    return Cause(kind=kind, id=article_id, at=at)


@pytest.fixture
def world() -> World:
    return World(article_ttl_days=2)


def listed(world: World) -> list[str]:
    catalogue = world.fresh.catalogue
    return [catalogue.ids[place] for place in catalogue.open]


def test_a_published_article_enters_with_the_time_of_its_record(world: World) -> None:
    change = world.refresh(world.article("a", NORTH, at=NOW - 50))
    assert change == CatalogueChange(entered=[cause("article", "a", NOW - 50)])
    assert listed(world) == ["a"]
    assert world.fresh.catalogue.vectors.tolist() == [list(NORTH)]


def test_nothing_is_done_until_the_next_refresh_is_due(world: World) -> None:
    world.refresh(world.article("a", NORTH, published_at=NOW + 1))
    world.later(REFRESH_MS - 1)
    assert world.refresh() == CatalogueChange()
    assert listed(world) == []
    world.later(1)
    world.refresh()
    assert listed(world) == ["a"]


def test_an_embargoed_article_enters_at_its_time_which_is_its_cause(world: World) -> None:
    assert world.refresh(world.article("a", NORTH, at=NOW, published_at=NOW + 900)) == CatalogueChange()
    world.later(1000)
    assert world.refresh() == CatalogueChange(entered=[cause("article", "a", NOW + 900)])


def test_an_embargo_that_ends_before_the_record_is_taken_counts_too(world: World) -> None:
    world.later(1000)
    change = world.refresh(world.article("a", NORTH, at=NOW, published_at=NOW + 900))
    assert change == CatalogueChange(entered=[cause("article", "a", NOW + 900)])


def test_an_expired_article_leaves_at_its_time(world: World) -> None:
    world.refresh(world.article("a", NORTH, expires_at=NOW + 100))
    world.later(1000)
    assert world.refresh() == CatalogueChange(left=[cause("withdrawal", "a", NOW + 100)])
    assert listed(world) == []


def test_an_article_leaves_when_it_is_too_old(world: World) -> None:
    world.refresh(world.article("old", NORTH, published_at=NOW - 3 * DAY))
    assert listed(world) == []
    world.refresh(world.article("ageing", NORTH, published_at=NOW - 2 * DAY + 100))
    assert listed(world) == ["ageing"]
    world.later(1000)
    assert world.refresh() == CatalogueChange(left=[cause("withdrawal", "ageing", NOW + 100)])


def test_a_held_article_leaves_and_comes_back_when_it_is_released(world: World) -> None:
    world.refresh(world.article("a", NORTH))
    held = world.refresh(world.article("a", NORTH, at=NOW + 1, placement="held"))
    assert held == CatalogueChange(left=[cause("withdrawal", "a", NOW + 1)])
    released = world.refresh(world.article("a", NORTH, at=NOW + 2))
    assert released == CatalogueChange(entered=[cause("article", "a", NOW + 2)])


def test_an_article_that_was_held_from_the_beginning_never_enters(world: World) -> None:
    assert world.refresh(world.article("a", NORTH, placement="held")) == CatalogueChange()
    assert listed(world) == []


def test_a_withdrawn_article_leaves_and_may_be_published_again(world: World) -> None:
    world.refresh(world.article("a", NORTH))
    assert world.refresh(world.gone("a", NOW + 1)) == CatalogueChange(left=[cause("withdrawal", "a", NOW + 1)])
    again = world.refresh(world.article("a", EAST, at=NOW + 2))
    assert again == CatalogueChange(entered=[cause("article", "a", NOW + 2)])
    assert world.fresh.catalogue.vectors.tolist() == [list(EAST)]


def test_withdrawn_and_published_again_at_once_is_an_alteration_since_the_first(world: World) -> None:
    world.refresh(world.article("a", NORTH))
    change = world.refresh(world.gone("a", NOW + 1), world.article("a", EAST, at=NOW + 2))
    assert change == CatalogueChange(altered=[cause("article", "a", NOW + 1)])


def test_published_and_withdrawn_at_once_was_never_there(world: World) -> None:
    assert world.refresh(world.article("a", NORTH), world.gone("a")) == CatalogueChange()


def test_the_row_of_a_withdrawn_article_may_be_anothers_at_once(world: World) -> None:
    world.refresh(world.article("a", NORTH))
    change = world.refresh(world.gone("a", NOW + 1), world.article("b", EAST, at=NOW + 2))
    assert change == CatalogueChange(entered=[cause("article", "b", NOW + 2)], left=[cause("withdrawal", "a", NOW + 1)])
    assert listed(world) == ["b"]
    assert world.fresh.catalogue.vectors.tolist() == [list(EAST)]


def test_a_corrected_article_is_altered_with_its_new_vector(world: World) -> None:
    world.refresh(world.article("a", NORTH), world.article("b", NORTH))
    change = world.refresh(world.article("a", EAST, at=NOW + 5))
    assert change == CatalogueChange(altered=[cause("article", "a", NOW + 5)])
    assert dict(zip(listed(world), world.fresh.catalogue.vectors.tolist(), strict=True)) == {
        "a": list(EAST), "b": list(NORTH),
    }  # fmt: skip


def test_many_changes_come_oldest_first(world: World) -> None:
    change = world.refresh(
        world.article("b", NORTH, at=NOW - 1),
        world.article("a", EAST, at=NOW - 3),
        world.article("c", WEST, at=NOW - 2),
    )
    assert [c.id for c in change.entered] == ["a", "c", "b"]


def test_popularity_follows_what_is_counted(world: World) -> None:
    world.refresh(world.article("a", NORTH), world.article("b", EAST))
    assert world.fresh.catalogue.popularity.tolist() == [0, 0]
    world.counted("b", impressions=100, clicks=50)
    world.later(REFRESH_MS)
    assert world.refresh() == CatalogueChange()
    unclicked, clicked = world.fresh.catalogue.popularity.tolist()
    assert unclicked == pytest.approx(0, abs=1e-6)
    assert clicked > 0.5
    assert world.fresh.catalogue.impressions.tolist() == pytest.approx([0, 100], rel=1e-3)
    assert world.fresh.catalogue.places(np.array([hash64("b")], np.uint64)).tolist() == [1]


def test_a_catalogue_may_become_empty_and_full_again(world: World) -> None:
    world.refresh(world.article("a", NORTH))
    world.refresh(world.gone("a"))
    assert len(world.fresh.catalogue) == 0
    assert world.fresh.catalogue.popularity.dtype == np.float32
    world.later(REFRESH_MS)
    world.refresh()
    world.refresh(world.article("b", NORTH))
    assert listed(world) == ["b"]
