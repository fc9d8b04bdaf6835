"""The ranker that serves with a click model that is trained again as requests come, by those before alone."""

from __future__ import annotations

from collections import deque

import numpy as np

from contract.settings import Settings
from evaluation.articles import Articles
from evaluation.models.contract import Floats
from evaluation.models.list_learners import Trust
from evaluation.models.served import UNLISTED, Ranker
from evaluation.requests import Feedback, Request
from ranking.features import click_probability
from ranking.listwise import BATCH, Learner, Shown, Weights, calibrated, sampled
from ranking.reranker import FEATURES, pair_features

POSITION = FEATURES.index("position")
TRAINED_EVERY = 100
STEPS = 25
REMEMBERED = 4000
CALIBRATED_ON = 300
"""Requests."""


class LearnedRanker:
    """The hand-made formula at first; after every hundred requests with a click the model goes some steps further.

    The log-odds are a mean of the model's and of the formula's, both calibrated, by how well each has said what was
    clicked: so the formula stays where nothing better was learned.
    """

    probabilities = True

    def __init__(self, articles: Articles, settings: Settings, seed: int) -> None:
        self._ranker = Ranker(articles, settings)
        self._asked: list[tuple[Request, np.ndarray, list[Floats]]] = []
        self._seen: deque[Shown] = deque(maxlen=REMEMBERED)
        self._learner: Learner | None = None
        self._ways: tuple[Weights, Weights] | None = None
        self._trust = Trust(2)
        self._draw = np.random.default_rng(seed)
        self._seed = seed
        self._new = 0

    def scores(self, request: Request) -> Floats:
        ranking = self._ranker.ranking(request)
        features = pair_features(ranking.reader, ranking.catalogue, ranking.places, ranking.parts, request.at)[0]
        told = features
        if request.positions is not None:  # learned from, but nobody knows them before there is a list
            told = features.copy()
            told[:, POSITION] = np.log1p(np.maximum(request.positions, 0))
        odds = [way.log_odds(features).astype(np.float64) for way in self._ways or ()]
        self._asked.append((request, told, odds))
        if odds:
            mixed: Floats = self._trust.shares @ np.stack(odds)
            found = 1 / (1 + np.exp(-mixed.clip(-15, 15)))
        else:
            found = click_probability(ranking.parts.sum(axis=0)[0], ranking.catalogue).astype(np.float64)
        probabilities: Floats = np.where(ranking.listed, found, UNLISTED * found)
        return probabilities

    def learn(self, feedback: Feedback) -> None:
        self._ranker.learn(feedback)
        for request, features, odds in self._asked:
            if request is feedback.request:
                clicked = np.isin(request.candidates, feedback.clicks)
                if clicked.any() and not clicked.all():
                    if odds:
                        self._trust.take(odds, clicked)
                    self._seen.append(sampled(features, clicked, self._draw))
                    self._new += 1
        self._asked = [asked for asked in self._asked if asked[0] is not feedback.request]
        if self._new >= TRAINED_EVERY:
            self._new = 0
            self._train()

    def _train(self) -> None:
        seen = list(self._seen)
        by_hand = Weights.by_hand(seen, self._seed)
        if self._learner is None:
            self._learner = Learner(by_hand)
        for _ in range(STEPS):
            self._learner.step([seen[i] for i in self._draw.integers(0, len(seen), BATCH)])
        latest = seen[-CALIBRATED_ON:]
        self._ways = calibrated(by_hand, latest), calibrated(self._learner.weights, latest)
