"""The simulator before a real pipeline: what it sends, and whether lists of their own are of use to its users."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.errors import TopicsDiffer
from contract.messages import Article, Event, List, decode
from contract.settings import Settings
from producers.simulate import Report, progress_line, simulate
from producers.simulation import Simulation
from streams.local_broker import LocalBroker
from streams.worker import Stop
from tests.command import refused, stoppress
from tests.pipeline import Pipeline, now_ms, pipeline_on

SECONDS = 12.0


@pytest.fixture
def pipeline(broker: LocalBroker, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline_on(broker, tmp_path) as pipeline:
        pipeline.start("articles", "users", "ranker")
        yield pipeline


def run(pipeline: Pipeline, *, taste: bool, report: Path | None = None) -> Report:
    return simulate(
        pipeline.settings, users=300, archive=300, history=3.0, clicks_per_second=150.0, publications_per_second=2.0,
        seconds=SECONDS, seed=3, taste=taste, report=report,
        article_vectors=pipeline.topics.article_vectors, stop=Stop(),
    )  # fmt: skip


def standard_errors(report: Report) -> float:
    """How many standard errors of the difference the personal CTR lies above the popular one."""
    assert report.ctr.personal is not None
    assert report.ctr.popular is not None
    assert report.ctr_se.personal is not None
    assert report.ctr_se.popular is not None
    error: float = (report.ctr_se.personal**2 + report.ctr_se.popular**2) ** 0.5
    return (report.ctr.personal - report.ctr.popular) / error


def test_with_taste_lists_of_their_own_beat_the_popular_list_and_every_event_is_folded(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    report = run(pipeline, taste=True, report=tmp_path / "report.json")
    assert standard_errors(report) > 3
    assert report.precision.personal is not None
    assert report.precision.popular is not None
    assert report.precision.personal > 1.5 * report.precision.popular
    assert report.clicks_per_second == pytest.approx(150, rel=0.2)
    assert report.articles_published == pytest.approx(300 + 2 * SECONDS, abs=3)
    assert report.lists_received > 0
    written = json.loads((tmp_path / "report.json").read_bytes())
    assert written["ctr"] == {"personal": report.ctr.personal, "popular": report.ctr.popular}

    totals = pipeline.until_all_read(report.events_sent)
    assert sum(t.folded for t in totals.values()) == report.events_sent
    events = [decode(Event, r.value) for r in pipeline.records(pipeline.topics.user_events).to_the_end() if r.value]
    assert len(events) == report.events_sent
    assert len({event.event_id for event in events}) == len(events)
    assert Counter(event.kind for event in events)["click"] == report.clicks
    assert max(event.at for event in events) <= now_ms()
    assert_clicks_are_in_lists(pipeline, events)
    assert_hidden(pipeline)


def test_without_taste_lists_of_their_own_do_not_beat_the_popular_list(pipeline: Pipeline) -> None:
    report = run(pipeline, taste=False)
    assert not report.taste
    assert standard_errors(report) < 2
    assert report.precision.personal is None, "there is no taste to be precise about"
    assert report.clicks_per_second == pytest.approx(150, rel=0.2)


def test_no_topics_are_a_setup_error(settings: Settings) -> None:
    with pytest.raises(TopicsDiffer, match="topics create"):
        Simulation(settings, users=5, seed=1)
    assert "topics create" in refused(stoppress(settings, "produce", "simulate", "--seconds", "1"))


def test_without_workers_it_publishes_and_waits_for_lists_to_look_at(broker: LocalBroker, tmp_path: Path) -> None:
    with pipeline_on(broker, tmp_path) as pipeline:
        lines: list[str] = []
        report = simulate(
            pipeline.settings, users=10, archive=20, seconds=1.2, stop=Stop(),
            on_progress=lambda figures: lines.append(progress_line(figures)),
        )  # fmt: skip
        assert (report.views, report.clicks, report.ctr.personal) == (0, 0, None)
        assert 20 <= report.articles_published <= 22
        assert lines[0].startswith("1 s · 0 clicks/s · 0 events · 2")


def test_the_history_is_of_hours_ago_and_what_was_clicked_was_shown(broker: LocalBroker, tmp_path: Path) -> None:
    with pipeline_on(broker, tmp_path) as pipeline:
        simulation = Simulation(pipeline.settings, users=40, seed=2)
        simulation.publish_archive(100)
        began = now_ms()
        simulation.publish_history(3.0)
        simulation.close()
        events = [decode(Event, r.value) for r in pipeline.records(pipeline.topics.user_events).to_the_end() if r.value]
        articles = [
            decode(Article, r.value) for r in pipeline.records(pipeline.topics.articles).to_the_end() if r.value
        ]
    published = {article.article_id: article.published_at for article in articles}
    clicks = [event for event in events if event.kind == "click"]
    assert len(clicks) == simulation.clicks >= 3 * 40
    assert all(began - 13 * 3_600_000 < event.at < began for event in events)
    assert all(published[event.article_id] <= event.at for event in clicks)
    shown = {(e.user_id, item.article_id) for e in events for item in e.shown}
    in_lists = [event for event in clicks if event.position is not None]
    assert all((event.user_id, event.article_id) in shown for event in in_lists)
    assert 0 < len(clicks) - len(in_lists) < 0.5 * len(clicks), "some were come upon elsewhere"


def assert_clicks_are_in_lists(pipeline: Pipeline, events: list[Event]) -> None:
    """A click on a list's item names the list, the place in it and why the item was there."""
    lists = {}
    for record in pipeline.records(pipeline.topics.recommendations).to_the_end():
        if record.value is not None:
            shown = decode(List, record.value)
            lists[shown.list_id] = shown
    checked = 0
    for event in events:
        if event.kind == "click" and event.list_id:
            assert event.position is not None
            item = lists[event.list_id].items[event.position]
            assert (event.article_id, event.reason, event.source) == (item.article_id, item.reason, item.source)
            checked += 1
        elif event.kind == "impression" and event.list_id:
            items = lists[event.list_id].items
            assert [item.article_id for item in event.shown] == [item.article_id for item in items[: len(event.shown)]]
    assert checked > 500


