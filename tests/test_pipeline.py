"""The four workers as processes: articles and events in, fresh lists out."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from contract.messages import POPULAR, POPULAR_IN, RELATED_TO, List, decode
from streams.local_broker import LocalBroker
from tests.pipeline import Pipeline, Worker, await_true, now_ms, pipeline_on

SUBJECTS = {
    "football": [
        "Late goal sends United into the cup final",
        "Striker scores twice as City win the league derby",
        "Goalkeeper saves penalty and his team stays top of the league",
        "Coach praises midfield after football club's fifth win",
    ],
    "rates": [
        "Central bank raises interest rates to curb inflation",
        "Bond yields jump after the bank's rate decision",
        "Inflation slows, and economists expect lower interest rates",
        "Mortgage lenders pass on the central bank's rate rise",
    ],
    "space": [
        "Telescope finds water vapour on a distant planet",
        "Rocket launch brings astronauts to the space station",
        "Probe lands on an asteroid and collects dust",
        "Astronomers photograph a black hole in a nearby galaxy",
    ],
    "kitchen": [
        "A simple recipe for sourdough bread with rye flour",
        "How to bake an apple cake that stays moist",
        "Chefs share their favourite winter soups",
        "Why your bread dough needs a night in the refrigerator",
    ],
}


@dataclass(frozen=True)
class Running:
    pipeline: Pipeline
    articles: Worker
    users: Worker
    ranker: Worker
    feed: Worker

    def fetch(self, user_id: str) -> dict[str, Any]:
        """What the feed serves for a user."""
        status, body = self.feed.get(f"/v1/feed?user_id={quote(user_id)}")
        assert status == 200, body
        served: dict[str, Any] = json.loads(body)
        return served

    def until_served(self, user_id: str, *, without: str) -> None:
        await_true(
            lambda: without not in {item["article_id"] for item in self.fetch(user_id)["items"]},
            f"{without} leaves the feed of {user_id}",
            seen=lambda: self.fetch(user_id),
        )

    def reader(self, user_id: str, article_id: str) -> List:
        """Let a user click; return the list that came of it."""
        sent = self.pipeline.event(user_id, "click", article_id, event_id=f"{user_id} reads {article_id}")
        return self.pipeline.until_list(
            user_id, lambda x: x.cause.at == sent.timestamp, f"after a click on {article_id}"
        )


@pytest.fixture(scope="module")
def running(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    values = {"list_length": 6, "refresh_seconds": 3600, "popular_seconds": 0.2, "explain": True}
    with pipeline_on(broker, tmp_path_factory.mktemp("pipeline"), **values) as pipeline:
        workers = pipeline.start("articles", "users", "ranker", "feed")
        for subject, titles in SUBJECTS.items():
            for number, title in enumerate(titles):
                pipeline.article(f"{subject}-{number}", title, category=subject)
        pipeline.until_embedded(*(f"{subject}-{number}" for subject in SUBJECTS for number in range(4)))
        yield Running(pipeline, *workers)


def ids(shown: List) -> list[str]:
    return [item.article_id for item in shown.items]


def by_interest(shown: List) -> list[str]:
    """The list's articles by how near they are to what the user read; few clicks make much popularity here."""
    nearest = sorted(shown.items, key=lambda item: item.parts["long"] + item.parts["short"], reverse=True)
    return [item.article_id for item in nearest]


def test_a_click_causes_a_list_of_similar_articles_without_the_one_read(running: Running) -> None:
    sent = running.pipeline.event("fan", "click", "football-0", event_id="the first click")
    shown = running.pipeline.until_list("fan", lambda x: x.cause.kind == "event", "caused by the click")
    assert (shown.cause.id, shown.cause.at) == ("the first click", sent.timestamp)
    assert shown.generation == running.pipeline.topics.generation
    assert not shown.fallback
    assert len(shown.items) == 6
    assert set(by_interest(shown)[:3]) == {"football-1", "football-2", "football-3"}
    assert "football-0" not in ids(shown)
    scores = [item.score for item in shown.items]
    assert scores == sorted(scores, reverse=True)
    for item in shown.items:
        assert sum(item.parts.values()) == pytest.approx(item.score, abs=1e-3)


def test_the_last_article_read_leaves_the_list_and_older_ones_stay_out(running: Running) -> None:
    running.reader("two", "space-0")
    shown = running.reader("two", "space-1")
    assert not {"space-0", "space-1"} & set(ids(shown))
    assert set(by_interest(shown)[:2]) == {"space-2", "space-3"}


def test_a_publication_reaches_whom_it_concerns(running: Running) -> None:
    running.reader("saver", "rates-0")
    sent = running.pipeline.article("rates-new", "Central bank leaves interest rates unchanged as inflation falls")
    shown = running.pipeline.until_list("saver", lambda x: "rates-new" in ids(x), "with the new article")
    assert (shown.cause.kind, shown.cause.id, shown.cause.at) == ("article", "rates-new", sent.timestamp)
    assert "rates-new" in by_interest(shown)[:3]


