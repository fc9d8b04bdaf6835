"""``produce replay``: real news and impressions sent in time order, sped up, times shifted to now.

All times are moved by one constant, such that the last event falls on the moment it is sent and
none lies in the future. News that the histories know before any impression shows them go out first, as held:
nobody says that they were still on offer. The clock starts once they have vectors. An impression's news
and, at a user's first one, the clicks of their history go out some seconds ahead of it, so that there can be
a list for the user when it comes.

On the way the lists are judged: of what was really shown, which share was clicked among the items
that the user's own list holds at that moment, and among those that ``~popular`` holds.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from contract.errors import SettingsError, SetupError
from contract.messages import Event, Placement, ShownItem
from contract.settings import Settings
from producers.broken_lines import BrokenLine, OnBroken
from producers.current_lists import CurrentList, CurrentLists
from producers.embedded import wait_for_vectors
from producers.judge import Arms
from producers.mind import Behaviour, News, behaviours_at, read_behaviours, read_news
from producers.sender import Sender, public_topics
from streams.worker import Stop

LEAD_SECONDS = 2.0
READ_BEFORE_MS = 24 * 3_600_000
"""News known from a history alone was published before: nobody knows when, so a day."""

ANSWER_SECONDS = 5.0
SECONDS = 120.0
"""How long a replay takes where nothing else is asked for."""

FORMATS = {"mind": ("news.tsv", "behaviors.tsv")}
"""Each format's files."""

OnProgress = Callable[[dict[str, Any]], None]
OnArchive = Callable[[int, int], None]
"""Is told how many of the articles known from histories have a vector, and how many there are."""


def require_data(format_: str, folder: Path) -> None:
    """Raise :class:`SettingsError` for an unknown format, :class:`SetupError` where the folder lacks a file."""
    if format_ not in FORMATS:
        raise SettingsError(f"the format {format_!r} is not known; known: {', '.join(FORMATS)}")
    for name in FORMATS[format_]:
        if not (folder / name).is_file():
            raise SetupError(f"there is no {folder / name}; a folder in the format {format_} has it")


@dataclass
class Plan:
    """What a folder holds, in time order; times are the original ones, epoch ms."""

    folder: Path
    news: dict[str, News]
    order: list[tuple[int, int]]
    """(time, offset of the line) of each impression."""
    published_at: dict[str, int]
    archive: list[str]
    """News that histories know before an impression shows them, oldest first."""
    users: set[str]
    broken_lines: int

    @property
    def first(self) -> int:
        return self.order[0][0]

    @property
    def last(self) -> int:
        return self.order[-1][0]

    def speed_up(self, seconds: float) -> float:
        """How many times as fast it is to be for all of it to take ``seconds``; infinite where it has no length."""
        return (self.last - self.first) / 1000 / max(seconds - LEAD_SECONDS, 1e-3) or math.inf

    def behaviours(self) -> Iterator[Behaviour]:
        """The impressions, oldest first."""
        return behaviours_at(self.folder, (offset for _, offset in self.order))


class ReplayReport(msgspec.Struct, kw_only=True):
    """What was sent. ``ctr``: see the module; ``judged``: items shown that the lists held."""

    articles_published: int
    events_sent: int
    events: dict[str, int]
    users: int
    users_with_list: int
    broken_lines: int
    impressions_left: int
    seconds: float
    ctr: Arms
    judged: dict[str, int]
    event_to_list_ms: dict[str, float | int | None]
    publish_to_list_ms: dict[str, float | int | None]


def make_plan(folder: Path, on_broken: OnBroken | None = None) -> Plan:
    """Read the folder once. Raises :class:`SetupError` where it holds no impression."""
    broken = itertools.count()

    def take(line: BrokenLine) -> None:
        next(broken)
        if on_broken is not None:
            on_broken(line)

    news = {entry.article_id: entry for entry in read_news(folder, take)}
    order: list[tuple[int, int]] = []
    shown: dict[str, int] = {}
    read: dict[str, int] = {}
    users: set[str] = set()
    for behaviour in read_behaviours(folder, take):
        order.append((behaviour.at, behaviour.offset))
        users.add(behaviour.user_id)
        for first, articles in ((shown, behaviour.candidates), (read, behaviour.history)):
            for article_id in articles:
                first[article_id] = min(behaviour.at, first.get(article_id, behaviour.at))
    if not order:
        raise SetupError(f"{folder}/behaviors.tsv holds no impression that can be used")
    published = {article_id: at - READ_BEFORE_MS for article_id, at in read.items()}
    published.update({a: at for a, at in shown.items() if at <= read.get(a, at)})
    before = (a for a, at in read.items() if a in news and shown.get(a, math.inf) > at)
    archive = sorted(before, key=lambda a: (published[a], a))
    return Plan(folder, news, sorted(order), published, archive, users, next(broken))


