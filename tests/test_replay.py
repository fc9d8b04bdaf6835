"""MIND's files, and their replay in shifted time."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

from contract.errors import SetupError, TopicsDiffer
from contract.messages import Article, Event, decode
from contract.settings import Settings
from contract.topics import Topics
from producers.mind import BrokenLine, read_behaviours, read_news
from producers.replay import READ_BEFORE_MS, Schedule, make_plan, replay
from streams.admin import create_topics, require_topics
from streams.clients import make_admin
from streams.table import end_offsets, read_to_end
from streams.worker import Stop
from tests.pipeline import await_true

ENTITY = '[{"Label": "Ferry Union", "Type": "O", "WikidataId": "Q0", "Confidence": 1.0, "OccurrenceOffsets": [0]}]'
NEWS = [
    f"N1\tnews\tharbour\tFerries return to the old quay\tThe first sails at six.\thttps://news.example/1\t{ENTITY}\t[]",
    "N2\tsports\t\tRowers win by a length\t\t\t[]\t[]",
    "N3\tweather\t\tFog until noon\t\t\t\t",
    "N4\tnews\t\tA letter from the lighthouse\t\t\t[]\t[]",
]
BEHAVIOURS = [
    "2\tU2\t11/10/2019 1:00:00 PM\tN1\tN3-0 N2-1 N9-1",
    "1\tU1\t11/9/2019 9:08:21 AM\t\tN1-1 N2-0",
    "3\tU2\t11/10/2019 12:00:00 AM\tN4 N1\tN2-0",
]
NINE = 1_573_290_501_000
NOON = 1_573_390_800_000
MIDNIGHT = 1_573_344_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path, NEWS, BEHAVIOURS)


def write(folder: Path, news: list[str], behaviours: list[str]) -> Path:
    (folder / "news.tsv").write_text("".join(f"{line}\n" for line in news), encoding="utf-8")
    (folder / "behaviors.tsv").write_text("".join(f"{line}\n" for line in behaviours), encoding="utf-8")
    return folder


def test_news(folder: Path) -> None:
    broken: list[BrokenLine] = []
    news = list(read_news(folder, broken.append))
    assert not broken
    assert [entry.article_id for entry in news] == ["N1", "N2", "N3", "N4"]
    assert news[0].entities == ["Ferry Union"]
    assert news[0].subcategory == "harbour"
    assert news[1].abstract == news[1].url == ""
    assert news[2].entities == []


def test_behaviours(folder: Path) -> None:
    broken: list[BrokenLine] = []
    second, first, _ = read_behaviours(folder, broken.append)
    assert not broken
    assert (first.user_id, first.at, first.history) == ("U1", NINE, [])
    assert (first.candidates, first.clicked) == (["N1", "N2"], [True, False])
    assert (second.at, second.history) == (NOON, ["N1"])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("7\tU1\t11/9/2019 9:08:21 AM\tN1", "4 columns"),
        ("7\tU1\t2019-11-09 09:08\tN1\tN1-1", "the time '2019-11-09 09:08' is not like"),
        ("7\t\t11/9/2019 9:08:21 AM\tN1\tN1-1", "user is empty"),
        ("7\tU1\t11/9/2019 9:08:21 AM\tN1\tN1", "'N1' ends neither in -1"),
        ("7\tU1\t11/9/2019 9:08:21 AM\tN1\tN1-2", "'N1-2' ends neither in -1"),
        ("7\tU1\t11/9/2019 9:08:21 AM\tN1\t", "no candidates"),
    ],
)
def test_broken_lines_are_named_and_skipped(tmp_path: Path, line: str, problem: str) -> None:
    write(
        tmp_path, ["N1\tnews", "N2\tnews\t\tA title", "", "N3\tnews\t\t \t"], [BEHAVIOURS[1], line, "", BEHAVIOURS[2]]
    )
    with (tmp_path / "news.tsv").open("ab") as file:
        file.write(b"N5\tnews\t\t\xff\n")
    plan = make_plan(tmp_path)
    assert list(plan.news) == ["N2"]
    assert len(plan.order) == 2
    said = [str(broken) for broken in plan.broken]
    assert said[0].startswith("news.tsv:1: 2 columns")
    assert said[1] == "news.tsv:4: the title is empty"
    assert said[2].startswith("news.tsv:5: not UTF-8")
    assert said[3].startswith("behaviors.tsv:2: ")
    assert problem in said[3]


def test_a_plan_is_in_time_order_and_knows_when_each_article_appeared(folder: Path) -> None:
    plan = make_plan(folder)
    assert [(b.user_id, b.at) for b in plan.behaviours()] == [("U1", NINE), ("U2", MIDNIGHT), ("U2", NOON)]
    assert plan.users == {"U1", "U2"}
    assert plan.published_at == {
        "N1": NINE,
        "N2": NINE,
        "N3": NOON,
        "N9": NOON,
        "N4": MIDNIGHT - READ_BEFORE_MS,
    }


def test_no_folder_and_no_impressions(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"cannot read .*news.tsv"):
        make_plan(tmp_path)
    with pytest.raises(SetupError, match="no impression"):
        make_plan(write(tmp_path, NEWS, ["nonsense"]))


@pytest.mark.parametrize("speed_up", [0.25, 1.0, 7.0, 3600.0, math.inf])
def test_no_time_lies_in_the_future_and_the_last_is_now(speed_up: float) -> None:
    starts = 1_700_000_000.0
    times = Schedule(NINE, NOON, speed_up, starts=starts, keep_times=False)
    sent = [(at, times.due(at), times.shifted(at, 1 << 60)) for at in (NINE, MIDNIGHT, NOON)]
    assert all(shifted <= due * 1000 for _, due, shifted in sent)
    assert {shifted - at for at, _, shifted in sent} == {sent[0][2] - NINE}
    if speed_up >= 1:
        assert sent[-1][2] == math.floor(sent[-1][1] * 1000)
    assert times.shifted(NOON, 5) == 5
    assert Schedule(NINE, NOON, speed_up, starts=starts, keep_times=True).shifted(NOON, 5) == NOON


def test_a_speed_up_of_nothing_is_refused() -> None:
    with pytest.raises(SetupError, match="greater than 0"):
        Schedule(NINE, NOON, 0.0, starts=0.0, keep_times=False)


def test_replay_needs_topics(settings: Settings, folder: Path) -> None:
    with pytest.raises(TopicsDiffer, match="topics create"):
        replay(settings, folder, stop=Stop())


@pytest.mark.parametrize("keep_times", [False, True])
def test_replay(settings: Settings, folder: Path, keep_times: bool) -> None:
    topics = make_topics(settings)
    report = replay(settings, folder, keep_times=keep_times, stop=Stop())
    assert report.articles_published == 4
    assert report.events == {"impression": 3, "click": 5}
    assert (report.users, report.broken_lines, report.impressions_left) == (2, 0, 0)

    articles, events = received_articles(settings, topics), received_events(settings, topics)
    first, last = (NINE, NOON) if keep_times else (events["U1"][0].at, events["U2"][-1].at)
    shift = first - NINE
    assert last - NOON == shift
    assert last <= time.time() * 1000
    assert {key: article.published_at - shift for key, article in articles.items()} == {
        "N1": NINE,
        "N2": NINE,
        "N3": NOON,
        "N4": MIDNIGHT - READ_BEFORE_MS,
    }
    assert [(e.kind, e.article_id, e.at - shift) for e in events["U1"]] == [
        ("impression", "", NINE),
        ("click", "N1", NINE),
    ]
    assert [(e.kind, e.article_id, e.at - shift) for e in events["U2"]] == [
        ("click", "N4", MIDNIGHT - 1),
        ("click", "N1", MIDNIGHT - 1),
        ("impression", "", MIDNIGHT),
        ("impression", "", NOON),
        ("click", "N2", NOON),
        ("click", "N9", NOON),
    ]
    assert [(item.article_id, item.position) for item in events["U2"][3].shown] == [("N3", 0), ("N2", 1), ("N9", 2)]
    ids = [event.event_id for told in events.values() for event in told]
    assert len(set(ids)) == len(ids)


def test_a_stop_ends_a_slow_replay(settings: Settings, folder: Path) -> None:
    make_topics(settings)
    stop = Stop()
    lines: list[dict[str, object]] = []

    def on_progress(figures: dict[str, object]) -> None:
        lines.append(figures)
        stop.request()

    report = replay(settings, folder, 1.0, on_progress=on_progress, stop=stop)
    assert len(lines) == 1
    assert report.impressions_left == 3


def make_topics(settings: Settings) -> Topics:
    """Topics that every part of the broker knows of."""
    topics = Topics(settings, "test")
    create_topics(settings, topics.specs())
    admin = make_admin(settings)

    def known() -> bool:
        try:
            require_topics(settings, topics.specs())
            return all(end_offsets(admin, s.name, range(s.partitions)) for s in topics.specs())
        except (TopicsDiffer, KafkaException):
            return False

    await_true(known, "new topics")
    return topics


def received_articles(settings: Settings, topics: Topics) -> dict[str, Article]:
    read = [decode(Article, record.value()) for record in read_to_end(settings, topics.articles, name="test")]
    return {article.article_id: article for article in read}


def received_events(settings: Settings, topics: Topics) -> dict[str, list[Event]]:
    events: dict[str, list[Event]] = {}
    for record in read_to_end(settings, topics.user_events, name="test"):
        event = decode(Event, record.value())
        events.setdefault(event.user_id, []).append(event)
    return events
