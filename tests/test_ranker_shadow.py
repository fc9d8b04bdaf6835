"""Candidates before the model that serves: what is counted of them, and what a real ranker then serves."""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumers import click_models
from consumers.click_models import Changed, ClickModels, Verdict, serving_of
from consumers.ranker_shadow import COUNTED_OF_A_USER, SeenLists
from contract.errors import ClickModelUnusable
from contract.messages import POPULAR, Cause, Event, Item, List, ShownItem, decode, encode
from contract.records import ArticleMeta, ArticleRecord, encode_article
from contract.settings import load
from encoders.click_versions import SERVING_FILE, VERDICT_FILE, serve
from encoders.onnx_clicks import GRAPH_FILE
from ranking.catalogue import BOOSTED
from ranking.features import PARTS, Weights, score_parts
from ranking.ranking import Formula
from ranking.shadow import LEAST, ORDER_TOLERANCE, Judgement, said_of
from streams.local_broker import LocalBroker
from tests.click_logs import OLDER_LIKED, by_age
from tests.command import refused, stoppress
from tests.pipeline import Pipeline, Worker, await_true, event, now_ms, pipeline_on
from tests.ranker_world import Row
from tests.ranking_world import HOUR, NOW, a_catalogue, a_reader
from tests.torch_environment import written_with_torch

UP, ACROSS = (1, 0, 0, 0), (0, 1, 0, 0)


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_with_torch("tiny_candidates.py", tmp_path_factory.mktemp("candidates"))


