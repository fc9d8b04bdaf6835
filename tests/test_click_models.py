"""The ranker's click model: what it goes by, what it learns, and that it is served as it was trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from consumers.ranker_formula import formula_of
from contract.errors import ClickModelUnusable, SetupError
from contract.messages import POPULAR
from contract.records import Windows
from contract.settings import load
from encoders.manifest import MANIFEST_FILE
from encoders.onnx_clicks import GRAPH_FILE, OnnxClicks
from evaluation.articles import Articles
from evaluation.left_out import LeftOut
from evaluation.next_click import Clicks, Protocol, next_clicks
from evaluation.recording import recorded
from export.clicks.run import LEAST_REQUESTS, auc, doubts, judged, train_clicks
from export.clicks.training import train
from ranking.catalogue import BOOSTED, Catalogue
from ranking.features import PARTS, Weights, score_parts
from ranking.listwise import Learner, Shown, calibrated, hand_formula, loss_of, sampled
from ranking.listwise import Weights as Model
from ranking.ranking import Formula, rank
from ranking.readers import Past, Readers
from ranking.reranker import FEATURES, VERSION, as_by_hand, model_scores, pair_features
from ranking.rules import Rules
from streams.local_broker import LocalBroker
from tests.click_logs import PLANTED, START, a_log, oldest_first
from tests.command import refused, stoppress
from tests.pipeline import now_ms, pipeline_on
from tests.ranking_world import HOUR, NOW, a_catalogue, a_reader, catalogues, recents, some_readers
from tests.test_pipeline import ids
from tests.torch_environment import written_with_torch


class Clicked(NamedTuple):
    user_id: str
    session_id: str
    article_id: str
    at: int
    context: Mapping[str, str] = {}


UP, ACROSS = (1, 0, 0, 0), (0, 1, 0, 0)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_with_torch("tiny_click_models.py", tmp_path_factory.mktemp("clicks"))


def features_of(readers: Readers, catalogue: Catalogue, **more: np.ndarray) -> np.ndarray:
    """Of all articles, [u, n, features]."""
    places = np.broadcast_to(np.arange(len(catalogue.hashes)), (len(readers), len(catalogue.hashes)))
    parts = score_parts(readers, catalogue, places, Weights(), NOW)
    return pair_features(readers, catalogue, places, parts, NOW, **more)


def column(features: np.ndarray, name: str) -> list[float]:
    return [round(float(x), 4) for x in features[0, :, FEATURES.index(name)]]


class TestFeatures:
    def test_what_is_clicked_now_and_what_is_read_next_are_told(self) -> None:
        catalogue = a_catalogue([UP] * 3, ages=[HOUR, 0, 3 * HOUR], co_reads={1: {2: 6.0, 3: 2.0}})
        counts = np.zeros((3, 2, 3))
        counts[2, 1] = 1, 4, 0
        found = features_of(a_reader(UP, recents=recents(1)), catalogue.with_popularity(
            catalogue.popularity, catalogue.appeal, counts, 0.04
        ))  # fmt: skip
        assert column(found, "clicks_15min_among") == [0.25, 1, 0]
        assert column(found, "clicks_1h_among") == [0, 0, 0]
        assert column(found, "next_last") == [0, 0.6, 0.2]
        assert column(found, "next_any_among") == pytest.approx([0, 1, 0.3333])
        assert column(found, "followers") == pytest.approx([np.log(9)] * 3, abs=1e-3)
        assert column(found, "age") == pytest.approx(np.log([2, 1, 4]), abs=1e-3)
        assert column(found, "candidates") == pytest.approx([np.log(4)] * 3, abs=1e-3)

    def test_the_position_is_told_when_learning_and_the_first_when_serving(self) -> None:
        reader, catalogue = a_reader(UP), a_catalogue([UP, ACROSS])
        assert column(features_of(reader, catalogue), "position") == [0, 0]
        told = features_of(reader, catalogue, positions=np.array([[3, -1]]))
        assert column(told, "position") == pytest.approx([np.log(4), 0], abs=1e-3)

    def test_the_device_told_last_is_a_feature_of_each_article_but_of_nobody_held_out(self) -> None:
        catalogue = a_catalogue([UP, ACROSS])
        past = Past.of(Windows(device="tablet"))
        for personal, on_tablet in ((True, 1), (False, 0)):
            found = features_of(a_reader(UP, device=past.device, personal=personal), catalogue)
            assert column(found, "on_tablet") == [on_tablet, on_tablet]
            assert column(found, "on_mobile") == column(found, "on_desktop") == [0, 0]

    @settings(max_examples=60, deadline=None)
    @given(catalogues(), some_readers())
    def test_all_are_numbers_and_the_hand_made_formula_is_their_sum(
        self, catalogue: Catalogue, readers: Readers
    ) -> None:
        found = features_of(readers, catalogue)
        places = np.broadcast_to(np.arange(len(catalogue.hashes)), (len(readers), len(catalogue.hashes)))
        parts = score_parts(readers, catalogue, places, Weights(), NOW)
        assert np.isfinite(found).all()
        by_hand = parts.sum(axis=0) - parts[PARTS.index("editor")]
        np.testing.assert_allclose(found @ hand_formula(), by_hand, atol=1e-4)


class TestLearning:
    def test_it_begins_at_the_hand_made_formula(self) -> None:
        some = a_log(50).shown
        model = Model.by_hand(some)
        for shown in some[:5]:
            ours, hand = model.scores(shown.features), shown.features @ hand_formula()
            np.testing.assert_allclose(ours - ours.mean(), hand - hand.mean(), atol=1e-2)

    def test_each_step_goes_down_the_slope_of_the_loss(self) -> None:
        """The first step of Adam is the sign of the gradient: held against differences of the loss."""
        some, rate = a_log(8).shown, 1e-4
        begun = replace(Model.by_hand(some), outer=np.linspace(-1, 1, 32).astype(np.float32))
        learner = Learner(begun, learning_rate=rate, drawn_back=0.0)
        assert learner.step(some) == pytest.approx(loss_of(begun, some), rel=1e-4)
        for name, place in (("linear", (PLANTED,)), ("inner", (PLANTED, 3)), ("bias", (7,)), ("outer", (2,))):
            losses = []
            for by in (-1e-2, 1e-2):
                moved = getattr(begun, name).copy()
                moved[place] += by
                losses.append(loss_of(replace(begun, **{name: moved}), some))
            step = getattr(learner.weights, name)[place] - getattr(begun, name)[place]
            assert np.sign(step) == -np.sign(losses[1] - losses[0]), name

    def test_a_planted_signal_is_found_and_a_shuffled_one_is_not(self) -> None:
        later = a_log(100, seed=9).shown
        found = train(a_log(300).shown, a_log(100, seed=1).shown, seed=0, epochs=10, learning_rate=5e-3).weights
        assert np.mean([auc(found.scores(s.features), s.clicked) for s in later]) > 0.8
        nothing = train(
            a_log(300, shuffled=True).shown, a_log(100, seed=1, shuffled=True).shown,
            seed=0, epochs=10, learning_rate=5e-3,
        ).weights  # fmt: skip
        assert 0.4 < np.mean([auc(nothing.scores(s.features), s.clicked) for s in later]) < 0.65

    def test_the_same_seed_gives_the_same_numbers_and_another_one_others(self) -> None:
        log = a_log(100).shown
        models = [train(log, log, seed=seed, epochs=2, learning_rate=5e-3).weights for seed in (0, 0, 1)]
        first, again, other = (model.log_odds(log[0].features) for model in models)
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_a_model_no_better_than_the_formula_says_why_it_should_not_serve(self) -> None:
        log = a_log(300, shuffled=True).shown
        model = train(log[:200], log[:200], seed=0, epochs=2, learning_rate=5e-3).weights
        metrics, difference = judged(model, log[200:], 0)
        assert 0.35 < metrics["model"]["auc"] < 0.65
        assert "on the last 100 requests" in doubts(difference, 100)
        assert doubts((0.1, 0.05, 0.15), 100) == ""

    def test_its_probabilities_are_how_often_is_clicked(self) -> None:
        some = a_log(300).shown
        found = train(some, some, seed=0, epochs=5, learning_rate=5e-3).weights
        said = np.concatenate([1 / (1 + np.exp(-found.log_odds(s.features))) for s in some])
        clicked = np.concatenate([s.clicked for s in some])
        for low, high in ((0.0, 0.05), (0.05, 0.2), (0.2, 0.6)):
            those = (said >= low) & (said < high)
            assert said[those].mean() == pytest.approx(clicked[those].mean(), abs=0.05)

    def test_a_large_request_keeps_its_clicks_and_counts_as_many_as_it_had(self) -> None:
        features = np.random.default_rng(0).standard_normal((3000, len(FEATURES))).astype(np.float32)
        clicked = np.zeros(3000, np.bool_)
        clicked[[5, 2999]] = True
        kept = sampled(features, clicked, np.random.default_rng(1))
        assert kept.clicked.sum() == 2
        assert len(kept.features) <= 202
        assert np.exp(kept.offset).sum() == pytest.approx(3000, rel=1e-4)

    def test_what_is_no_number_is_refused_and_a_loss_that_diverges_says_what_to_do(self) -> None:
        good = a_log(64).shown
        bad = [Shown(np.full_like(s.features, np.nan), s.clicked, s.offset) for s in good]
        with pytest.raises(SetupError, match="features that are no numbers"):
            train(good + bad, good, seed=0, epochs=3, learning_rate=1e-3)
        with pytest.raises(SetupError, match="lower --learning-rate"):
            train(good, good, seed=0, epochs=3, learning_rate=1e38)

    def test_a_log_too_short_is_refused_with_what_is_needed(self, tmp_path: Path) -> None:
        with pytest.raises(SetupError, match=rf"has 20 requests .* {LEAST_REQUESTS} are needed"):
            train_clicks(a_log(20), tmp_path / "out", digest="")
        assert not (tmp_path / "out").exists()

    def test_a_folder_of_something_else_is_not_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "letter.txt").write_text("dear")
        with pytest.raises(SetupError, match="is not a click model"):
            train_clicks(a_log(20), tmp_path, digest="")


@pytest.mark.timeout(900)  # the first waits for torch
class TestTheFolder:
    def test_the_graph_gives_what_was_trained(self, written: Path) -> None:
        model = OnnxClicks.load(written / "oldest", FEATURES, VERSION)
        some = np.concatenate([s.features for s in a_log(20).shown])
        np.testing.assert_allclose(model.log_odds(some), oldest_first().log_odds(some), atol=1e-4)
        assert model.about.parity is not None
        assert model.about.parity.worst_difference < 1e-3

    def test_the_planted_signal_is_in_it_and_the_run_says_how_it_came_about(self, written: Path) -> None:
        model = OnnxClicks.load(written / "planted", FEATURES, VERSION)
        later = a_log(100, seed=9).shown
        assert np.mean([auc(model.log_odds(s.features), s.clicked) for s in later]) > 0.8
        assert model.about.experimental == ""
        run = json.loads((written / "planted" / "run.json").read_bytes())
        assert run["data"]["requests"] == 400
        assert run["better_than_by_hand"][1] > 0.2
        assert len(run["loss"]) > run["best_epoch"] > 0

    @pytest.mark.parametrize("name", ["features", "version", "graph", "manifest", "nothing"])
    def test_what_is_not_for_this_ranker_is_refused(self, written: Path, tmp_path: Path, name: str) -> None:
        folder = shutil.copytree(written / "oldest", tmp_path / "copy")
        about = json.loads((folder / MANIFEST_FILE).read_bytes())
        if name == "features":
            about["features"][3] = "weather"
            match = "other features than this ranker has .*weather"
        elif name == "version":
            about["features_version"] = VERSION + 1
            match = f"version {VERSION + 1} of the features, here it is {VERSION}"
        elif name == "graph":
            (folder / GRAPH_FILE).write_bytes(b"another")
            match = "is not the file that its manifest describes"
        elif name == "manifest":
            del about["files"]
            match = "is not the manifest of a click model"
        else:
            folder = tmp_path / "nowhere"
            match = "no click model at"
        if folder.exists():
            (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(about))
        with pytest.raises(ClickModelUnusable, match=match):
            formula_of(load([f"ranker_model={folder}"], environ={}))


class TestServing:
    RULES = Rules(length=3, minimum=0, diversity=0.0, exploration=0.0, duplicate_cosine=1.01)

    def test_the_models_scores_make_the_list_and_the_parts_stay(self) -> None:
        catalogue = a_catalogue([UP, ACROSS, UP], ages=[0, 5 * HOUR, 30 * HOUR])
        reader = a_reader(UP)
        by_hand = rank(reader, catalogue, Formula(rules=self.RULES), NOW)
        modelled = rank(reader, catalogue, Formula(rules=self.RULES, model=oldest_first()), NOW)
        assert by_hand.places.tolist() == [[0, 2, 1]]
        assert modelled.places.tolist() == [[2, 1, 0]]
        np.testing.assert_allclose(modelled.parts[0, ::-1], by_hand.parts[0, [0, 2, 1]], atol=1e-6)
        expected = oldest_first().log_odds(features_of(reader, catalogue)[0]) - np.log(0.04 / 0.96)
        np.testing.assert_allclose(modelled.scores[0], expected[[2, 1, 0]], rtol=1e-4)

    def test_an_editors_boost_is_added_to_what_the_model_says(self) -> None:
        catalogue = a_catalogue([UP, UP], placement=[BOOSTED, 0])
        parts = score_parts(a_reader(UP), catalogue, np.array([[0, 1]]), Weights(boost=2.0), NOW)
        scores = model_scores(oldest_first(), a_reader(UP), catalogue, np.array([[0, 1]]), parts, NOW)
        assert scores[0, 0] - scores[0, 1] == pytest.approx(2.0)

    def test_a_publication_is_held_against_the_hand_made_score_of_the_last_place(self) -> None:
        scores = np.array([[3.0, 2.0, 1.0, -np.inf]], np.float32)
        by_hand = np.array([[6.0, 4.0, 2.0, -np.inf]], np.float32)
        found = as_by_hand(scores, by_hand, np.array([[2.5, -np.inf]], np.float32))
        assert found.tolist() == [[5.0, -np.inf]]

    @settings(max_examples=40, deadline=None)
    @given(catalogues(), some_readers())
    def test_any_readers_and_articles_give_a_list(self, catalogue: Catalogue, readers: Readers) -> None:
        ranked = rank(readers, catalogue, Formula(rules=self.RULES, model=oldest_first()), NOW)
        assert len(ranked.places) == len(readers)
        assert np.isfinite(ranked.scores[ranked.places >= 0]).all()


def test_calibration_moves_no_order() -> None:
    some = a_log(60).shown
    model = Model.by_hand(some)
    for shown in some[:5]:
        np.testing.assert_array_equal(
            np.argsort(model.scores(shown.features)), np.argsort(calibrated(model, some).log_odds(shown.features))
        )


class TestTheWorker:
    def test_its_lists_are_in_the_models_order(self, broker: LocalBroker, tmp_path: Path, written: Path) -> None:
        values = {"list_length": 3, "popular_seconds": 0.2, "ranker_model": str(written / "oldest")}
        with pipeline_on(broker, tmp_path, **values) as pipeline:
            pipeline.start("articles", "users", "ranker")
            for hours, title in ((1, "Rowers win the race"), (30, "Bread rises"), (5, "Storm over the coast")):
                pipeline.article(f"{hours} h", title, published_at=now_ms() - hours * HOUR)
            pipeline.until_list(POPULAR, lambda x: ids(x) == ["30 h", "5 h", "1 h"], "the oldest first")

    def test_a_model_that_is_none_ends_the_start_with_one_line(self, tmp_path: Path) -> None:
        line = refused(stoppress(load([f"ranker_model={tmp_path}"], environ={}), "run", "ranker"))
        assert line.startswith(f"no click model at {tmp_path}: run `stoppress train ranker`")

    def test_training_without_saying_from_what_is_refused(self, tmp_path: Path) -> None:
        line = refused(stoppress(load(environ={}), "train", "ranker", str(tmp_path / "out")))
        assert line.startswith("give a data set, its --format and the folder to write, or --from-topics")


def test_a_data_set_is_replayed_into_requests(tmp_path: Path) -> None:
    """Each with what was known then and nothing later, in the order of time."""
    articles = Articles()
    for number in range(8):
        articles.index(f"a{number}")
    clicks = Clicks(
        [Clicked(f"u{n // 4}", f"s{n // 4}", f"a{(n * (1 + n // 4 % 3)) % 8}", START + n * 60_000) for n in range(200)],
        articles, LeftOut(lambda text: None),
    )  # fmt: skip
    moments = next_clicks(clicks, articles, LeftOut(lambda text: None), np.random.default_rng(0), Protocol(1, 0.0))
    log = recorded(moments, articles, load(environ={}), 0)
    assert len(log.shown) > 50
    assert (np.diff(log.at) >= 0).all()
    for request in log.shown:
        assert request.features.shape == (len(request.clicked), len(FEATURES))
        assert request.clicked.sum() == 1
    assert any(request.features[:, FEATURES.index("next_last")].any() for request in log.shown)
