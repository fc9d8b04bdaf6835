"""MIND's files, and their replay in shifted time."""

from __future__ import annotations

import io
import json
import math
import random
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import KafkaException
from rich.console import Console

from commands.replay_display import ReplayDisplay
from contract.errors import SettingsError, SetupError, TopicsDiffer
from contract.messages import Article, Event, List, decode
from contract.settings import Settings, load
from contract.topics import Topics
from producers.broken_lines import BrokenLine
from producers.mind import read_behaviours, read_news
from producers.newsroom import Newsroom
from producers.replay import LEAD_SECONDS, READ_BEFORE_MS, Schedule, make_plan, replay, require_data
from streams.admin import create_topics, require_topics
from streams.clients import make_admin
from streams.local_broker import LocalBroker
from streams.table import end_offsets, read_to_end
from streams.worker import Stop
from tests.command import refused, stoppress
from tests.pipeline import await_true, now_ms, pipeline_on

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
    broken: list[BrokenLine] = []
    plan = make_plan(tmp_path, broken.append)
    assert list(plan.news) == ["N2"]
    assert len(plan.order) == 2
    assert plan.broken_lines == 4
    said = list(map(str, broken))
    assert said[0].startswith("news.tsv:1: 2 columns")
    assert said[1] == "news.tsv:4: the title is empty"
    assert said[2].startswith("news.tsv:5: not UTF-8")
    assert said[3].startswith("behaviors.tsv:2: ")
    assert problem in said[3]


def test_an_endless_line_is_broken_too(tmp_path: Path) -> None:
    broken: list[BrokenLine] = []
    endless = "7\tU1\t11/9/2019 9:08:21 AM\tN1\t" + "N1-0 " * 200_000
    plan = make_plan(write(tmp_path, NEWS, [BEHAVIOURS[0], endless]), broken.append)
    assert len(plan.order) == 1
    assert "behaviors.tsv:2: the line has 1,000,030 bytes" in str(broken[0])


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


def test_the_archive_is_what_histories_know_before_an_impression_shows_it(folder: Path) -> None:
    assert make_plan(folder).archive == ["N4"]


def test_the_speed_up_makes_the_data_last_as_long_as_asked_for(folder: Path) -> None:
    plan = make_plan(folder)
    speed_up = plan.speed_up(60.0)
    times = Schedule(plan.first, plan.last, speed_up, starts=LEAD_SECONDS, keep_times=False)
    assert times.due(plan.last) == pytest.approx(60.0)
    assert make_plan(write(folder, NEWS, BEHAVIOURS[:1])).speed_up(60.0) == math.inf


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


def test_an_unknown_format_and_a_folder_without_its_files_are_refused(folder: Path, tmp_path: Path) -> None:
    require_data("mind", folder)
    with pytest.raises(SettingsError, match="'globo' is not known; known: mind"):
        require_data("globo", folder)
    (folder / "behaviors.tsv").unlink()
    with pytest.raises(SetupError, match=r"there is no .*behaviors\.tsv"):
        require_data("mind", folder)


def test_replay_needs_topics(settings: Settings, folder: Path) -> None:
    with pytest.raises(TopicsDiffer, match="topics create"):
        replay(settings, folder, stop=Stop())