def assert_hidden(pipeline: Pipeline) -> None:
    """Nothing in Kafka tells a story line by its number."""
    for record in pipeline.records(pipeline.topics.articles).to_the_end():
        assert record.value is not None
        assert not {"line", "storyline", "line_id"} & set(json.loads(record.value))
        assert record.headers == {}


def test_its_log_can_be_judged_with_what_was_explored(pipeline: Pipeline) -> None:
    simulate(
        pipeline.settings, users=60, archive=150, history=0.0, clicks_per_second=60.0, publications_per_second=1.0,
        seconds=8.0, seed=4, article_vectors=pipeline.topics.article_vectors, stop=Stop(),
    )  # fmt: skip
    events = [decode(Event, r.value) for r in pipeline.records(pipeline.topics.user_events).to_the_end() if r.value]
    explored = [item for event in events for item in event.shown if item.propensity is not None]
    ended = stoppress(pipeline.settings, "evaluate", "--from-topics", "--models", "random,blend,ranker", "--json")
    assert ended.code == 0, ended.err
    figures = json.loads(ended.out)
    assert figures["requests"] > 100
    assert figures["models"]["ranker"]["auc"] > figures["models"]["random"]["auc"]
    found = figures["off_policy"]
    assert found["explored"] == len(explored) > 50
    for estimated in found["models"].values():
        assert estimated["ips_ci"][0] <= estimated["ips"] <= estimated["ips_ci"][1]
        assert 0 < estimated["effective_sample_size"] <= len(explored)
    added = sum(count for kind, count in figures["left_out"].items() if "would not have been a candidate" in kind)
    assert added < 0.4 * len(explored), "the evaluation finds what the ranker could have drawn"
