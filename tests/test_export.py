"""The export: what it refuses before torch is needed, the projection's numbers, and one real export where torch is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub.utils._paths import filter_repo_objects

from contract.errors import EncoderUnusable, SetupError
from encoders.manifest import PROJECTION_FILE, read_manifest
from encoders.text import TextEncoder
from export.encoder import export_encoder
from export.models import _HUB_FILES, LONGEST, PACKAGED, Packaged, find_model
from export.parity import LEAST_COSINE, ParityFailed, compare, parity_texts
from export.projection import learn_projection, neighbours_kept, project
from tests.torch_environment import written_with_torch

ROOT = Path(__file__).parents[1]


def stoppress(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stoppress", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)


class TestRefusals:
    def test_a_model_that_is_nowhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(SetupError, match=r"no model 'maxilm' .*no cache here has it.*give minilm \(packaged\), a"):
            export_encoder("maxilm", tmp_path / "out")
        with pytest.raises(SetupError, match=r"no folder './maxilm'"):
            export_encoder("./maxilm", tmp_path / "out")

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

    def test_a_corpus_that_is_not_there_or_not_articles(self, tmp_path: Path) -> None:
        (tmp_path / "corpus").write_text('{"article_id": "a", "title": "t", "published_at": 1}\n\n{"title": 3}\n')
        for corpus, message in (("nowhere", "cannot read the corpus"), ("corpus", "line 3 of the corpus")):
            run = stoppress("export", "encoder", "minilm", tmp_path / "out", "--dims=9", "--corpus", tmp_path / corpus)
            assert run.returncode == 2
            assert message in run.stderr
            assert run.stderr.count("\n") == 1


def write(folder: Path, files: dict[str, Any]) -> str:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder)


def layout(*modules: str, pooling: Any = None, **files: Any) -> dict[str, Any]:
    """A folder in sentence-transformers layout, without weights."""
    listed = [
        {"path": "" if kind == "Transformer" else f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(modules)
    ]
    return {
        "modules.json": listed,
        "config.json": {"model_type": "bert", "max_position_embeddings": 512},
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True} if pooling is None else pooling,
        **{f"{name}.json": content for name, content in files.items()},
    }


class TestWhatAModelSays:
    def test_pooling_length_prompt_and_lower_case(self, tmp_path: Path) -> None:
        folder = write(
            tmp_path,
            layout(
                "Transformer", "Pooling", "Normalize",
                pooling={"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "include_prompt": True},
                sentence_bert_config={"max_seq_length": 128, "do_lower_case": True},
                config_sentence_transformers={"prompts": {"query": "query: ", "document": "passage: "}},
                tokenizer_config={"model_max_length": 256},
            ),
        )  # fmt: skip
        model = find_model(folder)
        assert (model.pooling, model.max_length, model.prompt) == ("cls", 128, "passage: ")
        assert model.lower_case
        assert model.normalised

    @pytest.mark.parametrize(
        ("pooling", "mode"),
        [({"pooling_mode": "lasttoken"}, "last"), ({"pooling_mode_lasttoken": True}, "last"),
         ({"pooling_mode": ["mean"]}, "mean"), ({"pooling_mode": "cls"}, "cls")],
    )  # fmt: skip
    def test_poolings_in_the_older_and_the_newer_form(self, tmp_path: Path, pooling: object, mode: str) -> None:
        assert find_model(write(tmp_path, layout("Transformer", "Pooling", pooling=pooling))).pooling == mode

    def test_a_plain_transformers_folder_means_the_mean(self, tmp_path: Path) -> None:
        model = find_model(write(tmp_path, {"config.json": {"model_type": "bert", "max_position_embeddings": 512}}))
        assert (model.pooling, model.max_length, model.prompt, model.dense) == ("mean", 512, "", ())

    def test_no_more_tokens_than_the_position_table_has_or_an_article_needs(self, tmp_path: Path) -> None:
        config = {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}
        assert find_model(write(tmp_path / "a", {"config.json": config})).max_length == 512
        config = {"model_type": "modernbert", "max_position_embeddings": 8192}
        assert find_model(write(tmp_path / "b", {"config.json": config})).max_length == LONGEST

    def test_the_article_prompt_is_the_documents_or_the_default_one(self, tmp_path: Path) -> None:
        for name, settings, prompt in (
            ("a", {"prompts": {"query": "q", "passage": "p"}, "default_prompt_name": "query"}, "p"),
            ("b", {"prompts": {"query": "q"}, "default_prompt_name": "query"}, "q"),
            ("c", {"prompts": {"query": "q", "document": ""}, "default_prompt_name": "query"}, ""),
            ("d", {"prompts": {"query": "q"}, "default_prompt_name": None}, ""),
        ):
            files = layout("Transformer", "Pooling", config_sentence_transformers=settings)
            assert find_model(write(tmp_path / name, files)).prompt == prompt

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            (layout("Transformer", "Pooling", pooling={"pooling_mode_max_tokens": True}), "pools by pooling_mode_max"),
            (layout("Transformer", "Pooling", pooling={"pooling_mode": ["cls", "mean"]}), "pools by cls and mean"),
            (layout("Transformer", "Pooling", pooling={"pooling_mode": []}), "pools by nothing"),
            (layout("Transformer", "Pooling", pooling={"pooling_mode": "mean", "include_prompt": False},
                    config_sentence_transformers={"prompts": {"document": "d: "}}), "leaves its prompt 'd: ' out"),
            (layout("Transformer", "LSTM", "Pooling"), "made of Transformer, LSTM, Pooling: what can be exported is"),
            (layout("Transformer"), "made of Transformer: what can be exported is"),
            (layout("Transformer", "Pooling", "Normalize", "Dense"), "normalises before its end"),
            (layout("Transformer", "Pooling", "Dense")
             | {"2_Dense/config.json": {"activation_function": "torch.nn.modules.activation.Softmax"}}, "not Softmax"),
            ({"config.json": {"model_type": "t5", "is_encoder_decoder": True}}, r"encoder with a decoder \(t5\)"),
            ({"modules.json": "not JSON"}, "no model in sentence-transformers or transformers layout"),
            ({"modules.json": [{"kind": 3}]}, "no model in sentence-transformers or transformers layout"),
            ({"config.json": "[]"}, "no model in sentence-transformers or transformers layout"),
            ({"letters": "dear"}, "no model in sentence-transformers or transformers layout"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_exported_is_refused_with_the_reason(
        self, tmp_path: Path, files: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(SetupError, match=message):
            find_model(write(tmp_path, files))

    def test_only_the_first_numbers_are_used_where_the_model_says_so(self, tmp_path: Path) -> None:
        files = layout("Transformer", "Pooling", config_sentence_transformers={"truncate_dim": 64})
        assert find_model(write(tmp_path, files)).truncate_dim == 64

    def test_a_name_brings_all_that_an_export_reads_and_nothing_large_beside(self) -> None:
        needed = ["config.json", "modules.json", "model.safetensors", "tokenizer.json", "vocab.txt",
                  "1_P/config.json", "2_D/config.json", "2_D/pytorch_model.bin", "0/model.safetensors"]  # fmt: skip
        others = ["onnx/model.onnx", "tf_model.h5", "README.md", "openvino/openvino_model.bin"]
        assert list(filter_repo_objects([*needed, *others], allow_patterns=_HUB_FILES)) == needed


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

    def test_neighbours_kept_is_a_share_of_the_ten_nearest(self) -> None:
        draw = np.random.default_rng(2)
        vectors = draw.normal(size=(700, 16)).astype(np.float32)
        assert neighbours_kept(vectors, vectors * 3) == 1
        assert neighbours_kept(vectors, draw.normal(size=(700, 4)).astype(np.float32)) < 0.1
        assert neighbours_kept(vectors, vectors[:, :4]) < neighbours_kept(vectors, vectors[:, :12]) < 1

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

    def test_the_thresholds_are_those_that_are_promised(self) -> None:
        assert LEAST_COSINE == {"fp32": 0.9999, "fp16": 0.999}

    def test_equal_vectors_pass(self) -> None:
        vectors = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
        assert compare(vectors, vectors * 2, LEAST_COSINE["fp32"]).worst_cosine == pytest.approx(1)

    @pytest.mark.parametrize("wrong", [0.5, float("nan")])
    def test_one_wrong_vector_fails(self, wrong: float) -> None:
        vectors = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
        other = vectors.copy()
        other[3, 0] += wrong
        with pytest.raises(ParityFailed, match=r"worst cosine .* over 9 texts") as failed:
            compare(vectors, other, LEAST_COSINE["fp32"])
        assert failed.value.exit_code == 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random models of many architectures, exported, with plain transformers' vectors: tests/tiny_models.py."""
    return written_with_torch("tiny_models.py", tmp_path_factory.mktemp("tiny"))