def lists_by(truth_of: float, seed: int, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What two models say of ten items and which were clicked: serving knows the truth, the candidate some of it."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        truth = draw.normal(-2, 1, 10)
        candidate = truth_of * (truth + 2) + math.sqrt(1 - truth_of**2) * draw.normal(0, 1, 10) - 2
        yield np.stack([truth, candidate]), draw.random(10) < 1 / (1 + np.exp(-truth))


class TestJudgement:
    def test_the_figures_are_what_they_are_called(self) -> None:
        judgement = Judgement()
        said = np.array([[0.0, 2.0, -1.0], [0.0, -2.0, 1.0]])
        judgement.take(said, np.array([False, True, False]))
        judgement.take(said[:, :1], np.array([False]))
        found = judgement.compared()
        assert (found.lists, found.ordered, found.auc) == (2, 1, (1.0, 0.0))
        first = [np.log(2) + np.log1p(np.exp(-odds)) + np.log1p(np.exp(other)) for odds, other in ((2, -1), (-2, 1))]
        assert found.log_loss == pytest.approx([(loss / 3 + np.log(2)) / 2 for loss in first])
        assert found.loss_difference.mean == pytest.approx(found.log_loss[1] - found.log_loss[0])
        assert found.outcome is None

    def test_who_says_the_same_is_not_worse_and_nothing_is_decided_on_little(self) -> None:
        judgement = Judgement()
        for said, clicked in lists_by(1.0, 1, 2 * LEAST):
            judgement.take(said, clicked)
            assert judgement.compared().ordered >= LEAST or judgement.compared().outcome is None
        assert judgement.compared().outcome == "promoted"

    def test_who_knows_more_is_promoted_and_who_knows_less_is_refused(self) -> None:
        better, worse = Judgement(), Judgement()
        for said, clicked in lists_by(0.3, 1, 2 * LEAST):
            better.take(said[::-1], clicked)
            worse.take(said, clicked)
        assert (better.compared().outcome, worse.compared().outcome) == ("promoted", "refused")

    def test_right_order_with_wrong_probabilities_is_refused(self) -> None:
        judgement = Judgement()
        for said, clicked in lists_by(1.0, 1, 2 * LEAST):
            judgement.take(np.stack([said[0], said[0] * 4]), clicked)
        assert judgement.compared().auc_difference.mean == 0
        assert judgement.compared().outcome == "refused"

    def test_who_gives_no_numbers_is_refused_at_once(self) -> None:
        judgement = Judgement()
        judgement.hear(np.array([[[0.5, np.nan]], [[0.1, np.nan]]]))
        assert judgement.compared().outcome is None
        judgement.hear(np.array([[[0.5, 0.2]], [[0.1, np.inf]]]))
        assert judgement.compared().outcome == "refused"

    def test_looking_again_and_again_promotes_hardly_ever_who_is_worse(self) -> None:
        """The interval holds at all looks together; one for a single look would be left behind by chance."""
        promoted, judgement = 0, Judgement()
        for seed in range(40):
            judgement = Judgement()
            for number, (said, clicked) in enumerate(lists_by(0.95, seed, 1500)):
                judgement.take(said, clicked)
                if number % 20 == 0 and judgement.compared().outcome is not None:
                    break
            promoted += judgement.compared().outcome == "promoted"
        assert judgement.compared().auc_difference.mean < -ORDER_TOLERANCE
        assert promoted <= 4


class TestWhatIsSaid:
    def test_all_models_see_what_the_ranking_sees(self) -> None:
        catalogue = a_catalogue([UP, ACROSS, UP], ages=[0, 5 * HOUR, 30 * HOUR], placement=[0, BOOSTED, 0])
        reader, formula = a_reader(UP), Formula()
        listed = np.array([[2, 1, -1]])
        found = said_of(listed, reader, catalogue, formula, [None, by_age(*OLDER_LIKED)], NOW)
        assert found.shape == (2, 1, 3)
        parts = score_parts(reader, catalogue, listed[:, :2], Weights(), NOW)
        usual = np.log(catalogue.base_rate / (1 - catalogue.base_rate))
        np.testing.assert_allclose(found[0, 0, :2], parts.sum(axis=0)[0] + usual, rtol=1e-4)
        slope, constant = OLDER_LIKED
        by_line = slope * np.log1p([30, 5]) + constant + parts[PARTS.index("editor"), 0]
        np.testing.assert_allclose(found[1, 0, :2], by_line, rtol=1e-4)
        assert np.isnan(found[:, 0, 2]).all()


def remember(lists: SeenLists, list_id: str, said: np.ndarray) -> None:
    """Three articles for one user."""
    items = [Item(article_id=a, score=0, reason="", source="") for a in "abc"]
    cause = Cause(kind="event", id="", at=0)
    lists.remember(List(user_id="u", list_id=list_id, generated_at=0, cause=cause, generation="", items=items), said)


class TestSeenLists:
    SAID = np.array([[0.1, 0.2, 0.3], [1.0, 2.0, np.nan]])

    def remembered(self, *list_ids: str) -> SeenLists:
        lists = SeenLists()
        for list_id in list_ids:
            remember(lists, list_id, self.SAID)
        return lists

    def closed(self, lists: SeenLists, before_ms: int) -> list[tuple[list[list[float]], list[bool]]]:
        return [(said.tolist(), clicked.tolist()) for said, clicked in lists.closed(before_ms)]

    def test_what_was_seen_and_clicked_is_told_once_when_its_time_is_over(self) -> None:
        lists = self.remembered("first")
        seen = [ShownItem(article_id=a) for a in "bcx"]
        lists.read(
            [
                Row("u", encode(event("u", "click", "a"))),
                Row("u", encode(event("u", "impression", shown=seen, list_id="first"))),
                Row("u", encode(event("u", "impression", shown=seen, list_id="unknown"))),
                Row("u", encode(event("u", "click", "b", list_id="first"))),
                Row("other", b"not looked at"),
                Row("u", b"not JSON"),
            ],
            1000,
        )
        lists.read([Row("u", encode(event("u", "impression", shown=[ShownItem(article_id="a")])))], 1500)
        assert self.closed(lists, 999) == []
        assert self.closed(lists, 1000) == [([[0.1, 0.2], [1.0, 2.0]], [False, True])]
        assert self.closed(lists, 9000) == []

    def test_without_a_list_id_it_is_the_newest_list_that_was_seen(self) -> None:
        lists = self.remembered("first", "second")
        lists.read([Row("u", encode(event("u", "impression", shown=[ShownItem(article_id="a")])))], 0)
        lists.read([Row("u", encode(event("u", "click", "a", list_id="first")))], 0)
        lists.read([Row("u", encode(event("u", "click", "a")))], 0)
        assert self.closed(lists, 0) == [([[0.1], [1.0]], [True])]

    def test_what_is_kept_is_bounded_and_who_is_forgotten_says_nothing_more(self) -> None:
        lists = self.remembered(*map(str, range(9)))
        lists.read([Row("u", encode(event("u", "impression", shown=[ShownItem(article_id="a")], list_id="0")))], 0)
        assert self.closed(lists, 0) == []
        lists.read([Row("u", encode(event("u", "forget")))], 0)
        lists.read([Row("u", encode(event("u", "impression", shown=[ShownItem(article_id="a")])))], 0)
        assert self.closed(lists, 0) == []

    def test_nobody_decides_alone(self) -> None:
        lists = self.remembered()
        for number in range(COUNTED_OF_A_USER + 5):
            remember(lists, str(number), self.SAID)
            lists.read([Row("u", encode(event("u", "impression", shown=[ShownItem(article_id="a")])))], 0)
        assert len(self.closed(lists, 0)) == COUNTED_OF_A_USER


@pytest.mark.timeout(300)  # the first waits for torch
class TestTheFolder:
    @pytest.fixture
    def watched(
        self, candidates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[tuple[Path, ClickModels]]:
        """A folder in which a model is, and who watches it."""
        monkeypatch.setattr(click_models, "LOOK_SECONDS", 0.05)
        shutil.copytree(candidates / "older", tmp_path / "1")
        settings = load([f"ranker_shadow={tmp_path}"], environ={})
        models = ClickModels(settings, serving_of(settings))
        yield tmp_path, models
        models.close()

    def until(self, models: ClickModels) -> Changed:
        return await_true(models.changed, "the folder has changed", 30)

    def test_the_newest_is_judged_and_its_verdict_is_written(self, watched: tuple[Path, ClickModels]) -> None:
        folder, models = watched
        found = self.until(models)
        assert found.candidate is not None
        assert (found.serving.model, found.candidate.name) == (None, "1")
        models.conclude(Verdict("1", "promoted", {"auc": (0.5, 0.6)}))
        assert self.until(models).serving == found.candidate
        await_true((folder / SERVING_FILE).exists, "it is written")
        assert (folder / SERVING_FILE).read_text() == "1\n"
        assert json.loads((folder / "1" / VERDICT_FILE).read_bytes()) == {"outcome": "promoted", "auc": [0.5, 0.6]}
        assert serving_of(load([f"ranker_shadow={folder}"], environ={})).name == "1"

    def test_what_another_ranker_decided_counts_here(self, watched: tuple[Path, ClickModels], candidates: Path) -> None:
        folder, models = watched
        assert self.until(models).candidate is not None
        (folder / "1" / VERDICT_FILE).write_text("{}")
        assert self.until(models).candidate is None
        shutil.copytree(candidates / "newer", folder / "2")
        second = self.until(models).candidate
        assert second is not None
        serve(folder, "2")
        found = self.until(models)
        assert (found.serving.name, found.candidate) == ("2", None)
        (folder / SERVING_FILE).unlink()
        assert self.until(models).serving.model is None

    def test_a_folder_that_cannot_be_written_does_not_hold_up_a_promotion(
        self, watched: tuple[Path, ClickModels]
    ) -> None:
        folder, models = watched
        assert self.until(models).candidate is not None
        shutil.rmtree(folder)
        models.conclude(Verdict("1", "promoted", {}))
        assert self.until(models).serving.name == "1"

    def test_a_folder_that_is_away_and_a_serving_that_names_nothing_take_nothing_away(
        self, watched: tuple[Path, ClickModels], candidates: Path
    ) -> None:
        folder, models = watched
        assert self.until(models).candidate is not None
        serve(folder, "1")
        assert self.until(models).serving.name == "1"
        folder.rename(folder.with_name("away"))
        (folder.with_name("away") / SERVING_FILE).write_text("../elsewhere")
        shutil.copytree(candidates / "newer", folder.with_name("away") / "2")
        folder.with_name("away").rename(folder)
        found = self.until(models)
        assert found.candidate is not None
        assert (found.serving.name, found.candidate.name) == ("1", "2")

    def test_the_first_verdict_counts(self, watched: tuple[Path, ClickModels]) -> None:
        folder, models = watched
        assert self.until(models).candidate is not None
        (folder / "1" / VERDICT_FILE).write_text("{}")
        models.conclude(Verdict("1", "promoted", {}))
        assert self.until(models) == Changed(serving_of(load(environ={})), None)
        assert (folder / "1" / VERDICT_FILE).read_text() == "{}"

    def test_what_is_no_folder_of_versions_is_refused(self, candidates: Path, tmp_path: Path) -> None:
        settings = load([f"ranker_shadow={candidates / 'older'}"], environ={})
        assert "is not a folder that holds click models" in refused(stoppress(settings, "run", "ranker"))
        (tmp_path / "file").touch()
        with pytest.raises(ClickModelUnusable, match="is not a folder"):
            serving_of(load([f"ranker_shadow={tmp_path / 'file'}"], environ={}))

    @pytest.mark.parametrize("named", ["../elsewhere", "", "missing"])
    def test_a_serving_that_names_nothing_usable_is_passed_over(self, tmp_path: Path, named: str) -> None:
        (tmp_path / SERVING_FILE).write_text(named)
        assert serving_of(load([f"ranker_shadow={tmp_path}"], environ={})).model is None


class Audience:
    """Users of a real pipeline who look at every list of theirs, and click on old articles rather than on new ones."""

    def __init__(self, pipeline: Pipeline, articles: int) -> None:
        self._pipeline = pipeline
        self._rng = random.Random(3)
        self._looked = 0
        draw = np.random.default_rng(1)
        self._hours = {f"article-{n}": math.expm1(0.2 + 3.6 * n / articles) for n in range(articles)}
        for article_id, hours in self._hours.items():
            vector = draw.standard_normal(pipeline.model.dims).astype(np.float32)
            published_at = now_ms() - round(hours * HOUR)
            record = ArticleRecord(vector / np.linalg.norm(vector), published_at, 0, published_at, ArticleMeta())
            pipeline.send(pipeline.topics.article_vectors, article_id.encode(), encode_article(record))
        self._users = itertools.count()

    def oldest_first(self, shown: List) -> bool:
        hours = [self._hours[item.article_id] for item in shown.items]
        return hours == sorted(hours, reverse=True)

    def come(self, users: int) -> None:
        """Let new users click on something, so that they get lists."""
        self._send(
            [event(f"user-{next(self._users)}", "click", self._rng.choice([*self._hours])) for _ in range(users)]
        )

    def until(self, ranker: Worker, said: str, seconds: float = 120) -> dict[str, Any]:
        """Look at lists as they come until the ranker logs ``said``."""
        deadline = time.monotonic() + seconds
        while not (lines := ranker.lines(said)):
            assert time.monotonic() < deadline, (said, ranker.lines()[-5:])
            self._look()
        return lines[-1]

    def _look(self) -> None:
        records = self._pipeline.records(self._pipeline.topics.recommendations)
        came = records.poll()[self._looked :]
        self._looked += len(came)
        sent = []
        for record in came:
            if record.key is None or record.key.startswith(b"~") or record.value is None:
                continue
            shown = decode(List, record.value)
            user, ids = shown.user_id, [item.article_id for item in shown.items]
            seen = [ShownItem(article_id=a, position=n) for n, a in enumerate(ids)]
            sent.append(event(user, "impression", shown=seen, list_id=shown.list_id))
            slope, constant = OLDER_LIKED
            for article_id in ids:
                odds = slope * math.log1p(self._hours[article_id]) + constant
                if self._rng.random() < 1 / (1 + math.exp(-odds)):
                    sent.append(event(user, "click", article_id, list_id=shown.list_id))
        self._send(sent)

    def _send(self, events: list[Event]) -> None:
        topic = self._pipeline.topics.user_events
        self._pipeline.send_all([(topic, one.user_id.encode(), encode(one), -1) for one in events])


@pytest.mark.timeout(400)
def test_on_live_events_the_better_serves_without_a_restart_and_neither_a_worse_nor_a_broken_one_does(
    broker: LocalBroker, tmp_path: Path, candidates: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    values: dict[str, object] = {
        "list_length": 20,
        "popular_seconds": 0.3,
        "exploration": 0,
        "holdout": 0,
        "related_length": 0,
    }
    values |= {"ranker_shadow": models, "ranker_shadow_minutes": 0.02, "category_lists": 0, "fatigue_limit": 0}
    with pipeline_on(broker, tmp_path, **values) as pipeline:
        audience, began = Audience(pipeline, articles=80), time.monotonic()
        _, ranker = pipeline.start("users", "ranker")
        assert ranker.metric("stoppress_ranker_model_info", model="by hand") == 1

        put(candidates / "older", models / "1")
        audience.until(ranker, "click_model_in_the_shadow")
        audience.come(250)
        promoted = audience.until(ranker, "click_model_promoted")
        assert promoted["ordered"] >= LEAST
        pipeline.until_list(POPULAR, audience.oldest_first, "the candidate serves")
        assert ranker.metric("stoppress_ranker_model_info", model="1") == 1
        assert ranker.metric("stoppress_shadow_candidates_total", outcome="promoted") == 1
        assert ranker.metric("stoppress_shadow_scored_lists_total") >= LEAST
        assert ranker.metric("stoppress_shadow_auc", kind="candidate") > ranker.metric(
            "stoppress_shadow_auc", kind="serving"
        )

        broken = shutil.copytree(candidates / "older", tmp_path / "broken")
        (broken / GRAPH_FILE).write_bytes(b"no graph")
        put(broken, models / "2")
        assert audience.until(ranker, "click_model_unusable")["model"] == "2"
        put(candidates / "newer", models / "3")
        audience.come(250)
        assert audience.until(ranker, "click_model_refused")["model"] == "3"
        await_true((models / "3" / VERDICT_FILE).exists, "the verdict is written")
        assert json.loads((models / "3" / VERDICT_FILE).read_bytes())["outcome"] == "refused"
        assert ranker.metric("stoppress_shadow_candidates_total", outcome="unusable") == 1
        assert ranker.metric("stoppress_ranker_model_info", model="1") == 1
        taken = ranker.metric("stoppress_shadow_seconds_total")
        assert 0 < taken < 1 + 0.2 * (time.monotonic() - began), (
            "a second saved up and a twentieth of what passed, and some"
        )

        assert ranker.stop() == 0
        ranker.start()
        assert ranker.metric("stoppress_ranker_model_info", model="1") == 1, "it serves after a restart too"
        (models / SERVING_FILE).unlink()
        assert ranker.await_log("click_model_serves")["model"] == "by hand"
        lists = pipeline.records(pipeline.topics.recommendations).to_the_end()
        last = max(r.offset for r in lists if r.key == POPULAR.encode())
        pipeline.until_list(POPULAR, lambda x: not audience.oldest_first(x), "by hand again", after=last - 1)


def put(model: Path, version: Path) -> None:
    """As a training does: whole or not at all."""
    shutil.copytree(model, version.with_name(f".{version.name}"))
    version.with_name(f".{version.name}").rename(version)
