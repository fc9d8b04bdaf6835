"""Every model that can be in the table, by task and name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

from contract.errors import SettingsError
from contract.settings import Settings
from encoders.onnx_interest import read_interest_manifest
from evaluation.articles import Articles
from evaluation.models.blend import Blend, over_maximum
from evaluation.models.content import Appeal, CategoryRead, MeanOfClicked, NearestClicked
from evaluation.models.contract import Model
from evaluation.models.folded import InterestAlone
from evaluation.models.learned import LearnedRanker
from evaluation.models.learned_blend import LearnedBlend, as_share, as_z_score
from evaluation.models.popularity import ClickThroughRate, Popular, PopularAmong, Random
from evaluation.models.reading_order import CoReading, SequentialRules
from evaluation.models.served import Ranker
from evaluation.models.session_neighbours import SessionNeighbours
from evaluation.prequential import Task

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
CONTEXT = "environment", "device", "os", "country", "region", "referrer"
"""What a click's context may tell of where it came from."""
RULES_HALF_LIFE_MS = 18 * MINUTE_MS

Make = Callable[[Articles, Settings, int], Model]
"""From the articles, the settings and the seed."""


def _interest(a: Articles) -> list[tuple[float, Model]]:
    return [(1, NearestClicked(a)), (1, MeanOfClicked(a))]


def _reading() -> list[tuple[float, Model]]:
    """The parts of the blend made by hand, the same by more half-lives, and what is popular where one comes from."""
    rules: list[tuple[float, Model]] = [
        (1 if half_life == RULES_HALF_LIFE_MS else 0, SequentialRules(half_life))
        for half_life in (6 * MINUTE_MS, RULES_HALF_LIFE_MS, HOUR_MS, math.inf)
    ]
    popular: list[tuple[float, Model]] = [
        (0.5 if half_life == 15 * MINUTE_MS else 0, Popular(half_life))
        for half_life in (5 * MINUTE_MS, 15 * MINUTE_MS, HOUR_MS, math.inf)
    ]
    among: list[tuple[float, Model]] = [(0, PopularAmong(name, HOUR_MS)) for name in CONTEXT]
    return [*rules, *popular, (1, SessionNeighbours()), (0, CoReading()), *among]


_ANY_TASK: dict[str, Make] = {
    "random": lambda a, s, seed: Random(seed),
    "popular": lambda a, s, seed: Popular(),
    "popular-1h": lambda a, s, seed: Popular(HOUR_MS),
    "co-reading": lambda a, s, seed: CoReading(),
    "rules": lambda a, s, seed: SequentialRules(),
    "rules-decayed": lambda a, s, seed: SequentialRules(RULES_HALF_LIFE_MS),
    "vsknn": lambda a, s, seed: SessionNeighbours(),
}
MODELS: dict[Task, dict[str, Make]] = {
    "impressions": {
        **_ANY_TASK,
        "ctr": lambda a, s, seed: ClickThroughRate(),
        "ctr-24h": lambda a, s, seed: ClickThroughRate(24 * HOUR_MS),
        "mean": lambda a, s, seed: MeanOfClicked(a),
        "top3": lambda a, s, seed: NearestClicked(a),
        "category": lambda a, s, seed: CategoryRead(a),
        "appeal": lambda a, s, seed: Appeal(a),
        "blend-ctr": lambda a, s, seed: Blend([*_interest(a), (2, ClickThroughRate())]),
        "blend": lambda a, s, seed: Blend([*_interest(a), (2, ClickThroughRate(24 * HOUR_MS)), (1, CategoryRead(a))]),
        "blend-appeal": lambda a, s, seed: Blend(
            [*_interest(a), (2, ClickThroughRate(6 * HOUR_MS)), (1, CategoryRead(a)), (1, Appeal(a))]
        ),
        "blend-learned": lambda a, s, seed: LearnedBlend(
            [*_interest(a), (2, ClickThroughRate(24 * HOUR_MS)), (1, CategoryRead(a))], as_z_score, 0.2, seed, a
        ),
        "decay": lambda a, s, seed: InterestAlone(a, s.model_copy(update={"interest_model": ""})),
        "ranker": lambda a, s, seed: Ranker(a, s),
        "ranker-learned": LearnedRanker,
    },
    "next click": {
        **_ANY_TASK,
        "popular-15min": lambda a, s, seed: Popular(15 * MINUTE_MS),
        "rules-popular": lambda a, s, seed: Blend([(1, SequentialRules()), (0.3, Popular(HOUR_MS))], over_maximum),
        "vsknn-popular": lambda a, s, seed: Blend([(1, SessionNeighbours()), (0.3, Popular(HOUR_MS))], over_maximum),
        "blend": lambda a, s, seed: Blend(
            [(1, SequentialRules(RULES_HALF_LIFE_MS)), (1, SessionNeighbours()), (0.5, Popular(15 * MINUTE_MS))],
            over_maximum,
        ),
        "blend-learned": lambda a, s, seed: LearnedBlend(_reading(), as_share, 5.0, seed),
        "ranker": lambda a, s, seed: Ranker(a, s),
        "ranker-learned": LearnedRanker,
    },
}


def models_of(task: Task, settings: Settings) -> dict[str, Make]:
    """The task's models; a trained interest model that ``settings`` name is a row of its own, by its model's name.

    Raises :class:`contract.errors.InterestModelUnusable` where it cannot be used.
    """
    models = dict(MODELS[task])
    if settings.interest_model and "decay" in models:
        name = read_interest_manifest(Path(settings.interest_model)).model
        last = {ranker: models.pop(ranker) for ranker in ("ranker", "ranker-learned")}
        models |= {name: lambda a, s, seed: InterestAlone(a, s), **last}
    return models


def check_names(task: Task, names: Iterable[str], settings: Settings) -> None:
    """Raise :class:`SettingsError` that lists the known ones for a name that is none of the task's models."""
    known = models_of(task, settings)
    for name in names:
        if name not in known:
            raise SettingsError(f"no model {name!r} for the task {task}; there are {', '.join(known)}")


def make_models(
    task: Task, names: Iterable[str], articles: Articles, settings: Settings, seed: int
) -> dict[str, Model]:
    """Make the models of these names, all of the task where none is named, in the order of :func:`models_of`."""
    models = models_of(task, settings)
    wanted = set(names) or models.keys()
    return {name: make(articles, settings, seed) for name, make in models.items() if name in wanted}