def cosines(a: object, b: object) -> float:
    """The least cosine of unit rows."""
    return float((np.asarray(a) * np.asarray(b)).sum(axis=1).min())


@pytest.mark.timeout(900)
class TestExports:
    @pytest.mark.parametrize(
        ("name", "pooling", "fused"),
        [
            ("bert-plain", "mean", {"attention": 2, "skip_layer_normalization": 4}),
            ("bert-cls-dense", "cls", {"attention": 2, "skip_layer_normalization": 4}),
            ("distilbert-lower", "mean", {"attention": 2, "skip_layer_normalization": 4}),
            ("xlm-roberta-mean", "mean", {"attention": 2, "skip_layer_normalization": 5}),
            ("mpnet-mean", "mean", {"skip_layer_normalization": 5}),
            ("modernbert-cls", "cls", {"sdpa_via_mha": 2}),
            ("qwen3-last", "last", {"sdpa_via_mha": 2, "skip_rms_normalization": 4}),
        ],
    )
    def test_an_architecture_gives_the_vectors_of_plain_transformers(
        self, tiny: Path, name: str, pooling: str, fused: dict[str, int]
    ) -> None:
        reference = json.loads((tiny / "reference.json").read_text())
        encoder = TextEncoder.load(tiny / "exported" / name, device="cpu")
        together = encoder.encode(reference["texts"])
        assert cosines(together, reference["vectors"][name]) >= LEAST_COSINE["fp32"]
        assert cosines(together, np.concatenate([encoder.encode([text]) for text in reference["texts"]])) >= 0.99999
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
        manifest = encoder.manifest
        assert manifest.pooling == pooling
        assert manifest.fused.items() >= fused.items()
        assert manifest.parity is not None
        assert manifest.parity.texts >= 200
        assert manifest.parity.worst_cosine >= LEAST_COSINE["fp32"]

    def test_prompt_and_length_are_in_the_manifest(self, tiny: Path) -> None:
        manifest = read_manifest(tiny / "exported" / "bert-cls-dense")
        assert (manifest.prompt, manifest.max_length, manifest.dims) == ("passage: ", 16, 24)
        assert read_manifest(tiny / "exported" / "xlm-roberta-mean").max_length == 38
        assert read_manifest(tiny / "exported" / "distilbert-lower").lower_case

    def test_half_precision_halves_the_body_and_keeps_the_vectors(self, tiny: Path) -> None:
        reference = json.loads((tiny / "reference.json").read_text())
        half = TextEncoder.load(tiny / "exported" / "bert-fp16", device="cpu")
        assert half.manifest.precision == "fp16"
        assert cosines(half.encode(reference["texts"]), reference["vectors"]["bert-plain"]) >= LEAST_COSINE["fp16"]
        whole = read_manifest(tiny / "exported" / "bert-plain").files["model.onnx"].size
        assert half.manifest.files["model.onnx"].size < 0.75 * whole

    def test_a_projection_says_what_it_keeps(self, tiny: Path) -> None:
        reference = json.loads((tiny / "reference.json").read_text())
        folder = tiny / "exported" / "bert-8"
        encoder = TextEncoder.load(folder, device="cpu")
        assert encoder.dims == 8
        learned = encoder.manifest.projection
        assert learned is not None
        assert learned.learned_from == 520
        assert 0 < learned.variance_kept < 1
        assert learned.neighbours_kept is not None
        assert 0 < learned.neighbours_kept < 1
        expected = project(np.array(reference["vectors"]["bert-plain"], np.float32), np.load(folder / PROJECTION_FILE))
        assert cosines(encoder.encode(reference["texts"]), expected) >= LEAST_COSINE["fp32"]

    def test_a_truncated_model_gives_its_first_numbers_by_the_command(self, tiny: Path) -> None:
        reference = json.loads((tiny / "reference.json").read_text())
        encoder = TextEncoder.load(tiny / "exported" / "bert-first-16", device="cpu")
        assert (encoder.dims, encoder.manifest.precision) == (16, "fp16")
        first = np.array(reference["vectors"]["bert-plain"])[:, :16]
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        assert cosines(encoder.encode(reference["texts"]), first) >= LEAST_COSINE["fp16"]

    def test_weights_beyond_one_file_are_checked_too(self, tiny: Path) -> None:
        reference = json.loads((tiny / "reference.json").read_text())
        folder = tiny / "exported" / "bert-in-two-files"
        encoder = TextEncoder.load(folder, device="cpu")
        assert cosines(encoder.encode(reference["texts"]), reference["vectors"]["bert-plain"]) >= LEAST_COSINE["fp32"]
        spoiled = bytearray((folder / "model.onnx.data").read_bytes())
        spoiled[100] ^= 1
        (folder / "model.onnx.data").write_bytes(spoiled)
        with pytest.raises(EncoderUnusable, match=r"model\.onnx\.data is not the file that its manifest describes"):
            TextEncoder.load(folder)

    @pytest.mark.parametrize(
        ("name", "exit_code", "message"),
        [
            ("no-weights", 2, r"transformers cannot load no-weights .* give a model that it knows"),
            ("no-tokenizer", 2, r"transformers cannot load no-tokenizer|has a tokenizer that"),
            ("corrupt", 2, r"transformers cannot load corrupt .* give a model that it knows"),
            ("too-wide", 2, r"--dims 33: bert-plain has 32 dimensions, give 1 to 32"),
            ("no-axes", 2, r"--dims 600: 520 different articles have no more than 519 axes; give a --corpus of more"),
            ("not-equal", 1, r"differs from the torch model: worst cosine .*nothing was written"),
        ],
    )
    def test_what_fails_writes_nothing(self, tiny: Path, name: str, exit_code: int, message: str) -> None:
        refusal = json.loads((tiny / "reference.json").read_text())["refusals"][name]
        assert refusal["exit_code"] == exit_code
        assert re.search(message, refusal["error"])
        assert not (tiny / "exported" / name).exists()
        assert [path.name for path in (tiny / "exported").iterdir() if path.name.startswith(".")] == []
        assert read_manifest(tiny / "exported" / "bert-8").dims == 8
