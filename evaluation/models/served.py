"""The ranker that serves: the same fold, statistics and ranking, over all that had been published by then."""

from __future__ import annotations

import numpy as np

from contract.settings import Settings
from encoders.fold_rules import STATS_HALF_LIFE_MS
from encoders.interest import long_and_short
from evaluation.articles import Articles
from evaluation.models.contract import Floats
from evaluation.models.folded import DAY_MS, FoldedUsers
from evaluation.requests import Feedback, Request
from ranking.catalogue import Catalogue, z_scores
from ranking.popularity import Popularity
from ranking.scoring import Readers, Weights, rank

STATISTICS_MS = 1000
"""How old click-through rates may be."""


class Ranker:
    """What a list of all fresh articles would score the candidates with; below all others what it would not list."""

    probabilities = False

    def __init__(self, articles: Articles, settings: Settings) -> None:
        self._users = FoldedUsers(articles, settings)
        self._ttl_ms = round(settings.article_ttl_days * DAY_MS)
        self._popularity = Popularity(1, STATS_HALF_LIFE_MS)
        self._weights = Weights()
        self._place = np.zeros(0, np.intp)
        self._catalogue: Catalogue | None = None
        self._as_of = 0

    def scores(self, request: Request) -> Floats:
        users = self._users
        user = users.user(request)
        changed = users.publish(request.candidates, request.at)
        if changed or self._catalogue is None or request.at - self._as_of > STATISTICS_MS:
            self._refresh(request.at)
        catalogue = self._catalogue
        assert catalogue is not None
        numbers = np.zeros(users.model.state_size, np.float32) if user is None else user.vector
        windows = (b"", b"", b"") if user is None else (
            user.windows.read, user.windows.shown, user.windows.shown_counts,
        )  # fmt: skip
        readers = Readers(long_and_short(users.model.query(numbers[None])), *([window] for window in windows))
        ranked = rank(readers, catalogue, self._weights, len(catalogue), request.at)
        by_place = np.full(len(catalogue) + 1, -np.inf)  # the last one: not in the catalogue
        by_place[ranked.places[0]] = ranked.scores[0]
        by_place[-1] = -np.inf
        rows = users.rows(request.candidates)
        return by_place[np.where(rows >= 0, self._place[rows], len(catalogue))]

    def learn(self, feedback: Feedback) -> None:
        for key, stats in self._users.learn(feedback).stats.items():
            self._popularity.put(0, key, stats)

    def _refresh(self, now_ms: int) -> None:
        table = self._users.table
        rows = np.flatnonzero(table.listed & (table.published_at > now_ms - self._ttl_ms))
        ids = [table.ids[row] for row in rows]
        rates = z_scores(self._popularity.click_through_rates(ids, now_ms))
        self._catalogue = Catalogue(ids, table.vectors[rows], table.hashes[rows], table.published_at[rows], rates)
        self._place = np.full(len(table.listed), len(rows), np.intp)
        self._place[rows] = np.arange(len(rows))
        self._as_of = now_ms