def test_a_withdrawn_article_leaves_every_list_and_the_feed(running: Running) -> None:
    running.pipeline.article("space-gone", "Telescope finds water vapour on three distant planets")
    for user_id in ("star", "moon"):
        running.reader(user_id, "space-0")
        running.pipeline.until_list(user_id, lambda x: "space-gone" in ids(x), "with the article")
    sent = running.pipeline.withdraw("space-gone")
    for user_id in ("star", "moon"):
        shown = running.pipeline.until_list(user_id, lambda x: x.cause.kind == "withdrawal", "after the withdrawal")
        assert (shown.cause.id, shown.cause.at) == ("space-gone", sent.timestamp)
        assert "space-gone" not in ids(shown)
        running.until_served(user_id, without="space-gone")
    assert_gone_from_every_list(running, "space-gone")


def test_an_article_that_an_editor_holds_leaves_every_list_and_returns(running: Running) -> None:
    title = "A simple recipe for sourdough bread with wheat flour"
    running.pipeline.article("bread-held", title)
    running.reader("baker", "kitchen-0")
    running.pipeline.until_list("baker", lambda x: "bread-held" in ids(x), "with the article")
    sent = running.pipeline.article("bread-held", title, placement="held")
    shown = running.pipeline.until_list("baker", lambda x: x.cause.kind == "withdrawal", "after the hold")
    assert (shown.cause.id, shown.cause.at) == ("bread-held", sent.timestamp)
    assert "bread-held" not in ids(shown)
    running.until_served("baker", without="bread-held")
    assert_gone_from_every_list(running, "bread-held")
    sent = running.pipeline.article("bread-held", title)
    shown = running.pipeline.until_list("baker", lambda x: x.cause.at == sent.timestamp, "after the release")
    assert shown.cause.kind == "article"
    assert "bread-held" in ids(shown)


def test_an_article_expires_at_its_time(running: Running) -> None:
    running.reader("late", "football-0")
    expires_at = now_ms() + 3000
    running.pipeline.article("football-live", "Live: late goal sends United into the cup final", expires_at=expires_at)
    running.pipeline.until_list("late", lambda x: "football-live" in ids(x), "with the live ticker")
    shown = running.pipeline.until_list("late", lambda x: x.cause.kind == "withdrawal", "after the expiry")
    assert shown.cause.id == "football-live"
    assert expires_at <= shown.generated_at < expires_at + 2000
    assert "football-live" not in ids(shown)
    running.until_served("late", without="football-live")


def test_an_embargo_ends_at_its_time(running: Running) -> None:
    running.reader("early", "space-0")
    published_at = now_ms() + 2500
    running.pipeline.article(
        "space-embargo", "Telescope finds water vapour on a second distant planet", published_at=published_at
    )
    running.pipeline.until_embedded("space-embargo")
    shown = running.pipeline.until_list("early", lambda x: "space-embargo" in ids(x), "with the embargoed article")
    assert (shown.cause.kind, shown.cause.id, shown.cause.at) == ("article", "space-embargo", published_at)
    assert published_at <= shown.generated_at < published_at + 2000


def test_a_user_nobody_knows_gets_the_popular_list(running: Running) -> None:
    popular = running.pipeline.until_list(POPULAR, lambda x: len(x.items) == 6, "of full length")
    assert popular.user_id == POPULAR
    await_true(lambda: running.fetch("nobody")["items"], "the feed has a popular list")
    served = running.fetch("nobody")
    assert served["fallback"] is True
    assert served["user_id"] == "nobody"
    assert len(served["items"]) == 6
    assert all(item["title"] for item in served["items"])


def test_what_is_clicked_becomes_popular(running: Running) -> None:
    for number in range(12):
        running.pipeline.event(f"crowd-{number}", "click", "kitchen-2")
    running.pipeline.until_list(POPULAR, lambda x: ids(x)[0] == "kitchen-2", "led by the article that all click")


def test_two_new_users_in_different_regions_get_what_is_read_there(running: Running) -> None:
    read_in = {"DE-BY": "rates-2", "US-CA": "space-3"}
    for region, article_id in read_in.items():
        for number in range(12):
            running.pipeline.event(f"{region}-{number}", "click", article_id, context={"region": region})
    newcomers = itertools.count()

    def first_listed(region: str) -> str:
        """What heads the list of somebody who has read nothing."""
        user_id = f"new in {region} {next(newcomers)}"
        sent = running.pipeline.event(
            user_id, "follow", target="nobody", context={"region": region, "device": "mobile"}
        )
        return ids(running.pipeline.until_list(user_id, lambda x: x.cause.at == sent.timestamp, "of a newcomer"))[0]

    for region, article_id in read_in.items():
        await_true(lambda r=region, a=article_id: first_listed(r) == a, f"{article_id} heads lists in {region}")  # type: ignore[misc]


