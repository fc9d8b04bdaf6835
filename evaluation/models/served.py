"""The ranker that serves: the same fold, statistics and ranking, over all that had been published by then."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.settings import Settings
from encoders.articles import hash64
from encoders.fold import Fold
from encoders.fold_rules import CO_READS_HALF_LIFE_MS, SHORT_HALF_LIVES_MINUTES, STATS_HALF_LIFE_MS
from encoders.interest import long_and_short
from encoders.onnx_clicks import OnnxClicks
from evaluation.articles import Articles, Indices, grown
from evaluation.models.contract import Floats
from evaluation.models.folded import FoldedUsers
from evaluation.requests import Feedback, Request
from ranking.appeal import appeal_of, fit_appeal
from ranking.catalogue import Catalogue, Facts, Moments
from ranking.co_reading import CoReading
from ranking.features import Weights, click_probability, score_parts, shown_counts
from ranking.popularity import Popularity, base_rate, popularity
from ranking.ranking import Formula, rank_traced
from ranking.readers import NO_PAST, Past, Readers
from ranking.regions import RegionalCounts
from ranking.reranker import FEATURES, VERSION, model_scores
from ranking.rules import FREE, Rules, bars, few_have_seen

STATISTICS_MS = 1000
"""How old click-through rates may be."""
APPEAL_MS = 600_000
UNLISTED = 1e-6
ALL_MOMENTS = 4_000
"""Beyond so many listed articles their mean and covariance are found anew when a fiftieth changed, as when serving."""


class Ranking(NamedTuple):
    """One request as the ranker sees it: who asks, all articles, the candidates' ``places`` among them [1, c] and the
    parts of their scores [parts, 1, c], and which of them may be listed [c]."""

    reader: Readers
    catalogue: Catalogue
    places: NDArray[np.intp]
    parts: NDArray[np.float32]
    listed: NDArray[np.bool_]


class Ranker:
    """The probability of a click on each candidate, next to 0 for what would not be listed; no rules on whole lists."""

    probabilities = True

    def __init__(self, articles: Articles, settings: Settings) -> None:
        self._articles = articles
        self._users = FoldedUsers(articles, settings, self._count)
        self._rules = Rules.of(settings)
        self._popularity = Popularity(1, STATS_HALF_LIFE_MS, SHORT_HALF_LIVES_MINUTES)
        self._regions = RegionalCounts(STATS_HALF_LIFE_MS)
        self._co_reads = CoReading(CO_READS_HALF_LIFE_MS)
        self._weights = Weights(boost=settings.boost)
        self._model = OnnxClicks.load(Path(settings.ranker_model), FEATURES, VERSION) if settings.ranker_model else None
        self._appeal: NDArray[np.float64] | None = None
        self._appeal_as_of = -APPEAL_MS
        self._catalogue: Catalogue | None = None
        self._as_of = 0
        self._moments: Moments | None = None
        self._moments_of = 0
        self._counted: Indices = np.full(1024, -1, np.intp)
        """Where ``self._popularity`` counts the article of each of the table's rows, -1: nowhere."""

    def scores(self, request: Request) -> Floats:
        ranking = self.ranking(request)
        if self._model is None:
            found = ranking.parts.sum(axis=0)[0]
        else:
            found = model_scores(
                self._model, ranking.reader, ranking.catalogue, ranking.places, ranking.parts, request.at
            )[0]
        return np.where(ranking.listed, click_probability(found, ranking.catalogue), UNLISTED).astype(np.float64)

    def ranking(self, request: Request) -> Ranking:
        """Fold what happened up to now and work out the parts of the candidates' scores."""
        reader, catalogue = self._now(request)
        places = self._users.rows(request.candidates)
        parts = score_parts(reader, catalogue, places[None], self._weights, request.at)
        barred = bars(reader, catalogue, shown_counts(reader, catalogue), self._rules)[0]
        listed = (places >= 0) & catalogue.listed[places] & (barred[places] == FREE)
        return Ranking(reader, catalogue, places[None], parts, listed)

    def explorable(self, request: Request) -> Indices:
        """Return among which articles the ranker would draw one to be explored; candidates of ``request`` are out."""
        reader, catalogue = self._now(request)
        _, trace = rank_traced(reader, catalogue, Formula(self._weights, self._rules, model=self._model), request.at)
        places = trace.candidates.places[0]
        few = places[(places >= 0) & few_have_seen(catalogue, self._rules, request.at)[places]]
        return self._articles.indices([catalogue.ids[place] for place in few.tolist()])

    def learn(self, feedback: Feedback) -> None:
        self._users.learn(feedback)

    def _now(self, request: Request) -> tuple[Readers, Catalogue]:
        """The request's user and the articles that are out, as of then."""
        users = self._users
        user = users.user(request)
        users.publish(request.candidates, request.at)
        catalogue = self._catalogue
        outdated = catalogue is None or len(catalogue.hashes) != len(users.table.ids)
        if outdated or request.at - self._as_of > STATISTICS_MS:
            self._refresh(request.at)
            catalogue = self._catalogue
        assert catalogue is not None
        numbers = np.zeros(users.model.state_size, np.float32) if user is None else user.vector
        past = NO_PAST if user is None else Past.of(user.windows)
        return Readers.of(long_and_short(users.model.query(numbers[None])), [past]), catalogue

    def _count(self, fold: Fold) -> None:
        for key, stats in fold.stats.items():
            self._popularity.put(0, key, stats)
            self._regions.put(0, hash64(key), stats)
        rows = self._users.table.rows
        known = [key for key in fold.stats if key in rows]
        self._counted = grown(self._counted, len(self._users.table.ids), -1)
        self._counted[[rows[key] for key in known]] = self._popularity.rows(known)
        for key, sums in fold.co_reads.items():
            record = None if sums is None else sums.to_co_reads(CO_READS_HALF_LIFE_MS)
            self._co_reads.put(0, hash64(key), record)

    def _refresh(self, now_ms: int) -> None:
        table, size = self._users.table, len(self._users.table.ids)
        vectors, published_at = table.vectors[:size], table.published_at[:size]
        self._counted = grown(self._counted, size, -1)
        counts = self._popularity.all_counts_in(self._counted[:size], now_ms)
        impressions, clicks = counts[0]
        rate = base_rate(impressions, clicks)
        if now_ms - self._appeal_as_of >= APPEAL_MS:
            self._appeal, self._appeal_as_of = fit_appeal(vectors, impressions, clicks, rate, self._appeal), now_ms
        assert self._appeal is not None
        appeal = appeal_of(vectors, self._appeal)
        listed = table.listed[:size] & (published_at > now_ms - self._rules.ttl_ms)
        total = int(listed.sum())
        few = total <= ALL_MOMENTS or self._moments is None
        if few or abs(total - self._moments_of) >= total // 50:
            self._moments, self._moments_of = Moments.of(vectors[listed]), total
        liked = popularity(impressions, clicks, rate, appeal)
        facts = Facts(
            listed=listed,
            category=np.array(table.categories, np.uint64),
            popularity=liked,
            appeal=appeal,
            impressions=impressions.astype(np.float32),
            counts=counts,
            base_rate=rate,
            co_reads=self._co_reads,
            moments=self._moments,
        )
        catalogue = Catalogue(table.ids, vectors, table.hashes[:size], published_at, facts)
        everywhere = 1 / (1 + np.exp(-(np.log(rate / (1 - rate)) + appeal.astype(np.float64) + liked)))
        catalogue.regional = self._regions.regional(catalogue.places(self._regions.hashes), everywhere, now_ms)
        self._catalogue = catalogue
        self._as_of = now_ms
