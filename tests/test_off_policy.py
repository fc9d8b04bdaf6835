"""IPS and SNIPS held against a truth that is known, and an own log as requests."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from contract.errors import SetupError
from contract.messages import ShownItem
from contract.settings import load
from evaluation.articles import Articles
from evaluation.impressions import NO_CLICK
from evaluation.left_out import LeftOut
from evaluation.models.folded import FoldedUsers
from evaluation.off_policy import Draws, estimate, would_draw
from evaluation.own_log import ADDED
from evaluation.requests import Draw, Feedback, Request
from evaluation.results import Result, gap_of
from evaluation.run import Asked, evaluate_own_log
from evaluation.table import all_tables
from tests.data_sets import HOUR_MS, START_MS

ARTICLES = 20
TRUTH = np.linspace(0.02, 0.4, ARTICLES)


class Shown(msgspec.Struct):
    user_id: str
    at: int
    items: list[ShownItem]
    clicked: list[bool]
    group: str = ""
    elsewhere: bool = False
    context: dict[str, str] = {}


def silent(_line: object) -> None:
    pass


def draws_of(seed: int, places: int, logging: NDArray[np.float64]) -> Iterable[Draw]:
    """Places given by ``logging`` [users' kinds, articles] to users of two kinds, who like articles the other way."""
    rng = np.random.default_rng(seed)
    for number in range(places):
        kind = number % 2
        drawn = int(rng.choice(ARTICLES, p=logging[kind]))
        truth = TRUTH if kind == 0 else TRUTH[::-1]
        clicked = bool(rng.random() < truth[drawn])
        request = Request(number, number, -1, np.empty(0, np.intp), np.arange(ARTICLES), False)
        yield Draw(request, drawn, float(logging[kind, drawn]), clicked)


def test_ips_and_snips_find_what_another_policy_would_have_got() -> None:
    """The logging policy likes what users do not; the model knows both kinds, or takes one for the other."""
    rng = np.random.default_rng(1)
    logging = rng.dirichlet(np.linspace(3, 1, ARTICLES), 2) * 0.9 + 0.1 / ARTICLES
    right = float(np.sort(TRUTH)[-4:].mean())
    wrong = float(np.sort(TRUTH)[:4].mean())
    found: dict[str, list[tuple[float, float]]] = {"right": [], "wrong": []}
    covered = 0
    for seed in range(60):
        draws = Draws()
        for draw in draws_of(seed, 400, logging):
            own = TRUTH if draw.request.user % 2 == 0 else TRUTH[::-1]
            draws.take(draw, {"right": own, "wrong": -own})
        result = draws.result(seed)
        assert result is not None
        assert result.explored == result.users == 400
        for name, estimated in result.models.items():
            found[name].append((estimated.ips, estimated.snips))
            assert 0 < estimated.effective_sample_size < 400
        low, high = result.models["right"].snips_ci
        covered += low <= right <= high
        assert result.models["right"].snips > result.ctr > result.models["wrong"].snips
    for name, truth in (("right", right), ("wrong", wrong)):
        ips, snips = np.array(found[name]).T
        for estimates in (ips, snips):
            error = estimates.std(ddof=1) / np.sqrt(len(estimates))
            assert abs(estimates.mean() - truth) < 4 * error + 0.003, name
        assert abs(ips.mean() - truth) < 0.25 * truth
    assert covered >= 50, "of 60 intervals of 95%"


def test_the_estimators_are_what_their_formulas_say() -> None:
    weights, clicked = np.array([0.0, 2.0, 6.0, 1.0]), np.array([1.0, 1.0, 0.0, 1.0])
    found = estimate(weights, clicked, np.arange(4))
    assert (found.ips, found.snips) == (3 / 4, 3 / 9)
    assert found.effective_sample_size == pytest.approx(81 / 41)
    cut = estimate(weights, clicked, np.arange(4), clip=2.0)
    assert (cut.ips, cut.snips, cut.clipped) == (3 / 4, 3 / 5, 1)
    scaled = estimate(3 * weights, clicked, np.arange(4))
    assert scaled.snips == pytest.approx(found.snips), "propensities known up to a factor are enough"
    nothing = estimate(np.zeros(4), clicked, np.arange(4))
    assert (nothing.snips, nothing.effective_sample_size) == (0, 0)


def test_a_model_draws_among_the_fifth_that_it_likes_best() -> None:
    scores = np.arange(10.0)
    assert [would_draw(scores, place) for place in (9, 8, 7, 0)] == [0.5, 0.5, 0, 0]
    assert would_draw(np.array([1.0, 2.0]), 1) == 1


def test_users_of_whom_many_places_are_known_widen_the_interval() -> None:
    """The same hundred places: of a hundred users, or of four who all do the same again and again."""
    weights, clicked = np.ones(100), np.repeat([1.0, 0.0, 0.0, 1.0], 25)
    low, high = estimate(weights, clicked, np.arange(100)).ips_ci
    few_low, few_high = estimate(weights, clicked, np.repeat(np.arange(4), 25)).ips_ci
    assert few_high - few_low > 2 * (high - low)


def own_log(seed: int = 2, requests: int = 120, *, propensities: bool = True) -> tuple[Articles, list[Shown]]:
    """Everybody is shown three articles of each of two categories and clicks on one of their own; the last is drawn."""
    rng = np.random.default_rng(seed)
    articles = Articles(8)
    for number in range(60):
        vector = rng.normal(0, 0.1, 8)
        vector[number % 2] = 1
        unit = (vector / np.linalg.norm(vector)).astype(np.float32)
        articles.describe(f"a{number}", ("sports", "food")[number % 2], unit, START_MS - number * 60_000)
    log = []
    for number in range(requests):
        user = number % 12
        at = START_MS + number * 60_000
        shown = [*(rng.permutation(20)[:2] * 2), *(rng.permutation(20)[:2] * 2 + 1), 40 + rng.integers(20)]
        items = [ShownItem(article_id=f"a{article}", position=place) for place, article in enumerate(shown)]
        if propensities:
            items[4] = msgspec.structs.replace(items[4], propensity=1 / 30)
        clicked = [article % 2 == user % 2 and place in (0, 2, 4) for place, article in enumerate(shown)]
        log.append(Shown(f"u{user}", at, items, clicked, group=("mobile", "desktop")[user % 2]))
    return articles, log


def judged(
    articles: Articles, log: list[Shown], models: tuple[str, ...] = ("random", "mean", "blend", "ranker")
) -> tuple[Result, LeftOut]:
    said: list[str] = []
    left_out = LeftOut(said.append)
    return evaluate_own_log(log, articles, load(), Asked("log", models), left_out), left_out


def test_an_own_log_is_judged_like_a_data_set_and_by_what_was_drawn() -> None:
    articles, log = own_log()
    result, left_out = judged(articles, log)
    assert result.task == "impressions"
    assert result.models["mean"].metrics["auc"] > 0.8
    assert result.models["ranker"].metrics["auc"] > 0.6, "what they had read is shown again"
    found = result.off_policy
    assert found is not None
    assert (found.explored, found.users) == (120, 12)
    assert 20 < found.candidates < 60, "published within a day, seen by few, not read, and not above it in the list"
    assert found.models["mean"].snips > found.ctr > 0.3
    assert found.models["mean"].snips > found.models["random"].snips
    assert left_out.counts.keys() <= {NO_CLICK, ADDED}, "some are drawn that were read"
    assert left_out.counts[ADDED] < 30
    assert result.slices["user group"] == {"mobile": 60, "desktop": 60, "others": 0}
    gap = result.models["mean"].gap
    assert gap is not None
    assert {gap.best, gap.worst} == {"mobile", "desktop"}
    told = [rows for rows in all_tables(result) if rows[0][0].startswith("CTR of explored places")]
    assert [row[0] for row in told[0][1]] == ["as logged", "random", "mean", "blend", "ranker"]
    assert "off_policy" in msgspec.json.decode(result.to_json())


def test_what_was_clicked_elsewhere_is_learned_and_not_judged() -> None:
    articles, log = own_log(requests=60)
    wanderer = [
        Shown("u0", START_MS + HOUR_MS * 2, [ShownItem(article_id="a50")], [True], elsewhere=True),
        Shown("u0", START_MS + HOUR_MS * 3, [ShownItem(article_id=a) for a in ("a51", "a52")], [False, True]),
    ]
    result, left_out = judged(articles, [*log, *wanderer], ("popular", "blend"))
    assert result.requests == 61
    assert "requests with every item clicked" not in left_out.counts


def test_what_an_impression_told_of_its_user_is_folded_as_when_serving() -> None:
    articles, _ = own_log(requests=1)
    users = FoldedUsers(articles, load([], environ={}))
    told = {"region": "de_by", "device": "tablet"}
    shown = articles.indices(["a1", "a2"])
    asked = Request(START_MS + HOUR_MS, 7, -1, shown[:0], shown, True, context=told)
    users.learn(Feedback(asked, shown, np.array([True, False])))
    user = users.user(asked)
    assert user is not None
    assert (user.windows.region, user.windows.device) == ("DE-BY", "tablet")


def test_without_propensities_there_is_no_estimate_and_bad_ones_are_named() -> None:
    articles, log = own_log(requests=30, propensities=False)
    assert judged(articles, log, ("random", "blend"))[0].off_policy is None
    articles, log = own_log(requests=30)
    log[3].items[4] = msgspec.structs.replace(log[3].items[4], propensity=1.5)
    result, left_out = judged(articles, log, ("random", "blend"))
    assert result.off_policy is not None
    assert result.off_policy.explored == 29
    assert left_out.counts["propensities that are no probabilities, not used"] == 1


def test_a_log_without_clicks_says_what_to_do() -> None:
    articles, log = own_log(requests=5)
    for shown in log:
        shown.clicked = [False] * 5
    with pytest.raises(SetupError, match=r"5 requests without a click.*try again once users have clicked"):
        judged(articles, log)


def test_a_gap_is_between_groups_that_have_enough_requests() -> None:
    values = np.concatenate([np.full(40, 0.9), np.full(40, 0.6), np.full(3, 0.1)])
    groups = np.repeat(["good", "poor", "tiny"], [40, 40, 3])
    masks = {name: groups == name for name in ("good", "poor", "tiny")}
    gap = gap_of(values, masks, 1)
    assert gap is not None
    assert (gap.best, gap.worst) == ("good", "poor")
    assert gap.gap == pytest.approx(0.3)
    assert gap_of(values, {"good": masks["good"], "tiny": masks["tiny"]}, 1) is None
