"""Models of what an article says: its vector and category beside those of what the user read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.articles import Articles
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
    """What everybody likes to read: online logistic regression on the article's vector.

    One step of stochastic gradient descent a request, over the mean of its items, with a small pull towards zero.
    """

    probabilities = True

    def __init__(self, articles: Articles, rate: float = 1.0, pull: float = 1e-4) -> None:
        self._articles = articles
        self._rate = rate
        self._pull = pull
        self._weights: Floats = np.zeros(articles.dims)
        self._bias = -3.0

    def scores(self, request: Request) -> Floats:
        return self._probabilities(self._articles.vectors[request.candidates].astype(np.float64))

    def learn(self, feedback: Feedback) -> None:
        vectors = self._articles.vectors[feedback.shown].astype(np.float64)
        error = feedback.clicked - self._probabilities(vectors)
        self._weights += self._rate * (error @ vectors / len(error) - self._pull * self._weights)
        self._bias += self._rate * float(error.mean())

    def _probabilities(self, vectors: Floats) -> Floats:
        logits = np.clip(vectors @ self._weights + self._bias, -30, 30)
        probabilities: Floats = 1.0 / (1.0 + np.exp(-logits))
        return probabilities
