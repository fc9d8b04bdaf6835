"""A newsroom and its users before a running pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from contract.messages import Event, Kind, ShownItem
from contract.settings import Settings
from producers.audience import Audience, Viewed
from producers.current_lists import CurrentList, CurrentLists, ListedItem
from producers.embedded import wait_for_vectors
from producers.judge import Arm, Arms
from producers.newsroom import Newsroom
from producers.pace import Pace
from producers.sender import Sender, public_topics
from producers.simulated_users import Bools, Ints
from streams.worker import Stop

TICK_SECONDS = 0.025
SETTLING_SECONDS = 15.0
"""Latencies of the first seconds after the live phase began are left out."""
HISTORY_HOURS = 12.0

OnProgress = Callable[[dict[str, Any]], None]


class Report(msgspec.Struct, kw_only=True):
    """What a simulation did, and how good the lists were."""

    users: int
    taste: bool
    seconds: float
    events_sent: int
    clicks: int
    views: int
    fallback_views: int
    clicks_per_second: float
    articles_published: int
    lists_received: int
    ctr: Arms
    ctr_se: Arms
    precision: Arms
    precision_se: Arms
    event_to_list_ms: dict[str, float | int | None]
    publish_to_list_ms: dict[str, float | int | None]


class Simulation:
    """A newsroom and its users before a running pipeline. Phases: archive, history (optional), live."""

    def __init__(self, settings: Settings, *, users: int, seed: int, taste: bool = True) -> None:
        """Raises :class:`contract.errors.SetupError` where there is no broker or no topics."""
        topics = public_topics(settings)
        self._settings = settings
        self._length = settings.list_length
        self.audience = Audience(users, self._length, seed=seed, taste=taste)
        self.users = self.audience.users
        self.ids = [f"user-{number:05d}" for number in range(users)]
        numbers = dict(zip(self.ids, range(users), strict=True))
        self.lists = CurrentLists(settings, topics.recommendations, numbers, name="simulate")
        self.sender = Sender(settings, topics, name="simulate")
        self._newsroom = Newsroom(seed)
        self._known: dict[str, int] = {}
        self._article_ids: list[str] = []
        self._run = f"{int(time.time() * 1000):x}"
        self._serial = 0
        self._popular_changes = -1
        self._popular_at = 0.0
        self.views = self.fallback_views = self.clicks = 0
        self._live_at = time.monotonic()
        self._live_clicks = 0

    def publish_archive(self, n: int) -> None:
        """Publish ``n`` articles of the last 24 hours; blocks until Kafka has them."""
        for article, line in self._newsroom.archive(n, _now_ms() - 1000):
            self._add(article.article_id, line, article.published_at)
            self.sender.article(article)
        self.sender.flush()

    def publish_history(self, clicks_per_user: float) -> None:
        """Send what the users saw and clicked in the last hours before now; blocks until Kafka has it.

        Does nothing without an archive.
        """
        wanted = self.clicks + clicks_per_user * self.users.count
        rounds = max(1, round(clicks_per_user * 8))
        start = _now_ms() - round(HISTORY_HOURS * 3_600_000)
        for number in range(rounds):
            now = start + round((number + 0.5) * HISTORY_HOURS * 3_600_000 / rounds)
            viewed = self.audience.look_back(now)
            if viewed is None:
                continue
            for user in range(self.users.count):
                self._send(user, now, self._past(viewed, user), viewed.clicked[user], "")
            self._send_elsewhere(np.arange(self.users.count), now)
            self.sender.serve()
            if self.clicks >= wanted:
                break
        self.sender.flush()

    def wait_for_vectors(self, topic: str, stop: Stop) -> bool:
        """Block until every article published here has a vector in ``topic`` (see :mod:`producers.embedded`)."""
        return wait_for_vectors(self._settings, topic, self._article_ids, stop)

    def wait_for_lists(self, stop: Stop) -> None:
        """Block until every user has a list, or no more come, or a stop."""
        self.lists.catch_up()
        self.lists.await_everyone(stop, patience=20.0)

    def run_live(
        self,
        *,
        clicks_per_second: float,
        publications_per_second: float,
        seconds: float | None,
        stop: Stop,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Publish and click at the asked rates, evenly, until ``seconds`` have passed or ``stop``."""
        self.lists.catch_up()
        self.lists.measure_from(time.time() + SETTLING_SECONDS)
        self._live_at = began = last = time.monotonic()
        self._live_clicks = self.clicks
        pace = Pace(clicks_per_second, began, self.users.count)
        next_tick, next_line = began, began + 1.0
        to_publish = 0.0
        while not stop.requested and (seconds is None or time.monotonic() < began + seconds):
            self.lists.poll(min(0.005, max(0.001, next_tick - time.monotonic())))
            now = time.monotonic()
            if now < next_tick:
                continue
            to_publish += publications_per_second * (now - last)
            for _ in range(int(to_publish)):
                article, line = self._newsroom.article(_now_ms())
                self._add(article.article_id, line, article.published_at)
                self.sender.article(article)
            to_publish %= 1.0
            views = pace.views(now, self.clicks - self._live_clicks)
            if views:
                before = self.clicks
                looked = self._look(views)
                pace.learn(looked, self.clicks - before)
            self.sender.serve()
            last, next_tick = now, max(next_tick + TICK_SECONDS, now)
            if on_progress is not None and now >= next_line:
                next_line += 1.0
                on_progress(msgspec.to_builtins(self.report()))
        self.sender.flush()
        if on_progress is not None:
            on_progress(msgspec.to_builtins(self.report()))

    def report(self) -> Report:
        """The figures up to now."""
        seconds = time.monotonic() - self._live_at
        ctr, precision = self._figures(Arm.ctr), self._figures(Arm.precision)
        return Report(
            users=self.users.count,
            taste=self.users.has_taste,
            seconds=round(seconds, 1),
            events_sent=self.sender.events_sent,
            clicks=self.clicks,
            views=self.views,
            fallback_views=self.fallback_views,
            clicks_per_second=round((self.clicks - self._live_clicks) / max(seconds, 1e-3), 1),
            articles_published=self.sender.articles,
            lists_received=self.lists.received,
            ctr=ctr[0],
            ctr_se=ctr[1],
            precision=precision[0],
            precision_se=precision[1],
            event_to_list_ms=self.lists.event_to_list.figures(),
            publish_to_list_ms=self.lists.publish_to_list.figures(),
        )

    def close(self) -> None:
        """Close the reader; blocks briefly."""
        self.lists.close()

    def _figures(self, of: Callable[[Arm], tuple[float | None, float | None]]) -> tuple[Arms, Arms]:
        if of is Arm.precision and not self.users.has_taste:
            return Arms(), Arms()
        (personal, personal_se), (popular, popular_se) = of(self.audience.personal), of(self.audience.popular)
        return Arms(_rounded(personal), _rounded(popular)), Arms(_rounded(personal_se), _rounded(popular_se))

    def _add(self, article_id: str, line: int, published_at: int) -> int:
        index = self.audience.add_article(line, published_at)
        self._known[article_id] = index
        self._article_ids.append(article_id)
        return index

    def _look(self, views: int) -> int:
        """Let about ``views`` users look at what is in front of them; return how many did."""
        fallback = self.lists.popular
        users = self.users.who_looks(views)
        own = [self.lists.of(user) for user in users.tolist()]
        if fallback is None:
            users = users[[one is not None for one in own]]
            own = [one for one in own if one is not None]
        if not own:
            return 0
        now = _now_ms()
        self._see_popular(now)
        shown = [one or fallback for one in own]
        is_own = np.array([one is not None for one in own])
        viewed, _ = self.audience.look(users, self._numbered(shown), is_own, now)
        for row, (user, current) in enumerate(zip(users.tolist(), shown, strict=True)):
            assert current is not None
            items = [_shown(item, place) for place, item in enumerate(current.items[: viewed.depths[row]])]
            self._send(user, now, items, viewed.clicked[row], current.list_id)
        self._send_elsewhere(users, now)
        self.views += len(users)
        self.fallback_views += int(len(users) - is_own.sum())
        return len(users)

    def _see_popular(self, now: int) -> None:
        """Hand the popular list to the other arm, once a second and where it has changed."""
        if time.monotonic() - self._popular_at > 1.0 or self._popular_changes != self.lists.popular_changes:
            self._popular_at, self._popular_changes = time.monotonic(), self.lists.popular_changes
            popular = self.lists.popular
            self.audience.see_popular(self._numbered([popular])[0] if popular else np.empty(0, np.int64), now)

    def _numbered(self, lists: list[CurrentList | None]) -> Ints:
        """The lists' articles by index, ``[n, list_length]``, -1 where a list is shorter."""
        numbered = np.full((len(lists), self._length), -1, np.int64)
        for row, current in enumerate(lists):
            if current is not None:
                places = [self._index(item.article_id) for item in current.items[: self._length]]
                numbered[row, : len(places)] = places
        return numbered

    def _index(self, article_id: str) -> int:
        index = self._known.get(article_id)
        return self._add(article_id, -1, _now_ms()) if index is None else index

    def _past(self, viewed: Viewed, row: int) -> list[ShownItem]:
        places = np.flatnonzero(viewed.seen[row]).tolist()
        return [ShownItem(article_id=self._article_ids[viewed.lists[row, p]], position=p) for p in places]

    def _send(self, user: int, at: int, shown: list[ShownItem], clicked: Bools, list_id: str) -> None:
        """Send an impression and the clicks in it; ``clicked`` goes by position."""
        if shown:
            self._event(user, "impression", at, shown=shown, list_id=list_id)
        for item in shown:
            if clicked[item.position]:
                self._click(user, at, item.article_id, list_id=list_id, position=item.position,
                            reason=item.reason, source=item.source)  # fmt: skip

    def _send_elsewhere(self, users: Ints, at: int) -> None:
        for user, article in zip(*(column.tolist() for column in self.audience.read_elsewhere(users, at)), strict=True):
            self._click(user, at, self._article_ids[article])

    def _click(self, user: int, at: int, article_id: str, **fields: Any) -> None:
        self._event(user, "click", at, article_id=article_id, **fields)
        self.clicks += 1

    def _event(self, user: int, kind: Kind, at: int, **fields: Any) -> None:
        self._serial += 1
        event_id = f"sim-{self._run}-{self._serial:x}"
        session_id = f"{self._run}-{user}"
        self.sender.event(
            Event(user_id=self.ids[user], kind=kind, at=at, event_id=event_id, session_id=session_id, **fields)
        )


def _shown(item: ListedItem, place: int) -> ShownItem:
    return ShownItem(
        article_id=item.article_id, position=place, reason=item.reason, source=item.source, propensity=item.propensity
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _now_ms() -> int:
    return int(time.time() * 1000)
