"""The articles worker as a process on a real Kafka: news before a backfill, and nothing older after something newer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from consumers.article_view import CAUSE_HEADER
from contract.messages import Article, encode
from contract.records import ArticleRecord, decode_article
from streams.clients import make_admin
from streams.dead_letters import letters
from streams.local_broker import LocalBroker
from streams.worker import Identity
from tests.pipeline import Pipeline, Seen, Sent, Worker, await_true, now_ms, pipeline_on

DAY = 86_400_000
BACKFILL = 2000
LONG_BACKFILL = 20_000
WORDS = ["council", "river", "school", "storm", "harbour", "budget", "coach", "singer", "planet", "bread", "rocket"]


@pytest.fixture
def pipeline(broker: LocalBroker, tmp_path: Path) -> Iterator[Pipeline]:
    """With one partition of articles, where offsets tell batches apart."""
    with pipeline_on(broker, tmp_path, article_partitions=1) as running:
        yield running


def old_articles(count: int, prefix: str = "old") -> list[Article]:
    """News of the last days, each with a text of its own, 10 to 40 words long."""
    rng = np.random.default_rng(7)
    return [
        Article(
            article_id=f"{prefix}-{number}",
            title=f"{number} " + " ".join(rng.choice(WORDS, rng.integers(10, 40))),
            published_at=now_ms() - 20 * DAY + number,
        )
        for number in range(count)
    ]


def queue(pipeline: Pipeline, articles: Sequence[Article]) -> list[Sent]:
    return pipeline.send_all([(pipeline.topics.articles, a.article_id.encode(), encode(a), -1) for a in articles])


def vectors(pipeline: Pipeline) -> list[Seen]:
    """All that the worker has written up to now."""
    return pipeline.records(pipeline.topics.article_vectors).to_the_end()


def until_written(pipeline: Pipeline, article_id: str, count: int = 1) -> Seen:
    """Block until something was written of the article for the ``count``th time; return that."""

    def found(records: Sequence[Seen]) -> Seen | None:
        mine = [record for record in records if record.key == article_id.encode()]
        return mine[count - 1] if len(mine) >= count else None

    return pipeline.records(pipeline.topics.article_vectors).until(found, f"{article_id} is written {count} times")


def until_count(pipeline: Pipeline, count: int) -> None:
    topic = pipeline.topics.article_vectors
    pipeline.records(topic).until(lambda records: len(records) >= count, f"{count} are written", 60)


def of(pipeline: Pipeline, article_id: str) -> list[ArticleRecord | None]:
    """What was written of an article, None for a tombstone."""
    records = [record for record in vectors(pipeline) if record.key == article_id.encode()]
    return [None if record.value is None else decode_article(record.value) for record in records]


def batches(records: Sequence[Seen]) -> int:
    """How many transactions wrote these: each ends with a marker that takes an offset."""
    offsets = [record.offset for record in records]
    return bool(offsets) + sum(after > before + 1 for before, after in pairwise(offsets))


def written_between(pipeline: Pipeline, sent: Sent, written: Seen) -> list[Seen]:
    """What the worker wrote after ``sent`` had reached Kafka and before ``written``."""
    return [r for r in vectors(pipeline) if r.offset < written.offset and r.timestamp > sent.timestamp]


def committed(pipeline: Pipeline) -> int:
    """The offset that the worker's group has committed."""
    group = Identity.of(pipeline.settings, "articles", pipeline.topics.generation).group
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(pipeline.topics.articles, 0)])
    admin = make_admin(pipeline.settings)
    (answer,) = admin.list_consumer_group_offsets([asked]).values()
    offset: int = answer.result(10).topic_partitions[0].offset
    return max(0, offset)


def test_the_newest_of_a_queue_is_in_the_first_batch(pipeline: Pipeline) -> None:
    queue(pipeline, old_articles(BACKFILL))
    pipeline.article("news", "Late goal sends United into the cup final")
    pipeline.worker("articles").start(ready=False)
    written = until_written(pipeline, "news")
    assert batches(vectors(pipeline)[: written.offset + 1]) == 1


def test_news_are_embedded_within_two_batches_of_a_backfill(pipeline: Pipeline) -> None:
    queue(pipeline, old_articles(LONG_BACKFILL))
    worker = pipeline.worker("articles").start()
    until_count(pipeline, 20)
    for number in range(3):
        sent = pipeline.article(f"news-{number}", f"Telescope number {number} finds water on a distant planet")
        written = until_written(pipeline, f"news-{number}")
        assert batches(written_between(pipeline, sent, written)) <= 2, "one that was done, one that was being run"
    assert worker.metric("stoppress_encoder_queue_articles") > LONG_BACKFILL * 0.9
    assert worker.metric("stoppress_encoder_queue_age_seconds") > 0


