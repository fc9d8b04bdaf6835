"""A running system's own log as requests: rank what was shown, and say what was drawn by chance among what.

The log names what was drawn and with which probability, not what else could have been. That is found by the ranker of
:mod:`evaluation.models.served`, which folds the same events with the same articles and so comes to about the same
candidates as the one that wrote the list; what stands above the drawn one in its list is not among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np

from evaluation.articles import Articles, Indices
from evaluation.impressions import ALL_CLICKED, NO_CLICK, SHOWN_TWICE
from evaluation.left_out import LeftOut
from evaluation.models.served import Ranker
from evaluation.requests import Draw, Feedback, Moment, Request, Shown, ShownItem

WITHOUT_VECTOR = "articles without a vector in the topic, without category"
NOT_A_PROBABILITY = "propensities that are no probabilities, not used"
ADDED = "articles that were drawn, but would not have been a candidate in the evaluation; added there"
NOTHING_READ: Indices = np.empty(0, np.intp)


def logged(
    shown: Iterable[Shown], articles: Articles, eligible: Ranker | None, left_out: LeftOut, rng: np.random.Generator
) -> Iterator[Moment]:
    """Yield the moments of ``shown``, which comes in the order of time; ``eligible`` is asked and taught here alone.

    Without ``eligible`` no draws are found, which takes most of the time where much was explored.

    Requests of which nothing or everything was clicked say nothing about an order: they are learned from, not judged.
    What was drawn in them counts all the same.
    """
    users: dict[str, int] = {}
    histories: dict[int, Indices] = {}
    drawing = None if eligible is None else _Drawing(articles, eligible, left_out, rng)
    for at, together in groupby(shown, key=lambda one: one.at):
        moment = Moment(at, [], [], 0, [])
        read = 0
        for one in together:
            read += 1
            user = users.setdefault(one.user_id, len(users))
            first = user not in histories
            history = histories.setdefault(user, NOTHING_READ)
            label: dict[int, bool] = {}
            for item, clicked in zip(one.items, one.clicked, strict=True):
                article = articles.index(item.article_id)
                if articles.dims and not articles.has_vector[article] and articles.first_seen[article] > at:
                    left_out(WITHOUT_VECTOR, item.article_id)
                if article in label:
                    left_out(SHOWN_TWICE, f"{item.article_id} for {one.user_id}")
                label[article] = label.get(article, False) or clicked
            order = rng.permutation(len(label))
            candidates = np.fromiter(label, np.intp, len(label))[order]
            labels = np.fromiter(label.values(), np.bool_, len(label))[order]
            articles.note_seen(candidates, at)
            told = {articles.index(item.article_id): item.position for item in one.items}
            positions = np.array([-1 if told[a] is None else told[a] for a in candidates.tolist()], np.int64)
            request = Request(at, user, -1, history, candidates, first, one.group, positions, one.context)
            moment.feedback.append(Feedback(request, candidates, labels, one.elsewhere))
            if one.elsewhere:
                continue
            if labels.all() or not labels.any():
                left_out(NO_CLICK if not labels.any() else ALL_CLICKED, f"at {at} of {one.user_id}")
            else:
                moment.requests.append((request, labels))
            if drawing is not None:
                moment.draws.extend(drawing.draws(request, one.items, label))
        yield Moment(at, moment.requests, moment.feedback, read, moment.draws)
        for feedback in moment.feedback:
            if eligible is not None:
                eligible.learn(feedback)
            user = feedback.request.user
            histories[user] = np.concatenate([histories[user], feedback.clicks])


class _Drawing:
    """Finds what could have been drawn; as long as a user is shown the same, it was drawn when they first saw it."""

    def __init__(self, articles: Articles, eligible: Ranker, left_out: LeftOut, rng: np.random.Generator) -> None:
        self._articles = articles
        self._eligible = eligible
        self._left_out = left_out
        self._rng = rng
        self._last: dict[int, tuple[int, Indices]] = {}

    def draws(self, request: Request, items: Sequence[ShownItem], label: dict[int, bool]) -> Iterator[Draw]:
        for place, item in enumerate(items):
            if item.propensity is None:
                continue
            if not 0 < item.propensity <= 1:
                self._left_out(NOT_A_PROBABILITY, f"{item.propensity:g} of {item.article_id} at {request.at}")
                continue
            drawn = self._articles.index(item.article_id)
            last, others = self._last.get(request.user, (-1, NOTHING_READ))
            if last != drawn:
                above = self._articles.indices([other.article_id for other in items[:place]])
                others = self._others(request, drawn, above)
                self._last[request.user] = drawn, others
            asked = Request(request.at, request.user, -1, request.history, others, request.first, request.group)
            yield Draw(asked, int(np.flatnonzero(others == drawn)[0]), item.propensity, label[drawn])

    def _others(self, request: Request, drawn: int, above: Indices) -> Indices:
        others = np.setdiff1d(self._eligible.explorable(request), above)
        if drawn not in others:
            self._left_out(ADDED, f"{self._articles.ids[drawn]} at {request.at}")
            others = np.append(others, drawn)
        return self._rng.permutation(others)
