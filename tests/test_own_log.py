"""What a running system showed and what came of it, read from a real Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from consumers.shown_log import CLICKED_WITHIN_MS, TWICE, UNREADABLE, ShownLog, read_shown, read_vectors
from contract.errors import SetupError
from contract.messages import ShownItem, encode
from contract.records import ArticleMeta, ArticleRecord, encode_article
from evaluation.left_out import LeftOut
from streams.local_broker import LocalBroker
from tests.command import refused, stoppress
from tests.pipeline import Pipeline, event, now_ms, pipeline_on

HOUR_MS = 3_600_000
BEGAN = now_ms() - 5 * HOUR_MS


def silent(_line: object) -> None:
    pass


@pytest.fixture
def pipeline(broker: LocalBroker, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline_on(broker, tmp_path) as pipeline:
        yield pipeline


def send(pipeline: Pipeline, user: str, kind: str, at: int, article: str = "", **fields: Any) -> None:
    value = encode(event(user, kind, article, at=at, **fields))
    pipeline.send(pipeline.topics.user_events, user.encode(), value)


def show(pipeline: Pipeline, user: str, at: int, *articles: str, **fields: Any) -> None:
    items = [ShownItem(article_id=a, position=n, propensity=0.25 if n == 1 else None) for n, a in enumerate(articles)]
    send(pipeline, user, "impression", at, shown=items, **fields)


CONTEXT = {"group": "mobile", "region": "DE-BY", "device": "mobile", "age": "40", "language": 7}


def read(pipeline: Pipeline, left_out: LeftOut | None = None, **limits: Any) -> ShownLog:
    return read_shown(pipeline.settings, pipeline.topics, left_out or LeftOut(silent), **limits)


def test_clicks_are_joined_to_the_impression_that_they_answer(pipeline: Pipeline) -> None:
    show(pipeline, "u1", BEGAN + 1000, "a", "b", list_id="first", context=CONTEXT)
    show(pipeline, "u1", BEGAN + 2000, "b", "a", list_id="second")
    show(pipeline, "u2", BEGAN + 1500, "a", "b")
    send(pipeline, "u1", "click", BEGAN + 3000, "a", list_id="first")
    send(pipeline, "u1", "click", BEGAN + 4000, "b")
    send(pipeline, "u1", "click", BEGAN + 5000, "c")
    send(pipeline, "u2", "click", BEGAN + 1500 + CLICKED_WITHIN_MS + 1, "a")
    send(pipeline, "u2", "click", BEGAN + 1400, "b")
    log = read(pipeline)
    told = [(one.user_id, one.candidates, one.clicked, one.elsewhere) for one in log.shown]
    assert told == [
        ("u1", ["a", "b"], [True, False], False),
        ("u2", ["b"], [True], True),  # before it was shown
        ("u2", ["a", "b"], [False, False], False),
        ("u1", ["b", "a"], [True, False], False),
        ("u1", ["c"], [True], True),
        ("u2", ["a"], [True], True),  # too late
    ]
    assert log.clicks == 2
    assert [one.group for one in log.shown[:2]] == ["mobile", ""]
    assert [one.context for one in log.shown[:2]] == [{"region": "DE-BY", "device": "mobile"}, {}]
    assert [item.propensity for item in log.shown[0].items] == [None, 0.25]
    assert [one.at for one in log.shown] == sorted(one.at for one in log.shown)


def test_what_cannot_be_used_is_counted_and_old_events_are_left_out_where_asked(pipeline: Pipeline) -> None:
    left_out = LeftOut(silent)
    show(pipeline, "u1", BEGAN, "a", "b", event_id="e1")
    show(pipeline, "u1", BEGAN, "a", "b", event_id="e1")
    show(pipeline, "u2", now_ms() + 50 * HOUR_MS, "a", "b", event_id="e1")
    pipeline.send(pipeline.topics.user_events, b"u1", b"not JSON")
    send(pipeline, "u1", "like", BEGAN, "a")
    log = read(pipeline, left_out)
    assert [one.user_id for one in log.shown] == ["u1", "u2"]
    assert log.shown[1].at <= now_ms(), "never later than its record's timestamp"
    assert left_out.counts == {UNREADABLE: 1, TWICE: 1}
    assert [one.user_id for one in read(pipeline, hours=1).shown] == ["u2"]
    with pytest.raises(SetupError, match=r"no impression of the last 0 hours.*send an `impression` event"):
        read(pipeline, hours=0)


def test_vectors_are_those_of_the_generation_and_damaged_ones_are_named(pipeline: Pipeline) -> None:
    dims, topic = pipeline.model.dims, pipeline.topics.article_vectors
    vector = np.full(dims, 0.1, np.float32)
    record = encode_article(ArticleRecord(vector, BEGAN, 0, BEGAN, ArticleMeta(category="food")))
    pipeline.send(topic, b"a", record)
    pipeline.send(topic, b"b", b"damaged")
    pipeline.send(topic, b"c", None)
    left_out = LeftOut(silent)
    found = dict(read_vectors(pipeline.settings, pipeline.topics, dims, left_out))
    assert (list(found), found["a"].meta.category, found["a"].published_at) == (["a"], "food", BEGAN)
    assert left_out.counts == {UNREADABLE: 1}


def test_the_command_says_what_is_missing_and_judges_what_there_is(pipeline: Pipeline) -> None:
    settings = pipeline.settings
    assert "send an `impression` event for what they show" in refused(stoppress(settings, "evaluate", "--from-topics"))
    for arguments, says in (
        (["--from-topics", "--format", "mind"], "give a data set and its --format, or --from-topics"),
        ([], "give a data set and its --format, or --from-topics"),
        (["data", "--format", "mind", "--hours", "2"], "--hours goes with --from-topics"),
    ):
        assert says in refused(stoppress(settings, "evaluate", *arguments))
    other = settings.model_copy(update={"namespace": "nowhere."})
    assert "stoppress topics create" in refused(stoppress(other, "evaluate", "--from-topics"))

    for n in range(12):
        items = [ShownItem(article_id=a, position=place) for place, a in enumerate(("a", "b", "c"))]
        send(pipeline, f"u{n % 3}", "impression", BEGAN + n * 1000, shown=items)
        send(pipeline, f"u{n % 3}", "click", BEGAN + n * 1000, "b")
    ended = stoppress(settings, "evaluate", "--from-topics", "--models", "popular,random", "--json")
    assert ended.code == 0, ended.err
    figures = msgspec.json.decode(ended.out)
    assert (figures["task"], figures["requests"], figures["off_policy"]) == ("impressions", 12, None)
    assert figures["models"]["popular"]["auc"] > 0.9
    assert "no place that was given by chance was shown" in ended.err
    assert "articles without a vector" in ended.err
