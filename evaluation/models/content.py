"""Models of what an article says: its vector and category beside those of what the user read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.articles import Articles, Indices
from evaluation.models.contract import Floats
from evaluation.requests import Feedback, Request


class MeanOfClicked:
    """The cosine to the mean of the vectors of what was read."""

    probabilities = False

    def __init__(self, articles: Articles) -> None:
        self._articles = articles

    def scores(self, request: Request) -> Floats:
        vectors = self._articles.vectors
        if not len(request.history):
            return np.zeros(len(request.candidates))
        mean = vectors[request.history].mean(axis=0)
        cosines = vectors[request.candidates] @ (mean / max(float(np.linalg.norm(mean)), 1e-9))
        return np.asarray(cosines, np.float64)

    def learn(self, feedback: Feedback) -> None:
        """All it needs is in the request."""


class NearestClicked:
    """The mean of the ``k`` largest cosines to articles read."""

    probabilities = False

    def __init__(self, articles: Articles, k: int = 3) -> None:
        self._articles = articles
        self._k = k

    def scores(self, request: Request) -> Floats:
        vectors = self._articles.vectors
        if not len(request.history):
            return np.zeros(len(request.candidates))
        cosines: NDArray[np.float32] = vectors[request.candidates] @ vectors[request.history].T
        k = min(self._k, cosines.shape[1])
        nearest = np.partition(cosines, cosines.shape[1] - k, axis=1)[:, -k:]
        return np.asarray(nearest.mean(axis=1), np.float64)

    def learn(self, feedback: Feedback) -> None:
        """All it needs is in the request."""


class CategoryRead:
    """log(1 + the number of articles read of the candidate's category)."""

    probabilities = False

    def __init__(self, articles: Articles) -> None:
        self._articles = articles

    def scores(self, request: Request) -> Floats:
        categories = self._articles.categories
        counts = np.bincount(categories[request.history], minlength=len(self._articles.category_names))
        return np.log1p(counts[categories[request.candidates]])

    def learn(self, feedback: Feedback) -> None:
        """All it needs is in the request."""


class Appeal:
    """What everybody likes to read: Bayesian logistic regression on the article's vector, learned online.

    The posterior is kept as a Gaussian (Laplace's approximation, a Newton step a request; Bishop 2006, 4.5); before
    anything is known an article's log-odds deviate by ``deviation`` from the common rate.
    """

    probabilities = True
    RATE = 0.05
    RATE_DEVIATION = 3.0

    def __init__(self, articles: Articles, deviation: float = 1 / 3) -> None:
        self._articles = articles
        self._covariance: Floats = np.diag(np.append(np.full(articles.dims, deviation**2), self.RATE_DEVIATION**2))
        self._weights: Floats = np.zeros(articles.dims + 1)
        self._weights[-1] = np.log(self.RATE / (1 - self.RATE))

    def scores(self, request: Request) -> Floats:
        return self._probabilities(self._features(request.candidates))

    def learn(self, feedback: Feedback) -> None:
        features = self._features(feedback.shown)
        probabilities = self._probabilities(features)
        information = probabilities * (1 - probabilities)
        turned = features @ self._covariance
        self._covariance -= turned.T @ np.linalg.solve(turned @ features.T + np.diag(1 / information), turned)
        self._weights += self._covariance @ (features.T @ (feedback.clicked - probabilities))

    def _features(self, articles: Indices) -> Floats:
        features = np.ones((len(articles), self._articles.dims + 1))
        features[:, :-1] = self._articles.vectors[articles]
        return features

    def _probabilities(self, features: Floats) -> Floats:
        probabilities: Floats = 1.0 / (1.0 + np.exp(-np.clip(features @ self._weights, -15, 15)))
        return probabilities
