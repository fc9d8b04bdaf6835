"""The ranker as a process that is killed, stalled, and shares its partitions with another."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.messages import POPULAR, RELATED_TO, List, decode
from streams.local_broker import LocalBroker
from tests.pipeline import Pipeline, Worker, await_true, now_ms, pipeline_on
from tests.test_pipeline import SUBJECTS, ids

NEWS = "Telescope finds water vapour on a second distant planet"


@pytest.fixture
def pipeline(broker: LocalBroker, tmp_path: Path) -> Iterator[Pipeline]:
    """Articles and users are at work, the rankers are the test's; nobody clicks, so nothing becomes popular."""
    values = {"list_length": 3, "related_length": 3, "refresh_seconds": 3600, "popular_seconds": 0.2}
    with pipeline_on(broker, tmp_path, **values) as pipeline:
        pipeline.start("articles", "users")
        for subject, titles in SUBJECTS.items():
            for number, title in enumerate(titles):
                pipeline.article(f"{subject}-{number}", title)
        pipeline.until_embedded(*(f"{subject}-{number}" for subject in SUBJECTS for number in range(4)))
        yield pipeline


def reader(pipeline: Pipeline, user_id: str, article_id: str) -> List:
    """Let a user like an article; return the list that came of it."""
    sent = pipeline.event(user_id, "like", article_id, event_id=f"{user_id} likes {article_id}")
    return pipeline.until_list(user_id, lambda x: x.cause.at == sent.timestamp, f"after a like of {article_id}")


def lists_of(pipeline: Pipeline, user_id: str) -> list[List]:
    """Every list of a user up to now."""
    records = pipeline.records(pipeline.topics.recommendations).to_the_end()
    return [decode(List, r.value) for r in records if r.key == user_id.encode() and r.value is not None]


def a_user_in_each_partition(pipeline: Pipeline) -> list[str]:
    found: dict[int, str] = {}
    for user_id in map("user-{}".format, range(1000)):
        found.setdefault(pipeline.partition(user_id), user_id)
    return [found[partition] for partition in range(pipeline.settings.partitions)]


def until_owning(worker: Worker, partitions: int) -> None:
    await_true(
        lambda: worker.metric("stoppress_partitions_assigned", worker="ranker") == partitions,
        f"{worker.settings.slot} owns {partitions} partitions",
    )


def until_popular_has_a_new_article(pipeline: Pipeline, article_id: str) -> None:
    """Publish an article that is fresher than all others; block until whoever owns the popular list puts it there."""
    pipeline.article(article_id, NEWS, published_at=now_ms())
    pipeline.until_list(POPULAR, lambda x: article_id in ids(x), f"with {article_id}")


def test_a_killed_ranker_publishes_nothing_unchanged_and_misses_no_article(pipeline: Pipeline) -> None:
    ranker = pipeline.worker("ranker").start()
    reader(pipeline, "star", "space-0")
    reader(pipeline, "baker", "kitchen-0")
    related = [f"{RELATED_TO}{subject}-{number}" for subject in SUBJECTS for number in range(4)]
    for key in related:
        pipeline.until_list(key, lambda x: len(x.items) == 3, "of full length")
    ranker.kill()
    before = [len(lists_of(pipeline, key)) for key in related]
    pipeline.article("news", NEWS)
    pipeline.until_embedded("news")
    sent = pipeline.event("saver", "like", "rates-0", event_id="while it was down")
    ranker.start()
    assert pipeline.until_list("star", lambda x: "news" in ids(x), "with the news").cause.kind == "start"
    shown = pipeline.until_list("saver", lambda x: x.cause.at == sent.timestamp, "of the event meanwhile")
    assert shown.cause.id == "while it was down"
    await_true(lambda: ranker.metric("stoppress_ranked_users_total") >= 4, "everybody has been ranked again")
    assert [x.cause.kind for x in lists_of(pipeline, "baker")] == ["event"]
    assert [x.cause.kind for x in lists_of(pipeline, "star")] == ["event", "start"]
    pipeline.until_list(RELATED_TO + "news", lambda x: x.cause.kind == "start", "of what came meanwhile")
    assert [len(lists_of(pipeline, key)) for key in related] == before


def test_two_rankers_share_the_users_and_either_takes_over_from_the_other(pipeline: Pipeline) -> None:
    users = a_user_in_each_partition(pipeline)
    rankers = [pipeline.worker("ranker", slot).start(ready=False) for slot in ("0", "1")]
    for ranker in rankers:
        until_owning(ranker, 2)
    for user_id in users:
        reader(pipeline, user_id, "space-1")
    for ranker in rankers:
        assert ranker.metric("stoppress_lists_total", cause="event") == 2
    for number, (leaving, staying) in enumerate((rankers, rankers[::-1])):
        assert leaving.stop() == 0
        until_owning(staying, 4)
        for user_id in users:
            reader(pipeline, user_id, f"kitchen-{number}")
        until_popular_has_a_new_article(pipeline, f"news-{number}")
        leaving.start(ready=False)
        until_owning(leaving, 2)
        until_owning(staying, 2)
    for user_id in users:
        causes = [x.cause.id for x in lists_of(pipeline, user_id) if x.cause.kind == "event"]
        assert causes == [f"{user_id} likes {article_id}" for article_id in ("space-1", "kitchen-0", "kitchen-1")]


def test_a_stalled_ranker_that_wakes_publishes_nothing_of_what_its_successor_did(pipeline: Pipeline) -> None:
    users = a_user_in_each_partition(pipeline)
    stalled, successor = (pipeline.worker("ranker", slot).start(ready=False) for slot in ("0", "1"))
    for ranker in (stalled, successor):
        until_owning(ranker, 2)
    for user_id in users:
        reader(pipeline, user_id, "space-1")
    stalled.signal(signal.SIGSTOP)
    until_owning(successor, 4)
    for user_id in users:
        reader(pipeline, user_id, "kitchen-0")
    stalled.signal(signal.SIGCONT)
    for ranker in (stalled, successor):
        until_owning(ranker, 2)
    for user_id in users:
        reader(pipeline, user_id, "rates-0")
    for user_id in users:
        assert [x.cause.id for x in lists_of(pipeline, user_id)] == [
            f"{user_id} likes {article_id}" for article_id in ("space-1", "kitchen-0", "rates-0")
        ]