def test_withdrawals_holds_and_corrections_pass_ahead_of_a_backfill(pipeline: Pipeline) -> None:
    for name in ("withdrawn", "held", "moved", "rewritten"):
        pipeline.article(name, f"The story of the {name} article")
    worker = pipeline.worker("articles").start()
    pipeline.until_embedded("withdrawn", "held", "moved", "rewritten")
    queue(pipeline, old_articles(BACKFILL))
    until_count(pipeline, 20)
    texts = worker.metric("stoppress_encoder_texts_total")

    old = now_ms() - 25 * DAY
    sent = {
        "withdrawn": pipeline.withdraw("withdrawn"),
        "held": pipeline.article("held", "The story of the held article", placement="held", published_at=old),
        "moved": pipeline.article("moved", "The story of the moved article", category="sport", published_at=old),
        "rewritten": pipeline.article("rewritten", "Another story", placement="held", published_at=old),
    }
    for name, where in sent.items():
        written = until_written(pipeline, name, 2)
        assert batches(written_between(pipeline, where, written)) <= 2, name
    assert of(pipeline, "withdrawn")[-1] is None
    for name, placement, category in (("held", "held", ""), ("moved", "auto", "sport"), ("rewritten", "held", "")):
        before, after = of(pipeline, name)[:2]
        assert before is not None
        assert after is not None
        assert (after.meta.placement, after.meta.category, after.published_at) == (placement, category, old)
        np.testing.assert_array_equal(before.vector, after.vector)
    assert worker.metric("stoppress_encoder_texts_total") > texts, "meanwhile the backfill goes on"
    assert worker.metric("stoppress_article_records_total", outcome="unchanged") == 2
    assert worker.metric("stoppress_article_records_total", outcome="withdrawn") == 1
    assert worker.metric("stoppress_encoder_queue_articles") > BACKFILL / 2


def test_only_what_is_finished_without_a_gap_is_committed_and_a_kill_repeats_nothing(pipeline: Pipeline) -> None:
    sent = queue(pipeline, old_articles(600))
    bad = pipeline.send(pipeline.topics.articles, b"bad", b"no json")
    worker = pipeline.worker("articles").start()
    until_count(pipeline, 100)
    worker.kill()
    done = {record.key for record in vectors(pipeline)}
    unfinished = [s.offset for number, s in enumerate(sent) if f"old-{number}".encode() not in done]
    assert committed(pipeline) <= unfinished[0]

    worker.start()
    await_true(lambda: committed(pipeline) == bad.offset + 1, "all is committed", 60, lambda: committed(pipeline))
    written = [record.key for record in vectors(pipeline)]
    assert len(written) == len(set(written)) == 600, "each was written once"
    assert worker.metric("stoppress_article_records_total", outcome="skipped") >= 100
    assert [letter.offset for letter in letters(pipeline.settings, pipeline.topics)] == [bad.offset]


def test_an_older_version_never_follows_a_newer_one_also_after_a_kill(pipeline: Pipeline) -> None:
    old = old_articles(400)
    pipeline.article("last", "What waits longest holds the committed offset back", published_at=now_ms() - 29 * DAY)
    pipeline.article("corrected", "The first version, soon found wrong", published_at=now_ms() - 29 * DAY)
    pipeline.article("withdrawn", "A story that should not have been told", published_at=now_ms() - 29 * DAY)
    queue(pipeline, old)
    newest = pipeline.article("corrected", "The corrected version")
    pipeline.withdraw("withdrawn")
    worker = pipeline.worker("articles").start(ready=False)
    until_written(pipeline, "corrected")
    until_written(pipeline, "withdrawn")
    worker.kill()
    assert committed(pipeline) == 0

    # With so little read ahead, the old versions are met long before the newer ones.
    again = pipeline.worker("articles", encoder_read_ahead=10).start()
    await_true(lambda: committed(pipeline) > newest.offset + 1, "all is committed", 60, lambda: committed(pipeline))
    assert len(vectors(pipeline)) == len(old) + 3
    (corrected,) = of(pipeline, "corrected")
    assert corrected is not None
    assert corrected.meta.offset == newest.offset
    assert of(pipeline, "withdrawn") == [None]
    assert again.metric("stoppress_article_records_total", outcome="skipped") >= 2


def test_unchanged_text_is_not_embedded_again_not_even_by_another_process(pipeline: Pipeline) -> None:
    worker = pipeline.worker("articles").start()
    pipeline.article("a", "The same story", abstract="As it was.")
    until_written(pipeline, "a")
    pipeline.article("a", "The same story", abstract="As it was.", entities=["Q1"])
    until_written(pipeline, "a", 2)
    assert worker.metric("stoppress_encoder_texts_total") == 1
    worker.stop()
    worker.start()
    pipeline.article("a", "The same  story", body="<p>As it was.</p>", tags=["again"])
    until_written(pipeline, "a", 3)
    assert worker.metric("stoppress_encoder_texts_total") == 0
    first, second, third = of(pipeline, "a")
    assert first is not None
    assert second is not None
    assert third is not None
    np.testing.assert_array_equal(first.vector, second.vector)
    np.testing.assert_array_equal(first.vector, third.vector)
    assert (second.meta.entities, third.meta.tags) == (["Q1"], ["again"])


