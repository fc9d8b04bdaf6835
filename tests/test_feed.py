"""The feed on a real broker: what it joins, what it leaves out, what it streams, how it begins and ends."""

from __future__ import annotations

import asyncio
import json
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import KafkaException, Producer
from litestar.testing import TestClient

from consumers import feed, feed_streams
from consumers.feed_streams import MAX_USERS, Streams
from consumers.feed_view import FeedView
from contract.errors import PortInUse
from contract.messages import POPULAR, Article, Cause, Item, List, encode
from contract.settings import Settings
from contract.topics import Topics
from demo.processes import environment
from streams.admin import create_topics
from streams.clients import make_admin, make_producer
from streams.table import end_offsets
from streams.worker import Stop

NOW = 1_795_000_000_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def article(article_id: str, **fields: Any) -> Article:
    values: dict[str, Any] = {"article_id": article_id, "title": f"Title {article_id}", "published_at": NOW}
    return Article(**(values | fields))


def ranked(user_id: str, *article_ids: str, list_id: str = "l1", parts: dict[str, float] | None = None) -> List:
    return List(
        user_id=user_id,
        list_id=list_id,
        generated_at=NOW,
        cause=Cause(kind="event", id="e1", at=NOW),
        generation="test",
        items=[
            Item(article_id=a, score=1.0 - i / 10, reason="interest", source="similar", parts=parts or {})
            for i, a in enumerate(article_ids)
        ],
    )