@pytest.mark.parametrize("keep_times", [False, True])
def test_replay(settings: Settings, folder: Path, keep_times: bool) -> None:
    topics = make_topics(settings)
    report = replay(settings, folder, speed_up=math.inf, keep_times=keep_times, stop=Stop())
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
        "N4": pytest.approx(MIDNIGHT - READ_BEFORE_MS, abs=0 if keep_times else 10_000),
    }
    assert {key: article.placement for key, article in articles.items()} == {
        "N1": "auto",
        "N2": "auto",
        "N3": "auto",
        "N4": "held",
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

    report = replay(settings, folder, speed_up=1.0, on_progress=on_progress, stop=stop)
    assert len(lines) == 2
    assert lines[-1] == msgspec.to_builtins(report)
    assert report.impressions_left == 3


def test_through_the_workers_every_event_is_folded_and_everybody_has_a_list(
    broker: LocalBroker, tmp_path: Path
) -> None:
    folder, users, events, news = a_day(tmp_path)
    with pipeline_on(broker, tmp_path) as pipeline:
        pipeline.start("articles", "users", "ranker")
        archive: list[tuple[int, int]] = []
        report = replay(
            pipeline.settings,
            folder,
            seconds=8.0,
            on_archive=lambda *state: archive.append(state),
            article_vectors=pipeline.topics.article_vectors,
            stop=Stop(),
        )
        assert report.events == events
        assert (report.users, report.users_with_list, report.impressions_left) == (len(users), len(users), 0)
        assert report.articles_published == news
        assert archive[-1][0] == archive[-1][1] > 10, "the clock started once the news from before had vectors"
        assert 6 < report.seconds < 20
        assert report.judged["personal"] > 0
        assert report.judged["popular"] > 0
        totals = pipeline.until_all_read(report.events_sent)
        assert sum(t.folded for t in totals.values()) == report.events_sent
        assert sum(t.waiting + t.dead + t.duplicate for t in totals.values()) == 0
        lists = pipeline.records(pipeline.topics.recommendations).to_the_end()
        have = {r.key.decode(): decode(List, r.value) for r in lists if r.key and r.value}
        assert users <= have.keys()
        held = set(make_plan(folder).archive)
        for user_id in users:
            assert have[user_id].items, "no list is empty"
            assert not {item.article_id for item in have[user_id].items} & held, "what was not on offer is in no list"
        shown = [e for told in received_events(pipeline.settings, pipeline.topics).values() for e in told]
        assert max(event.at for event in shown) <= now_ms()
        assert now_ms() - max(event.at for event in shown) < 30_000, "the last event carries the time it was sent at"


@pytest.mark.parametrize("progress", [False, True])
def test_the_command_shows_how_far_it_is_and_what_was_left_out(
    broker: LocalBroker, tmp_path: Path, progress: bool
) -> None:
    folder = write(tmp_path, [*NEWS, "N5"], [*BEHAVIOURS, *("nonsense",) * 30])
    with pipeline_on(broker, tmp_path) as pipeline:
        settings = pipeline.settings.model_copy(update={"encoder": tmp_path / "none"})
        arguments = ["produce", "replay", "--format", "mind", str(folder), "--speed-up", "inf"]
        answer = stoppress(settings, *arguments, *(["--progress"] if progress else []))
        assert answer.code == 0, answer
        said = (answer.err if progress else answer.out).splitlines()
        assert said[0] == "left out: news.tsv:5: 1 columns separated by tabs where at least 4 are needed"
        assert said[19].startswith("left out: behaviors.tsv:22: ")
        assert said[20 if progress else -2] == "left out: 11 more lines, 31 in all"
        if progress:
            figures = json.loads(answer.lines[-1])
            assert figures["events"] == {"click": 5, "impression": 3}
            assert figures["broken_lines"] == 31
            assert figures["ctr"] == {"personal": None, "popular": None}
        else:
            assert said[-1] == "all was sent after 0 s: 8 events · 4 articles · 2 users"


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    settings, folder = load(environ={}), str(write(tmp_path, NEWS, BEHAVIOURS))
    for arguments, problem in (
        (["--format", "netflix", folder], "the format 'netflix' is not known"),
        (["--format", "mind", str(tmp_path / "gone")], "there is no"),
        (["--format", "mind", folder, "--speed-up", "2", "--seconds", "2"], "give one of them"),
        (["--format", "mind", folder, "--seconds", "0"], "must be greater than 0"),
    ):
        assert problem in refused(stoppress(settings, "produce", "replay", *arguments))
    assert "the format 'netflix'" in refused(stoppress(settings, "demo", "--replay", "netflix", folder))


FIGURES = {
    "events": {"impression": 30, "click": 40},
    "impressions_left": 70,
    "events_sent": 70,
    "articles_published": 12,
    "users": 9,
    "ctr": {"personal": 0.1, "popular": None},
}


def test_a_log_gets_a_line_now_and_then() -> None:
    out = io.StringIO()
    with ReplayDisplay(Console(file=out)) as display:
        display.archive(5, 10)
        display.archive(6, 10)
        display.archive(10, 10)
        display.say("left out: news.tsv:3: [no title]")
    assert out.getvalue().splitlines() == [
        "news from before 5 of 10 · have vectors",
        "news from before 10 of 10 · have vectors",
        "left out: news.tsv:3: [no title]",
    ]


def test_a_terminal_gets_a_bar() -> None:
    out = io.StringIO()
    with ReplayDisplay(Console(file=out, force_terminal=True, width=120, color_system=None)) as display:
        display.archive(5, 10)
        display.impressions(FIGURES)
        display.impressions(FIGURES | {"events": {"impression": 60}, "impressions_left": 40})
    text = out.getvalue()
    for wanted in ("news from before", "5/10", "60/100", "CTR of what the own lists held 10.0%", "\u2501"):
        assert wanted in text
    assert "popular list" not in text


def a_day(folder: Path, users: int = 40) -> tuple[Path, set[str], dict[str, int], int]:
    """A day in MIND's format: its folder, its users, how many events of each kind it holds, how many news."""
    draw = random.Random(3)
    articles = [article for article, _ in Newsroom(9).archive(90, NOON)]
    before, shown = [f"H{n}" for n in range(30)], [f"S{n}" for n in range(60)]
    news = [
        f"{name}\t{article.category}\t\t{article.title}\t{article.abstract}\t\t[]\t[]"
        for name, article in zip(before + shown, articles, strict=True)
    ]
    behaviours, counts, used = [], Counter[str](), set[str]()
    known: set[str] = set()
    for number in range(120):
        user = f"U{number if number < users else draw.randrange(users)}"
        history = random.Random(user).sample(before, 5)
        out = shown[: 12 + number // 3]
        candidates = draw.sample(out, 8)
        clicked = draw.sample(candidates, draw.choice((1, 1, 2)))
        offered = " ".join(f"{candidate}-{int(candidate in clicked)}" for candidate in candidates)
        minute = f"11/9/2019 {number // 12 + 1}:{number % 12 * 5:02d}:00 AM"
        behaviours.append(f"{number}\t{user}\t{minute}\t{' '.join(history)}\t{offered}")
        counts["impression"] += 1
        counts["click"] += len(clicked) + (0 if user in known else len(history))
        known.add(user)
        used.update(history, candidates)
    draw.shuffle(behaviours)
    return write(folder, news, behaviours), known, dict(counts), len(used)


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
