"""The simulation without Kafka: the same newsroom and users, the fold and the ranking in this process.

Time runs as fast as it is computed, so days can be looked at: how popularity is spread, how long
articles live. The same seed gives the same figures. Article vectors are made of the articles' words
by chance (:class:`WordVectors`), so that no encoder is needed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from contract.messages import POPULAR, Article, Event, ShownItem
from contract.records import SOURCE_PREFIX, ArticleMeta, ArticleRecord
from encoders.articles import ArticleTable, hash64
from encoders.decay import Decay
from encoders.fold import Fold
from encoders.fold_rules import STATS_HALF_LIFE_MS, Arrival, FoldLimits
from encoders.user_state import PartitionState
from producers.audience import Audience, Viewed
from producers.newsroom import Newsroom, rhythm
from producers.simulated_users import Ints
from ranking.appeal import appeal_of, fit_appeal
from ranking.candidates import SOURCES
from ranking.catalogue import Catalogue, Facts
from ranking.feedback import UNCHANGED, Feedback
from ranking.popularity import Popularity, base_rate, popularity
from ranking.ranking import Formula, rank
from ranking.reader_table import ReaderTable
from ranking.readers import Past
from ranking.reasons import reasons
from ranking.rules import Rules

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
TICK_MS = 10 * 60_000
START_MS = 1_790_000_000_000 // DAY_MS * DAY_MS
DIMS = 96
LONG_HALF_LIFE_MS, SHORT_HALF_LIFE_MS = 720 * HOUR_MS, 2 * HOUR_MS
VIEWS_A_DAY = 1.8
"""Of a user, on average."""
ARCHIVE_DAYS = 2

Found = tuple[Ints, Ints]
"""Users, and the article that each read without a list."""
Look = Callable[[Ints, int, Viewed, Viewed, Found], None]
"""Is told who looked, when (epoch ms), what came of it in the two arms (own lists, the popular list), and elsewhere."""


class WordVectors:
    """Unit vectors of texts: each word has a direction drawn by its hash, rare words weigh more."""

    def __init__(self, texts: Iterable[str], dims: int = DIMS) -> None:
        """``texts``: what is rare is learned from these, and where their middle lies."""
        self._dims = dims
        self._directions: dict[str, NDArray[np.float64]] = {}
        words = [self._words(text) for text in texts]
        self._seen = Counter(word for text in words for word in text)
        self._texts = len(words)
        self._middle = np.mean([self._sum(text) for text in words], axis=0)

    def __call__(self, text: str) -> NDArray[np.float32]:
        """float32 ``[dims]``."""
        vector = self._sum(self._words(text)) - self._middle
        unit: NDArray[np.float32] = (vector / max(float(np.linalg.norm(vector)), 1e-9)).astype(np.float32)
        return unit

    def _words(self, text: str) -> list[str]:
        return sorted(set(re.findall(r"\w+", text.lower())))

    def _sum(self, words: Sequence[str]) -> NDArray[np.float64]:
        total = np.zeros(self._dims)
        for word in words:
            if word not in self._directions:
                self._directions[word] = np.random.default_rng(hash64(word)).normal(size=self._dims)
            total += np.log((1 + self._texts) / (1 + self._seen[word])) * self._directions[word]
        return total / max(float(np.linalg.norm(total)), 1e-9)


class Site:
    """Events in, lists out: the users worker's fold and the ranker's ranking, in one partition."""

    def __init__(
        self, users: Sequence[str], length: int, formula: Formula | None = None, *, feedback: bool = False
    ) -> None:
        """``feedback``: whether the ranking adapts to what is clicked (:mod:`ranking.feedback`)."""
        self._model = Decay(DIMS, LONG_HALF_LIFE_MS, SHORT_HALF_LIFE_MS)
        self._state = PartitionState(0)
        self._articles = ArticleTable(DIMS)
        self._popularity = Popularity(1, STATS_HALF_LIFE_MS)
        self._readers = ReaderTable(DIMS, length)
        self._rows = [
            self._readers.add(
                user_id, 0, seed=hash64(user_id) if user_id != POPULAR else 0, personal=user_id != POPULAR
            )
            for user_id in (*users, POPULAR)
        ]
        self._formula = formula or Formula(rules=Rules(length=length, minimum=min(10, length)))
        self._exploration = self._formula.rules.exploration
        self._feedback = Feedback(STATS_HALF_LIFE_MS) if feedback else None
        self.adapted = UNCHANGED
        self._told: dict[int, tuple[list[str], list[str]]] = {}
        self._users = users
        self._length = length
        self._arrivals: list[Arrival] = []
        self._offset = 0
        self._appeal: NDArray[np.float64] | None = None

    def publish(self, index: int, vector: NDArray[np.float32], published_at: int) -> None:
        """Take in the article ``index``; they come in the order of their indexes."""
        row = self._articles.put(str(index), ArticleRecord(vector, published_at, 0, published_at, ArticleMeta()))
        assert row == index

    def take(self, users: Ints, viewed: Viewed, elsewhere: Found, now: int) -> None:
        """Send what was seen and clicked at ``now``, in lists and elsewhere, and fold it."""
        for row, user in enumerate(users.tolist()):
            user_id, articles = self._users[user], viewed.lists[row]
            places = np.flatnonzero(viewed.seen[row])
            sources, why = self._told.get(user, ([""] * len(articles), [""] * len(articles)))
            shown = [
                ShownItem(article_id=str(articles[p]), position=p, source=sources[p], reason=why[p])
                for p in places.tolist()
            ]
            self._arrive(Event(user_id=user_id, kind="impression", at=now, shown=shown))
            for item in shown:
                if viewed.clicked[row, item.position]:
                    self._arrive(
                        Event(
                            user_id=user_id, kind="click", at=now, article_id=item.article_id, position=item.position,
                            source=item.source, reason=item.reason,
                        )
                    )  # fmt: skip
        for user, article in zip(*(column.tolist() for column in elsewhere), strict=True):
            self._arrive(Event(user_id=self._users[user], kind="click", at=now, article_id=str(article)))
        fold = Fold(self._state, self._articles, self._model, FoldLimits())
        fold.settle([])
        fold.take(self._arrivals)
        fold.finish()
        fold.adopt()
        for key, stats in fold.stats.items():
            if key.startswith(SOURCE_PREFIX):
                if self._feedback is not None:
                    self._feedback.put(0, key.removeprefix(SOURCE_PREFIX), stats)
            else:
                self._popularity.put(0, key, stats)
        records = {user_id: state for user_id, state in fold.users.items() if state is not None}
        self._readers.put(
            [self._readers.add(user_id, 0) for user_id in records],
            [Past.of(record.windows) for record in records.values()],
            self._model.query(np.stack([record.vector for record in records.values()])),
        )
        self._arrivals = []

    def lists(self, users: Ints, now: int) -> tuple[Ints, Ints]:
        """Rank at ``now``: the lists of ``users``, ``[n, length]``, and the popular one ``[length]``; -1: none."""
        a, size = self._articles, len(self._articles.ids)
        impressions, clicks = self._popularity.counts(a.ids, now)
        rate = base_rate(impressions, clicks)
        self._appeal = fit_appeal(a.vectors[:size], impressions, clicks, rate, self._appeal)
        appeal = appeal_of(a.vectors[:size], self._appeal)
        facts = Facts(
            listed=a.listed[:size] & (a.published_at[:size] <= now),
            popularity=popularity(impressions, clicks, rate, appeal),
            appeal=appeal,
            impressions=impressions.astype(np.float32),
            base_rate=rate,
        )
        catalogue = Catalogue(a.ids, a.vectors[:size], a.hashes[:size], a.published_at[:size], facts)
        readers = self._readers.readers([self._rows[user] for user in (*users.tolist(), -1)])
        formula = self._formula
        if self._feedback is not None:
            self.adapted = self._feedback.look(self._length, now)
            formula = formula.adapted(self.adapted, self._exploration)
        ranked = rank(readers, catalogue, formula, now)
        why = reasons(ranked.parts, ~np.isnan(ranked.propensities), np.zeros(ranked.places.shape, np.bool_))
        for row, user in enumerate(users.tolist()):
            self._told[user] = [SOURCES[number] for number in ranked.sources[row].tolist()], why[row]
        return ranked.places[:-1], ranked.places[-1]

    def _arrive(self, event: Event) -> None:
        self._arrivals.append(Arrival(self._offset, event.at, event, b""))
        self._offset += 1


def simulate_days(
    *,
    users: int,
    days: int,
    articles_a_day: int,
    seed: int,
    on_look: Look,
    taste: bool = True,
    length: int = 20,
) -> Audience:
    """Let ``users`` live through ``days`` of news, by the day's rhythm; those of two days more are out before.

    ``on_look`` is told of everything; ``length`` is that of a list. Blocks; returns the audience with its judgement.
    """
    audience = Audience(users, length, seed=seed, taste=taste)
    site = Site([f"user-{number:05d}" for number in range(users)], length)
    written_days = ARCHIVE_DAYS + days
    end = START_MS + days * DAY_MS
    written = Newsroom(seed).archive(articles_a_day * written_days, end, hours=24.0 * written_days)
    vectors = WordVectors(text_of(article) for article, _ in written[:articles_a_day])
    for article, line in written:
        index = audience.add_article(line, article.published_at)
        site.publish(index, vectors(text_of(article)), article.published_at)
    owed = 0.0
    for now in range(START_MS, end, TICK_MS):
        owed += users * VIEWS_A_DAY * TICK_MS / DAY_MS * rhythm(now)
        looking = audience.users.who_looks(int(owed))
        owed %= 1.0
        if not len(looking):
            continue
        lists, popular = site.lists(looking, now)
        audience.see_popular(popular, now)
        personal, other = audience.look(looking, lists, np.ones(len(looking), np.bool_), now)
        elsewhere = audience.read_elsewhere(looking, now)
        site.take(looking, personal, elsewhere, now)
        on_look(looking, now, personal, other, elsewhere)
    return audience


def text_of(article: Article) -> str:
    return f"{article.title} {article.abstract} {article.body}"
