"""What a model is worth on the part of a log that it has not seen. No torch: what is judged is what serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.decay import HOUR_MS, Decay
from encoders.interest import InterestModel, long_and_short
from encoders.onnx_interest import OnnxInterest
from export.interest.log import ReadingLog, Request

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
LONG, SHORT = 1.0, 0.5
"""The ranking's weights of the two queries."""
MEASURES = {"impressions": ("auc", "ndcg@10"), "next click": ("hr@10", "mrr@10")}
RESAMPLED = 1000
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
            near = vectors @ queries[i].T
            ways = {"query": LONG * z_scores(near[:, 0]) + SHORT * z_scores(near[:, 1])}
            if isinstance(model, OnnxInterest) and model.scores:
                ways["score"] = model.score(states[i : i + 1], vectors)[0]
            popularity = z_scores(request.popularity)
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


def measure(task: str, scores: NDArray[Any], clicked: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the task's two measures of one ranking; ties count half."""
    if task == "impressions":
        return auc(scores, clicked), ndcg_at_10(scores, clicked)
    own = scores[clicked.argmax()]
    rank = 1 + np.count_nonzero(scores > own) + (np.count_nonzero(scores == own) - 1) / 2
    return float(rank <= 10), float(rank <= 10) / rank


def auc(scores: NDArray[Any], clicked: NDArray[np.bool_]) -> float:
    """Return the share of pairs (clicked, not clicked) in the right order."""
    others = np.sort(scores[~clicked])
    wins = np.searchsorted(others, scores[clicked], "left") + np.searchsorted(others, scores[clicked], "right")
    return float(wins.mean()) / 2 / len(others)


def ndcg_at_10(scores: NDArray[Any], clicked: NDArray[np.bool_]) -> float:
    """Return the normalised discounted cumulative gain of the first ten; of equal ones the first."""
    gains = 1 / np.log2(np.arange(2, 12))
    top = clicked[np.argsort(-scores, kind="stable")[:10]]
    return float(gains[: len(top)][top].sum() / gains[: min(10, int(clicked.sum()))].sum())


def interval(ours: Doubles, theirs: Doubles) -> tuple[float, float, float]:
    """Return the mean difference of paired measurements [n] and its 95 % bootstrap interval."""
    differences = ours - theirs
    draw = np.random.default_rng(0)
    count = len(differences)
    means = [differences[draw.integers(count, size=count)].mean() for _ in range(RESAMPLED)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)


def z_scores(values: NDArray[Any]) -> Doubles:
    """Return ``values`` with mean 0 and deviation 1, all 0 where they are alike."""
    values = values.astype(np.float64)
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 1e-9 else np.zeros_like(values)