def test_an_article_has_its_related_ones_and_a_withdrawn_one_neither_has_nor_is_any(running: Running) -> None:
    title = "Rocket launch takes two astronauts to the space station"
    sent = running.pipeline.article("space-rocket", title, category="space")
    key = RELATED_TO + "space-rocket"
    shown = running.pipeline.until_list(key, lambda x: x.items != [], "of a new article")
    assert (shown.cause.kind, shown.cause.id, shown.cause.at) == ("article", "space-rocket", sent.timestamp)
    assert "space-1" in ids(shown)
    assert "space-rocket" not in ids(shown)
    other = running.pipeline.until_list(RELATED_TO + "space-1", lambda x: "space-rocket" in ids(x), "the other way")
    assert {item.source for item in (*shown.items, *other.items)} == {"related_list"}
    await_true(lambda: running.fetch(key)["items"], "it is served")
    running.pipeline.withdraw("space-rocket")
    assert_gone_from_every_list(running, "space-rocket")
    running.pipeline.records(running.pipeline.topics.recommendations).until(
        lambda records: {r.key: r.value for r in records}[key.encode()] is None, "its own list is taken away"
    )
    await_true(lambda: not running.fetch(key)["items"], "nothing is served in its place")


def test_a_category_has_a_popular_list_of_its_own(running: Running) -> None:
    key = POPULAR_IN + "rates"
    shown = running.pipeline.until_list(key, lambda x: len(x.items) >= 4, "of the section")
    assert {name.split("-")[0] for name in ids(shown)} == {"rates"}
    await_true(lambda: [item["category"] for item in running.fetch(key)["items"]] == ["rates"] * 4, "it is served")


def test_forget_takes_the_list_and_the_state_away(running: Running) -> None:
    running.reader("shy", "rates-1")
    await_true(lambda: not running.fetch("shy")["fallback"], "the feed has the list")
    running.pipeline.event("shy", "forget")
    for topic in (running.pipeline.topics.user_vectors, running.pipeline.topics.recommendations):
        running.pipeline.records(topic).until(
            lambda records: any(r.key == b"shy" and r.value is None for r in records), f"a tombstone in {topic}"
        )
    await_true(lambda: running.fetch("shy")["fallback"], "the feed falls back to the popular list")
    assert "rates-1" in ids(running.reader("shy", "rates-0")), "that it was read is forgotten too"


def test_a_list_that_stays_as_it_was_is_not_published_again(running: Running) -> None:
    running.reader("steady", "kitchen-1")
    likes = iter(range(100))

    def lists_after_a_like() -> int:
        """A like of the article just read moves nothing, once the click itself has been counted everywhere."""
        event_id = f"like {next(likes)}"
        running.pipeline.event("steady", "like", "kitchen-1", event_id=event_id)
        running.pipeline.until_ranked("steady", event_id)
        return sum(r.key == b"steady" for r in running.pipeline.records(lists).to_the_end())

    lists = running.pipeline.topics.recommendations
    await_true(lambda: lists_after_a_like() == lists_after_a_like(), "a like leaves the list as it was")


def test_the_feed_serves_what_the_ranker_published(running: Running) -> None:
    shown = running.reader("guest", "football-2")
    served = await_true(
        lambda: found if (found := running.fetch("guest"))["list_id"] == shown.list_id else None, "the list is served"
    )
    assert [item["article_id"] for item in served["items"]] == ids(shown)
    assert served["cause"]["at"] == shown.cause.at
    assert served["latency_ms"] >= 0
    assert not served["fallback"]


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("articles", "stoppress_article_records_total"),
        ("users", "stoppress_events_total"),
        ("ranker", "stoppress_lists_total"),
        ("feed", "stoppress_feed_lists"),
    ],
)
def test_each_worker_answers_for_itself(running: Running, name: str, metric: str) -> None:
    running.reader(f"counted by {name}", "rates-3")
    worker: Worker = getattr(running, name)
    assert worker.get("/healthz") == (200, "alive\n")
    assert worker.get("/readyz") == (200, "ready\n")
    assert worker.get("/nothing")[0] == 404
    assert worker.metric(metric) > 0


@pytest.mark.prometheus
@pytest.mark.parametrize("name", ["articles", "users", "ranker", "feed"])
def test_prometheus_finds_nothing_wrong_with_the_metrics(running: Running, name: str, promtool: str) -> None:
    metrics = getattr(running, name).get("/metrics")[1]
    done = subprocess.run([promtool, "check", "metrics"], input=metrics, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def assert_gone_from_every_list(running: Running, article_id: str) -> None:
    """In the newest list of every key."""

    def gone(records: Any) -> bool:
        newest = {r.key: r.value for r in records}
        return all(article_id not in ids(decode(List, value)) for value in newest.values() if value is not None)

    running.pipeline.records(running.pipeline.topics.recommendations).until(gone, f"{article_id} is in no list")