def test_an_article_expires_with_a_tombstone_also_where_the_worker_was_down_at_the_time(pipeline: Pipeline) -> None:
    worker = pipeline.worker("articles").start()
    expires_at = now_ms() + 1500
    pipeline.article("live", "Live: the cup final, goal by goal", expires_at=expires_at)
    pipeline.article("later", "What to cook this evening", expires_at=expires_at + 1500)
    pipeline.article("stale", "News of last year", published_at=now_ms() - 400 * DAY)
    assert until_written(pipeline, "stale").value is None
    tombstone = until_written(pipeline, "live", 2)
    assert tombstone.value is None
    assert tombstone.timestamp >= expires_at
    assert tombstone.headers[CAUSE_HEADER] == str(expires_at).encode()
    assert worker.metric("stoppress_article_records_total", outcome="expired") == 2
    worker.kill()
    await_true(lambda: now_ms() > expires_at + 1500, "the time comes")
    worker.start()
    assert until_written(pipeline, "later", 2).value is None
    assert len(of(pipeline, "live")) == 2, "its tombstone is not written again"


def test_bad_articles_are_dead_letters_with_a_reason_and_large_ones_are_embedded(pipeline: Pipeline) -> None:
    worker = pipeline.worker("articles").start()
    bad = {
        "markup": (encode(Article(article_id="markup", title="<b></b>", published_at=now_ms())), "empty_text"),
        "empty": (encode(Article(article_id="empty", title="", published_at=now_ms())), "wrong_shape"),
        "tag": (
            encode(Article(article_id="tag", title="t", published_at=now_ms(), language="??")),
            "wrong_language",
        ),
        "half": (b'{"article_id": "half", "title": "\\ud83d", "published_at": 1}', "not_json"),
    }
    for name, (value, _) in bad.items():
        pipeline.send(pipeline.topics.articles, name.encode(), value)
    pipeline.article("large", "Minutes of the meeting", body="All that was said. " * 270_000)
    pipeline.until_embedded("large")
    found = {
        letter.key: letter for letter in letters(pipeline.settings, pipeline.topics)
    }  # fmt: skip
    for name, (value, reason) in bad.items():
        letter = found[name.encode()]
        assert (letter.reason, letter.value, letter.worker) == (reason, value, "articles")
        assert letter.detail
    assert worker.metric("stoppress_article_records_total", outcome="dead") == len(bad)
    assert worker.metric("stoppress_dead_letters_total", worker="articles", reason="empty_text") == 1
    assert [record.key for record in vectors(pipeline)] == [b"large"]


def test_what_a_worker_tells_of_its_encoder(pipeline: Pipeline) -> None:
    worker = pipeline.worker("articles").start()
    queue(pipeline, old_articles(50))
    until_count(pipeline, 50)
    assert encoder_info(worker, pipeline) == 1
    assert worker.metric("stoppress_encoder_texts_total") == 50
    text, padding = (worker.metric("stoppress_encoder_tokens_total", kind=kind) for kind in ("text", "padding"))
    assert text > 50 * 10
    assert 0 <= padding < text
    runs = worker.metric("stoppress_encoder_batch_articles_count")
    assert 1 < runs < 50
    assert worker.metric("stoppress_encoder_batch_articles_sum") == 50
    assert worker.metric("stoppress_encoder_padding_ratio_count") == runs
    assert worker.metric("stoppress_encoder_running_seconds_count") == runs
    assert worker.metric("stoppress_encoder_waiting_seconds_count") == 50
    assert worker.metric("stoppress_encoder_tokenising_seconds_total") > 0
    assert worker.metric("stoppress_publish_to_vector_seconds_count") == 50


def encoder_info(worker: Worker, pipeline: Pipeline) -> float:
    generation = pipeline.topics.generation
    return worker.metric(
        "stoppress_encoder_info", provider="CPUExecutionProvider", model="minilm", generation=generation
    )


def test_a_partition_that_goes_to_another_worker_is_gone_on_with_and_nothing_is_repeated(
    broker: LocalBroker, tmp_path: Path
) -> None:
    with pipeline_on(broker, tmp_path, article_partitions=2) as pipeline:
        articles = old_articles(500)
        queue(pipeline, articles)
        first = pipeline.worker("articles").start()
        until_count(pipeline, 50)
        second = pipeline.worker("articles", slot="1").start()
        until_count(pipeline, len(articles))
        written = [record.key for record in vectors(pipeline)]
        assert sorted(map(str, written)) == sorted(str(article.article_id.encode()) for article in articles)
        for worker in (first, second):
            assert worker.metric("stoppress_partitions_assigned") == 1
            assert worker.metric("stoppress_encoder_texts_total") > 0
