"""The demo as a process: its figures, a kill, what its page may do, and its end."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from contract.settings import load
from demo.room import DemoRoom
from demo.status import Status
from demo.supervisor import _Demo
from streams.local_broker import LocalBroker
from streams.worker import Stop
from tests.command import refused, stoppress
from tests.pipeline import Worker, await_true, pipeline_on
from tests.running_demo import SMALL, RunningDemo, left_running

PERCENTILES = {"p50", "p95", "p99", "count"}


SETTLED_MS = 19_000
"""Long enough after the first clicks that latencies count."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, encoder_path: Path) -> Iterator[RunningDemo]:
    """A demo with users who click; it runs until ``ended`` ends it."""
    with RunningDemo(tmp_path_factory.mktemp("demo"), *SMALL, "--report=report.json") as demo:
        demo.await_live()
        yield demo


@pytest.fixture(scope="module")
def ended(running: RunningDemo) -> RunningDemo:
    """The same after a SIGTERM."""
    first = running.await_figures(lambda f: True, "figures")
    running.await_figures(lambda f: f["at"] > first["at"] + SETTLED_MS, "figures of some seconds later")
    running.end(signal.SIGTERM)
    return running


def report_of(demo: RunningDemo) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((demo.folder / "report.json").read_bytes())
    return report


def test_the_page_is_told_what_runs_and_shows_three_users_with_lists(running: RunningDemo) -> None:
    events = running.events()
    name, hello = next(events)
    assert name == "hello"
    assert hello["strap"] == "60 simulated readers, 120 fresh articles, a real Kafka on this machine"
    assert len(hello["suggestions"]) == 30
    users = next(data for name, data in events if name == "cast")["users"]
    assert len({user["user_id"] for user in users}) == 3
    for user in users:
        feed = running.feed(user["user_id"])
        assert not feed["fallback"]
        assert len(feed["items"]) == 20


def test_a_visitor_has_the_popular_list_and_one_of_their_own_after_a_click(running: RunningDemo) -> None:
    before = running.feed("visitor")
    assert before["fallback"]
    read = before["items"][0]["article_id"]
    event_id = running.post("click", {"user_id": "visitor", "article_id": read, "position": 0}).json()["event_id"]
    after = await_true(
        lambda: feed if (feed := running.feed("visitor"))["list_id"] != before["list_id"] else None, "an own list"
    )
    if after["fallback"]:  # the popular list has changed meanwhile
        after = await_true(lambda: None if (feed := running.feed("visitor"))["fallback"] else feed, "an own list")
    assert after["cause"]["kind"] == "event"
    assert after["cause"]["id"] == event_id
    assert read not in [item["article_id"] for item in after["items"]]


def test_a_published_headline_is_followed_into_the_lists_it_enters(running: RunningDemo) -> None:
    suggestion = next(running.events())[1]["suggestions"][0]
    article_id = running.post("publish", suggestion).json()["article_id"]
    figures = running.await_figures(
        lambda f: f["reach"] and f["reach"]["article_id"] == article_id and f["reach"]["users"] > 2,
        "some users reached",
    )
    reach = figures["reach"]
    assert reach["title"] == suggestion["title"]
    assert reach["first_ms"] == reach["curve"][0][0] > 0
    assert [users for _, users in reach["curve"]] == sorted(users for _, users in reach["curve"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("click", {"user_id": "", "article_id": "a"}),
        ("click", {"user_id": "~popular", "article_id": "a"}),
        ("click", {"user_id": "u", "article_id": "a" * 300}),
        ("click", {"user_id": "u"}),
        ("publish", {"title": "  "}),
        ("publish", {"title": "x" * 2001}),
        ("publish", {"title": "x", "colour": "red"}),
        ("kill", {"worker": "feed"}),
    ],
)
def test_what_the_page_would_not_send_is_refused(running: RunningDemo, path: str, body: dict[str, str]) -> None:
    assert running.post(path, body).status_code == 400


