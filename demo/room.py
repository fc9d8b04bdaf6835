"""The running demo as its page sees it: the figures of the moment, and what a visitor may do."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from contract.messages import Article, Event, encode
from contract.settings import Settings
from contract.topics import Topics
from demo.control import Click, Headline
from demo.observer import Observer, Reach
from demo.processes import Child
from demo.report import Judgement
from streams.clients import make_producer

FRESH_SECONDS = 0.2
RATE_SECONDS = 3.0
HISTORY_SECONDS = 900
NAMES = ("Ada", "Bruno", "Chiara")
GIVE_UP_SECONDS = 120.0


class Recovery:
    """One kill of a worker, followed until everything sent before it was ready again is accounted for."""

    def __init__(self, number: int, worker: Child, observer: Observer) -> None:
        self.number = number
        self.phase = "down"
        self.ready_s: float | None = None
        self.accounted_s: float | None = None
        self._at = time.monotonic()
        self._worker = worker
        self._observer = observer
        pid = worker.pid
        worker.signal(signal.SIGKILL)
        threading.Thread(target=self._follow, args=(pid,), name="recovery", daemon=True).start()

    @property
    def over(self) -> bool:
        return self.phase in ("accounted", "failed")

    def figures(self) -> dict[str, Any]:
        return {
            "n": self.number,
            "phase": self.phase,
            "down_s": time.monotonic() - self._at,
            "ready_s": self.ready_s,
            "accounted_s": self.accounted_s,
        }

    def _follow(self, old_pid: int) -> None:
        deadline = self._at + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            if self.phase == "down" and self._worker.pid != old_pid and self._worker.running:
                self.phase = "restarted"
            if self.phase == "restarted" and self._worker.ready():
                self.ready_s = time.monotonic() - self._at
                self.phase = "ready"
                break
            time.sleep(0.03)
        sent = self._observer.sent_by_partition()
        while time.monotonic() < deadline:
            if self._observer.has_read(sent):
                self.accounted_s = time.monotonic() - self._at
                self.phase = "accounted"
                return
            time.sleep(0.03)
        self.phase = "failed"


class DemoRoom:
    """Implements :class:`demo.control.Room`. Its methods may be called from any thread."""

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        observer: Observer,
        users_worker: Child,
        *,
        strap: str = "",
        suggestions: Sequence[Headline] = (),
    ) -> None:
        self._strap = strap
        self._suggestions = suggestions
        self._topics = topics
        self.observer = observer
        self._users_worker = users_worker
        self._producer = make_producer(settings, name="demo-page")
        self._lock = threading.Lock()
        self._figures: dict[str, Any] = {}
        self._made_at = 0.0
        self._rates: deque[tuple[float, int, int]] = deque()
        self._history: deque[dict[str, Any]] = deque(maxlen=HISTORY_SECONDS)
        self._cast: list[dict[str, str]] = []
        self.judgement = Judgement()
        self.recoveries: list[Recovery] = []

    def hello(self) -> dict[str, Any]:
        suggestions = msgspec.to_builtins(self._suggestions)
        return {"strap": self._strap, "suggestions": suggestions, "history": list(self._history)}

    def cast(self) -> list[dict[str, str]]:
        """The users whose feeds a page shows: chosen once, busy ones with different tastes."""
        if not self._cast:
            users = self.observer.choose_users(len(NAMES))
            self._cast = [
                {"user_id": user, "label": name, "note": user} for user, name in zip(users, NAMES, strict=False)
            ]
        return self._cast

    def figures(self) -> dict[str, Any]:
        with self._lock:
            if time.monotonic() - self._made_at > FRESH_SECONDS:
                self._figures = self._make_figures()
                self._made_at = time.monotonic()
            return self._figures

    def click(self, click: Click) -> str:
        event = Event(
            user_id=click.user_id,
            kind="click",
            at=_now_ms(),
            event_id=f"page-{secrets.token_hex(8)}",
            article_id=click.article_id,
            list_id=click.list_id,
            position=click.position,
            reason=click.reason,
            source=click.source,
            session_id="page",
        )
        self._send(self._topics.user_events, event.user_id, encode(event))
        return event.event_id

    def publish(self, headline: Headline) -> str:
        article = Article(
            article_id=f"press-{secrets.token_hex(6)}",
            title=headline.title.strip(),
            abstract=headline.abstract.strip(),
            category=headline.category.strip(),
            published_at=_now_ms(),
            source="you",
        )
        self.observer.watch(article.article_id, article.title, article.published_at)
        self._send(self._topics.articles, article.article_id, encode(article))
        return article.article_id

    def kill(self) -> int | None:
        with self._lock:
            if (self.recoveries and not self.recoveries[-1].over) or not self._users_worker.running:
                return None
            self.recoveries.append(Recovery(len(self.recoveries) + 1, self._users_worker, self.observer))
            return len(self.recoveries)

    def recovery_seconds(self) -> list[float]:
        """Seconds from each kill to the end of its recovery."""
        return [recovery.accounted_s for recovery in self.recoveries if recovery.accounted_s is not None]

    def close(self) -> None:
        """Send what is still queued; blocks at most a second."""
        self._producer.flush(1)

    def _send(self, topic: str, key: str, value: bytes) -> None:
        self._producer.produce(topic, key=key.encode(), value=value)
        self._producer.poll(0)

    def _make_figures(self) -> dict[str, Any]:
        now, now_ms = time.monotonic(), _now_ms()
        account = self.observer.account()
        figures: dict[str, Any] = {
            "at": now_ms,
            "users": self.observer.users,
            "account": {
                "sent": account.sent,
                "folded": account.folded,
                "waiting": account.waiting,
                "duplicate": account.duplicate,
                "dead": account.dead,
                "in_flight": account.in_flight,
                "lost": account.lost,
            },
            "rates": self._rate(now, account.sent),
            "articles": dict(zip(("published", "embedded"), self.observer.articles, strict=True)),
            "lists": self.observer.lists_published,
            "latency": {
                "event_to_list_ms": self.observer.event_to_list.recent(now),
                "publish_to_list_ms": self.observer.publish_to_list.recent(now),
            },
            "ctr": {"personal": self.judgement.ctr.personal, "popular": self.judgement.ctr.popular},
            "reach": _reach(self.observer.reach),
            "kill": self.recoveries[-1].figures() if self.recoveries else None,
        }
        if not self._history or now_ms - self._history[-1]["at"] >= 1000:
            self._history.append({"at": now_ms, "in_flight": account.in_flight, **figures["ctr"]})
        return figures

    def _rate(self, now: float, sent: int) -> dict[str, float]:
        self._rates.append((now, sent, self.observer.lists_published))
        while self._rates[0][0] < now - RATE_SECONDS and len(self._rates) > 2:
            self._rates.popleft()
        (began, events, lists), (ended, events_now, lists_now) = self._rates[0], self._rates[-1]
        seconds = max(ended - began, FRESH_SECONDS)
        return {"events_per_s": (events_now - events) / seconds, "lists_per_s": (lists_now - lists) / seconds}


def _reach(reach: Reach | None) -> dict[str, Any] | None:
    if reach is None:
        return None
    curve = list(reach.curve)
    return {
        "article_id": reach.article_id,
        "title": reach.title,
        "at": reach.at,
        "users": len(reach.users),
        "first_ms": curve[0][0] if curve else None,
        "first_second": max((reached for at, reached in curve if at <= 1000), default=0),
        "curve": curve,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
