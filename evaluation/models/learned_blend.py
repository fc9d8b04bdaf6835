"""A blend that learns, from the requests before alone, how to weigh its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.articles import Articles
from evaluation.models.contract import Floats, Model
from evaluation.models.list_learners import ConditionalLogit, Listed, ListLearner, Network, Trust
from evaluation.requests import Feedback, Request

Columns = NDArray[np.float32]
WIDEST_LIST, MOST_KEPT, DRAWN = 200, 60, 40


class LearnedBlend:
    """Ways to learn, mixed by how likely each said that the last clicks were before it learned from them.

    The first part of ``parts`` are those of the blend made by hand, which is one of the ways (only how sure it may be
    is learned), so that a way that has learned nothing yet, or the wrong thing, is not heard. ``columns`` makes of
    one part's scores what is learned from, [n, k], whose first is what the blend made by hand adds up; ``sureness``
    is how much log-odds one of its units is worth before anything is known.

    The mixture is a product of experts (Hinton 1999) with the weights of :class:`Trust`.
    """

    probabilities = False

    def __init__(
        self,
        parts: Sequence[tuple[float, Model]],
        columns: Callable[[Floats], Columns],
        sureness: float,
        seed: int,
        articles: Articles | None = None,
    ) -> None:
        """With ``articles``, what each one's text and what is its own is learned too."""
        self._models = [model for _, model in parts]
        self._columns = columns
        width = columns(np.zeros(1)).shape[1]
        self._by_hand: Floats = np.zeros(width * len(parts))
        self._by_hand[::width] = [weight * sureness for weight, _ in parts]
        self._ways: list[ListLearner] = [ConditionalLogit(np.ones(1)), Network(self._by_hand, seed)]
        if articles is not None:
            self._ways.append(ConditionalLogit(self._by_hand, articles))
        self.trust = Trust(len(self._ways))
        self._draw = np.random.default_rng(seed)
        self._asked: list[tuple[Request, Columns, list[Floats]]] = []

    def scores(self, request: Request) -> Floats:
        if not len(request.candidates):
            return np.zeros(0)
        columns = np.concatenate([self._columns(model.scores(request)) for model in self._models], axis=1)
        found = [
            way.scores(of, request.candidates) for way, of in zip(self._ways, self._seen_by_each(columns), strict=True)
        ]
        self._asked.append((request, columns, found))
        return np.asarray(self.trust.shares @ np.stack(found))

    def learn(self, feedback: Feedback) -> None:
        for request, columns, found in self._asked:
            if request is feedback.request:
                clicked = np.isin(request.candidates, feedback.clicks)
                if clicked.any() and not clicked.all():
                    self._learn(request, columns, clicked, found)
        of = feedback.request
        self._asked = [asked for asked in self._asked if asked[0] is not of and asked[0].at >= of.at]
        for model in self._models:
            model.learn(feedback)

    def _learn(self, request: Request, columns: Columns, clicked: NDArray[np.bool_], found: list[Floats]) -> None:
        self.trust.take(found, clicked)
        rows, offset = self._kept(columns, clicked)
        for way, of in zip(self._ways, self._seen_by_each(columns[rows]), strict=True):
            way.learn(Listed(of, request.candidates[rows], clicked[rows], offset))

    def _seen_by_each(self, columns: Columns) -> list[Columns]:
        by_hand = (columns @ self._by_hand).astype(np.float32)[:, None]
        return [by_hand] + [columns] * (len(self._ways) - 1)

    def _kept(self, columns: Columns, clicked: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Of a long list keep what was clicked, the best by hand and by each part, and some of the rest."""
        n = len(clicked)
        if n <= WIDEST_LIST:
            return np.arange(n), np.zeros(n, np.float32)
        kept = clicked.copy()
        kept[np.argpartition(-(columns @ self._by_hand), MOST_KEPT)[:MOST_KEPT]] = True
        for column in np.flatnonzero(self._by_hand):
            kept[np.argpartition(-columns[:, column], MOST_KEPT // 3)[: MOST_KEPT // 3]] = True
        rest = np.flatnonzero(~kept)
        drawn = self._draw.choice(rest, min(DRAWN, len(rest)), replace=False)
        rows = np.concatenate([np.flatnonzero(kept), drawn])
        offset = np.zeros(len(rows), np.float32)
        offset[len(rows) - len(drawn) :] = np.log(len(rest) / max(1, len(drawn)))
        return rows, offset


def as_z_score(scores: Floats) -> Columns:
    """[n] -> [n, 1]: mean 0 and deviation 1 within the request."""
    centred = scores - scores.mean()
    deviation = float(np.sqrt(centred @ centred / len(centred)))
    found = centred / deviation if deviation > 1e-12 else np.zeros(len(centred))
    return found[:, None].astype(np.float32)


def as_share(scores: Floats) -> Columns:
    """[n] -> [n, 2]: non-negative scores over the largest of the request, and the logarithm of their share."""
    largest, total = scores.max(initial=0.0), scores.sum()
    over = scores / largest if largest > 0 else scores
    share = scores / total if total > 0 else scores
    return np.stack([over, np.log(share + 1e-4)], axis=1).astype(np.float32)
