"""The ranker that serves with a click model that is trained again as requests come, by those before alone."""

from __future__ import annotations

from collections import deque

import numpy as np

from contract.settings import Settings
from evaluation.articles import Articles
from evaluation.models.contract import Floats
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
    """The hand-made formula at first; after every hundred requests with a click the model goes some steps further."""

    probabilities = True

    def __init__(self, articles: Articles, settings: Settings, seed: int) -> None:
        self._ranker = Ranker(articles, settings)
        self._asked: list[tuple[Request, np.ndarray]] = []
        self._seen: deque[Shown] = deque(maxlen=REMEMBERED)
        self._learner: Learner | None = None
        self._model: Weights | None = None
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
        self._asked.append((request, told))
        if self._model is None:
            found = click_probability(ranking.parts.sum(axis=0)[0], ranking.catalogue)
        else:
            found = 1 / (1 + np.exp(-self._model.log_odds(features).clip(-15, 15)))
        return np.where(ranking.listed, found, UNLISTED * found).astype(np.float64)

    def learn(self, feedback: Feedback) -> None:
        self._ranker.learn(feedback)
        for request, features in self._asked:
            if request is feedback.request:
                clicked = np.isin(request.candidates, feedback.clicks)
                if clicked.any() and not clicked.all():
                    self._seen.append(sampled(features, clicked, self._draw))
                    self._new += 1
        self._asked = [(request, features) for request, features in self._asked if request is not feedback.request]
        if self._new >= TRAINED_EVERY:
            self._new = 0
            self._train()

    def _train(self) -> None:
        seen = list(self._seen)
        if self._learner is None:
            self._learner = Learner(Weights.by_hand(seen, self._seed))
        for _ in range(STEPS):
            self._learner.step([seen[i] for i in self._draw.integers(0, len(seen), BATCH)])
        self._model = calibrated(self._learner.weights, seen[-CALIBRATED_ON:])