class Schedule:
    """When each original time is sent, and which time it then carries; wall times in seconds."""

    def __init__(self, first: int, last: int, speed_up: float, *, starts: float, keep_times: bool) -> None:
        """``speed_up`` may be infinite: as fast as Kafka takes it."""
        if not speed_up > 0:
            raise SetupError(f"the speed-up is {speed_up}; it must be greater than 0 (1: as it was)")
        self._first = first
        self._speed_up = speed_up
        self._starts = starts
        ends_ms = self.due(last) * 1000
        self._shift = 0 if keep_times else math.floor(min(ends_ms - last, starts * 1000 - first))
        self._keep = keep_times

    def due(self, at: int) -> float:
        """The moment at which something of the original time ``at`` is sent."""
        return self._starts + (at - self._first) / 1000 / self._speed_up

    def shifted(self, at: int, now_ms: int) -> int:
        """The time it carries when sent at ``now_ms``."""
        return at if self._keep else min(at + self._shift, now_ms)


@dataclass
class _Judged:
    shown: int = 0
    clicked: int = 0

    def take(self, current: CurrentList | None, behaviour: Behaviour) -> None:
        if current is not None:
            listed = {item.article_id for item in current.items}
            for article_id, clicked in zip(behaviour.candidates, behaviour.clicked, strict=True):
                if article_id in listed:
                    self.shown += 1
                    self.clicked += clicked

    @property
    def ctr(self) -> float | None:
        return round(self.clicked / self.shown, 5) if self.shown else None


