"""An evaluation from the data set's lines to its figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from contract.errors import SetupError
from contract.settings import Settings
from evaluation.articles import Articles
from evaluation.impressions import impressions
from evaluation.left_out import LeftOut
from evaluation.models.registry import make_models
from evaluation.models.served import Ranker
from evaluation.next_click import Clicks, Protocol, next_clicks
from evaluation.own_log import logged
from evaluation.prequential import OnProgress, Task, replay
from evaluation.requests import Impression, Moment, Shown
from evaluation.results import Result, results_of

VERSUS = "blend"


@dataclass(frozen=True)
class Asked:
    """What is to be judged: no ``models`` means all of the task."""

    dataset: str
    models: tuple[str, ...] = ()
    versus: str = VERSUS
    seed: int = 1


def evaluate_impressions(
    shown: Iterable[Impression],
    articles: Articles,
    settings: Settings,
    asked: Asked,
    left_out: LeftOut,
    on_progress: OnProgress | None = None,
) -> Result:
    """Judge on what was ``shown``, in the order of time. Blocks.

    Raises :class:`SetupError` where nothing can be judged.
    """
    moments = impressions(shown, articles, left_out, np.random.default_rng(asked.seed))
    return _evaluate("impressions", moments, articles, settings, asked, left_out, on_progress)


def evaluate_own_log(
    shown: Iterable[Shown],
    articles: Articles,
    settings: Settings,
    asked: Asked,
    left_out: LeftOut,
    on_progress: OnProgress | None = None,
) -> Result:
    """Judge on what a running system has ``shown``, in the order of time, and on what it gave a place by chance.

    Blocks; raises as :func:`evaluate_impressions`.
    """
    moments = logged(shown, articles, Ranker(articles, settings), left_out, np.random.default_rng(asked.seed))
    return _evaluate(
        "impressions", moments, articles, settings, asked, left_out, on_progress,
        "; try again once users have clicked in what they were shown",
    )  # fmt: skip


def evaluate_next_click(
    clicks: Clicks,
    articles: Articles,
    settings: Settings,
    asked: Asked,
    left_out: LeftOut,
    protocol: Protocol,
    on_progress: OnProgress | None = None,
) -> Result:
    """Judge on ``clicks``. Blocks; raises as :func:`evaluate_impressions`."""
    moments = next_clicks(clicks, articles, left_out, np.random.default_rng(asked.seed), protocol)
    return _evaluate("next click", moments, articles, settings, asked, left_out, on_progress)


def _evaluate(
    task: Task,
    moments: Iterable[Moment],
    articles: Articles,
    settings: Settings,
    asked: Asked,
    left_out: LeftOut,
    on_progress: OnProgress | None,
    advice: str = "",
) -> Result:
    models = make_models(task, asked.models, articles, settings, asked.seed)
    judged = replay(task, moments, articles, models, on_progress)
    if not judged.requests:
        why = "; ".join(f"{count:,} {kind}" for kind, count in left_out.counts.items())
        raise SetupError(f"{asked.dataset} holds no request that can be judged{': ' + why if why else ''}{advice}")
    return results_of(
        judged, dataset=asked.dataset, seed=asked.seed, versus=asked.versus, left_out=dict(left_out.counts)
    )
