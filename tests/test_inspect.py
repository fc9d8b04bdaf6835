"""``stoppress inspect``: the calculation behind a list and the story of an event, from a running pipeline's topics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from streams.local_broker import LocalBroker
from tests.command import stoppress
from tests.pipeline import Pipeline, pipeline_on, states_of
from tests.test_pipeline import SUBJECTS, ids


@pytest.fixture(scope="module")
def running(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    values = {"list_length": 6, "refresh_seconds": 3600, "holdout": 0}
    with pipeline_on(broker, tmp_path_factory.mktemp("inspect"), **values) as pipeline:
        pipeline.start("articles", "users", "ranker")
        for subject, titles in SUBJECTS.items():
            for number, title in enumerate(titles):
                pipeline.article(f"{subject}-{number}", title, category=subject)
        pipeline.until_embedded(*(f"{subject}-{number}" for subject in SUBJECTS for number in range(4)))
        yield pipeline


def inspected(pipeline: Pipeline, *arguments: str) -> Any:
    answer = stoppress(pipeline.settings, "inspect", *arguments, "--json")
    assert (answer.code, answer.err) == (0, ""), answer
    return json.loads(answer.out)


def test_a_users_calculation_is_that_of_the_list_they_have(running: Pipeline) -> None:
    sent = running.event("fan", "like", "football-0", event_id="likes football")
    shown = running.until_list("fan", lambda x: x.cause.at == sent.timestamp, "after the like")
    found = inspected(running, "user", "fan")
    assert (found["user_id"], found["events_folded"], found["listed_articles"]) == ("fan", 1, 16)
    assert found["barred"] == {"read": 1}
    assert found["published"] == ids(shown)
    listed = [one for one in found["candidates"] if one["position"] is not None]
    assert [one["article_id"] for one in listed] == ids(shown)
    assert len(found["candidates"]) == 15
    for one in found["candidates"]:
        assert sum(one["parts"].values()) == pytest.approx(one["score"], abs=2e-3)
        assert 0 < one["probability"] < 1
        assert one["fate"] in ("chosen", "lower score", "cap", "near duplicate")
        assert (one["fate"] == "chosen") == (one["position"] is not None) == bool(one["words"])
    answer = stoppress(running.settings, "inspect", "user", "fan")
    assert answer.code == 0
    assert "16 articles may be listed; not for this user: 1 read" in answer.out


@pytest.mark.parametrize("key", ["~popular", "~popular/football", "~related/football-0"])
def test_what_is_nobodys_is_calculated_like_any_other_list(running: Pipeline, key: str) -> None:
    length = 4 if key == "~popular/football" else 6
    shown = running.until_list(key, lambda x: len(x.items) == length, "of full length")
    found = inspected(running, "user", key)
    assert (found["user_id"], found["events_folded"]) == (key, 0)
    listed = [one["article_id"] for one in found["candidates"] if one["position"] is not None]
    assert len(listed) == length
    if key == "~related/football-0":
        assert set(ids(shown)[:3]) == set(listed[:3]) == {"football-1", "football-2", "football-3"}
        assert found["barred"] == {"read": 1}
    elif key == "~popular/football":
        assert {article_id.split("-")[0] for article_id in listed} == {"football"}
    assert stoppress(running.settings, "inspect", "user", key).code == 0


def test_the_story_of_a_click_that_caused_a_list(running: Pipeline) -> None:
    sent = running.event("guest", "click", "space-0", event_id="reads space")
    shown = running.until_list("guest", lambda x: x.cause.at == sent.timestamp, "after the click")
    (story,) = inspected(running, "event", "reads space", "--user", "guest")
    assert (story["user_id"], story["kind"], story["article_id"]) == ("guest", "click", "space-0")
    accepted, folded, listed = story["steps"]
    assert (accepted["what"], accepted["partition"], accepted["offset"]) == ("accepted", sent.partition, sent.offset)
    assert (folded["what"], folded["topic"]) == ("folded", running.topics.user_vectors)
    assert (listed["what"], listed["topic"]) == ("list", running.topics.recommendations)
    assert shown.list_id in listed["says"]
    assert 0 == accepted["ms"] <= folded["ms"] <= listed["ms"]
    assert story["end"] == "caused this list"
    assert "caused this list" in stoppress(running.settings, "inspect", "event", "reads space").out


def test_an_event_that_causes_no_list_says_why(running: Pipeline) -> None:
    running.event("quiet", "dwell", "rates-0", event_id="stays a while", dwell_ms=4000)
    running.event("quiet", "click", "unknown", event_id="reads what nobody published")
    sent = running.send(running.topics.user_events, b"quiet", b'{"event_id": "nonsense", "kind": "click"}')
    running.until_dead(sent)
    last = running.event("quiet", "click", "rates-1", event_id="reads rates")
    running.until_list("quiet", lambda x: x.cause.at <= last.timestamp, "after the clicks")
    (dwelt,) = inspected(running, "event", "stays a while")
    assert dwelt["end"] == "caused no list: a dwell asks for none"
    (waiting,) = inspected(running, "event", "reads what nobody published")
    assert [step["what"] for step in waiting["steps"]] == ["accepted", "waits for its article's vector"]
    assert "waits until article 'unknown' has a vector" in waiting["end"]


def test_an_event_that_was_sent_twice_or_waits_alone_is_not_told_as_unread(running: Pipeline) -> None:
    first = running.event("again", "click", "space-1", event_id="clicks twice")
    running.until_list("again", lambda x: x.cause.at == first.timestamp, "of the first")
    running.event("again", "click", "space-1", event_id="clicks twice")
    running.event("again", "click", "unheard of", event_id="the last one waits")
    running.records(running.topics.user_vectors).until(
        lambda records: "again" in (states := states_of(records)) and states["again"].windows.waiting, "the last one"
    )
    once, twice = inspected(running, "event", "clicks twice", "--user", "again")
    assert once["end"] == "caused this list"
    assert f"a duplicate of {running.topics.user_events}[{first.partition}]@{first.offset}" in twice["end"]
    (waiting,) = inspected(running, "event", "the last one waits")
    assert [step["what"] for step in waiting["steps"]] == ["accepted", "waits for its article's vector"]
    assert waiting["steps"][1]["says"] == "in a state"


def test_nobody_and_nothing_by_that_name(running: Pipeline) -> None:
    for arguments, says in (
        (("user", "nobody"), "holds no user 'nobody'"),
        (("user", "~related/nothing"), "there is no list '~related/nothing'"),
        (("user", "~popular/nothing"), "there is no list '~popular/nothing'"),
        (("user", "~else"), "there is no list '~else'"),
        (("event", "none"), "holds no event 'none'"),
    ):
        answer = stoppress(running.settings, "inspect", *arguments)
        assert answer.code == 1
        assert says in answer.err
        assert len(answer.err.splitlines()) == 1
