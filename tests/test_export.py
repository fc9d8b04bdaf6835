"""The export: what it refuses before torch is needed, the projection's numbers, and one real export where torch is."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from contract.errors import SetupError
from encoders.manifest import read_manifest
from encoders.text import TextEncoder
from export.encoder import export_encoder
from export.models import PACKAGED, Packaged
from export.parity import LEAST_COSINE, ParityFailed, compare, parity_texts
from export.projection import learn_projection, project

ROOT = Path(__file__).parents[1]
TORCH_PYTHON = ROOT / ".venv-export" / "bin" / "python"


class TestRefusals:
    def test_a_model_that_is_not_packaged(self, tmp_path: Path) -> None:
        with pytest.raises(SetupError, match=r"no model 'maxilm': the models that can be exported are minilm"):
            export_encoder("maxilm", tmp_path / "out")

    def test_weights_that_are_not_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(PACKAGED, "other", Packaged("no_such_package", "no-such-package", "model"))
        with pytest.raises(SetupError, match=r"not installed: run `make encoder`"):
            export_encoder("other", tmp_path / "out")

    def test_a_corpus_too_small(self, tmp_path: Path) -> None:
        corpus = ["the same text"] * 600 + [f"article {i}" for i in range(400)] + [" "] * 200
        with pytest.raises(SetupError, match="at least 500 different articles, the corpus has 401"):
            export_encoder("minilm", tmp_path / "out", dims=96, corpus=corpus)
        with pytest.raises(SetupError, match="the corpus has 0"):
            export_encoder("minilm", tmp_path / "out", dims=96)

    def test_a_corpus_without_dims(self, tmp_path: Path) -> None:
        with pytest.raises(SetupError, match="give --dims too"):
            export_encoder("minilm", tmp_path / "out", corpus=["a"])

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "letters").write_text("dear")
        for out in (tmp_path, tmp_path / "letters"):
            with pytest.raises(SetupError, match="exists and is not an encoder"):
                export_encoder("minilm", out)
        assert (tmp_path / "letters").read_text() == "dear"


class TestProjection:
    vectors = np.random.default_rng(5).normal(0.3, np.geomspace(1, 0.01, 24), (600, 24)).astype(np.float32)

    def test_axes_are_orthonormal_widest_first_and_keep_their_sign(self) -> None:
        learned = learn_projection(self.vectors, 8)
        np.testing.assert_allclose(learned.components @ learned.components.T, np.eye(8), atol=1e-6)
        spread = ((self.vectors - learned.mean) @ learned.components.T).var(axis=0)
        assert (np.diff(spread) < 0).all()
        assert learned.variance_kept == pytest.approx(spread.sum() / self.vectors.var(axis=0).sum(), rel=1e-4)
        assert learned.summary.learned_from == 600
        shuffled = learn_projection(self.vectors[::-1], 8)
        np.testing.assert_allclose(learned.components, shuffled.components, atol=1e-5)

    def test_all_dimensions_keep_every_cosine_of_the_centred_vectors(self) -> None:
        learned = learn_projection(self.vectors, 24)
        centred = self.vectors - learned.mean
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        projected = project(self.vectors, learned.rows)
        np.testing.assert_allclose(projected @ projected.T, centred @ centred.T, atol=1e-5)
        assert learned.variance_kept == pytest.approx(1)

    def test_the_mean_itself_gives_numbers(self) -> None:
        learned = learn_projection(self.vectors, 8)
        assert np.isfinite(project(learned.mean[None], learned.rows)).all()


class TestParity:
    def test_texts_are_many_and_always_the_same(self) -> None:
        texts = parity_texts()
        assert len(texts) >= 200
        assert texts == parity_texts()
        assert max(len(text.split()) for text in texts) >= 500
        for sample in ("", "😀", "新", "الحكومة", "\0"):
            assert any(sample in text for text in texts)

    def test_equal_vectors_pass(self) -> None:
        vectors = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
        assert compare(vectors, vectors * 2, LEAST_COSINE).worst_cosine == pytest.approx(1)

    @pytest.mark.parametrize("wrong", [0.5, float("nan")])
    def test_one_wrong_vector_fails(self, wrong: float) -> None:
        vectors = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
        other = vectors.copy()
        other[3, 0] += wrong
        with pytest.raises(ParityFailed, match=r"worst cosine .* over 9 texts") as failed:
            compare(vectors, other, LEAST_COSINE)
        assert failed.value.exit_code == 1


EXPORT_TWICE = """
import sys
from pathlib import Path
from export.encoder import export_encoder
from export.parity import ParityFailed
out = Path(sys.argv[1])
first = export_encoder("minilm", out)
try:
    export_encoder("minilm", out, least_cosine=1.1)
except ParityFailed as failed:
    print(failed)
"""


@pytest.mark.timeout(600)
def test_a_real_export_and_one_that_fails_its_proof(tmp_path: Path) -> None:
    if not TORCH_PYTHON.exists() and not os.environ.get("CI"):
        pytest.skip("no .venv-export (torch): `make encoder` makes it")
    out = tmp_path / "deep" / "encoder"
    run = subprocess.run(
        [TORCH_PYTHON, "-c", EXPORT_TWICE, out], cwd=ROOT, capture_output=True, text=True, timeout=580, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "worst cosine" in run.stdout
    assert "nothing was written" in run.stdout
    assert [path.name for path in out.parent.iterdir()] == ["encoder"]
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "model.onnx", "tokenizer.json"]
    assert read_manifest(out).projection is None
    golden = json.loads((ROOT / "tests" / "golden" / "minilm.json").read_text())
    vectors = TextEncoder.load(out, device="cpu").encode(golden["texts"])
    assert (vectors * np.array(golden["vectors"])).sum(axis=1).min() >= LEAST_COSINE
