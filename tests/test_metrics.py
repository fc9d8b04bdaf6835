"""Metrics of the users worker after real events, and the page that lists everybody's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

import consumers.articles
import consumers.feed
import consumers.ranker
import consumers.users  # noqa: F401  all metrics are registered by now
from consumers.user_metrics import Measured
from contract.messages import ShownItem, encode
from streams.local_broker import LocalBroker
from tests.pipeline import Pipeline, Worker, await_true, event, pipeline_on
from tests.test_worker import ARTICLES, publish_vectors, send_clicks

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
USERS = 5


@pytest.fixture(scope="module")
def worker(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A users worker that has met an event of every fate."""
    with pipeline_on(broker, tmp_path_factory.mktemp("metrics")) as pipeline:
        publish_vectors(pipeline)
        worker = pipeline.worker("users").start()
        send(pipeline)
        yield worker


def send(pipeline: Pipeline) -> None:
    shown = [ShownItem(article_id=ARTICLES[n], position=n, reason="similar") for n in range(3)]
    for n in range(USERS):
        pipeline.event(f"user-{n}", "impression", shown=shown)
        pipeline.event(f"user-{n}", "click", ARTICLES[0], position=0, reason="similar", event_id="once")
    pipeline.event("user-0", "click", ARTICLES[0], event_id="once")
    pipeline.event("user-1", "click", "not-yet-there")
    pipeline.send(pipeline.topics.user_events, b"user-2", b"no JSON")
    pipeline.send(pipeline.topics.user_events, b"user-2", encode(event("user-3", "share", ARTICLES[0])))
    pipeline.until_all_read(2 * USERS + 4)


def seconds(name: str) -> Callable[[Worker], bool]:
    """Some batches were timed, none for long."""
    return lambda w: 0 < w.metric(f"{name}_sum") < 10 * w.metric(f"{name}_count")


SHOWN_BY_ALL = {"reason": "similar", "position": "2"}
METRICS: dict[str, Callable[[Worker], bool]] = {
    "events folded": lambda w: w.metric("stoppress_events_total", kind="click", outcome="folded") == USERS,
    "events waiting": lambda w: w.metric("stoppress_events_total", kind="click", outcome="waiting") == 1,
    "events duplicate": lambda w: w.metric("stoppress_events_total", kind="click", outcome="duplicate") == 1,
    "events dead": lambda w: w.metric("stoppress_events_total", outcome="dead") == 2,
    "events dead whose kind is known": lambda w: (
        w.metric("stoppress_events_total", kind="share", outcome="dead")
        == w.metric("stoppress_events_total", kind="unknown", outcome="dead")
        == 1
    ),
    "items shown": lambda w: w.metric("stoppress_impressions_total", **SHOWN_BY_ALL) == USERS,
    "items clicked": lambda w: w.metric("stoppress_clicks_total", reason="similar", position="0") == USERS,
    "batches": lambda w: w.metric("stoppress_users_batch_events_sum") == 2 * USERS + 4,
    "decoding": seconds("stoppress_users_decode_seconds"),
    "folding": seconds("stoppress_users_fold_seconds"),
    "writing": seconds("stoppress_users_write_seconds"),
    "committing": seconds("stoppress_transaction_commit_seconds"),
    "transactions": lambda w: (
        w.metric("stoppress_transactions_total", outcome="begun")
        == w.metric("stoppress_transactions_total", outcome="committed") + w.metric(
            "stoppress_transactions_total", outcome="aborted")
        > 0
    ),
    "restores": lambda w: 0 < w.metric("stoppress_restore_seconds") < 60,
    "rebalances": lambda w: w.metric("stoppress_rebalances_total", kind="assigned") >= 1,
    "users": lambda w: w.metric("stoppress_users") == USERS,
    "bytes": lambda w: USERS * 2 * 96 * 4 < w.metric("stoppress_users_state_bytes") < USERS * 2000,
    "waits": lambda w: w.metric("stoppress_waiting_events") == 1,
    "age of waits": lambda w: 0 < w.metric("stoppress_waiting_oldest_seconds") < 60,
    "lag": lambda w: w.metric("stoppress_consumer_lag_records") == 0,
    "seconds of lag": lambda w: w.metric("stoppress_users_lag_seconds") == 0,
    "dead letters": lambda w: w.metric("stoppress_dead_letters_total", reason="not_json") == 1,
}  # fmt: skip


@pytest.mark.parametrize("name", METRICS)
def test_after_real_events_each_has_a_plausible_value(worker: Worker, name: str) -> None:
    await_true(lambda: METRICS[name](worker), name, 10, lambda: worker.get("/metrics")[1])


