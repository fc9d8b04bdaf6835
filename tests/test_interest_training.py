"""Training of interest models: what is learned, what is not, what is recorded, and what is refused."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from contract.errors import SetupError
from contract.settings import load
from encoders.onnx_interest import OnnxInterest
from export.interest.co_reads import aligned, co_read_vectors
from export.interest.log import log_of_impressions
from export.interest.run import train_interest
from export.tracking import Tracking
from tests.torch_environment import written_with_torch

TRAINED = ("gru", "transformer", "vae", "gan")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models trained on synthetic reads, with a signal and without: tests/tiny_interest_models.py."""
    return written_with_torch("tiny_interest_models.py", tmp_path_factory.mktemp("training"), "training")


def run_of(folder: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return run


@pytest.mark.timeout(900)
class TestTrained:
    @pytest.mark.parametrize("name", TRAINED)
    def test_it_finds_a_signal_that_only_order_tells(self, trained: Path, name: str) -> None:
        metrics = run_of(trained / "signal" / name)["metrics"]
        assert metrics["decay query"]["auc"] < 0.5
        ways = [way for way in metrics if way.startswith(name) and not way.endswith("popular")]
        assert len(ways) == (2 if name in ("transformer", "gan") else 1)
        for way in ways:
            assert metrics[way]["auc"] > 0.8
            assert metrics[way]["better_than_decay"][1] > 0.3
        assert OnnxInterest.load(trained / "signal" / name).about.experimental == ""

    @pytest.mark.parametrize("name", TRAINED)
    def test_it_finds_none_where_there_is_none(self, trained: Path, name: str) -> None:
        found = json.loads((trained / "results.json").read_text())["noise"][name]
        assert len(found) == (2 if name in ("transformer", "gan") else 1)
        assert all(abs(auc - 0.5) < 0.04 for auc in found.values()), found

    def test_what_is_no_better_than_decay_says_so(self, trained: Path) -> None:
        doubts = OnnxInterest.load(trained / "noise" / "gru").about.experimental
        assert re.match(r"with popularity, its auc on the last \d+ requests is [+-]0\.\d+ against decay's", doubts)

    @pytest.mark.parametrize("name", TRAINED)
    def test_the_graphs_give_torchs_numbers(self, trained: Path, name: str) -> None:
        parity = OnnxInterest.load(trained / "signal" / name).about.parity
        assert parity is not None
        assert parity.events >= 400
        assert parity.worst_difference < 1e-4

    def test_the_run_is_recorded(self, trained: Path) -> None:
        run = run_of(trained / "signal" / "gru")
        assert run["parameters"] == {"seed": 0, "epochs": 12, "plain": False, "learning_rate": 0.01}
        assert len(run["data"]["sha256"]) == 64
        assert run["data"]["sha256"] != run_of(trained / "noise" / "gru")["data"]["sha256"]
        assert [epoch["epoch"] for epoch in run["loss"]] == list(range(13))
        assert run["loss"][-1]["held_back"] < run["loss"][0]["held_back"]

        plot = ElementTree.parse(trained / "signal" / "gru" / "loss.svg").getroot()
        lines = [line.attrib["points"].split() for line in plot.iter("{http://www.w3.org/2000/svg}polyline")]
        assert [len(line) for line in lines] == [12, 13], "trained, and held back from before the first epoch on"

    def test_mlflow_has_the_run_too(self, trained: Path) -> None:
        tracked = json.loads((trained / "results.json").read_text())["tracked"]
        run = run_of(trained / "tracked" / "gru")
        assert (tracked["status"], tracked["name"]) == ("FINISHED", "gru")
        assert tracked["params"]["seed"] == "0"
        assert tracked["params"]["data.sha256"] == run["data"]["sha256"]
        assert tracked["losses"] == [epoch["held_back"] for epoch in run["loss"]]
        measured = run["metrics"]["gru query + popular"]
        assert tracked["metrics"]["gru query and popular/auc"] == measured["auc"]
        assert tracked["metrics"]["gru query and popular/better_than_decay.low"] == measured["better_than_decay"][1]
        assert tracked["files"] == sorted(path.name for path in (trained / "tracked" / "gru").iterdir())
        assert {"step.onnx", "run.json", "loss.svg"} <= set(tracked["files"])

    def test_a_tracking_uri_that_cannot_be_used_is_refused_before_the_training(self, trained: Path) -> None:
        ((exit_code, why),) = json.loads((trained / "results.json").read_text())["tracked"]["refusals"]
        assert exit_code == 2
        assert why.startswith("trainings cannot be recorded at nowhere://at-all: ")

    def test_articles_without_texts_get_vectors_from_who_reads_them(self, trained: Path) -> None:
        """Of six topics only the articles of the reader's own are near: chance would be one in six."""
        run = run_of(trained / "sessions" / "gan")
        assert run["data"]["task"] == "next click"
        assert run["data"]["requests_judged"] > 100
        assert run["metrics"]["decay query"]["hr@10"] > 0.9
        assert run["metrics"]["gan query"]["hr@10"] > 0.9

    def test_the_same_seed_gives_the_same_numbers(self, trained: Path) -> None:
        assert json.loads((trained / "results.json").read_text())["same seed"]

    def test_killed_and_started_again_it_ends_as_if_it_had_not_been(self, trained: Path) -> None:
        killed = json.loads((trained / "results.json").read_text())["killed"]
        assert killed["exit code"] == -signal.SIGKILL
        assert killed["left"] == [".resumed.checkpoint", "whole"]
        assert killed["epochs after it"] == 2, "the first of three was done, the second was not saved"
        assert killed["at the end"] == ["resumed", "whole"]
        whole, resumed = (run_of(trained / "killed" / name) for name in ("whole", "resumed"))
        assert resumed == whole
        assert len(whole["loss"]) == 4
        files = [OnnxInterest.load(trained / "killed" / name).about.files for name in ("whole", "resumed")]
        assert files[0] == files[1]

    def test_each_read_is_foretold_once_from_what_was_before(self, trained: Path) -> None:
        found = json.loads((trained / "results.json").read_text())["windows"]
        assert found == {"each once": True, "in its time": True, "in order": True, "with what was before": True}

    def test_a_loss_that_diverges_ends_with_what_was_best(self, trained: Path) -> None:
        diverged = json.loads((trained / "results.json").read_text())["diverged"]
        assert diverged == {"stopped": "the loss diverged in epoch 1; epoch 0 is kept", "kept": 0, "as_it_was": True}

    @pytest.mark.parametrize(
        ("what", "message"),
        [
            ("too short", r"too short to train on: \d+ reads .* 200 and 20 are needed: give more days or users"),
            ("empty", "too short to train on: 0 reads"),
            ("letters", "exists and is not an interest model"),
            ("plain gru", "without its unit is the mean of what was read"),
        ],
    )
    def test_what_cannot_be_trained_is_refused(self, trained: Path, what: str, message: str) -> None:
        refusal = json.loads((trained / "results.json").read_text())[what]
        assert refusal["exit_code"] == 2
        assert re.search(message, refusal["error"])
        assert sorted(path.name for path in trained.iterdir()) == [
            "killed", "letters", "noise", "results.json", "sessions", "signal", "tracked",
        ]  # fmt: skip

    def test_without_mlflow_it_says_what_to_install(self) -> None:
        with pytest.raises(SetupError, match=r"recorded at file:runs, but mlflow is not installed here: install"):
            Tracking.of(load(["tracking_uri=file:runs"], environ={}))

    def test_without_torch_it_says_where_torch_is(self, tmp_path: Path) -> None:
        log = log_of_impressions([], {"a": np.ones(3, np.float32)}, seed=0)
        with pytest.raises(SetupError, match=r"not installed here: torch.* \.venv-export/bin/stoppress"):
            train_interest("gru", log, tmp_path / "out")


class TestCoReads:
    def test_who_is_read_together_is_near(self) -> None:
        pairs = {(a, b): 1.0 for block in (0, 4) for a in range(block, block + 4) for b in range(a + 1, block + 4)}
        vectors = co_read_vectors(pairs | {(0, 4): 0.1}, 9, 2)
        near = vectors @ vectors.T
        assert near[:4, :4].min() > 0.9
        assert near[:4, 4:8].max() < near[:4, :4].min() - 0.5
        assert not vectors[8].any()

    @pytest.mark.parametrize("pairs", [{}, {(0, 1): 1.0}])
    def test_few_pairs_give_few_vectors(self, pairs: dict[tuple[int, int], float]) -> None:
        assert np.isfinite(co_read_vectors(pairs, 3, 8)).all()

    def test_what_is_learned_anew_stands_as_before(self) -> None:
        draw = np.random.default_rng(1)
        former = draw.standard_normal((30, 5)).astype(np.float32)
        turned = former @ np.linalg.qr(draw.standard_normal((5, 5)))[0].astype(np.float32)
        np.testing.assert_allclose(aligned(turned, former), former, atol=1e-4)
