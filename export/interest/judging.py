"""What a model is worth on the part of a log that it has not seen. No torch: what is judged is what serves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoders.decay import HOUR_MS, Decay
from encoders.interest import InterestModel, long_and_short
from encoders.onnx_interest import OnnxInterest
from evaluation import metrics
from evaluation.bootstrap import interval, resampled_means
from evaluation.models.contract import z_scores
from export.interest.log import ReadingLog, Request

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
LONG, SHORT = 1.0, 0.5
"""The ranking's weights of the two queries."""
MEASURES = {"impressions": ("auc", "ndcg@10"), "next click": ("hr@10", "mrr@10")}
AT_ONCE = 2000


def decay_of(log: ReadingLog) -> Decay:
    """The default model for this log's vectors."""
    return Decay(log.vectors.shape[1], 30 * 24 * HOUR_MS, 2 * HOUR_MS)


def judge(model: InterestModel, log: ReadingLog) -> dict[str, Doubles]:
    """Return, for each way to rank, the measures of every request [n, 2] (see ``MEASURES``).

    ``query``: nearness to the model's queries; ``score``: its log-odds, where it has them; each alone and, as
    ``... + popular``, with the popularity of that moment added, both as z-scores within the request.
    """
    measured: dict[str, list[tuple[float, float]]] = {}
    for start in range(0, len(log.requests), AT_ONCE):
        some = log.requests[start : start + AT_ONCE]
        states = states_before(model, log, some)
        queries = long_and_short(model.query(states))
        for i, request in enumerate(some):
            vectors = log.vectors[request.candidates]
            near = (vectors @ queries[i].T).astype(np.float64)
            ways = {"query": LONG * z_scores(near[:, 0]) + SHORT * z_scores(near[:, 1])}
            if isinstance(model, OnnxInterest) and model.scores:
                ways["score"] = model.score(states[i : i + 1], vectors)[0].astype(np.float64)
            popularity = z_scores(request.popularity.astype(np.float64))
            for way, scores in ways.items():
                measured.setdefault(way, []).append(measure(log.task, scores, request.clicked))
                both = z_scores(scores) + popularity
                measured.setdefault(f"{way} + popular", []).append(measure(log.task, both, request.clicked))
    return {way: np.array(rows) for way, rows in measured.items()}


def states_before(model: InterestModel, log: ReadingLog, requests: Sequence[Request]) -> Floats:
    """Return the state [n, S] of each request's user as it was then, folded from nothing."""
    events = [np.arange(r.before) + log.starts[r.user] for r in requests]
    users = np.repeat(np.arange(len(requests)), [len(some) for some in events])
    order = np.concatenate(events) if events else np.zeros(0, np.int64)
    ats = log.ats[order].astype(np.float64)
    newest = np.array([log.ats[some[-1]] if len(some) else 0 for some in events], np.float64)
    return model.fold(
        np.zeros((len(requests), model.state_size), np.float32),
        newest, users, log.vectors[log.rows[order]], newest[users] - ats, np.ones(len(order)),
    )  # fmt: skip


def measure(task: str, scores: Doubles, clicked: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the task's two measures of one ranking; of equal scores the first counts as higher."""
    ranks = metrics.ranks_of(scores, clicked)
    if task == "impressions":
        return metrics.auc(scores, clicked), metrics.ndcg_at(ranks, 10)
    return metrics.hit_at(ranks, 10), metrics.mrr_at(ranks, 10)


def better_by(ours: Doubles, theirs: Doubles) -> tuple[float, float, float]:
    """Return the mean difference of paired measurements [n] and its 95 % bootstrap interval."""
    differences = (ours - theirs)[:, None]
    low, high = interval(resampled_means(differences, np.random.default_rng(0))[:, 0])
    return float(differences.mean()), low, high
