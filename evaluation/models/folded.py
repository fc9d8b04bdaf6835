"""Users as the users worker would have folded them from the same events, and what their vectors alone say.

Nobody knows when the articles of a history were read; it is taken to have been an hour apart, up to a day before
the user's first request, so that they do not count as of now in what is popular. What a history or a request names
counts as published when it is first named.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contract.messages import Event, Kind, ShownItem
from contract.records import ArticleMeta, ArticleRecord, UserRecord
from contract.settings import Settings
from encoders.articles import ArticleTable
from encoders.fold import Fold
from encoders.fold_rules import Arrival, FoldLimits
from encoders.interest import InterestModel, interest_model, long_and_short
from encoders.user_state import PartitionState
from evaluation.articles import Articles, Indices
from evaluation.models.contract import Floats
from evaluation.requests import Feedback, Request

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PARTITION = 0


class FoldedUsers:
    """The state of one partition that all events go to. Articles without a vector are not published."""

    def __init__(self, articles: Articles, settings: Settings) -> None:
        self._articles = articles
        self.model: InterestModel = interest_model(settings, articles.dims)
        self.table = ArticleTable(articles.dims)
        self.state = PartitionState(PARTITION)
        self._limits = FoldLimits.of(settings)
        self._rows: NDArray[np.intp] = np.full(1024, -1, np.intp)
        self._offset = 0
        self._timestamp = 0

    def rows(self, articles: Indices) -> Indices:
        """Return the articles' rows in ``table``, -1 where they have no vector; publishes nothing."""
        self._grow()
        return self._rows[articles]

    def publish(self, articles: Indices, at: int) -> bool:
        """Put those into the table that are not there and have a vector; return whether there were any."""
        self._grow()
        known = self._articles
        new = articles[(self._rows[articles] < 0) & known.has_vector[articles]]
        for article in new.tolist():
            category = known.category_names[known.categories[article]][:256]
            record = ArticleRecord(known.vectors[article], at, 0, at, ArticleMeta(category=category))
            self._rows[article] = self.table.put(known.ids[article], record)
        return len(new) > 0

    def user(self, request: Request) -> UserRecord | None:
        """Return the user's state; one who is new begins with their history."""
        user_id = str(request.user)
        if user_id not in self.state.users and len(request.history):
            self.publish(request.history, request.at - DAY_MS - len(request.history) * HOUR_MS)
            oldest = request.at - DAY_MS - len(request.history) * HOUR_MS
            read = enumerate(request.history.tolist())
            self._fold([self._click(request, article, oldest + n * HOUR_MS) for n, article in read], request.at)
        return self.state.users.get(user_id)

    def learn(self, feedback: Feedback) -> Fold:
        """Fold the impression and its clicks; return what the fold staged, by now current."""
        request = feedback.request
        self.user(request)
        self.publish(feedback.shown, request.at)
        events = []
        if len(feedback.shown) > len(feedback.clicks) or request.session < 0:
            shown = [ShownItem(article_id=self._articles.ids[article]) for article in feedback.shown.tolist()]
            events.append(self._event(request, "impression", request.at, shown=shown))
        events += [self._click(request, article, request.at) for article in feedback.clicks.tolist()]
        return self._fold(events, request.at)

    def _click(self, request: Request, article: int, at: int) -> Event:
        return self._event(request, "click", at, article_id=self._articles.ids[article])

    def _event(self, request: Request, kind: Kind, at: int, **fields: object) -> Event:
        return Event(user_id=str(request.user), kind=kind, at=max(0, at), **fields)  # type: ignore[arg-type]

    def _fold(self, events: list[Event], at: int) -> Fold:
        fold = Fold(self.state, self.table, self.model, self._limits)
        fold.settle([])
        fold.take([Arrival(self._offset + n, at, event, b"") for n, event in enumerate(events)])
        fold.finish()
        fold.adopt()
        self._offset += len(events)
        return fold

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
