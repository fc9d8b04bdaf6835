"""What the ranker knew when something was on offer, and what was clicked then: what a click model learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from contract.settings import Settings
from evaluation.articles import Articles
from evaluation.models.served import Ranker
from evaluation.requests import Moment
from ranking.listwise import ClickLog, Shown, sampled
from ranking.reranker import pair_features


def recorded(
    moments: Iterable[Moment],
    articles: Articles,
    settings: Settings,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> ClickLog:
    """Replay through the fold and the ranking that serve: first record a moment's requests, then learn of them. Blocks.

    Requests of which nothing or everything was clicked, or what was clicked could not have been listed, are left out.
    """
    ranker, draw = Ranker(articles, settings), np.random.default_rng(seed)
    shown: list[Shown] = []
    times: list[int] = []
    read = 0
    for moment in moments:
        for request, clicked in moment.requests:
            ranking = ranker.ranking(request)
            kept = ranking.listed
            if not clicked[kept].any() or clicked[kept].all():
                continue
            features = pair_features(
                ranking.reader, ranking.catalogue, ranking.places, ranking.parts, request.at,
                None if request.positions is None else request.positions[None],
            )[0]  # fmt: skip
            shown.append(sampled(features[kept], clicked[kept], draw))
            times.append(request.at)
        for feedback in moment.feedback:
            ranker.learn(feedback)
        read += moment.read
        if on_progress is not None:
            on_progress(read, len(shown))
    return ClickLog(shown, np.array(times, np.int64))
