"""Score, then learn, in the order of time: every model on the same requests."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation import metrics
from evaluation.articles import NEVER, Articles
from evaluation.beyond_accuracy import LIST_LENGTH, BeyondJudge, Offer
from evaluation.models.contract import Floats, Model
from evaluation.off_policy import Draws
from evaluation.probabilities import ProbabilityJudge
from evaluation.requests import Clicked, Moment, Request

Task = Literal["impressions", "next click"]
METRICS: dict[Task, tuple[str, ...]] = {
    "impressions": ("auc", "mrr", "ndcg@5", "ndcg@10"),
    "next click": ("hr@10", "mrr@10", "ndcg@10"),
}
MAIN_METRIC: dict[Task, str] = {"impressions": "auc", "next click": "hr@10"}
OnProgress = Callable[[int, int], None]
"""Is told how many lines were read and how many requests judged."""


class NotScores(ValueError):
    """A model gave something else than a number for each candidate."""


class Judge:
    """What came of one model's scores. ``values`` holds the task's metrics, one request after the other."""

    def __init__(self, task: Task, name: str, model: Model, offer: Offer) -> None:
        self._task = task
        self._name = name
        self.model = model
        self.values = array("d")
        self.beyond = BeyondJudge(offer)
        self.probabilities = ProbabilityJudge() if model.probabilities and task == "impressions" else None
        self.seconds = 0.0

    def take(self, request: Request, scores: Floats, clicked: Clicked) -> None:
        if scores.shape != clicked.shape or np.isnan(scores).any():
            raise NotScores(f"{self._name} gave {scores!r} for {len(clicked)} candidates")
        ranks = metrics.ranks_of(scores, clicked)
        if self._task == "impressions":
            self.values.extend(
                (
                    metrics.auc(scores, clicked),
                    metrics.mrr(ranks),
                    metrics.ndcg_at(ranks, 5),
                    metrics.ndcg_at(ranks, 10),
                )
            )
        else:
            self.values.extend((metrics.hit_at(ranks, 10), metrics.mrr_at(ranks, 10), metrics.ndcg_at(ranks, 10)))
        self.beyond.take(request, request.candidates[metrics.best(scores, LIST_LENGTH)])
        if self.probabilities is not None:
            self.probabilities.take(scores, clicked)


@dataclass
class Judged:
    """A replay's outcome. By request: ``history_lengths``, ``ages_ms`` of what was clicked, the user's group as the
    data names it (``groups``), and the category that they had read most (``favourites``).
    """

    task: Task
    articles: Articles
    offer: Offer
    judges: dict[str, Judge]
    history_lengths: array[int] = field(default_factory=lambda: array("q"))
    ages_ms: array[int] = field(default_factory=lambda: array("q"))
    groups: list[str] = field(default_factory=list)
    favourites: list[str] = field(default_factory=list)
    draws: Draws = field(default_factory=Draws)

    @property
    def requests(self) -> int:
        return len(self.history_lengths)

    def values(self, name: str) -> NDArray[np.float64]:
        """The metrics of a model by request, [requests, metrics of the task]."""
        return np.frombuffer(self.judges[name].values).reshape(-1, len(METRICS[self.task]))


def replay(
    task: Task,
    moments: Iterable[Moment],
    articles: Articles,
    models: Mapping[str, Model],
    on_progress: OnProgress | None = None,
) -> Judged:
    """Let every model score each moment's requests, then learn of it; blocks until ``moments`` end."""
    offer = Offer(articles)
    judged = Judged(task, articles, offer, {name: Judge(task, name, model, offer) for name, model in models.items()})
    read = 0
    for moment in moments:
        for request, clicked in moment.requests:
            offer.note_request(request)
            _note(judged, request, clicked)
            for judge in judged.judges.values():
                began = time.perf_counter()
                scores = judge.model.scores(request)
                judge.seconds += time.perf_counter() - began
                judge.take(request, scores, clicked)
        for draw in moment.draws:
            judged.draws.take(draw, {name: judge.model.scores(draw.request) for name, judge in judged.judges.items()})
        for feedback in moment.feedback:
            offer.note_clicks(feedback.clicks)
            for judge in judged.judges.values():
                began = time.perf_counter()
                judge.model.learn(feedback)
                judge.seconds += time.perf_counter() - began
        read += moment.read
        if on_progress is not None:
            on_progress(read, judged.requests)
    return judged


def _note(judged: Judged, request: Request, clicked: Clicked) -> None:
    judged.history_lengths.append(len(request.history))
    seen = judged.articles.first_seen[request.candidates[clicked]]
    newest = int(seen.max(initial=-1))
    judged.ages_ms.append(request.at - newest if 0 <= newest < NEVER else 0)
    judged.groups.append(request.group)
    judged.favourites.append(judged.articles.most_read_category(request.history))