@pytest.mark.parametrize("headers", [{"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}])
def test_only_the_demos_own_page_may_do_anything(running: RunningDemo, headers: dict[str, str]) -> None:
    assert running.post("kill", {}, **headers).status_code == 403
    origin = {"Origin": running.await_page()} | headers
    assert httpx.get(f"{running.control()}/control/stream", headers=origin).status_code == 403
    assert running.post("click", {"user_id": "", "article_id": "a"}).status_code == 400, "the page itself may"


def test_a_second_demo_in_the_same_folder_is_refused_in_one_line(running: RunningDemo) -> None:
    with RunningDemo(running.folder, *SMALL, name="second") as second:
        assert second.wait() == 2
    assert second.said() == "stoppress: another demo runs in var/demo; end that one first\n"


def test_a_killed_worker_is_started_again_and_recovers(running: RunningDemo) -> None:
    (before,) = running.pids("run users")
    assert running.post("kill", {}).json() == {"kill": 1}
    assert running.post("kill", {}).status_code == 409, "one kill at a time"
    kill = running.await_figures(lambda f: f["kill"]["phase"] == "accounted", "the recovery")["kill"]
    assert 0 < kill["ready_s"] <= kill["accounted_s"] < 60
    assert running.pids("run users") != [before]


def test_sigterm_ends_everything(ended: RunningDemo) -> None:
    assert ended.process.returncode == 0, ended.said()
    assert left_running(ended.folder) == {}


def test_its_report_has_all_figures_and_nothing_is_lost_though_a_worker_was_killed(ended: RunningDemo) -> None:
    report = report_of(ended)
    assert report["lost"] == 0
    assert report["kills"] == len(report["recovery_s"]) == 1
    assert 0 < report["recovery_s"][0] < 60
    became = report["events_folded"] + report["waiting"] + report["duplicate"] + report["dead_letters"]
    assert report["events_sent"] == became > 500
    assert report["articles_published"] == report["articles_embedded"] > 120
    assert report["lists_published"] > 60
    for name in ("event_to_list_ms", "publish_to_list_ms"):
        assert report[name].keys() == PERCENTILES
        assert 0 <= report[name]["p50"] <= report[name]["p95"] <= report[name]["p99"]
    counted = sum(report[name]["count"] for name in ("event_to_list_ms", "publish_to_list_ms"))
    assert 0 < counted < report["lists_published"], "the first 15 s do not count"
    for name in ("ctr", "precision"):
        assert report[name].keys() == {"personal", "popular"}
        assert all(0 < value < 1 for value in report[name].values())
    assert SETTLED_MS / 1000 < report["seconds"] < 120


def test_off_a_terminal_it_says_a_plain_line_every_few_seconds(ended: RunningDemo) -> None:
    said = ended.said()
    assert "\x1b" not in said
    assert re.search(r"^ *[\d.]+ s  users is ready$", said, re.MULTILINE)
    assert re.search(r"^ *[\d.]+ s  users ended with 247; starting it again$", said, re.MULTILINE)
    assert len(re.findall(r" s  events [\d,]+ = [\d,]+ folded \+ .* in flight, lost 0 \|", said)) >= 3
    sent = f"{report_of(ended)['events_sent']:,}"
    assert re.search(rf" s  {sent} events sent = .*, lost 0$", said, re.MULTILINE)


def test_a_killed_demo_leaves_nothing_and_the_next_starts_at_once_live_on_a_terminal(
    tmp_path: Path, encoder_path: Path
) -> None:
    with RunningDemo(tmp_path, *SMALL) as killed:
        killed.await_page()
        orphans = left_running(tmp_path)
        assert killed.end(signal.SIGKILL) == -signal.SIGKILL
    terminal = Terminal()
    with RunningDemo(tmp_path, *SMALL, name="second", terminal=terminal.slave) as second:
        terminal.await_text("the page is at", second)
        await_true(
            lambda: not orphans.keys() & left_running(tmp_path).keys(), "the end of the first", 30, lambda: orphans
        )
        terminal.await_text("\x1b[2K", second)
        assert second.end(signal.SIGINT) == 0, second.said()
    assert "lists/s" in terminal.text
    assert left_running(tmp_path) == {}
    terminal.close()


def test_a_stop_while_it_starts_leaves_nothing(tmp_path: Path, encoder_path: Path) -> None:
    with RunningDemo(tmp_path, *SMALL) as demo:
        await_true((tmp_path / "var" / "demo" / "kafka").exists, "a broker that starts", 30, demo.said)
        assert demo.end(signal.SIGTERM) == 0, demo.said()
    assert left_running(tmp_path) == {}


def test_a_taken_port_ends_the_start_in_one_line(tmp_path: Path, encoder_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with RunningDemo(tmp_path, *SMALL, settings=[f"port={port}"]) as demo:
            assert demo.wait() == 2
    assert re.fullmatch(rf"stoppress: 127.0.0.1:{port} is in use .*\n", demo.said())
    assert not (tmp_path / "var" / "demo" / "kafka").exists(), "before anything was started"


def test_without_an_encoder_data_to_replay_or_a_place_for_the_report_nothing_starts(tmp_path: Path) -> None:
    settings = load([f"encoder={tmp_path}"], environ={})
    (tmp_path / "file").touch()
    assert "make encoder" in refused(stoppress(settings, "demo"))
    assert "news.tsv" in refused(stoppress(settings, "demo", "--replay", "mind", str(tmp_path)))
    assert "report.json" in refused(stoppress(settings, "demo", "--report", f"{tmp_path}/file/report.json"))


def test_a_source_that_dies_ends_the_demo_in_one_line(tmp_path: Path, encoder_path: Path) -> None:
    with RunningDemo(tmp_path, *SMALL) as demo:
        demo.await_page()
        (source,) = await_true(lambda: demo.pids("produce simulate") or None, "a source")
        os.kill(source, signal.SIGKILL)
        assert demo.wait() == 1
    assert re.search(r"^stoppress: the source ended with exit code 247: .*$", demo.said(), re.MULTILINE)
    assert "Traceback" not in demo.said()
    assert left_running(tmp_path) == {}


def test_a_fenced_worker_stays_down_and_a_killed_one_is_started_again(
    broker: LocalBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pipeline_on(broker, tmp_path) as pipeline:
        first, second = pipeline.worker("users"), Worker(pipeline.settings, "users", tmp_path / "with a log of its own")
        first.start()
        second.start()
        assert first.exit_code() == 1
        second.kill()
        room = SimpleNamespace(observer=SimpleNamespace(failure=None), recoveries=[])
        demo = _Demo({"first": first._child, "second": second._child}, Status(), Stop(), 5)
        for _ in range(3):
            demo._mind(cast(DemoRoom, room))
        assert not first.running
        assert second.running
        second.close()
    said = capsys.readouterr().out
    assert said.count("first stays down: another process has taken its slot") == 1
    assert said.count("second ended with 247; starting it again") == 1


class Terminal:
    """A terminal that remembers what was written to it."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def await_text(self, text: str, demo: RunningDemo) -> None:
        await_true(lambda: text in self.text, f"{text!r} on the terminal", 60, lambda: (self.text[-500:], demo.said()))

    def close(self) -> None:
        os.close(self.slave)
        self._reader.join(10)
        os.close(self._master)

    def _read(self) -> None:
        try:
            while data := os.read(self._master, 65536):
                self.text += data.decode(errors="replace")
        except OSError:
            pass  # how a pty says that the other end is closed
