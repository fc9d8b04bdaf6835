"""A candidate click model in the ranker's shadow: it scores what is listed, and what readers then click decides.

After a list is committed, the serving model and the candidate score it as it stands. Impressions and clicks are read
from ``user-events`` as they come; :mod:`ranking.shadow` judges each list some minutes after it was first seen.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge, Info

from consumers.click_models import Changed, ClickModels, Verdict, Version, serving_of
from consumers.ranker_counts import HOLDOUT
from consumers.ranker_lists import RankerLists
from consumers.ranker_publication import Publication
from contract.errors import BadRecord
from contract.messages import Event, List, decode_event
from contract.settings import Settings
from contract.topics import Topics
from encoders.articles import hash64
from ranking.shadow import Compared, Judgement, said_of
from streams.record import Record
from streams.table import TableReader
from streams.worker import Log

SHARE = 0.05
"""Of the time that passes, the shadow computes at most this much; what it then does not score is not judged."""
SAVED_SECONDS = 1.0
AT_ONCE = 16
WAITING, USERS, LISTS_OF_A_USER = 256, 20_000, 4
COUNTED_OF_A_USER = 20
"""Lists of one user that count for or against a candidate: nobody decides alone."""
EVENTS_AT_ONCE = 5_000
DECIDE_MS = 1_000
DAY_MS = 86_400_000
"""A candidate that nothing was decided on for so long is given up."""
MODEL = Info("stoppress_ranker_model", "The click model by which the ranker scores")
CANDIDATE = Info("stoppress_shadow_candidate", "The click model that is judged on live events")
SCORED = Counter("stoppress_shadow_scored_lists_total", "Lists that serving model and candidate both scored")
SECONDS = Counter("stoppress_shadow_seconds_total", "Processor time that the shadow took of the ranker's loop")
SEEN = Gauge("stoppress_shadow_lists", "Lists seen by readers on which the present candidate is judged")
LOG_LOSS = Gauge("stoppress_shadow_log_loss", "Mean log loss of the items of these lists", ["kind"])
AUC = Gauge("stoppress_shadow_auc", "How often what was clicked in these lists stands above the rest", ["kind"])
KINDS = ("serving", "candidate")


class Shadow:
    """Does nothing where the setting ``ranker_shadow`` is empty."""

    def __init__(self, settings: Settings, topics: Topics, lists: RankerLists) -> None:
        self._lists = lists
        self._window_ms = round(settings.ranker_shadow_minutes * 60_000)
        serving = serving_of(settings)
        MODEL.info(serving.about())
        self._models: ClickModels | None = None
        if settings.ranker_shadow:
            lists.serve(serving.model)
            self._events = TableReader(settings, topics.user_events, name="ranker.shadow", from_end=True)
            self._models = ClickModels(settings, serving)
        self._log = Log("ranker")
        self._allowed, self._allowed_at = 0.0, time.monotonic()
        self._begin(Changed(serving, None))

    def turn(self, publications: Iterable[Publication], now_ms: int) -> None:
        """Take ``publications``, which are committed; score some lists, read events, and decide where it is time."""
        if self._models is None:
            return
        began, now = time.thread_time(), time.monotonic()
        self._allowed = min(SAVED_SECONDS, self._allowed + SHARE * (now - self._allowed_at))
        self._allowed_at = now
        changed = self._models.changed()
        if changed is not None:
            self._change(changed, now_ms)
        events = self._events.poll(limit=EVENTS_AT_ONCE)
        if self._candidate is not None:
            self._waiting.extend(shown for p in publications if (shown := p.result) is not None and _is_own(shown))
            self._score(self._candidate, now_ms)
            self._opened.read(events, now_ms)
            for log_odds, clicked in self._opened.closed(now_ms - self._window_ms):
                self._judgement.take(log_odds, clicked)
            self._decide(self._models, self._candidate, now_ms)
        taken = time.thread_time() - began
        self._allowed -= taken
        SECONDS.inc(taken)

    def close(self) -> None:
        if self._models is not None:
            self._models.close()
            self._events.close()

    def _change(self, changed: Changed, now_ms: int) -> None:
        if changed.serving != self._serving:
            self._lists.serve(changed.serving.model)
            MODEL.info(changed.serving.about())
            self._log.info("click_model_serves", **changed.serving.about())
        self._begin(changed, now_ms)
        if changed.candidate is not None:
            self._log.info("click_model_in_the_shadow", **changed.candidate.about())

    def _begin(self, changed: Changed, now_ms: int = 0) -> None:
        """Judge anew: what was seen speaks of the two models that were."""
        self._serving, self._candidate = changed
        self._since, self._decide_at = now_ms, 0
        self._waiting: deque[List] = deque(maxlen=WAITING)
        self._opened = SeenLists()
        self._judgement = Judgement()
        CANDIDATE.info({} if self._candidate is None else self._candidate.about())

    def _score(self, candidate: Version, now_ms: int) -> None:
        """Score the newest lists that wait, a few at once, as long as the time allowed lasts."""
        if not self._waiting or self._allowed < 0:
            return
        shown = [self._waiting.pop() for _ in range(min(AT_ONCE, len(self._waiting)))]
        readers, present, catalogue, formula = self._lists.as_listed([one.user_id for one in shown])
        hashes = np.zeros_like(present)
        for row, one in enumerate(shown):
            hashes[row, : len(one.items)] = [hash64(item.article_id) for item in one.items]
        unchanged = np.flatnonzero((hashes == present).all(axis=1))
        if len(unchanged):
            places = catalogue.places(hashes[unchanged].reshape(-1)).reshape(len(unchanged), -1)
            models = [self._serving.model, candidate.model]
            said = said_of(places, readers.some(unchanged), catalogue, formula, models, now_ms)
            self._judgement.hear(said)
            for number, row in enumerate(unchanged.tolist()):
                self._opened.remember(shown[row], said[:, number])
            SCORED.inc(len(unchanged))

    def _decide(self, models: ClickModels, candidate: Version, now_ms: int) -> None:
        if now_ms < self._decide_at:
            return
        self._decide_at = now_ms + DECIDE_MS
        compared = self._judgement.compared()
        _publish(compared)
        outcome = compared.outcome or ("undecided" if now_ms - self._since > DAY_MS else None)
        if outcome is None:
            return
        figures = {**compared._asdict(), "against": self._serving.about(), "decided_at": now_ms}
        self._log.info(f"click_model_{outcome}", **candidate.about(), **figures)
        models.conclude(Verdict(candidate.name, outcome, figures))
        self._begin(Changed(self._serving, None))


class _Seen(NamedTuple):
    """A list that was scored: what both models said [2, k] of its articles, which were seen and clicked [k]."""

    columns: dict[str, int]
    log_odds: NDArray[np.float64]
    seen: NDArray[np.bool_]
    clicked: NDArray[np.bool_]


class _User:
    """The last scored lists of a user, the newest last, and how many were counted."""

    def __init__(self) -> None:
        self.lists: dict[str, _Seen] = {}
        self.counted = 0


class SeenLists:
    """The last scored lists of some users, and what their readers do in them."""

    def __init__(self) -> None:
        self._users: OrderedDict[bytes, _User] = OrderedDict()
        self._open: deque[tuple[int, _Seen]] = deque()

    def remember(self, shown: List, log_odds: NDArray[np.float64]) -> None:
        """Wait for events on a list; ``log_odds`` [2, k] of its articles, NaN where a model said nothing."""
        k = log_odds.shape[1]
        columns = {item.article_id: n for n, item in enumerate(shown.items) if np.isfinite(log_odds[:, n]).all()}
        user = self._users.setdefault(shown.user_id.encode(), _User())
        user.lists[shown.list_id] = _Seen(columns, log_odds, np.zeros(k, np.bool_), np.zeros(k, np.bool_))
        self._users.move_to_end(shown.user_id.encode())
        if len(user.lists) > LISTS_OF_A_USER:
            del user.lists[next(iter(user.lists))]
        if len(self._users) > USERS:
            self._users.popitem(last=False)

    def read(self, records: Sequence[Record], now_ms: int) -> None:
        """Note what was seen and clicked; what is not about a list that was scored is passed over undecoded."""
        for record in records:
            user = self._users.get(record.key() or b"")
            if user is None:
                continue
            try:
                event = decode_event(record.key(), record.value())
            except BadRecord:
                continue  # the users worker has it among the dead letters
            if event.kind == "impression":
                self._see(event, user, now_ms)
            elif event.kind == "click":
                self._click(event, user)
            elif event.kind == "forget":
                del self._users[event.user_id.encode()]

    def closed(self, before_ms: int) -> Iterable[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
        """Yield once, of lists first seen by then, what was said of the items seen [2, n] and what was clicked [n]."""
        while self._open and self._open[0][0] <= before_ms:
            _, one = self._open.popleft()
            yield one.log_odds[:, one.seen], one.clicked[one.seen]

    def _see(self, event: Event, user: _User, now_ms: int) -> None:
        one = user.lists.get(event.list_id or next(reversed(user.lists)))
        columns = (
            [] if one is None else [c for item in event.shown if (c := one.columns.get(item.article_id)) is not None]
        )
        if one is None or not columns:
            return
        if not one.seen.any() and user.counted < COUNTED_OF_A_USER:
            user.counted += 1
            self._open.append((now_ms, one))
        one.seen[columns] = True

    def _click(self, event: Event, user: _User) -> None:
        for list_id, one in reversed(user.lists.items()):
            column = one.columns.get(event.article_id)
            if event.list_id in ("", list_id) and column is not None and one.seen[column]:
                one.clicked[column] = True
                return


def _is_own(shown: List) -> bool:
    """Whether a list is a user's, ranked for them."""
    return bool(shown.items) and not shown.user_id.startswith("~") and shown.items[0].source != HOLDOUT


def _publish(compared: Compared) -> None:
    SEEN.set(compared.lists)
    for number, kind in enumerate(KINDS):
        LOG_LOSS.labels(kind).set(compared.log_loss[number])
        AUC.labels(kind).set(compared.auc[number])
