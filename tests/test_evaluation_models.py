"""One contract for every model of every task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from contract.errors import SettingsError
from contract.settings import load
from encoders.decay import Decay
from encoders.fold import Fold
from encoders.manifest import describe_file, write_manifest
from encoders.onnx_interest import QUERY_FILE, STEP_FILE, InterestManifest, OnnxInterest
from evaluation.articles import Articles
from evaluation.models.contract import Model
from evaluation.models.folded import FoldedUsers, InterestAlone
from evaluation.models.learned import LearnedRanker
from evaluation.models.registry import MODELS, check_names, make_models, models_of
from evaluation.models.served import Ranker
from evaluation.prequential import Task
from evaluation.requests import Feedback, Request

DIMS, ARTICLES, HOUR_MS, START_MS = 8, 200, 3_600_000, 1_573_290_000_000
ALL = [(task, name) for task, models in MODELS.items() for name in models]


def articles_of(task: Task) -> Articles:
    rng = np.random.default_rng(2)
    articles = Articles(DIMS if task == "impressions" else 0)
    for number in range(ARTICLES):
        vector = rng.normal(size=articles.dims).astype(np.float32)
        if task == "impressions" and number % 7:  # some are in no news file
            articles.describe(str(number), f"category {number % 5}", vector / np.linalg.norm(vector))
        articles.index(str(number))
    return articles


def some_feedback(task: Task, seed: int, n: int = 60) -> list[Feedback]:
    """What happened, in the order of time; some users come again, some have read nothing."""
    rng = np.random.default_rng(seed)
    histories: dict[int, NDArray[np.intp]] = {}
    found = []
    for step in range(n):
        at, user = START_MS + step * 400_000, int(rng.integers(25))
        first = user not in histories
        if first:
            histories[user] = rng.integers(ARTICLES, size=user % 4) if task == "impressions" else np.empty(0, np.intp)
        shown = rng.choice(ARTICLES, 12 if task == "impressions" else 1, replace=False)
        clicked = np.arange(len(shown)) == 0
        session = -1 if task == "impressions" else user
        found.append(Feedback(Request(at, user, session, histories[user], shown, first), shown, clicked))
        histories[user] = np.append(histories[user], shown[0])
    return found


def a_request(user: int = 3, at: int = START_MS + 60 * 400_000, **changed: Any) -> Request:
    rng = np.random.default_rng(9)
    history, candidates = np.array([5, 60, 61]), rng.choice(np.arange(70, ARTICLES), 40, replace=False)
    request = Request(at, user, user, history, candidates, first=False)
    return Request(**{name: changed.get(name, getattr(request, name)) for name in request.__struct_fields__})


@pytest.fixture(params=ALL, ids=[f"{task}-{name}" for task, name in ALL])
def made(request: pytest.FixtureRequest) -> tuple[Task, Model, Articles]:
    task, name = request.param
    articles = articles_of(task)
    articles.note_seen(np.arange(ARTICLES), START_MS - HOUR_MS)
    return task, MODELS[task][name](articles, load(), 1), articles


def learned(task: Task, model: Model, seed: int = 1) -> Model:
    for feedback in some_feedback(task, seed):
        model.scores(feedback.request)
        model.learn(feedback)
    return model


def test_there_is_one_number_for_each_candidate_before_anything_is_known(made: tuple[Task, Model, Articles]) -> None:
    task, model, _ = made
    for request in (a_request(first=True), a_request(history=np.empty(0, np.intp), first=True), a_request()):
        scores = model.scores(request)
        assert scores.shape == request.candidates.shape
        assert scores.dtype == np.float64
        assert not np.isnan(scores).any()
        assert not model.probabilities or ((scores > 0) & (scores < 1)).all()
    assert learned(task, model).scores(a_request()).shape == (40,)


def test_asking_changes_nothing(made: tuple[Task, Model, Articles]) -> None:
    task, model, _ = made
    learned(task, model)
    first = model.scores(a_request())
    model.scores(a_request(user=77, history=np.array([1, 2])))
    assert np.array_equal(model.scores(a_request()), first)


def test_scores_belong_to_articles_not_to_places(made: tuple[Task, Model, Articles]) -> None:
    task, model, _ = made
    learned(task, model)
    order = np.random.default_rng(4).permutation(40)
    request = a_request()
    scores = model.scores(request)
    turned = model.scores(a_request(candidates=request.candidates[order]))
    assert turned == pytest.approx(scores[order], rel=1e-5, abs=1e-6)


def test_what_was_just_heard_of_can_be_ranked_at_once(made: tuple[Task, Model, Articles]) -> None:
    task, model, _ = made
    learned(task, model)
    before = model.scores(a_request())
    at = a_request().at + 1
    request, new = a_request(at=at, user=88, session=88, first=True), np.array([2, 3])
    model.learn(Feedback(request, new, np.array([True, False])))
    scores = model.scores(a_request(at=at + 1, candidates=np.append(a_request().candidates, new)))
    assert scores.shape == (len(before) + 2,)
    assert not np.isnan(scores).any()


def articles_like(task: Task) -> Articles:
    articles = articles_of(task)
    articles.note_seen(np.arange(ARTICLES), START_MS - HOUR_MS)
    return articles


def test_the_interest_alone_is_the_same_without_the_statistics_that_it_leaves_out() -> None:
    articles = articles_like("impressions")
    quick, whole = (InterestAlone(articles, load()) for _ in range(2))
    folds: list[Fold] = []
    whole._users = FoldedUsers(articles, load(), folds.append)
    for feedback in some_feedback("impressions", 1):
        for model in (quick, whole):
            model.learn(feedback)
        assert np.array_equal(quick.scores(feedback.request), whole.scores(feedback.request))
    assert any(fold.stats for fold in folds)
    assert not quick._users.state.stats
    assert quick.scores(a_request()).any()


def test_the_ranker_counts_as_if_it_looked_for_every_article_anew() -> None:
    ranker = Ranker(articles_like("impressions"), load())
    for feedback in some_feedback("impressions", 1):
        ranker.scores(feedback.request)
        ids = ranker._users.table.ids
        at = feedback.request.at
        counted = ranker._popularity.counts_in(ranker._counted[: len(ids)], at)
        assert np.array_equal(counted, ranker._popularity.counts(ids, at))
        ranker.learn(feedback)
    assert (ranker._counted >= 0).any()


def test_a_trained_model_is_a_row_by_its_own_name_beside_decay(tmp_path: Path) -> None:
    files = {}
    for name in (STEP_FILE, QUERY_FILE):
        (tmp_path / name).write_bytes(b"a graph")
        files[name] = describe_file(tmp_path / name)
    write_manifest(
        tmp_path,
        InterestManifest(model="gru", dims=DIMS, state_size=40, queries=1, files=files, packages={}),
    )
    settings = load([f"interest_model={tmp_path}"], environ={})
    assert list(models_of("impressions", settings))[-4:] == ["decay", "gru", "ranker", "ranker-learned"]
    check_names("impressions", ["gru"], settings)
    with pytest.raises(SettingsError, match="no model 'gru' for the task impressions"):
        check_names("impressions", ["gru"], load(environ={}))
    made = make_models("impressions", ["decay", "gru"], articles_like("impressions"), settings, 1)
    folding = {name: model._users.model for name, model in made.items() if isinstance(model, InterestAlone)}
    assert isinstance(folding["decay"], Decay)
    assert isinstance(folding["gru"], OnnxInterest)


@pytest.mark.parametrize(("task", "name"), ALL)
def test_no_other_past_than_what_it_was_told(task: Task, name: str) -> None:
    """Models of one process share nothing."""
    alone = learned(task, MODELS[task][name](articles_like(task), load(), 1)).scores(a_request())
    shared = articles_like(task)
    other, model = (MODELS[task][name](shared, load(), 1) for _ in range(2))
    learned(task, other, seed=8)
    assert np.array_equal(learned(task, model).scores(a_request()), alone)


def test_the_ranker_knows_what_is_clicked_where_somebody_is() -> None:
    ranker = Ranker(articles_like("next click"), load())

    def clicked(user: int, region: str, article: int) -> None:
        nothing = np.empty(0, np.intp)
        request = Request(START_MS + user * 1000, user, user, nothing, nothing, first=True, context={"region": region})
        ranker.learn(Feedback(request, np.array([article]), np.array([True])))

    for user in range(60):
        clicked(user, *(("north", 5) if user % 2 else ("south", 6)))
    for user, region in ((60, "north"), (61, "south")):
        clicked(user, region, 8)
    asked = [a_request(at=START_MS + 90_000, user=user, session=user, candidates=np.array([5, 6])) for user in (60, 61)]
    north, south = (ranker.scores(request) for request in asked)
    assert north[0] > 1.05 * north[1]
    assert south[1] > 1.05 * south[0]


def test_a_ranker_that_learned_from_clicks_on_anything_is_not_heard() -> None:
    articles = articles_like("impressions")
    learning, plain = LearnedRanker(articles, load(), 1), Ranker(articles, load())
    for feedback in some_feedback("impressions", 1, 400):
        for model in (learning, plain):
            model.scores(feedback.request)
            model.learn(feedback)
    request = a_request(at=START_MS + 400 * 400_000, session=-1)
    ours, theirs = (np.argsort(np.argsort(model.scores(request))) for model in (learning, plain))
    assert spearmanr(ours, theirs).statistic > 0.9
