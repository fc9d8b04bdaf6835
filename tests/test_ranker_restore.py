"""What a ranker knows after a restore: users up to the committed offset, and the lists that they have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contract.messages import POPULAR, POPULAR_IN, RELATED_TO, Cause, Item, List, encode
from contract.murmur2 import partition_of
from contract.settings import Settings
from streams.admin import create_topics
from streams.health import HealthServer, Pulse
from streams.restore import Restore
from streams.worker import Stop
from tests.ranker_world import (
    EAST,
    NORTH,
    NOW,
    PARTITION,
    POPULAR_PARTITION,
    WEST,
    Row,
    World,
    a_state,
    clicked,
    ids,
)
from tests.streaming import write

ARTICLES = {"north": NORTH, "north-east": (0.8, 0.6, 0.0, 0.0), "east": EAST, "west": WEST}
FOR_NORTH = ["north", "north-east", "east"]


class Stored:
    """A ranker's topics and the ranker that finds them."""

    def __init__(self, settings: Settings, pulse: Pulse, **values: object) -> None:
        self._pulse = pulse
        self.world = World(
            owned=(), bootstrap_servers=settings.bootstrap_servers, namespace=settings.namespace, **values
        )
        self.world.take_articles(*(self.world.article(name, vector) for name, vector in ARTICLES.items()))
        create_topics(self.world.settings, self.world.topics.specs())

    def states(self, *states: tuple[str, bytes | None], partition: int = PARTITION) -> None:
        write(self.world.settings, self.world.topics.user_vectors, *((partition, *state) for state in states))

    def lists(self, *lists: tuple[str, list[str] | bytes | None], partition: int = PARTITION) -> None:
        records = [(partition, user, a_list(user, x) if isinstance(x, list) else x) for user, x in lists]
        write(self.world.settings, self.world.topics.recommendations, *records)

    def restore(self, committed: int = 1000, partition: int = PARTITION) -> None:
        offsets = {partition: committed}
        self.world.lists.restore(Restore(self.world.settings, offsets, name="ranker", pulse=self._pulse))


def a_list(user_id: str, article_ids: list[str]) -> bytes:
    items = [Item(article_id=name, score=1.0, reason="interest", source="similar") for name in article_ids]
    cause = Cause(kind="event", id="", at=NOW)
    return encode(List(user_id=user_id, list_id="1", generated_at=NOW, cause=cause, generation="00000000", items=items))


@pytest.fixture
def pulse() -> Iterator[Pulse]:
    with HealthServer("127.0.0.1", 0) as health:
        yield Pulse(Stop(), health)


@pytest.fixture
def stored(settings: Settings, pulse: Pulse) -> Stored:
    return Stored(settings, pulse)


def test_a_list_that_is_as_it_would_be_is_not_published_again(stored: Stored) -> None:
    stored.states(("ann", a_state(NORTH)))
    stored.lists(("ann", FOR_NORTH))
    stored.restore()
    assert [user_id for user_id, _ in stored.world.lists.due(NOW)] == ["ann"]
    assert stored.world.lists.due(NOW) == [("ann", Cause(kind="start", id="", at=NOW))]
    assert stored.world.rank() == []
    assert stored.world.lists.due(NOW) == []


def test_what_was_published_meanwhile_reaches_whom_it_concerns(stored: Stored) -> None:
    stored.states(("ann", a_state(NORTH)), ("eve", a_state(WEST)))
    stored.lists(("ann", FOR_NORTH), ("eve", ["west", "north", "north-east"]))
    stored.world.take_articles(stored.world.article("news", (0.95, 0.0, -0.3, 0.0)))
    stored.restore()
    published = stored.world.published()
    assert published.keys() == {"ann"}
    shown = published["ann"]
    assert shown is not None
    assert "news" in ids(shown)
    assert shown.cause.kind == "start"


def test_who_never_got_a_list_gets_one(stored: Stored) -> None:
    stored.states(("ann", a_state(NORTH)))
    stored.restore()
    assert ids(stored.world.published()["ann"]) == FOR_NORTH


