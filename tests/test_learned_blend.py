"""The blend that learns: it finds what the one made by hand does not know, and no more than there is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from evaluation.articles import Articles
from evaluation.metrics import auc
from evaluation.models.contract import Floats
from evaluation.models.learned_blend import WIDEST_LIST, LearnedBlend, as_share, as_z_score
from evaluation.models.list_learners import ConditionalLogit, Listed
from evaluation.models.popularity import PopularAmong
from evaluation.requests import Feedback, Request

START, ITEMS, ARTICLES, DIMS = 1_573_290_000_000, 10, 300, 4


@dataclass
class Told:
    """Scores that are chance, but the same whenever they are asked for."""

    seed: int
    probabilities = False

    def scores(self, request: Request) -> Floats:
        draw = np.random.default_rng([self.seed, request.at % 1_000_003])
        scores: Floats = draw.random(ARTICLES)[request.candidates]
        return scores

    def learn(self, feedback: Feedback) -> None:
        """Nothing."""


def some_articles(seed: int = 0) -> Articles:
    draw = np.random.default_rng(seed)
    articles = Articles(DIMS)
    for number in range(ARTICLES):
        vector = draw.standard_normal(DIMS).astype(np.float32)
        articles.describe(str(number), "", vector / np.linalg.norm(vector))
    return articles


def a_request(step: int, items: int = ITEMS) -> Request:
    candidates = np.random.default_rng(step).choice(ARTICLES, items, replace=False)
    return Request(START + step * 60_000, step % 50, -1, np.empty(0, np.intp), candidates, first=False)


def replayed(model: LearnedBlend, odds_of, requests: int = 400) -> list[float]:  # type: ignore[no-untyped-def]
    """Let one candidate of each request be clicked by ``odds_of(request)``; return the AUC of each."""
    draw, found = np.random.default_rng(5), []
    for step in range(requests):
        request = a_request(step)
        odds = np.exp(odds_of(request))
        clicked = np.arange(ITEMS) == draw.choice(ITEMS, p=odds / odds.sum())
        found.append(auc(model.scores(request), clicked))
        model.learn(Feedback(request, request.candidates, clicked))
    return found


@pytest.mark.parametrize("columns", [as_z_score, as_share])
def test_a_signal_that_the_hand_does_not_know_is_found(columns) -> None:  # type: ignore[no-untyped-def]
    known, unknown = Told(1), Told(2)
    found = replayed(
        LearnedBlend([(1, known), (0, unknown)], columns, 0.2, 0), lambda request: 8 * unknown.scores(request)
    )
    assert np.mean(found[:50]) < 0.6
    assert np.mean(found[-100:]) > 0.8


def test_what_readers_like_in_texts_and_what_is_an_articles_own_is_found() -> None:
    articles = some_articles()
    own = np.random.default_rng(7).standard_normal(ARTICLES)
    worth = 1.5 * articles.vectors[:ARTICLES, 0] + 0.7 * own
    knowing, ignorant = (
        np.mean(replayed(LearnedBlend([(1, Told(1))], as_z_score, 0.2, 0, a), lambda r: worth[r.candidates])[-300:])
        for a in (articles, None)
    )
    assert knowing > 0.62
    assert ignorant < 0.55


@pytest.mark.parametrize("seed", range(3))
def test_where_clicks_are_chance_but_for_the_hands_own_the_hand_is_kept(seed: int) -> None:
    known, noise = Told(1), Told(2)
    model = LearnedBlend([(1, known), (0, noise), (0, Told(3))], as_z_score, 1.0, seed, some_articles())
    found = replayed(model, lambda request: as_z_score(known.scores(request))[:, 0])
    request = a_request(1000)
    assert np.mean(found) > 0.7
    assert np.corrcoef(model.scores(request), known.scores(request))[0, 1] > 0.9


def test_clicks_that_follow_nothing_teach_nothing() -> None:
    model = LearnedBlend([(1, Told(1)), (0, Told(2))], as_share, 0.2, 0, some_articles())
    found = replayed(model, lambda request: np.zeros(ITEMS))
    assert 0.45 < np.mean(found[-200:]) < 0.55


def test_before_anything_is_learned_it_is_the_blend_made_by_hand() -> None:
    parts = [(1.0, Told(1)), (2.0, Told(2))]
    request = a_request(3)
    by_hand = sum(weight * as_z_score(part.scores(request))[:, 0] for weight, part in parts)
    scores = LearnedBlend(parts, as_z_score, 0.2, 0, some_articles()).scores(request)
    assert np.array_equal(np.argsort(scores), np.argsort(by_hand))


def test_a_way_that_says_what_is_clicked_is_heard_more_than_one_that_does_not() -> None:
    known, unknown = Told(1), Told(2)
    model = LearnedBlend([(1, known), (0, unknown)], as_z_score, 0.2, 0)
    assert model.trust.shares.tolist() == [0.5, 0.5]
    replayed(model, lambda request: 8 * unknown.scores(request), requests=200)
    assert model.trust.shares[0] < 0.01


def test_a_long_list_keeps_its_clicks_and_counts_as_many_as_it_had() -> None:
    model = LearnedBlend([(1, Told(1)), (1, Told(2))], as_z_score, 0.2, 0)
    columns = np.random.default_rng(0).standard_normal((3000, 2)).astype(np.float32)
    clicked = np.zeros(3000, np.bool_)
    clicked[[5, 2999]] = True
    rows, offset = model._kept(columns, clicked)
    assert clicked[rows].sum() == 2
    assert len(rows) <= WIDEST_LIST
    assert np.exp(offset).sum() == pytest.approx(3000, rel=1e-4)
    kept = columns[rows].sum(axis=1)
    assert np.sort(kept)[-60:] == pytest.approx(np.sort(columns.sum(axis=1))[-60:])


def test_the_most_probable_weights_are_found() -> None:
    """Of a choice between two by one column, the slope of a logistic regression with the same prior."""
    draw = np.random.default_rng(1)
    learner = ConditionalLogit(np.array([0.5]))
    some = []
    for _ in range(400):
        x = draw.standard_normal((2, 1)).astype(np.float32)
        first = draw.random() < 1 / (1 + np.exp(-1.2 * (x[0, 0] - x[1, 0])))
        some.append(Listed(x, np.array([0, 1]), np.array([first, not first]), np.zeros(2, np.float32)))
    learner._fit(some)
    apart = np.array(
        [(-1) ** (not listed.clicked[0]) * (listed.columns[0, 0] - listed.columns[1, 0]) for listed in some]
    )
    slope = 0.5
    for _ in range(30):
        p = 1 / (1 + np.exp(-slope * apart))
        gradient = float(apart @ (1 - p)) - (slope - 0.5) / ConditionalLogit.DEVIATION**2
        slope += gradient / (float(apart**2 @ (p * (1 - p))) + ConditionalLogit.DEVIATION**-2)
    assert learner._weights[0] == pytest.approx(slope, abs=1e-3)


def test_what_is_popular_where_one_comes_from_is_drawn_to_everybodys() -> None:
    model = PopularAmong("region", 3_600_000)

    def request(step: int, region: str) -> Request:
        of = a_request(step)
        return Request(of.at, 1, step, of.history, np.array([10, 20, 30]), False, context={"region": region})

    def clicks(region: str, article: int, times: int) -> None:
        for _ in range(times):
            model.learn(Feedback(request(1, region), np.array([article]), np.ones(1, np.bool_)))

    clicks("north", 10, 30)
    clicks("south", 20, 60)
    assert model.scores(request(1, "north"))[:2] == pytest.approx([30 + 20 / 3, 40 / 3])
    assert model.scores(request(1, "south"))[:2] == pytest.approx([20 / 3, 60 + 40 / 3])
    assert model.scores(request(1, "nowhere")).argmax() == 1
    assert model.scores(request(1, "south"))[2] == 0
