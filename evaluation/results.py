"""The figures of an evaluation: means with bootstrap intervals, paired differences, slices, and what lies beyond."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from evaluation.beyond_accuracy import Beyond
from evaluation.bootstrap import interval, p_value, resampled_means
from evaluation.off_policy import OffPolicy
from evaluation.prequential import MAIN_METRIC, METRICS, Judged, Task
from evaluation.probabilities import Calibration

HOUR_MS = 3_600_000
HISTORY_LENGTHS = {"0": (0, 1), "1-4": (1, 5), "5-19": (5, 20), "20+": (20, None)}
AGES = {
    "under 1 h": (0, HOUR_MS), "1-6 h": (HOUR_MS, 6 * HOUR_MS), "6-24 h": (6 * HOUR_MS, 24 * HOUR_MS),
    "24 h and more": (24 * HOUR_MS, None),
}  # fmt: skip
USER_GROUP = "user group"
OTHERS = "others"
GROUPS = 8
"""So many groups of users are told apart, those with the most requests."""
ENOUGH_REQUESTS = 30
"""A group with fewer requests says nothing of a gap."""

Interval = tuple[float, float]


class Difference(msgspec.Struct, frozen=True):
    """A model's metric less that of the one it is held against, on the same requests and resamples."""

    difference: float
    ci: Interval
    p: float


class Gap(msgspec.Struct, frozen=True):
    """How much better a model's main metric is for the group of users it serves ``best`` than for the ``worst``."""

    best: str
    worst: str
    gap: float
    ci: Interval


class ModelFigures(msgspec.Struct, frozen=True):
    """One model's figures by metric; ``versus`` is empty for the one that all are held against."""

    metrics: dict[str, float]
    ci: dict[str, Interval]
    versus: dict[str, Difference]
    slices: dict[str, dict[str, dict[str, float]]]
    beyond: Beyond | None
    calibration: Calibration | None
    gap: Gap | None = None


class Result(msgspec.Struct, frozen=True):
    """``slices`` counts the requests of each slice; ``left_out`` what could not be used, by kind."""

    task: Task
    dataset: str
    requests: int
    seed: int
    versus: str
    models: dict[str, ModelFigures]
    slices: dict[str, dict[str, int]]
    catalogue: dict[str, float]
    left_out: dict[str, int]
    requests_per_second: dict[str, int]
    off_policy: OffPolicy | None = None

    def to_json(self) -> bytes:
        """One JSON object: each model's metrics beside its other figures."""
        plain = msgspec.to_builtins(self)
        plain["models"] = {name: {**figures.pop("metrics"), **figures} for name, figures in plain["models"].items()}
        return msgspec.json.encode(_rounded(plain))


def results_of(judged: Judged, *, dataset: str, seed: int, versus: str, left_out: dict[str, int]) -> Result:
    """Work out the figures; the same seed gives the same. ``versus`` names the model that all are held against."""
    names, metrics = list(judged.judges), METRICS[judged.task]
    values = np.concatenate([judged.values(name) for name in names], axis=1)
    means = resampled_means(values, np.random.default_rng(seed)).reshape(-1, len(names), len(metrics))
    masks = slices_of(judged)
    base = names.index(versus) if versus in names else None
    models = {}
    for place, name in enumerate(names):
        own, resampled, judge = judged.values(name), means[:, place], judged.judges[name]
        differences = {}
        if base is not None and place != base:
            lead = own.mean(axis=0) - judged.values(versus).mean(axis=0)
            paired = resampled - means[:, base]
            differences = {
                metric: Difference(float(lead[i]), interval(paired[:, i]), p_value(paired[:, i]))
                for i, metric in enumerate(metrics)
            }
        models[name] = ModelFigures(
            metrics=_by_name(metrics, own),
            ci={metric: interval(resampled[:, i]) for i, metric in enumerate(metrics)},
            versus=differences,
            slices={
                kind: {label: _by_name(metrics, own[mask]) for label, mask in labels.items() if mask.any()}
                for kind, labels in masks.items()
            },
            beyond=judge.beyond.result(),
            calibration=judge.probabilities.result() if judge.probabilities is not None else None,
            gap=gap_of(own[:, metrics.index(MAIN_METRIC[judged.task])], masks.get(USER_GROUP, {}), seed),
        )
    return Result(
        task=judged.task,
        dataset=dataset,
        requests=judged.requests,
        seed=seed,
        versus=versus if base is not None else "",
        models=models,
        slices={kind: {label: int(mask.sum()) for label, mask in labels.items()} for kind, labels in masks.items()},
        catalogue=judged.offer.exposure(),
        left_out=left_out,
        requests_per_second={
            name: round(judged.requests / max(judge.seconds, 1e-9)) for name, judge in judged.judges.items()
        },
        off_policy=judged.draws.result(seed),
    )


def gap_of(values: NDArray[np.float64], masks: dict[str, NDArray[np.bool_]], seed: int) -> Gap | None:
    """Return the gap between the groups with the highest and the lowest mean of ``values`` [requests].

    Which they are is taken as given in the interval. None where fewer than two groups have enough requests.
    """
    groups = {label: values[mask] for label, mask in masks.items() if mask.sum() >= ENOUGH_REQUESTS}
    if len(groups) < 2:
        return None
    ranked = sorted(groups, key=lambda label: float(groups[label].mean()))
    worst, best = ranked[0], ranked[-1]
    rng = np.random.default_rng(seed)
    resampled = [resampled_means(groups[label][:, None], rng)[:, 0] for label in (best, worst)]
    return Gap(best, worst, float(groups[best].mean() - groups[worst].mean()), interval(resampled[0] - resampled[1]))


def slices_of(judged: Judged) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Return which requests belong to each slice, by history length, age of what was clicked, and group of users."""
    found = {}
    for kind, column, bounds in (
        ("history length", judged.history_lengths, HISTORY_LENGTHS),
        ("article age", judged.ages_ms, AGES),
    ):
        values = np.frombuffer(column, np.int64)
        found[kind] = {
            label: (values >= low) & (values < (np.inf if high is None else high))
            for label, (low, high) in bounds.items()
        }
    by_request = judged.groups if any(judged.groups) else judged.favourites
    told = Counter(group for group in by_request if group).most_common(GROUPS)
    if told:
        groups = np.array(by_request, object)
        found[USER_GROUP] = {label: groups == label for label, _ in told}
        found[USER_GROUP][OTHERS] = ~np.any(list(found[USER_GROUP].values()), axis=0)
    return found


def _by_name(metrics: tuple[str, ...], values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(metrics, values.mean(axis=0).tolist(), strict=True))


def _rounded(plain: Any) -> Any:
    if isinstance(plain, float):
        return round(plain, 5)
    if isinstance(plain, dict):
        return {key: _rounded(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [_rounded(value) for value in plain]
    return plain