def test_records_from_the_committed_offset_on_are_left_to_be_consumed(stored: Stored) -> None:
    stored.states(("ann", a_state(NORTH)), ("ann", a_state(EAST, cause=clicked())), ("bob", a_state(EAST)))
    stored.lists(("ann", FOR_NORTH))
    stored.restore(committed=1)
    assert stored.world.lists.user_count() == 1
    assert stored.world.rank() == []
    stored.world.user("ann", EAST, clicked())
    assert stored.world.published().keys() == {"ann"}


def test_a_list_waits_unchanged_for_a_state_that_compaction_left_only_the_successor_of(stored: Stored) -> None:
    stored.states(("other", a_state(NORTH)), ("ann", a_state(NORTH)))
    stored.lists(("ann", FOR_NORTH), ("other", FOR_NORTH))
    stored.restore(committed=1)
    stored.world.take_articles(stored.world.gone("east", NOW))
    assert stored.world.published().keys() == {"other"}, "without a state nothing can be ranked"
    stored.world.user("ann", NORTH)
    assert ids(stored.world.published()["ann"]) == ["north", "north-east", "west"]
    assert stored.world.rank() == []


def test_a_successor_that_changes_nothing_is_no_publication(stored: Stored) -> None:
    stored.states(("other", a_state(NORTH)), ("ann", a_state(NORTH, cause=clicked())))
    stored.lists(("ann", FOR_NORTH), ("other", FOR_NORTH))
    stored.restore(committed=1)
    assert stored.world.rank() == []
    stored.world.user("ann", NORTH, clicked())
    assert stored.world.rank() == []


def test_the_list_of_a_user_without_any_state_is_taken_away(stored: Stored) -> None:
    """Compaction took the state, and its tombstone is old enough to be gone as well."""
    stored.states(("other", a_state(NORTH)))
    stored.lists(("ann", FOR_NORTH), ("other", FOR_NORTH))
    stored.restore()
    assert stored.world.published() == {"ann": None}
    assert stored.world.rank() == []


@pytest.mark.parametrize(
    "state", [a_state(NORTH), None], ids=["with the state still there", "with the state compacted"]
)
def test_the_list_of_a_user_forgotten_meanwhile_is_taken_away(stored: Stored, state: bytes | None) -> None:
    stored.states(("ann" if state else "other", state), ("ann", None))
    stored.lists(("ann", FOR_NORTH))
    stored.restore(committed=1)
    stored.world.take_users(Row("ann", None))
    assert stored.world.published() == {"ann": None}
    assert stored.world.rank() == []


def test_what_was_forgotten_before_is_forgotten(stored: Stored) -> None:
    stored.states(("ann", a_state(NORTH)), ("ann", None))
    stored.lists(("ann", FOR_NORTH), ("ann", None))
    stored.restore()
    assert stored.world.lists.user_count() == 0
    assert stored.world.rank() == []


def test_who_came_back_gets_the_list_that_was_taken_away(stored: Stored) -> None:
    stored.states(("ann", a_state(NORTH)))
    stored.lists(("ann", FOR_NORTH), ("ann", None))
    stored.restore()
    assert ids(stored.world.published()["ann"]) == FOR_NORTH


@pytest.mark.parametrize(
    "old",
    [[*FOR_NORTH, "west"], [], ["north"], b"not JSON", b"\xff"],
    ids=["longer", "empty", "shorter", "unreadable", "no UTF-8"],
)
def test_a_list_that_is_another_than_it_would_be_is_published_anew(stored: Stored, old: list[str] | bytes) -> None:
    stored.states(("ann", a_state(NORTH)))
    stored.lists(("ann", old))
    stored.restore()
    assert ids(stored.world.published()["ann"]) == FOR_NORTH


def test_an_empty_list_of_who_has_read_everything_stays(stored: Stored) -> None:
    stored.states(("ann", a_state(NORTH, read=list(ARTICLES))))
    stored.lists(("ann", []))
    stored.restore()
    assert stored.world.rank() == []


def test_the_popular_list_is_restored_by_its_owner(stored: Stored) -> None:
    stored.lists((POPULAR, ["north", "north-east", "east"]), partition=POPULAR_PARTITION)
    stored.restore(partition=POPULAR_PARTITION)
    assert stored.world.rank() == []


RELATED = {"related_length": 1, "related_per_second": 10_000}
NEAREST = {"north": "north-east", "north-east": "north", "east": "north-east", "west": "north"}
"""The one article in each article's list."""


