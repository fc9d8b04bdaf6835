"""``stoppress evaluate`` on small data sets: order of time, planted signals, bad input, the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from contract.errors import SetupError
from contract.settings import Settings, load
from evaluation.articles import Articles
from evaluation.impressions import ALL_CLICKED, NO_CLICK, NOT_IN_NEWS, SHOWN_TWICE, impressions
from evaluation.impressions import REPEATED as REPEATED_IMPRESSIONS
from evaluation.left_out import LeftOut
from evaluation.next_click import OUT_OF_ORDER, READ_AGAIN, REPEATED, Clicks, Protocol, next_clicks
from evaluation.prequential import NotScores, replay
from evaluation.requests import Feedback, Moment, Request
from evaluation.results import Result
from evaluation.run import Asked, evaluate_impressions, evaluate_next_click
from evaluation.vectors import NEWS_TWICE, read_articles
from producers.globo import read_clicks
from producers.mind import behaviours_at, offsets_by_time, read_news
from tests.command import refused, stoppress
from tests.data_sets import (
    HOUR_MS,
    START_MS,
    chains_of_reading,
    mind_time,
    readers_with_tastes,
    write_globo,
    write_mind,
)

NEWS = ["N1\tnews\t\tFerries return\t\t\t[]\t[]", "N2\tnews\t\tRowers win\t\t\t[]\t[]", "N3\tsports\t\tFog\t\t\t[]\t[]"]
EVERYTHING = Protocol(every=1, warm_up_hours=0)


def silent(_line: object) -> None:
    pass


def moments_of_mind(folder: Path, left_out: LeftOut | None = None) -> tuple[Articles, list[Moment]]:
    articles = Articles()
    for news in read_news(folder, silent):
        articles.describe(news.article_id, news.category, np.zeros(0, np.float32))
    shown = behaviours_at(folder, offsets_by_time(folder, silent))
    return articles, list(impressions(shown, articles, left_out or LeftOut(silent), np.random.default_rng(1)))


def moments_of_globo(
    folder: Path, protocol: Protocol = EVERYTHING, left_out: LeftOut | None = None
) -> tuple[Articles, list[Moment]]:
    articles, left_out = Articles(), left_out or LeftOut(silent)
    clicks = Clicks(read_clicks(folder, silent), articles, left_out)
    return articles, list(next_clicks(clicks, articles, left_out, np.random.default_rng(1), protocol))


def ids(articles: Articles, indices: NDArray[np.intp]) -> list[str]:
    return [articles.ids[index] for index in indices.tolist()]


def test_impressions_come_in_the_order_of_time_those_of_one_second_together(tmp_path: Path) -> None:
    noon = START_MS + HOUR_MS
    folder = write_mind(
        tmp_path, NEWS,
        [f"2\tU2\t{mind_time(noon)}\tN1\tN2-0 N3-1", f"1\tU1\t{mind_time(START_MS)}\t\tN1-1 N2-0",
         f"3\tU1\t{mind_time(noon)}\tN9\tN2-1 N3-0"],
    )  # fmt: skip
    articles, (first, second) = moments_of_mind(folder)
    assert (first.at, second.at, len(second.requests), len(second.feedback)) == (START_MS, noon, 2, 2)
    request, clicked = first.requests[0]
    assert ids(articles, request.candidates[clicked]) == ["N1"]
    assert (request.first, ids(articles, request.history)) == (True, [])
    again = second.requests[1][0]
    assert (again.first, ids(articles, again.history)) == (False, ["N1"]), (
        "the first history, and what was clicked since"
    )


def test_candidates_stand_in_an_order_that_says_nothing(tmp_path: Path) -> None:
    items = " ".join(f"N{n}-{int(n == 0)}" for n in range(50))
    lines = [f"{n}\tU{n}\t{mind_time(START_MS + n * 1000)}\t\t{items}" for n in range(60)]
    _, moments = moments_of_mind(write_mind(tmp_path, NEWS, lines))
    places = [int(clicked.argmax()) for moment in moments for _, clicked in moment.requests]
    assert 15 < np.mean(places) < 35


def test_next_clicks_are_ranked_among_what_was_clicked_within_a_day_but_not_read(tmp_path: Path) -> None:
    day = 24 * HOUR_MS
    clicks = [("u1", "s1", "a", 0), ("u2", "s2", "b", 10), ("u1", "s1", "b", 20), ("u3", "s3", "c", day + 10),
              ("u3", "s3", "b", day + 15), ("u3", "s3", "new", day + 16)]  # fmt: skip
    folder = write_globo(tmp_path, [f"{u},{s},{a},{START_MS + at}" for u, s, a, at in clicks])
    articles, moments = moments_of_globo(folder)
    asked = [(request, clicked) for moment in moments for request, clicked in moment.requests]
    found = [
        (ids(articles, r.history), set(ids(articles, r.candidates)), ids(articles, r.candidates[c])) for r, c in asked
    ]
    assert found[0] == (["a"], {"b"}, ["b"])
    assert found[1] == (["c"], {"b"}, ["b"]), "a was clicked more than a day ago"
    assert found[2] == (["c", "b"], set(), []), "nobody had clicked on it: a miss, whatever is ranked"


def test_every_nth_follow_up_click_after_the_warm_up_is_judged_all_are_learned_from(tmp_path: Path) -> None:
    lines = [f"u{n // 2},s{n // 2},{n % 7},{START_MS + n * HOUR_MS}" for n in range(48)]
    _, moments = moments_of_globo(write_globo(tmp_path, lines), Protocol(every=3, warm_up_hours=6))
    assert sum(len(moment.feedback) for moment in moments) == 48
    asked = [request for moment in moments for request, _ in moment.requests]
    assert len(asked) == 21 // 3
    assert asked[0].at == START_MS + 11 * HOUR_MS, "the third of those at 7, 9 and 11 h"


class Spy:
    """Notes what it is asked and told, in order."""

    probabilities = False

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def scores(self, request: Request) -> NDArray[np.float64]:
        self.calls.append(("score", request.at))
        return np.zeros(len(request.candidates))

    def learn(self, feedback: Feedback) -> None:
        self.calls.append(("learn", feedback.request.at))


def test_a_session_comes_from_where_its_first_click_did(tmp_path: Path) -> None:
    """So that a request knows nothing of the click that it is to find."""
    header = "user_id,session_id,click_article_id,click_timestamp,click_region,click_referrer_type"
    lines = [f"u,s,a,{START_MS},13,1", f"v,t,b,{START_MS + 1},21,5", f"u,s,b,{START_MS + 2},9,7"]
    _, moments = moments_of_globo(write_globo(tmp_path, lines, header))
    told = [feedback.request.context for moment in moments for feedback in moment.feedback]
    first, other = {"region": "13", "referrer": "1"}, {"region": "21", "referrer": "5"}
    assert told == [first, other, first]


@pytest.mark.parametrize("format_", ["mind", "globo"])
def test_nothing_is_learned_of_a_moment_before_all_of_it_was_scored(tmp_path: Path, format_: str) -> None:
    if format_ == "mind":
        lines = [f"{n}\tU{n}\t{mind_time(START_MS + n // 3 * 1000)}\t\tN1-1 N2-0" for n in range(9)]
        articles, moments = moments_of_mind(write_mind(tmp_path, NEWS, lines))
    else:
        lines = [f"u{s},s{s},{a},{START_MS + a * 1000}" for a in range(4) for s in range(3)]
        articles, moments = moments_of_globo(write_globo(tmp_path, lines))
    spy = Spy()
    replay("impressions" if format_ == "mind" else "next click", moments, articles, {"spy": spy})
    assert len(spy.calls) > 12
    assert spy.calls == sorted(spy.calls, key=lambda call: (call[1], call[0] == "learn"))


def test_a_model_that_gives_no_number_is_named(tmp_path: Path) -> None:
    class Broken(Spy):
        def scores(self, request: Request) -> NDArray[np.float64]:
            return np.full(len(request.candidates), np.nan)

    articles, moments = moments_of_mind(write_mind(tmp_path, NEWS, [f"1\tU\t{mind_time(START_MS)}\t\tN1-1 N2-0"]))
    with pytest.raises(NotScores, match="wrong one gave"):
        replay("impressions", moments, articles, {"wrong one": Broken()})


def on_mind(folder: Path, settings: Settings, cache: Path, **asked: Any) -> Result:
    left_out = LeftOut(silent)
    articles = read_articles(read_news(folder, silent), settings, cache, left_out)
    shown = behaviours_at(folder, offsets_by_time(folder, silent))
    return evaluate_impressions(shown, articles, settings, Asked("data", **asked), left_out)


def on_globo(folder: Path, protocol: Protocol = EVERYTHING, **asked: Any) -> Result:
    articles, left_out = Articles(), LeftOut(silent)
    clicks = Clicks(read_clicks(folder, silent), articles, left_out)
    return evaluate_next_click(clicks, articles, load(), Asked("data", **asked), left_out, protocol)


@pytest.fixture(scope="module")
def encoder_settings(encoder_path: Path) -> Settings:
    return load([f"encoder={encoder_path}"])


@pytest.fixture(scope="module")
def tastes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return readers_with_tastes(tmp_path_factory.mktemp("tastes"))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_models_of_content_find_tastes_and_nothing_where_there_are_none(
    tastes: Path, vectors: Path, tmp_path: Path, encoder_settings: Settings
) -> None:
    found = on_mind(tastes, encoder_settings, vectors).models
    assert found["mean"].metrics["auc"] > 0.95
    assert found["top3"].metrics["auc"] > 0.95
    assert found["category"].metrics["auc"] == 1
    assert found["blend"].metrics["auc"] > 0.95
    for name in ("random", "popular", "ctr", "appeal"):
        assert found[name].metrics["auc"] < 0.65, name
    assert found["random"].versus["auc"].ci[1] < 0
    assert found["blend"].versus == {}
    shuffled = on_mind(readers_with_tastes(tmp_path, 100, shuffled=True), encoder_settings, vectors)
    for name, figures in shuffled.models.items():
        low, high = figures.ci["auc"]
        assert low - 0.03 < 0.5 < high + 0.03, name


def test_models_of_reading_order_find_chains_and_nothing_where_there_are_none(tmp_path: Path) -> None:
    found = on_globo(chains_of_reading(tmp_path / "chains")).models
    for name in ("rules", "co-reading", "vsknn", "blend"):
        assert found[name].metrics["mrr@10"] > 2 * found["popular"].metrics["mrr@10"], name
    shuffled = on_globo(chains_of_reading(tmp_path / "shuffled", shuffled=True)).models
    chance = 10 / 58
    for name, figures in shuffled.items():
        low, high = figures.ci["hr@10"]
        assert low - 0.05 < chance < high + 0.05, name


def test_the_same_seed_gives_the_same_numbers(tastes: Path, vectors: Path, encoder_settings: Settings) -> None:
    def figures(models: tuple[str, ...] = ("random", "mean", "appeal", "blend", "ranker"), **asked: Any) -> Any:
        plain = msgspec.json.decode(on_mind(tastes, encoder_settings, vectors, models=models, **asked).to_json())
        return {key: value for key, value in plain.items() if key != "requests_per_second"}

    found = figures()
    assert figures() == found
    assert figures(seed=2)["models"]["random"] != found["models"]["random"]
    alone = figures(models=("mean", "blend"))["models"]
    assert alone == {name: found["models"][name] for name in ("mean", "blend")}, "whoever else is in the table"


def test_texts_are_embedded_once(tastes: Path, tmp_path: Path, encoder_settings: Settings) -> None:
    embedded: list[int] = []

    def read() -> Articles:
        texts = read_news(tastes, silent)
        return read_articles(texts, encoder_settings, tmp_path, LeftOut(silent), lambda done, _: embedded.append(done))

    first = read()
    assert embedded == [160]
    assert np.array_equal(read().vectors, first.vectors)
    assert embedded == [160], "the second time from the cache"
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    assert np.array_equal(read().vectors, first.vectors), "a damaged file is made anew"
    assert embedded == [160, 160]


def test_slices_are_of_the_requests_that_they_name(tastes: Path, vectors: Path, encoder_settings: Settings) -> None:
    result = on_mind(tastes, encoder_settings, vectors, models=("mean", "blend"))
    for kind, counts in result.slices.items():
        assert sum(counts.values()) == result.requests
        figures = result.models["mean"]
        weighed = sum(counts[label] * by_metric["auc"] for label, by_metric in figures.slices[kind].items())
        assert weighed / result.requests == pytest.approx(figures.metrics["auc"])


def test_lists_by_taste_are_narrower_and_closer_to_what_was_read(
    tastes: Path, vectors: Path, encoder_settings: Settings
) -> None:
    result = on_mind(tastes, encoder_settings, vectors, models=("mean", "random", "blend"))
    mean, chance = result.models["mean"].beyond, result.models["random"].beyond
    assert mean is not None
    assert chance is not None
    assert mean.coverage == chance.coverage == 1, "four were shown and all of them are in a list of ten"
    assert result.catalogue == pytest.approx(dict.fromkeys(("sports", "weather", "food", "finance"), 0.25))
    assert mean.exposure == pytest.approx(result.catalogue)
    # Four categories, one of which is all that was read: 1 bit for each halving of its share.
    assert mean.category_mix == pytest.approx(2, abs=0.05)


def test_what_of_mind_cannot_be_used_is_counted_and_named(tmp_path: Path) -> None:
    at = mind_time(START_MS)
    said: list[str] = []
    left_out = LeftOut(said.append)
    folder = write_mind(
        tmp_path, NEWS,
        [f"1\tU1\t{at}\t\tN1-0 N2-0", f"2\tU2\t{at}\t\tN1-1 N2-1", f"3\tU3\t{at}\tN8\tN1-1 N2-0 N9-0",
         f"3\tU3\t{at}\tN8\tN1-1 N2-0 N9-0", f"4\tU4\t{at}\t\tN1-0 N1-1 N2-0"],
    )  # fmt: skip
    articles, (moment,) = moments_of_mind(folder, left_out)
    assert left_out.counts == {
        NO_CLICK: 1, ALL_CLICKED: 1, NOT_IN_NEWS: 2, REPEATED_IMPRESSIONS: 1, SHOWN_TWICE: 1,
    }  # fmt: skip
    assert f"{REPEATED_IMPRESSIONS}: 3 of U3" in said
    assert f"{NOT_IN_NEWS}: N9" in said
    assert len(moment.requests) == 2
    assert len(moment.feedback) == 4, "what is not judged is learned from"
    assert ids(articles, moment.requests[1][0].candidates[moment.requests[1][1]]) == ["N1"]


def test_what_of_globo_cannot_be_used_is_counted_and_named(tmp_path: Path) -> None:
    left_out = LeftOut(silent)
    lines = ["u,s,a,1000", "u,s,a,1000", "u,s,b,3000", "u,s,c,2000", "u,s,a,4000"]
    articles, moments = moments_of_globo(write_globo(tmp_path, lines), left_out=left_out)
    assert left_out.counts == {OUT_OF_ORDER: 1, REPEATED: 1, READ_AGAIN: 1}
    assert [ids(articles, moment.feedback[0].shown)[0] for moment in moments] == ["a", "c", "b", "a"]


def test_news_twice_in_the_file_are_taken_once(tmp_path: Path, encoder_settings: Settings) -> None:
    left_out = LeftOut(silent)
    folder = write_mind(tmp_path, [*NEWS, NEWS[0].replace("news", "other", 1)], [])
    articles = read_articles(read_news(folder, silent), encoder_settings, tmp_path / "cache", left_out)
    assert left_out.counts == {NEWS_TWICE: 1}
    assert articles.category_names[articles.categories[articles.index("N1")]] == "news"


def test_a_data_set_without_a_request_says_why(tmp_path: Path, encoder_settings: Settings) -> None:
    folder = write_mind(tmp_path, NEWS, [f"1\tU1\t{mind_time(START_MS)}\t\tN1-0 N2-0"])
    with pytest.raises(SetupError, match=r"no request that can be judged: 1 requests without a click"):
        on_mind(folder, encoder_settings, tmp_path / "cache")
    with pytest.raises(SetupError, match="no request"):
        on_globo(write_globo(tmp_path, ["u,s,a,1"]))


def test_the_command_prints_a_table_or_json(tastes: Path, vectors: Path, encoder_settings: Settings) -> None:
    arguments = ["evaluate", str(tastes), "--format", "mind", "--models", "random,mean,blend"]
    environ = {"XDG_CACHE_HOME": str(vectors)}
    shown = stoppress(encoder_settings, *arguments, environ=environ)
    assert shown.code == 0, shown.err
    assert any(line.split()[:1] == ["mean"] for line in shown.lines)
    printed = stoppress(encoder_settings, *arguments, "--json", environ=environ)
    figures = msgspec.json.decode(printed.out)
    assert (figures["task"], figures["requests"]) == ("impressions", 120)
    assert set(figures["models"]) == {"random", "mean", "blend"}
    assert {"auc", "mrr", "ndcg@5", "ndcg@10", "ci"} <= set(figures["models"]["mean"])
    low, high = figures["models"]["mean"]["ci"]["auc"]
    assert low <= figures["models"]["mean"]["auc"] <= high


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--format", "netflix"], "the format 'netflix' is not known; known: mind, globo"),
        (["--format", "mind", "--models", "mean,magic"], "no model 'magic' for the task impressions; there are"),
        (["--format", "globo", "--models", "mean"], "no model 'mean' for the task next click"),
        (["--format", "globo", "--versus", "magic"], "no model 'magic'"),
        (["--format", "mind"], "a folder in MIND's format has it"),
        (["--format", "globo"], "a folder in Globo's format has them"),
    ],
)
def test_wrong_usage_ends_with_one_line_and_code_2(tmp_path: Path, arguments: list[str], says: str) -> None:
    assert says in refused(stoppress(load(), "evaluate", str(tmp_path), *arguments))


def test_an_encoder_can_learn_its_projection_from_the_same_news(tastes: Path, tmp_path: Path) -> None:
    """As far as is quick: so few are refused, and counted."""
    arguments = ["export", "encoder", "minilm", str(tmp_path / "encoder"), "--dims", "96"]
    said = stoppress(load(), *arguments, "--corpus", str(tastes / "news.tsv"))
    assert said.code == 2
    assert "at least 500 different articles, the corpus has 160" in said.err
