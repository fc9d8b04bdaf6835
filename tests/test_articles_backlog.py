"""The backlog: the newest first, within its bounds, and no offset committed before all is finished up to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.articles_backlog import Backlog, Version
from contract.records import ArticleMeta

DAY = 86_400_000
NOW = 1_750_000_000_000


def version(
    article_id: str,
    offset: int,
    *,
    partition: int = 0,
    published_at: int = NOW,
    timestamp: int = NOW,
    tokens: int = 10,
) -> Version:
    return Version(
        article_id, partition, offset, timestamp, published_at, 0, ArticleMeta(), 0, np.zeros(tokens, np.int32)
    )  # fmt: skip


def filled(*versions: Version, limit: int = 1000) -> Backlog:
    backlog = Backlog(limit)
    for each in versions:
        backlog.add(each)
        backlog.passed(each.partition, each.offset)
    return backlog


def ids(batch: list[Version]) -> list[str]:
    return [each.article_id for each in batch]


def test_the_newest_goes_first_and_an_embargo_is_no_priority() -> None:
    backlog = filled(
        version("embargoed", 0, published_at=NOW + DAY, timestamp=NOW - 5),
        version("old", 1, published_at=NOW - 9 * DAY),
        version("new", 2, published_at=NOW - 1),
        version("corrected old", 3, published_at=NOW - 9 * DAY, timestamp=NOW + 1),
    )
    order = [ids(backlog.take(1, 512)) for _ in range(4)]
    assert order == [["new"], ["embargoed"], ["corrected old"], ["old"]]
    assert backlog.take(1, 512) == []


def test_a_batch_is_the_newest_with_others_of_like_length() -> None:
    lengths = [10, 200, 12, 190, 11, 9, 210, 12]
    backlog = filled(
        *(version(f"{i}", i, published_at=NOW + i, timestamp=NOW + i, tokens=n) for i, n in enumerate(lengths))
    )
    batch = backlog.take(64, 60)
    assert batch[0].article_id == "7"
    assert sorted(ids(batch)) == ["0", "2", "4", "5", "7"]


def test_news_of_a_day_go_before_what_would_fit_better() -> None:
    old = [version(f"old {i}", i, published_at=NOW - 30 * DAY, tokens=40) for i in range(50)]
    news = [version(f"news {i}", 50 + i, published_at=NOW - 1000 + i, tokens=n) for i, n in enumerate((20, 100, 30))]
    batch = filled(*old, *news).take(64, 512)
    assert {"news 0", "news 1", "news 2"} <= set(ids(batch))
    assert len(batch) == 5, "the rest of the padded tokens goes to old ones"


def test_a_text_longer_than_the_budget_is_run_alone() -> None:
    assert len(filled(version("a", 0, tokens=900), version("b", 1, tokens=900)).take(64, 512)) == 1


def test_tokens_that_wait_are_counted() -> None:
    backlog = filled(version("a", 0, tokens=7), version("b", 1, tokens=5), version("c", 2, partition=1, tokens=3))
    assert backlog.tokens == 15
    backlog.add(version("a", 3, tokens=2))
    assert backlog.tokens == 10
    backlog.drop(1)
    assert backlog.tokens == 7
    backlog.take(9, 512)
    assert backlog.tokens == 0


def test_there_is_no_room_for_more_bytes_than_may_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    backlog = filled(version("a", 0), version("b", 1))
    assert backlog.room > 0
    monkeypatch.setattr("consumers.articles_backlog.READ_AHEAD_BYTES", 2000)
    assert backlog.room == 0
    (batch,) = [backlog.take(9, 512)]
    assert backlog.room == 0, "what is being run is held too"
    for each in batch:
        backlog.end_run(each)
    assert backlog.room > 0


def test_a_newer_version_takes_the_place_of_one_that_waits() -> None:
    backlog = filled(version("a", 0), version("b", 1), version("a", 2))
    assert backlog.committable(0) == 1
    taken = {each.article_id: each for each in backlog.take(10, 512)}
    assert taken["a"].offset == 2


def test_what_is_being_run_holds_the_offset_back_until_it_ends() -> None:
    backlog = filled(version("a", 4))
    (running,) = backlog.take(10, 512)
    assert (len(backlog), backlog.committable(0)) == (0, 4)
    assert backlog.end_run(running)
    assert backlog.committable(0) == 5


def test_what_was_running_when_its_partition_went_is_not_finished() -> None:
    backlog = filled(version("a", 4))
    (running,) = backlog.take(10, 512)
    backlog.drop(0)
    assert not backlog.end_run(running)
    assert backlog.committable(0) is None


@dataclass(frozen=True)
class Step:
    what: str
    partition: int = 0
    article: int = 0
    age: int = 0
    tokens: int = 10
    count: int = 1


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["read", "read", "read", "read", "take", "end", "withdraw", "drop"]),
        st.integers(0, 1),
        st.integers(0, 4),
        st.sampled_from([-DAY, 0, 1, DAY, 40 * DAY]),
        st.sampled_from([3, 10, 60, 200]),
        st.integers(1, 5),
    ),
    max_size=60,
)


@given(steps)
@settings(deadline=None, max_examples=300)
def test_any_order_of_reading_running_and_dropping_keeps_the_promises(order: list[Step]) -> None:
    limit = 6
    backlog = Backlog(limit)
    offsets = {0: 0, 1: 0}
    waiting: dict[tuple[int, str], Version] = {}
    running: list[Version] = []
    for step in order:
        p = step.partition
        if step.what == "read" and backlog.room:
            read = version(f"a{step.article}", offsets[p], partition=p, published_at=NOW - step.age, tokens=step.tokens)
            offsets[p] += 1
            backlog.add(read)
            backlog.passed(p, read.offset)
            waiting[read.key] = read
        elif step.what == "withdraw":
            backlog.cancel(p, f"a{step.article}")
            waiting.pop((p, f"a{step.article}"), None)
        elif step.what == "take" and not running:
            running = backlog.take(step.count, 100)
            assert not waiting or running[0] is max(waiting.values(), key=lambda each: each.rank)
            assert len(running) <= step.count
            assert len(running) <= 1 or max(len(each.tokens) for each in running) * len(running) <= 100
            for each in running:
                assert waiting.pop(each.key) is each, "the newest version, once"
        elif step.what == "end":
            assert all(backlog.end_run(each) for each in running)
            running = []
        elif step.what == "drop":
            backlog.drop(p)
            waiting = {key: each for key, each in waiting.items() if key[0] != p}
            running = [each for each in running if each.partition != p]
            offsets[p] = 0
        assert len(backlog) == len(waiting)
        assert len(waiting) + len(running) <= limit
        for q in (0, 1):
            unfinished = [each.offset for each in (*waiting.values(), *running) if each.partition == q]
            assert backlog.committable(q) == min(unfinished, default=offsets[q] or None)


@pytest.mark.parametrize("count", [1, 2, 300])
def test_all_that_waits_is_taken_in_the_end(count: int) -> None:
    rng = np.random.default_rng(count)
    backlog = filled(
        *(
            version(f"{i}", i, published_at=NOW - int(rng.integers(0, 90 * DAY)), tokens=int(rng.integers(3, 257)))
            for i in range(count)
        )
    )
    taken = []
    while batch := backlog.take(64, 512):
        taken += ids(batch)
        for each in batch:
            assert backlog.end_run(each)
    assert sorted(taken, key=int) == [f"{i}" for i in range(count)]
    assert backlog.committable(0) == count
