"""A newsroom and its users before a running pipeline.

At every view the same user is also shown the popular list, with luck and memory of its own and
without anything being sent: what they would have clicked there is the other arm of the comparison.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from contract.messages import Event, ShownItem
from contract.settings import Settings
from producers.current_lists import CurrentList, CurrentLists, ListedItem
from producers.judge import TOP, Arm, Arms
from producers.newsroom import CATEGORIES, Newsroom, storylines
from producers.pace import Pace
from producers.popular_pool import PopularPool
from producers.sender import Sender, public_topics
from producers.simulated_users import Bools, Ints, Memory, SimulatedUsers
from streams.table import TableReader
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
        lines = storylines()
        self.users = SimulatedUsers(users, [CATEGORIES.index(line.category) for line in lines], seed=seed, taste=taste)
        self.ids = [f"user-{number:05d}" for number in range(users)]
        self.lists = CurrentLists(
            settings, topics.recommendations, dict(zip(self.ids, range(users), strict=True)), name="simulate"
        )
        self.sender = Sender(settings, topics, name="simulate")
        self._newsroom = Newsroom(seed)
        self._known: dict[str, int] = {}
        self._article_ids: list[str] = []
        self._run = f"{int(time.time() * 1000):x}"
        self._serial = 0
        self._length = settings.list_length
        self._own, self._other = Memory(users), Memory(users)
        self._own_luck, self._other_luck = (np.random.default_rng([seed, 5]), np.random.default_rng([seed, 6]))
        self._pool = PopularPool()
        self._pool_changes = -1
        self._pool_at = 0.0
        self.personal, self.popular = Arm(users), Arm(users)
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

        Both arms remember the same. Does nothing without an archive.
        """
        everybody = np.arange(self.users.count)
        articles, before = self.users.articles, self.clicks
        if not articles:
            return
        rounds = max(1, round(clicks_per_user * 8))
        start = _now_ms() - round(HISTORY_HOURS * 3_600_000)
        for number in range(rounds):
            now = start + round((number + 0.5) * HISTORY_HOURS * 3_600_000 / rounds)
            out = np.flatnonzero(self.users.published[:articles] <= now)
            if len(out) < self._length:
                continue
            lists = np.sort(out[self._own_luck.integers(0, len(out), (len(everybody), self._length))], axis=1)
            lists[:, 1:][lists[:, 1:] == lists[:, :-1]] = -1
            self._own_luck.permuted(lists, axis=1, out=lists)
            depths = self.users.depths(everybody, self._length)
            clicked = self.users.view(everybody, lists, depths, now, self._own, self._own_luck)
            for row, user in enumerate(everybody):
                seen = [(column, a) for column, a in enumerate(lists[row, : depths[row]].tolist()) if a >= 0]
                shown = [ShownItem(article_id=self._article_ids[a], position=column) for column, a in seen]
                hits = [item for item in shown if clicked[row, item.position]]
                self._send(int(user), now, shown, hits, "")
            self.sender.serve()
            if self.clicks - before >= clicks_per_user * self.users.count:
                break
        self._other.shown = self._own.shown.copy()
        self.sender.flush()

    def wait_for_vectors(self, topic: str, stop: Stop, seconds: float = 300.0) -> bool:
        """Block until every article published here has a vector in ``topic``, a stop, or ``seconds``; tell whether."""
        missing = {article_id.encode() for article_id in self._article_ids}
        deadline = time.monotonic() + seconds
        reader = TableReader(self._settings, topic, name="simulate-vectors")
        try:
            while missing and not stop.requested and time.monotonic() < deadline:
                missing.difference_update([message.key() for message in reader.poll(0.1)])
        finally:
            reader.close()
        return not missing

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
        (personal, personal_se), (popular, popular_se) = of(self.personal), of(self.popular)
        if of is Arm.precision and not self.users.has_taste:
            return Arms(), Arms()
        return Arms(_rounded(personal), _rounded(popular)), Arms(_rounded(personal_se), _rounded(popular_se))

    def _add(self, article_id: str, line: int, published_at: int) -> int:
        index = self.users.add_article(line, published_at)
        self._known[article_id] = index
        self._article_ids.append(article_id)
        self._own.grow(index + 1)
        self._other.grow(index + 1)
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
        shown = [one or fallback for one in own]
        lists = self._numbered(shown)
        depths = self.users.depths(users, self._length)
        clicked = self.users.view(users, lists, depths, now, self._own, self._own_luck)
        self._judge(users, lists, depths, clicked, np.array([one is not None for one in own]), now)
        for row, (user, current) in enumerate(zip(users.tolist(), shown, strict=True)):
            assert current is not None
            items = [_shown(item, place) for place, item in enumerate(current.items[: depths[row]])]
            self._send(user, now, items, [items[c] for c in np.flatnonzero(clicked[row])], current.list_id)
        self.users.drift(users)
        self._pool.count(lists[clicked])
        self.views += len(users)
        return len(users)

    def _judge(self, users: Ints, lists: Ints, depths: Ints, clicked: Bools, own: Bools, now: int) -> None:
        """Draw the other arm, and count the views in which both arms have something to show."""
        if time.monotonic() - self._pool_at > 1.0 or self._pool_changes != self.lists.popular_changes:
            self._pool_at, self._pool_changes = time.monotonic(), self.lists.popular_changes
            popular = self.lists.popular
            self._pool.refresh(self._numbered([popular])[0] if popular else np.empty(0, np.int64))
        others = self._pool.lists(users, self._other, self._length)
        clicked_there = self.users.view(users, others, depths, now, self._other, self._other_luck)
        both = own & (others[:, 0] >= 0)
        self.fallback_views += int(len(users) - own.sum())
        if not both.any():
            return
        for arm, shown, hits in ((self.personal, lists, clicked), (self.popular, others, clicked_there)):
            seen = (np.arange(shown.shape[1]) < depths[:, None]) & (shown >= 0)
            liked = self.users.liked(users, shown[:, :TOP])
            arm.take(users[both], seen[both], hits[both], liked[both])

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

    def _send(self, user: int, at: int, shown: list[ShownItem], clicked: list[ShownItem], list_id: str) -> None:
        user_id = self.ids[user]
        if shown:
            self._serial += 1
            self.sender.event(
                Event(
                    user_id=user_id, kind="impression", at=at, event_id=f"sim-{self._run}-{self._serial:x}",
                    shown=shown, list_id=list_id, session_id=f"{self._run}-{user}",
                )
            )  # fmt: skip
        for item in clicked:
            self._serial += 1
            self.sender.event(
                Event(
                    user_id=user_id, kind="click", at=at, event_id=f"sim-{self._run}-{self._serial:x}",
                    article_id=item.article_id, list_id=list_id, position=item.position, reason=item.reason,
                    source=item.source, session_id=f"{self._run}-{user}",
                )
            )  # fmt: skip
        self.clicks += len(clicked)


def _shown(item: ListedItem, place: int) -> ShownItem:
    return ShownItem(
        article_id=item.article_id, position=place, reason=item.reason, source=item.source, propensity=item.propensity
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _now_ms() -> int:
    return int(time.time() * 1000)