def owned(partition: int) -> list[str]:
    return [name for name in ARTICLES if partition_of((RELATED_TO + name).encode(), 2) == partition]


@pytest.mark.parametrize("partition", [0, 1])
def test_lists_of_related_articles_that_are_as_they_would_be_are_not_published_again(
    settings: Settings, pulse: Pulse, partition: int
) -> None:
    first = Stored(settings, pulse, **RELATED)
    first.restore(partition=partition)
    made = {user_id: shown for user_id, shown in first.world.published().items() if user_id.startswith(RELATED_TO)}
    assert made.keys() == {RELATED_TO + name for name in owned(partition)}
    for user_id, shown in made.items():
        assert shown is not None
        assert (shown.cause.kind, shown.items[0].article_id) == ("start", NEAREST[user_id.removeprefix(RELATED_TO)])
        first.lists((user_id, encode(shown)), partition=partition)
    again = Stored(settings, pulse, **RELATED)
    again.restore(partition=partition)
    assert [p for p in again.world.rank() if p.user_id.startswith(RELATED_TO)] == []
    assert len(again.world.lists._related) == len(owned(partition))


@pytest.mark.parametrize("values", [RELATED, {"related_length": 0}], ids=["gone meanwhile", "switched off"])
def test_lists_of_articles_that_have_none_now_are_taken_away(
    settings: Settings, pulse: Pulse, values: dict[str, object]
) -> None:
    stored = Stored(settings, pulse, **values)
    stored.lists((RELATED_TO, ["north"]), (POPULAR_IN, b"nobody wrote this"))
    stored.lists((RELATED_TO + "gone", ["north"]), (RELATED_TO + "gone before", None), (POPULAR_IN + "gone", ["east"]))
    stored.restore()
    published = stored.world.published()
    assert {key for key, shown in published.items() if shown is None} == {RELATED_TO + "gone", POPULAR_IN + "gone"}


def test_a_list_that_holds_what_is_gone_or_is_older_than_its_article_is_made_anew_first(
    settings: Settings, pulse: Pulse
) -> None:
    partition = next(number for number in (0, 1) if len(owned(number)) > 1)
    stale, older = owned(partition)[:2]
    stored = Stored(settings, pulse, **RELATED)
    stored.world.take_articles(stored.world.article(older, ARTICLES[older], at=NOW + 1))
    stored.lists((RELATED_TO + stale, ["gone"]), (RELATED_TO + older, ["gone"]), partition=partition)
    stored.lists((RELATED_TO + older, ["west" if older != "west" else "east"]), partition=partition)
    stored.restore(partition=partition)
    causes = {p.user_id: p.result.cause.kind for p in stored.world.rank() if p.result is not None}
    assert causes[RELATED_TO + stale] == "start"
    assert causes[RELATED_TO + older] == "article"


def test_a_state_that_cannot_be_read_damages_its_partition_alone(stored: Stored) -> None:
    stored.states(("ann", a_state(NORTH)), ("bob", b"damaged"))
    stored.states(("eve", a_state(NORTH)), partition=POPULAR_PARTITION)
    offsets = {PARTITION: 1000, POPULAR_PARTITION: 1000}
    restore = Restore(stored.world.settings, offsets, name="ranker", pulse=stored._pulse)
    stored.world.lists.restore(restore)
    assert restore.damaged.keys() == {PARTITION}
    assert "`stoppress rebuild user ID`" in restore.damaged[PARTITION].do, "a tombstone would lose bob's events"
    assert stored.world.published().keys() == {"eve", POPULAR}


def test_a_thousand_users_and_one_are_restored(
    settings: Settings, pulse: Pulse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.ranker_lists.RESTORED_AT_ONCE", 100)
    stored = Stored(settings, pulse)
    stored.states(*((f"user-{number}", a_state(EAST)) for number in range(1001)))
    stored.states(("user-7", a_state(NORTH)), ("user-8", None))
    stored.restore(committed=2000)
    assert stored.world.lists.user_count() == 1000
    published: dict[str, List | None] = {}
    for _ in range(10):
        published |= stored.world.published()
    assert len(published) == 1000
    assert ids(published["user-7"])[0] == "north"
    assert ids(published["user-9"])[0] == "east"
