"""Records of the inner topics that the users worker cannot use: each is named, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.records import ArticleMeta, ArticleRecord, encode_article, encode_user
from streams.local_broker import LocalBroker
from tests.command import stoppress
from tests.pipeline import Pipeline, now_ms, pipeline_on, states_of
from tests.test_worker import publish_vectors, send_clicks


@pytest.fixture
def pipeline(broker: LocalBroker, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline_on(broker, tmp_path) as started:
        publish_vectors(started)
        yield started


def vector(dims: int) -> bytes:
    return encode_article(ArticleRecord(np.full(dims, dims**-0.5, np.float32), now_ms(), 0, now_ms(), ArticleMeta()))


@pytest.mark.parametrize(
    ("value", "says"),
    [(vector(64), "64 numbers where this generation has 96"), (b"damaged", "not a AV record")],
    ids=["of another size", "damaged"],
)
def test_an_article_vector_that_cannot_be_used_is_left_out_and_clicks_wait(
    pipeline: Pipeline, value: bytes, says: str
) -> None:
    topic = pipeline.topics.article_vectors
    pipeline.send(topic, b"before", value)
    worker = pipeline.worker("users").start()
    assert says in worker.await_log("unusable_vector")["what"]
    pipeline.send(topic, b"meanwhile", value)
    worker.await_log("unusable_vector", count=2)
    clicks = [pipeline.event("reader", "click", article) for article in ("before", "meanwhile", "article-0")]
    pipeline.until_totals(clicks[0].partition, lambda t: (t.folded, t.waiting) == (1, 2), "two wait")
    for article_id in (b"before", b"meanwhile"):
        pipeline.send(topic, article_id, vector(pipeline.model.dims))
    pipeline.until_totals(clicks[0].partition, lambda t: (t.folded, t.waiting) == (3, 0), "all are folded")
    assert worker.running


def test_a_state_of_a_newer_version_pauses_its_partition_and_is_not_made_anew(pipeline: Pipeline) -> None:
    worker = pipeline.worker("users").start()
    pipeline.until_all_read(send_clicks(pipeline, 100))
    assert worker.stop() == 0
    state = states_of(pipeline.records(pipeline.topics.user_vectors).to_the_end())["user-0"]
    newer = bytearray(encode_user(state))
    newer[2] += 1
    pipeline.send(pipeline.topics.user_vectors, b"user-0", bytes(newer), pipeline.partition("user-0"))
    worker.start(ready=False)
    line = worker.await_log("partition_paused")
    assert "start the newer version" in line["record"]
    assert line["do"] == "start the version that wrote it"
    assert stoppress(pipeline.settings, "rebuild", "user").out == "no state is damaged\n"
    answer = stoppress(pipeline.settings, "rebuild", "user", "user-0")
    assert (answer.code, answer.out) == (1, "")
    assert "start the newer version" in answer.err
    pipeline.send(pipeline.topics.user_vectors, b"user-0", encode_user(state), pipeline.partition("user-0"))
    worker.await_ready()