def test_the_age_of_what_waits_grows_though_nothing_comes(worker: Worker) -> None:
    age = worker.metric("stoppress_waiting_oldest_seconds")
    await_true(lambda: worker.metric("stoppress_waiting_oldest_seconds") > age, "it grows", 10)


def test_a_burst_a_merge_a_restart_and_a_backlog_are_counted(broker: LocalBroker, tmp_path: Path) -> None:
    with pipeline_on(broker, tmp_path, events_per_minute=10) as pipeline:
        publish_vectors(pipeline)
        worker = pipeline.worker("users").start()
        burst = [event("fast", "click", ARTICLES[n % len(ARTICLES)]) for n in range(50)]
        pipeline.send_all([(pipeline.topics.user_events, b"fast", encode(click), -1) for click in burst])
        pipeline.event("fast", "merge", target="login")
        pipeline.until_all_read(len(burst) + 2)
        await_true(lambda: worker.metric("stoppress_absorbs_written_total") == 1, "the merge is counted")
        assert 20 <= worker.metric("stoppress_rate_limited_events_total") <= 40
        assert worker.stop() == 0
        sent = send_clicks(pipeline, 400)
        worker.start()
        assert worker.metric("stoppress_restored_records_total") > 0
        pipeline.until_all_read(len(burst) + 2 + sent)
        pipeline.event("slow", "click", ARTICLES[0])
        pipeline.until_all_read(len(burst) + 3 + sent)

        def batches(at_most: str) -> float:
            return worker.metric("stoppress_users_batch_events_bucket", le=at_most)

        await_true(lambda: batches("4.0") >= 1, "a click alone is a batch")
        assert batches("+Inf") - batches("64.0") >= 1, "a backlog is taken in large ones"
        assert worker.metric("stoppress_users_batch_events_sum") == sent + 1


def test_an_event_in_a_paused_partition_is_lag_that_ages(broker: LocalBroker, tmp_path: Path) -> None:
    with pipeline_on(broker, tmp_path) as pipeline:
        publish_vectors(pipeline)
        pipeline.send(pipeline.topics.user_vectors, b"user-0", b"damaged", pipeline.partition("user-0"))
        worker = pipeline.worker("users").start(ready=False)
        worker.await_log("partition_paused")
        pipeline.event("user-0", "click", ARTICLES[0])
        await_true(lambda: worker.metric("stoppress_consumer_lag_records") == 1, "it is seen", 20)
        await_true(lambda: worker.metric("stoppress_users_lag_seconds") > 2, "it ages", 20)


@pytest.mark.parametrize(("looks", "ages"), [
    ([({}, {})], [0]),
    ([({0: 5}, {0: 7_000})], [3_000]),
    ([({0: 5, 1: 1}, {1: 9_000}), ({0: 5, 1: 1}, {1: 9_000})], [1_000, 9_000]),
    ([({2: 5}, {}), ({2: 5}, {}), ({}, {}), ({2: 1}, {})], [0, 1_000, 0, 0]),
    ([({3: 1}, {}), ({3: 1}, {}), ({3: 1}, {})], [0, 1_000, 2_000]),
], ids=["nothing left", "in hand after a start", "one waits meanwhile", "quiet before", "never folded"])  # fmt: skip
def test_the_age_of_what_is_not_folded(looks: list[tuple[dict[int, int], dict[int, int]]], ages: list[int]) -> None:
    """Looks from 10 s on, a second apart: how far each partition is behind, and the first of its records in hand."""
    measured, folded_at = Measured(), {0: 2_000, 1: 8_000, 2: 10_000, 3: 0}
    assert [
        measured.lag_ms(behind, in_hand, folded_at, 10_000 + 1_000 * look)
        for look, (behind, in_hand) in enumerate(looks)
    ] == ages


def test_every_metric_is_on_its_page_and_no_other() -> None:
    named = set(re.findall(r"\|? `(stoppress_\w+)`", PAGE.read_text()))
    registered = {
        family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        for family in REGISTRY.collect()
        if family.name.startswith("stoppress_")
    }
    assert registered - named == set()
    assert named - registered == set()


def test_no_metric_is_labelled_by_an_id() -> None:
    labels = {
        label
        for family in REGISTRY.collect()
        if family.name.startswith("stoppress_")
        for sample in family.samples
        for label in sample.labels
    }
    assert labels <= {
        "worker",
        "kind",
        "outcome",
        "reason",
        "position",
        "cause",
        "topic",
        "route",
        "status",
        "group",
        "le",
    }
