"""Users as the users worker would have folded them from the same events, and what their vectors alone say.

Nobody knows when the articles of a history were read; it is taken to have been an hour apart, up to a day before
the user's first request, so that they do not count as of now in what is popular. What a history or a request names
counts as published when it is first named, unless the data says when it was. In a data set without texts all vectors
are zero.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from contract.messages import Event, ShownItem
from contract.records import ArticleMeta, ArticleRecord, UserRecord
from contract.settings import Settings
from encoders.articles import ArticleTable
from encoders.fold import Fold
from encoders.fold_rules import Arrival, FoldLimits
from encoders.fold_statistics import Statistics
from encoders.interest import InterestModel, interest_model, long_and_short
from encoders.user_state import PartitionState
from evaluation.articles import NEVER, Articles, Indices
from evaluation.models.contract import Floats
from evaluation.requests import Feedback, Request

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PARTITION = 0


class _Uncounted(Statistics):
    """Counts nothing: no user's state depends on statistics, and they take a third of the time of a fold."""

    def count(self, *_count: object) -> None:
        pass

    def count_next(self, *_read: object) -> None:
        pass


class FoldedUsers:
    """The state of one partition that all events go to.

    Articles without a vector are not published, where others have one.
    """

    def __init__(self, articles: Articles, settings: Settings, on_fold: Callable[[Fold], None] | None = None) -> None:
        """``on_fold`` is told of every batch, once it has become current; without it no statistics are counted."""
        self._articles = articles
        self._on_fold = on_fold
        dims = articles.dims or 1
        self.model: InterestModel = interest_model(settings, dims)
        self.table = ArticleTable(dims)
        self.state = PartitionState(PARTITION)
        self._limits = FoldLimits.of(settings)
        self._rows: NDArray[np.intp] = np.full(1024, -1, np.intp)
        told = np.flatnonzero(articles.published_at < NEVER)
        self._to_come = deque(told[np.argsort(articles.published_at[told], kind="stable")].tolist())
        self._begun: set[int] = set()
        self._arrivals: list[Arrival] = []
        self._offset = 0

    def rows(self, articles: Indices) -> Indices:
        """Return the articles' rows in ``table``, -1 where they have no vector; publishes nothing."""
        self._grow()
        return self._rows[articles]

    def publish(self, articles: Indices, at: int) -> None:
        """Put those into the table that are not there and have a vector, and all that is known to be out by then."""
        self._grow()
        known = self._articles
        due = []
        while self._to_come and known.published_at[self._to_come[0]] <= at:
            due.append(self._to_come.popleft())
        if due:
            articles = np.unique(np.append(articles, due))
        new = articles[(self._rows[articles] < 0) & (known.has_vector[articles] | (known.dims == 0))]
        for article in new.tolist():
            category = known.category_names[known.categories[article]][:256]
            vector = known.vectors[article] if known.dims else np.zeros(1, np.float32)
            published_at = min(at, int(known.published_at[article]))
            record = ArticleRecord(vector, published_at, 0, published_at, ArticleMeta(category=category))
            self._rows[article] = self.table.put(known.ids[article], record)

    def user(self, request: Request) -> UserRecord | None:
        """Fold what happened up to now, and return the user's state; one who is new begins with their history."""
        self._begin(request)
        self._fold()
        return self.state.users.get(str(request.user))

    def learn(self, feedback: Feedback) -> None:
        """Take in an impression and its clicks; they are folded once somebody asks for a state.

        No state depends on where the events were cut into batches.
        """
        request = feedback.request
        self._begin(request)
        self.publish(feedback.shown, request.at)
        if len(feedback.shown) > len(feedback.clicks) or (request.session < 0 and not feedback.elsewhere):
            shown = [ShownItem(article_id=self._articles.ids[article]) for article in feedback.shown.tolist()]
            context = dict(request.context)
            event = Event(user_id=str(request.user), kind="impression", at=request.at, shown=shown, context=context)
            self._arrive(event, request.at)
        for article in feedback.clicks.tolist():
            self._click(request, article, request.at)

    def _begin(self, request: Request) -> None:
        """At a user's first appearance take in their history."""
        if request.user in self._begun:
            return
        self._begun.add(request.user)
        if len(request.history):
            oldest = max(0, request.at - DAY_MS - len(request.history) * HOUR_MS)
            self.publish(request.history, oldest)
            for n, article in enumerate(request.history.tolist()):
                self._click(request, article, oldest + n * HOUR_MS)

    def _click(self, request: Request, article: int, at: int) -> None:
        article_id = self._articles.ids[article]
        event = Event(
            user_id=str(request.user), kind="click", at=at, article_id=article_id, context=dict(request.context)
        )
        self._arrive(event, request.at)

    def _arrive(self, event: Event, timestamp: int) -> None:
        self._arrivals.append(Arrival(self._offset, timestamp, event, b""))
        self._offset += 1

    def _fold(self) -> None:
        if not self._arrivals:
            return
        fold = Fold(self.state, self.table, self.model, self._limits)
        if self._on_fold is None:
            fold.statistics = _Uncounted(self.state, fold.totals, self.table, self._limits.co_reads)
        fold.take(self._arrivals)
        fold.finish()
        fold.adopt()
        self._arrivals = []
        if self._on_fold is not None:
            self._on_fold(fold)

    def _grow(self) -> None:
        if len(self._articles) > len(self._rows):
            rows = np.full(2 * len(self._articles), -1, np.intp)
            rows[: len(self._rows)] = self._rows
            self._rows = rows


class InterestAlone:
    """The sum of the cosines to the vectors that the interest model gives for a user's state."""

    probabilities = False

    def __init__(self, articles: Articles, settings: Settings) -> None:
        self._users = FoldedUsers(articles, settings)
        self._articles = articles

    def scores(self, request: Request) -> Floats:
        user = self._users.user(request)
        if user is None:
            return np.zeros(len(request.candidates))
        queries = long_and_short(self._users.model.query(user.vector[None]))[0]
        cosines = self._articles.vectors[request.candidates] @ queries.T
        return np.asarray(cosines.sum(axis=1), np.float64)

    def learn(self, feedback: Feedback) -> None:
        self._users.learn(feedback)
