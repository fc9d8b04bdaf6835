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


def apart(encoder: Path, titles: list[str]) -> float:
    """How much nearer titles of the first group are to the second, where their readers click, than to the fourth."""
    vectors = TextEncoder.load(encoder, "cpu", threads=1).encode(titles)
    first, second, fourth = (vectors[group::4] for group in (0, 1, 3))
    return float((first @ second.T).mean() - (first @ fourth.T).mean())


@pytest.mark.timeout(900)
class TestTuned:
    def test_it_learns_which_words_belong_together_and_is_kept(self, tuned: Path) -> None:
        assert results(tuned)["signal"]["error"] == ""
        run = json.loads((tuned / "signal" / "run.json").read_text())
        for row in ("decay", "mean"):
            measured = run["metrics"][row]
            assert 0 < measured["better"][1] < measured["better"][0] < measured["better"][2]
            assert measured["tuned"]["auc"] > measured["untuned"]["auc"] + 0.02
        assert run["best_epoch"] > 0
        assert run["parameters"]["seed"] == 0
        assert re.fullmatch(r"[0-9a-f]{64}", run["data"]["sha256"])
        assert (tuned / "signal" / "loss.svg").read_text().count("<polyline") == 2

    def test_what_was_learned_is_in_the_exported_graph(self, tuned: Path) -> None:
        manifest = read_manifest(tuned / "signal")
        assert (manifest.dims, manifest.experimental) == (8, "")
        assert manifest.parity is not None
        assert manifest.parity.worst_cosine > 0.9999
        titles = results(tuned)["titles"]
        assert apart(tuned / "signal", titles) > apart(tuned / "plain", titles) + 0.02

    def test_where_there_is_nothing_to_learn_nothing_is_written(self, tuned: Path) -> None:
        noise = results(tuned)["noise"]
        assert noise["exit_code"] == 1
        assert re.search(
            r"not better beyond chance: the AUC of decay differs by [+-]0\.\d+, 95 % interval .*nothing was written",
            noise["error"],
        )
        assert sorted(path.name for path in tuned.iterdir()) == ["kept", "plain", "results.json", "signal", "source"]

    def test_it_can_be_kept_all_the_same_and_says_what_it_is(self, tuned: Path) -> None:
        manifest = read_manifest(tuned / "kept")
        assert "not better beyond chance" in manifest.experimental
        assert np.isfinite(TextEncoder.load(tuned / "kept", "cpu", threads=1).encode(["fog sun"])).all()

    def test_a_log_too_short_is_refused(self, tuned: Path) -> None:
        short = results(tuned)["short"]
        assert short["exit_code"] == 2
        assert "too short to train on" in short["error"]


def test_a_data_set_without_texts_is_refused(tmp_path: Path) -> None:
    run = stoppress(load(environ={}), "train", "encoder", str(tmp_path), str(tmp_path / "out"), "--format", "globo")
    assert "'globo' has no texts" in refused(run)