class Running:
    """A feed in a thread of this process, and a producer for its topics."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.model_copy(update={"port": free_port()})
        self.topics = Topics(self.settings, "test")
        self.address = f"http://127.0.0.1:{self.settings.port}"
        self.http = httpx.Client(base_url=self.address, timeout=10)
        self._producer: Producer = make_producer(self.settings, name="test")
        self._stop = Stop()
        self._thread = threading.Thread(target=feed.run, args=(self.settings, self.topics, self._stop))

    def start(self) -> Running:
        create_topics(self.settings, self.topics.specs())
        self.wait(self._led, alive=False)
        self._thread.start()
        self.wait(self.ready)
        return self

    def ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def _led(self) -> bool:
        """Whether the partitions of the topics that were just created have a leader."""
        admin = make_admin(self.settings)
        try:
            end_offsets(admin, self.topics.articles, range(self.settings.article_partitions))
            end_offsets(admin, self.topics.recommendations, range(self.settings.partitions))
        except KafkaException:
            return False
        return True

    def wait(self, condition: Any, seconds: float = 20, *, alive: bool = True) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, "it did not happen in time"
            assert self._thread.is_alive() or not alive, "the feed has ended"
            time.sleep(0.01)
        return found

    def write(self, message: Article | List) -> None:
        if isinstance(message, Article):
            self.write_raw(self.topics.articles, message.article_id, encode(message))
        else:
            self.write_raw(self.topics.recommendations, message.user_id, encode(message))

    def write_raw(self, topic: str, key: str, value: bytes | None) -> None:
        self._producer.produce(topic, key=key.encode(), value=value)
        assert self._producer.flush(10) == 0

    def get(self, user_id: str) -> dict[str, Any]:
        answer = self.http.get("/v1/feed", params={"user_id": user_id})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def shown(self, user_id: str) -> list[str]:
        return [item["article_id"] for item in self.get(user_id)["items"]]

    def close(self) -> None:
        self._stop.request()
        self._thread.join(10)
        self.http.close()
        assert not self._thread.is_alive()


class Events:
    """The server-sent events of one connection, read on a thread of its own."""

    def __init__(self, address: str, path: str) -> None:
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue()
        self.lines: list[str] = []
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(address + path,), daemon=True)
        self._thread.start()
        assert self._connected.wait(10)

    def _read(self, url: str) -> None:
        try:
            with httpx.stream("GET", url, timeout=30) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                self._connected.set()
                for line in answer.iter_lines():
                    self.lines.append(line)
                    if line.startswith("data: "):
                        self._queue.put(json.loads(line.removeprefix("data: ")))
        except httpx.TransportError:
            pass

    def next(self, seconds: float = 10) -> dict[str, Any]:
        return self._queue.get(timeout=seconds)

    def until(self, condition: Any, seconds: float = 10) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while True:
            event = self.next(max(0.01, deadline - time.monotonic()))
            if condition(event):
                return event

    def ended(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


@pytest.fixture
def running(settings: Settings) -> Iterator[Running]:
    service = Running(settings)
    try:
        yield service.start()
    finally:
        service.close()


def test_a_list_is_joined_with_its_articles_when_it_is_read(running: Running) -> None:
    first = article("a1", title="First", abstract="What happened", category="sport", url="https://x.example/1")
    running.write(first)
    running.write(article("a2", source="Courier"))
    running.write(ranked("u1", "a1", "a2", parts={"long": 0.75, "freshness": 0.25}))
    running.wait(lambda: len(running.shown("u1")) == 2)
    answer = running.get("u1")
    assert answer["fallback"] is False
    assert (answer["user_id"], answer["list_id"], answer["generation"]) == ("u1", "l1", "test")
    assert answer["cause"] == {"kind": "event", "id": "e1", "at": NOW}
    assert answer["items"][0] == {
        "article_id": "a1", "title": "First", "abstract": "What happened", "category": "sport",
        "url": "https://x.example/1", "image_url": "", "publisher": "", "published_at": NOW, "score": 1.0,
        "reason": "interest", "source": "similar", "parts": {"long": 0.75, "freshness": 0.25},
    }  # fmt: skip
    assert answer["items"][1]["publisher"] == "Courier"
    running.write(article("a1", title="First, corrected"))
    running.wait(lambda: running.get("u1")["items"][0]["title"] == "First, corrected")


def test_what_must_not_be_shown_is_left_out(running: Running) -> None:
    running.write(article("good"))
    running.write(article("withdrawn"))
    running.write(article("expired", expires_at=NOW - 1))
    running.write(article("held", placement="held"))
    running.write_raw(running.topics.articles, "broken", b"\xff not an article")
    running.write(ranked("u1", "withdrawn", "expired", "held", "broken", "unknown", "good"))
    running.wait(lambda: running.shown("u1") == ["withdrawn", "good"])
    running.write_raw(running.topics.articles, "withdrawn", None)
    running.wait(lambda: running.shown("u1") == ["good"])


def test_an_unknown_user_gets_the_popular_list(running: Running) -> None:
    nothing = running.get("nobody")
    assert (nothing["fallback"], nothing["items"], nothing["cause"]) == (True, [], None)
    running.write(article("a1"))
    running.write(ranked(POPULAR, "a1", list_id="p1"))
    running.wait(lambda: running.shown("nobody") == ["a1"])
    answer = running.get("nobody")
    assert (answer["user_id"], answer["list_id"], answer["fallback"]) == ("nobody", "p1", True)
    assert running.get(POPULAR)["fallback"] is False
    assert running.shown("~popular/nothing") == ["a1"]
    assert running.shown("~related/nothing") == []
    running.write(ranked("nobody", "a1", list_id="own"))
    running.wait(lambda: running.get("nobody")["list_id"] == "own")
    running.write_raw(running.topics.recommendations, "nobody", None)
    running.wait(lambda: running.get("nobody")["list_id"] == "p1")
    running.write_raw(running.topics.recommendations, "broken", b"{")
    assert running.get("broken")["list_id"] == "p1"


ODD_PATHS = (
    "%00", "%FF%FE", "%F0%9F%97%9E", "x" * 300, "a%2Fb", "..%2F..%2Fetc", "~nothing", "%ED%A0%80", "a,b", "%20",
)  # fmt: skip


def test_odd_ids_are_unknown_users(running: Running) -> None:
    for path in ODD_PATHS:
        for url in (f"/v1/feed?user_id={path}", *([] if "%2F" in path else [f"/v1/feed/{path}"])):
            answer = running.http.get(url)
            assert answer.status_code == 200, answer.text
            assert answer.json()["fallback"] is True


def test_ids_of_any_kind_find_their_list(running: Running) -> None:
    running.write(article("a1"))
    for user_id in ("a/b?c#d", "Zoë 🗞", "50%", "a,b"):
        running.write(ranked(user_id, "a1"))
        running.wait(lambda user_id=user_id: running.get(user_id)["fallback"] is False)
        assert running.get(user_id)["user_id"] == user_id


def test_a_stream_sends_the_feed_at_once_and_then_each_change(running: Running) -> None:
    running.write(article("a1"))
    running.write(article("a2"))
    running.write(ranked("u1", "a1", list_id="l1"))
    running.wait(lambda: running.shown("u1") == ["a1"])
    events = Events(running.address, "/v1/feed/u1/stream")
    assert events.next()["list_id"] == "l1"
    running.write(ranked("u2", "a1"))
    running.write(ranked("u1", "a2", "a1", list_id="l2"))
    second = events.next()
    assert (second["user_id"], second["list_id"]) == ("u1", "l2")
    assert second["latency_ms"] is not None
    running.write(article("a1", title="Corrected"))
    assert [item["title"] for item in events.next()["items"]] == ["Title a2", "Corrected"]
    running.write_raw(running.topics.articles, "a2", None)
    assert [item["article_id"] for item in events.next()["items"]] == ["a1"]
    running.write(ranked("u1", "late", "a1", list_id="l3"))
    assert [item["article_id"] for item in events.next()["items"]] == ["a1"]
    running.write(article("late"))
    assert [item["article_id"] for item in events.next()["items"]] == ["late", "a1"]


def test_one_stream_carries_many_users(running: Running) -> None:
    running.write(article("a1"))
    running.write(article("a2"))
    running.write(ranked(POPULAR, "a1", list_id="p1"))
    running.write(ranked("u1", "a1"))
    running.wait(lambda: running.shown("u1") and running.shown("you"))
    events = Events(running.address, "/v1/stream?users=u1,you,u1")
    assert {events.next()["user_id"], events.next()["user_id"]} == {"u1", "you"}
    running.write(ranked(POPULAR, "a2", "a1", list_id="p2"))
    changed = events.next()
    assert (changed["user_id"], changed["list_id"], changed["fallback"]) == ("you", "p2", True)
    running.write(ranked("you", "a2", list_id="own"))
    own = events.next()
    assert (own["user_id"], own["list_id"], own["fallback"]) == ("you", "own", False)
    running.write(ranked(POPULAR, "a1", list_id="p3"))
    running.write(ranked("u1", "a2", list_id="last"))
    assert events.next()["list_id"] == "last"  # the popular list is no longer this user's


@pytest.mark.parametrize("users", ["", ",,", ",".join(f"u{i}" for i in range(MAX_USERS + 1))])
def test_a_stream_names_its_users(running: Running, users: str) -> None:
    answer = running.http.get("/v1/stream", params={"users": users})
    assert answer.status_code == 400
    assert str(MAX_USERS) in answer.json()["detail"]


def test_metrics_health_and_cors(settings: Settings) -> None:
    running = Running(settings.model_copy(update={"cors_origins": ["https://news.example"]}))
    try:
        running.start()
        running.write(article("a1"))
        running.write(ranked("u1", "a1"))
        running.wait(lambda: running.shown("u1"))
        events = Events(running.address, "/v1/feed/u1/stream")
        events.next()
        metrics = running.http.get("/metrics").text
        for name in ("streams_open", "lists", "articles"):
            assert f"stoppress_feed_{name} 1.0" in metrics
        assert 'stoppress_feed_requests_total{route="/v1/feed",status="200"}' in metrics
        assert "stoppress_feed_response_seconds_bucket" in metrics
        assert "u1" not in re.sub(r"^#.*$", "", metrics, flags=re.MULTILINE)
        assert running.http.get("/healthz").status_code == 200
        allowed = running.http.get("/v1/feed/u1", headers={"Origin": "https://news.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://news.example"
        other = running.http.get("/v1/feed/u1", headers={"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers
    finally:
        running.close()


def test_the_page_is_served_with_all_its_files(running: Running) -> None:
    page = running.http.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    names = {name.removeprefix("/page/") for name in re.findall(r'(?:src|href)="(/page/[^"]+)"', page.text)}
    seen: set[str] = set()
    while names - seen:
        name = (names - seen).pop()
        seen.add(name)
        answer = running.http.get(f"/page/{name}")
        assert answer.status_code == 200, name
        names |= set(re.findall(r'from "\./([\w.-]+)"', answer.text))
    assert seen == set(feed.PAGE_FILES)
    assert running.http.get("/page/config.json").json() == {"control": None}
    for path in ("/page/..%2Ffeed.py", "/page/feed.py", "/page/index.html"):
        assert running.http.get(path).status_code == 404


def test_not_ready_before_the_topics_are_read(settings: Settings) -> None:
    view = FeedView()
    with TestClient(feed.create_app(settings, view, Streams(view), lambda: False)) as client:
        assert client.get("/readyz").status_code == 503
        assert client.get("/v1/feed/u1").json()["items"] == []


class Record:
    def __init__(self, key: str, message: Article | List) -> None:
        self._key, self._value = key.encode(), encode(message)

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes:
        return self._value


def test_a_slow_client_skips_lists_and_hears_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_streams, "HEARTBEAT_SECONDS", 0.01)
    view = FeedView()
    streams = Streams(view)

    def publish(list_id: str) -> None:
        streams.changed(view.apply_lists([Record("u1", ranked("u1", list_id=list_id))], live=True), set())

    async def slow() -> list[bytes]:
        publish("l0")
        events = streams.events(["u1"])
        received = [await anext(events), await anext(events)]
        for number in range(1000):
            publish(f"l{number + 1}")
        received += [await anext(events), await anext(events)]
        assert len(streams) == 1
        streams.close()
        received += [event async for event in events]
        assert len(streams) == 0
        assert streams.full
        return received

    retry, first, newest, heartbeat, *rest = asyncio.run(slow())
    assert retry.startswith(b"retry:")
    assert b'"list_id":"l0"' in first
    assert b'"list_id":"l1000"' in newest
    assert heartbeat.startswith(b":")
    assert rest == []


def test_a_taken_port_ends_the_start_in_one_line(settings: Settings, encoder_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = settings.model_copy(update={"port": holder.getsockname()[1]})
        with pytest.raises(PortInUse, match=f"{taken.port} is in use"):
            feed.run(taken, Topics(taken, "test"), Stop())


def test_sigterm_ends_it_in_time_though_streams_are_open(settings: Settings, encoder_path: Path) -> None:
    port = free_port()
    env = environment(settings.model_copy(update={"port": port, "shutdown_seconds": 5.0}))
    command = [sys.executable, "-m", "stoppress"]
    subprocess.run([*command, "topics", "create"], env=env, check=True, timeout=60, stdout=subprocess.DEVNULL)
    with subprocess.Popen([*command, "run", "feed"], env=env, stderr=subprocess.PIPE) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 30
            while True:
                assert time.monotonic() < deadline
                try:
                    if httpx.get(f"{address}/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    assert process.poll() is None
                time.sleep(0.05)
            events = [Events(address, f"/v1/feed/u{i}/stream") for i in range(5)]
            for stream in events:
                stream.next()
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            assert time.monotonic() - asked < 5
            assert all(stream.ended(5) for stream in events)
        finally:
            process.kill()
            assert process.stderr is not None
            log = process.stderr.read().decode()
    assert "Traceback" not in log