class Replay:
    """One replay of a folder into a running pipeline."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        """Raises :class:`SetupError` where there is no broker or no topics."""
        topics = public_topics(settings)
        self._plan = plan
        self._numbers = {user_id: number for number, user_id in enumerate(sorted(plan.users))}
        self._lists = CurrentLists(settings, topics.recommendations, self._numbers, name="replay")
        self._sender = Sender(settings, topics, name="replay")
        self._run = f"{int(time.time() * 1000):x}"
        self._personal, self._popular = _Judged(), _Judged()
        self.answered = False
        """Whether workers run that answer with lists; then the end waits for the last ones."""
        self._held: set[str] = set()
        self._offered: set[str] = set()
        self._sent_histories: set[str] = set()
        self._shown = 0
        self._began = time.monotonic()

    def publish_archive(self, speed_up: float, *, keep_times: bool) -> None:
        """Send the news that were there before; blocks until Kafka has them."""
        times, now = self._schedule(speed_up, keep_times=keep_times), _now_ms()
        for article_id in self._plan.archive:
            self._publish(article_id, times, now, placement="held")
        self._held.update(self._plan.archive)
        self._sender.flush()

    def run(self, speed_up: float, *, keep_times: bool, stop: Stop, on_progress: OnProgress | None) -> ReplayReport:
        """Send everything else; blocks until all is sent, or until ``stop``."""
        self._lists.catch_up()
        self._lists.measure_from(time.time())
        self._began = time.monotonic()
        times, plan = self._schedule(speed_up, keep_times=keep_times), self._plan
        lead = _lead(speed_up)
        ahead = ((times.due(b.at) - lead, 0, n, b) for n, b in enumerate(plan.behaviours()))
        impressions = ((times.due(b.at), 1, n, b) for n, b in enumerate(plan.behaviours()))
        next_line = self._began + 1.0
        for due, phase, _, behaviour in heapq.merge(ahead, impressions, key=lambda step: step[:3]):
            while not stop.requested:
                self._lists.poll(min(0.05, max(0.0, due - time.time())))
                self._sender.serve()
                if on_progress is not None and time.monotonic() >= next_line:
                    next_line += 1.0
                    on_progress(msgspec.to_builtins(self.report()))
                if time.time() >= due:
                    break
            if stop.requested:
                break
            if phase == 0:
                self._send_ahead(behaviour, times)
            else:
                self._send_impression(behaviour, times)
        self._sender.flush()
        if self.answered:
            self._lists.await_everyone(stop, ANSWER_SECONDS)
        if on_progress is not None:
            on_progress(msgspec.to_builtins(self.report()))
        return self.report()

    def report(self) -> ReplayReport:
        """The figures up to now."""
        return ReplayReport(
            articles_published=len(self._held | self._offered),
            events_sent=self._sender.events_sent,
            events=dict(self._sender.events),
            users=len(self._sent_histories),
            users_with_list=self._lists.own_lists(),
            broken_lines=self._plan.broken_lines,
            impressions_left=len(self._plan.order) - self._shown,
            seconds=round(time.monotonic() - self._began, 1),
            ctr=Arms(self._personal.ctr, self._popular.ctr),
            judged={"personal": self._personal.shown, "popular": self._popular.shown},
            event_to_list_ms=self._lists.event_to_list.figures(),
            publish_to_list_ms=self._lists.publish_to_list.figures(),
        )

    def close(self) -> None:
        """Close the reader; blocks briefly."""
        self._lists.close()

    def _schedule(self, speed_up: float, *, keep_times: bool) -> Schedule:
        starts = time.time() + _lead(speed_up)
        return Schedule(self._plan.first, self._plan.last, speed_up, starts=starts, keep_times=keep_times)

    def _send_ahead(self, behaviour: Behaviour, times: Schedule) -> None:
        """The news of an impression, and at a user's first one their history, oldest click first."""
        history = [] if behaviour.user_id in self._sent_histories else behaviour.history
        self._sent_histories.add(behaviour.user_id)
        now = _now_ms()
        for article_id in behaviour.candidates:
            if article_id not in self._offered and article_id in self._plan.news:
                self._publish(article_id, times, now)
                self._offered.add(article_id)
        for number, article_id in enumerate(history):
            self._sender.event(
                Event(
                    user_id=behaviour.user_id,
                    kind="click",
                    at=times.shifted(behaviour.at - 1, now),
                    event_id=f"mind-{self._run}-{behaviour.offset:x}-h{number}",
                    article_id=article_id,
                )
            )

    def _publish(self, article_id: str, times: Schedule, now: int, placement: Placement = "auto") -> None:
        published_at = times.shifted(self._plan.published_at[article_id], now)
        self._sender.article(self._plan.news[article_id].article(published_at, placement))

    def _send_impression(self, behaviour: Behaviour, times: Schedule) -> None:
        self._personal.take(self._lists.of(self._numbers[behaviour.user_id]), behaviour)
        self._popular.take(self._lists.popular, behaviour)
        at = times.shifted(behaviour.at, _now_ms())
        name = f"mind-{self._run}-{behaviour.offset:x}"
        shown = [ShownItem(article_id=a, position=place) for place, a in enumerate(behaviour.candidates)]
        self._sender.event(
            Event(user_id=behaviour.user_id, kind="impression", at=at, event_id=name, shown=shown, session_id=name)
        )
        for item, clicked in zip(shown, behaviour.clicked, strict=True):
            if clicked:
                self._sender.event(
                    Event(
                        user_id=behaviour.user_id,
                        kind="click",
                        at=at,
                        event_id=f"{name}-{item.position}",
                        article_id=item.article_id,
                        position=item.position,
                        session_id=name,
                    )
                )
        self._shown += 1


def replay(
    settings: Settings,
    folder: Path,
    *,
    speed_up: float | None = None,
    seconds: float = SECONDS,
    keep_times: bool = False,
    on_progress: OnProgress | None = None,
    on_archive: OnArchive | None = None,
    on_broken: OnBroken | None = None,
    article_vectors: str | None = None,
    stop: Stop,
) -> ReplayReport:
    """Send a folder in MIND's format ``speed_up`` times as fast as it was, or else within ``seconds``.

    With the name of the topic ``article_vectors`` the clock starts once the news that were there before
    have vectors. Blocks until all is sent. Raises :class:`contract.errors.SetupError` where the folder, the
    broker or a topic is missing.
    """
    plan = make_plan(folder, on_broken)
    if speed_up is None:
        speed_up = plan.speed_up(seconds)
    running = Replay(settings, plan)
    try:
        running.publish_archive(speed_up, keep_times=keep_times)
        if article_vectors is not None:
            running.answered = wait_for_vectors(settings, article_vectors, plan.archive, stop, on_more=on_archive)
        return running.run(speed_up, keep_times=keep_times, stop=stop, on_progress=on_progress)
    finally:
        running.close()


def _lead(speed_up: float) -> float:
    return 0.0 if math.isinf(speed_up) else LEAD_SECONDS


def _now_ms() -> int:
    return int(time.time() * 1000)
