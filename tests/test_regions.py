"""What is popular where a user is: counts of partitions summed by region, and lists of users who are new there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.records import ArticleStats
from ranking.popularity import PRIOR_IMPRESSIONS
from ranking.regions import MOST_REGIONS, REBASE_AFTER, RegionalCounts
from tests.ranker_world import EAST, HOUR, NORTH, NOW, World, clicked

HALF_LIFE = 6 * HOUR
NOWHERE = (0.0, 0.0, 0.0, 0.0)
counts = st.tuples(st.sampled_from((0.0, 1.0, 40.0, 1e4)), st.sampled_from((0.0, 1.0, 30.0)))
puts = st.tuples(
    st.integers(0, 2), st.integers(1, 3), st.sampled_from((-700 * HALF_LIFE, -HALF_LIFE, 0, HALF_LIFE)),
    st.none() | st.dictionaries(st.sampled_from(("NORTH", "SOUTH", "other")), counts, max_size=2),
)  # fmt: skip


@given(st.lists(puts, max_size=20))
@settings(max_examples=100, deadline=None)
def test_the_excess_is_that_of_what_all_partitions_counted_last(changes: list[tuple]) -> None:  # type: ignore[type-arg]
    regional, last = RegionalCounts(HALF_LIFE), {}
    for partition, article, after, told in changes:
        stats = None if told is None else ArticleStats(NOW + after, 0, 0, regions=told)
        regional.put(partition, article, stats)
        last[partition, article] = stats
    rate = 0.05
    places = np.where(regional.hashes > 0, regional.hashes.astype(np.intp) - 1, -1)
    found = regional.regional(places, np.full(3, rate), NOW + HALF_LIFE)
    for region in ("NORTH", "SOUTH"):
        for article in (1, 2, 3):
            seen, clicks = PRIOR_IMPRESSIONS, PRIOR_IMPRESSIONS * rate
            sums = np.zeros(2)
            for (_, of), stats in last.items():
                if of == article and stats is not None and region in stats.regions:
                    sums += np.array(stats.regions[region]) * 2.0 ** ((stats.at - NOW - HALF_LIFE) / HALF_LIFE)
            seen, clicks = seen + sums.max(), clicks + sums[1]
            here = min(max(clicks / seen, 1e-4), 1 - 1e-4)
            excess = np.log(here / (1 - here)) - np.log(rate / (1 - rate))
            told = found.excess[found.numbers[region], article - 1] if region in found.numbers else 0.0
            assert told == pytest.approx(excess, abs=1e-3)
    assert not found.excess[0].any()


def test_only_so_many_regions_are_kept_apart_and_years_do_not_overflow() -> None:
    regional = RegionalCounts(HALF_LIFE)
    for number in range(MOST_REGIONS + 10):
        regional.put(0, 1, ArticleStats(NOW, 0, 0, regions={f"R{number}": (9, 9)}))
    later = NOW + round(3 * REBASE_AFTER * HALF_LIFE)
    regional.put(0, 2, ArticleStats(later, 0, 0, regions={"R0": (100, 90)}))
    found = regional.regional(np.array([0, 1, *[-1] * 254]), np.full(2, 0.05), later)
    assert len(found.numbers) == MOST_REGIONS
    assert np.isfinite(found.excess).all()
    assert found.excess[1, 1] > 2
    regional.put(0, 2, None)
    assert not RegionalCounts(HALF_LIFE).regional(np.zeros(0, np.intp), np.zeros(0), NOW).numbers
    assert not regional.regional(np.array([0, -1, *[-1] * 254]), np.full(2, 0.05), later).excess[1].any()


@pytest.fixture
def world() -> World:
    """Sixty articles: ten are read in the north, ten in the south, and ten everywhere."""
    world = World(list_length=10, explain=True, category_share=0.5)
    changes = [
        world.article(f"a{number}", NORTH if number % 2 else EAST, category=f"c{number % 6}") for number in range(60)
    ]
    for number in range(60):
        north, south = (100, 30 * (10 <= number < 20)), (100, 30 * (20 <= number < 30))
        both = 60 * (number < 10)
        total = (200 + both, north[1] + south[1] + both)
        world.counted(f"a{number}", *total, partition=number % 2, regions={"NORTH": north, "SOUTH": south})
    world.take_articles(*changes)
    return world


def listed(world: World, user_id: str) -> list[int]:
    result = world.published()[user_id]
    assert result is not None
    return [int(item.article_id.removeprefix("a")) for item in result.items]


def test_two_new_users_get_what_is_read_in_their_region_and_varied(world: World) -> None:
    lists = {}
    for region in ("NORTH", "SOUTH", "", "NOBODYS"):
        world.user(f"new in {region}", NOWHERE, clicked(), recents=(), region=region)
        lists[region] = listed(world, f"new in {region}")
    north, south = set(range(10, 20)), set(range(20, 30))
    assert set(lists["NORTH"]) & north
    assert not set(lists["NORTH"]) & south
    assert set(lists["SOUTH"]) & south
    assert not set(lists["SOUTH"]) & north
    assert lists["NOBODYS"] == lists[""], "where nothing is known of a region, what is read everywhere"
    assert set(lists[""]) == set(range(10))
    for places in lists.values():
        assert len({number % 6 for number in places}) >= 3


def test_a_publisher_without_regions_pays_nothing_and_those_held_out_get_the_list_of_everywhere() -> None:
    world = World(list_length=3, holdout=1)
    changes = [world.article(f"a{number}", NORTH) for number in range(6)]
    for number in range(6):
        world.counted(f"a{number}", 100, number)
    world.take_articles(*changes)
    assert world.fresh.catalogue.regional.numbers == {}
    world.counted("a0", 100, 100, partition=1, regions={"NORTH": (100, 100)})
    world.counted("a1", 100, 50, regions={"SOUTH": (100, 100)})
    world.later(10_000)
    world.user("held out", NOWHERE, clicked(world.now), recents=(), region="SOUTH")
    world.take_articles()
    assert world.fresh.catalogue.regional.numbers.keys() == {"NORTH", "SOUTH"}
    assert listed(world, "held out")[0] == 0


def test_the_way_from_what_a_region_reads_to_what_the_user_does_is_smooth(world: World) -> None:
    """With every click what is near weighs more, the first one no more than half of all, and the region stays."""
    near, popular = [], []
    for clicks in (0, 1, 2, 4, 8, 16):
        read = tuple(f"read {number}" for number in range(clicks))
        world.user(f"after {clicks}", (float(clicks), 0.0, 0.0, 0.0), clicked(), recents=read, region="SOUTH")
        result = world.published()[f"after {clicks}"]
        assert result is not None
        items = [item for item in result.items if item.article_id in ("a21", "a23", "a25", "a27", "a29")]
        near.append(max(item.parts["long"] for item in items))
        popular.append(max(item.parts["popularity"] for item in items))
    assert near[0] == 0
    assert near == sorted(near)
    assert near[1] <= 0.55 * near[-1]
    assert popular == pytest.approx([popular[0]] * 6)
    assert popular[0] > 1
