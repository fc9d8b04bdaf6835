"""``stoppress train encoder``: what is learned from clicks, and what is kept of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.settings import load
from encoders.manifest import read_manifest
from encoders.text import TextEncoder
from tests.command import refused, stoppress
from tests.torch_environment import written_with_torch


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder tuned on clicks that follow titles, and on clicks that follow nothing."""
    return written_with_torch("tiny_tuned_encoders.py", tmp_path_factory.mktemp("tuned"))


def results(tuned: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tuned / "results.json").read_text())
    return found


@pytest.mark.timeout(900)
class TestTuned:
    def test_it_learns_which_words_belong_together_and_is_kept(self, tuned: Path) -> None:
        assert results(tuned)["signal"]["error"] == ""
        run = json.loads((tuned / "signal" / "run.json").read_text())
        for row in ("decay", "mean"):
            measured = run["metrics"][row]
            assert measured["tuned"]["auc"] > measured["untuned"]["auc"] + 0.1
            assert 0 < measured["better"][1] < measured["better"][0] < measured["better"][2]
        assert run["best_epoch"] > 0
        assert run["parameters"]["seed"] == 0
        assert re.fullmatch(r"[0-9a-f]{64}", run["data"]["sha256"])
        assert (tuned / "signal" / "loss.svg").read_text().count("<polyline") == 2

    def test_what_was_learned_is_in_the_exported_graph(self, tuned: Path) -> None:
        manifest = read_manifest(tuned / "signal")
        assert (manifest.dims, manifest.experimental) == (8, "")
        assert manifest.parity is not None
        assert manifest.parity.worst_cosine > 0.9999
        vectors = TextEncoder.load(tuned / "signal", "cpu", threads=1).encode(
            ["a1 a2 a3 11", "a11 a12 a13 12", "b1 b2 b3 13", "b11 b12 b13 14"]
        )
        near = vectors @ vectors.T
        assert min(near[0, 1], near[2, 3]) > max(near[0, 2], near[0, 3], near[1, 2], near[1, 3]) + 0.1

    def test_where_there_is_nothing_to_learn_nothing_is_written(self, tuned: Path) -> None:
        noise = results(tuned)["noise"]
        assert noise["exit_code"] == 1
        assert re.search(
            r"not better beyond chance: the AUC of decay differs by [+-]0\.\d+, 95 % interval .*nothing was written",
            noise["error"],
        )
        assert sorted(path.name for path in tuned.iterdir()) == ["kept", "results.json", "signal", "source"]

    def test_it_can_be_kept_all_the_same_and_says_what_it_is(self, tuned: Path) -> None:
        manifest = read_manifest(tuned / "kept")
        assert "not better beyond chance" in manifest.experimental
        assert np.isfinite(TextEncoder.load(tuned / "kept", "cpu", threads=1).encode(["a1 b1"])).all()

    def test_a_log_too_short_is_refused(self, tuned: Path) -> None:
        short = results(tuned)["short"]
        assert short["exit_code"] == 2
        assert "too short to train on" in short["error"]


def test_a_data_set_without_texts_is_refused(tmp_path: Path) -> None:
    run = stoppress(load(environ={}), "train", "encoder", str(tmp_path), str(tmp_path / "out"), "--format", "globo")
    assert "'globo' has no texts" in refused(run)
