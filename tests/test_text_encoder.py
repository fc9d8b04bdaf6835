"""The text encoder on the real artifact in var/encoder: what it promises about every text and every broken folder."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from contract.errors import EncoderUnusable
from encoders.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    PROJECTION_FILE,
    TOKENIZER_FILE,
    Manifest,
    Parity,
    describe_file,
    generation_of,
    read_manifest,
    write_manifest,
)
from encoders.session import CPU, CUDA
from encoders.text import ARTICLE_CHARACTERS, TextEncoder, article_text, batches
from export.projection import project

ROOT = Path(__file__).parents[1]
ARTIFACT = Path(os.environ.get("STOPPRESS_ENCODER", ROOT / "var" / "encoder"))
GOLDEN = json.loads((ROOT / "tests" / "golden" / "minilm.json").read_text())

# Many texts that are nothing but tokens, bodies of megabytes, and many texts: prints by how many MB the peak rose.
PEAK = """
import resource, sys
from pathlib import Path
from encoders.text import TextEncoder
encoder = TextEncoder.load(Path(sys.argv[1]), device="cpu", threads=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
encoder.tokenise(["a " * 4096] * 400)
encoder.encode(["storm " * 800_000] * 3)
encoder.tokenise(["storm over the harbour " * 10] * 20_000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""

anything = st.text(st.characters(exclude_categories=()), max_size=60)  # surrogate halves and control characters too
words = st.sampled_from(["storm", "vote", "ferry", "goal", "bank", "moon", "上海", "الحكومة", "🚀", "<b>", "strike"])
headlines = st.lists(words, max_size=80)
texts = st.one_of(anything, headlines.map(" ".join))


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.load(ARTIFACT, device="cpu")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder like the artifact whose files can be spoiled; the model is a link."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    for name in (MANIFEST_FILE, TOKENIZER_FILE, PROJECTION_FILE):
        if (ARTIFACT / name).exists():
            shutil.copy(ARTIFACT / name, folder / name)
    (folder / MODEL_FILE).symlink_to((ARTIFACT / MODEL_FILE).resolve())
    return folder


def rewrite(folder: Path, **changes: Any) -> None:
    manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=Manifest)
    write_manifest(folder, msgspec.structs.replace(manifest, **changes))


class TestVectors:
    def test_shape_dtype_and_unit_rows(self, encoder: TextEncoder) -> None:
        vectors = encoder.encode(GOLDEN["texts"])
        assert vectors.shape == (len(GOLDEN["texts"]), encoder.dims)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    def test_no_texts_give_no_rows(self, encoder: TextEncoder) -> None:
        assert encoder.encode([]).shape == (0, encoder.dims)

    def test_equal_to_the_reference_implementation(self, encoder: TextEncoder) -> None:
        expected = np.array(GOLDEN["vectors"], dtype=np.float32)
        if encoder.manifest.projection:
            expected = project(expected, np.load(ARTIFACT / PROJECTION_FILE))
        assert (expected * encoder.encode(GOLDEN["texts"])).sum(axis=1).min() >= 0.9999

    def test_two_reports_of_one_story_are_nearest(self, encoder: TextEncoder) -> None:
        first, second, *others = encoder.encode(GOLDEN["texts"])
        assert first @ second > 0.5
        assert first @ second > max(first @ other for other in others) + 0.2

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(texts, min_size=1, max_size=12))
    @example(["", "\ud83d", "\udc00 \ud83d\ude00", "\0", "word " * 400, "\u0301" * 40])
    def test_the_same_alone_and_in_any_batch(self, encoder: TextEncoder, several: list[str]) -> None:
        together = encoder.encode(several)
        alone = np.concatenate([encoder.encode([text]) for text in several])
        assert np.isfinite(together).all()
        assert (together * alone).sum(axis=1).min() >= 0.99999

    def test_a_surrogate_pair_is_its_character(self, encoder: TextEncoder) -> None:
        split, whole = encoder.tokenise(["\ud83d\ude80 launch", "🚀 launch"])
        np.testing.assert_array_equal(split, whole)

    def test_more_than_the_model_reads_changes_nothing(self, encoder: TextEncoder) -> None:
        long = "storm over the harbour " * 250_000
        (tokens,) = encoder.tokenise([long])
        assert len(tokens) == encoder.manifest.max_length
        np.testing.assert_array_equal(encoder.encode([long]), encoder.encode([long[:8000]]))

    def test_a_model_that_reads_little_sees_past_what_its_tokenizer_drops(self, copy: Path) -> None:
        rewrite(copy, max_length=32)
        short = TextEncoder.load(copy)
        late, early = short.encode([" " * 5000 + "late", "late"])
        assert late @ early > 0.99999

    def test_more_texts_than_are_tokenised_at_once(self, encoder: TextEncoder) -> None:
        numbered = [f"goal {i}" for i in range(1030)]
        tokens = encoder.tokenise(numbered)
        assert len(tokens) == len(numbered)
        np.testing.assert_array_equal(tokens[-1], encoder.tokenise(numbered[-1:])[0])

    def test_totals_count_texts_tokens_and_padding(self, encoder: TextEncoder) -> None:
        before = encoder.totals
        tokens = encoder.tokenise(["goal", "storm over the old harbour tonight"])
        encoder.run(tokens)
        after = encoder.totals
        assert after.texts - before.texts == 2
        assert after.tokens - before.tokens == sum(map(len, tokens))
        assert after.padded_tokens - before.padded_tokens == 2 * max(map(len, tokens))
        assert after.batches - before.batches == 1

    def test_a_prompt_comes_before_every_text_and_lower_case_lowers_both(
        self, encoder: TextEncoder, copy: Path
    ) -> None:
        rewrite(copy, prompt="Passage: ", lower_case=True)
        prompted = TextEncoder.load(copy, device="cpu").tokenise(["The GOAL", ""])
        for found, expected in zip(prompted, encoder.tokenise(["passage: the goal", "passage: "]), strict=True):
            np.testing.assert_array_equal(found, expected)

    def test_memory_is_the_same_however_much_comes(self) -> None:
        run = subprocess.run(
            [sys.executable, "-c", PEAK, ARTIFACT], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
        )
        assert run.returncode == 0, run.stderr
        assert float(run.stdout) < 128

    @given(st.lists(st.integers(1, 256), max_size=200), st.integers(1, 600))
    def test_batches_hold_every_text_once_and_keep_the_budget(self, lengths: list[int], budget: int) -> None:
        cut = list(batches(lengths, budget))
        assert sorted(int(i) for batch in cut for i in batch) == list(range(len(lengths)))
        for batch in cut:
            assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


class TestArticleText:
    def test_title_abstract_body_in_lines(self) -> None:
        assert article_text("  Late\nferry ", "It  stays.", "A vote.") == "Late ferry\nIt stays.\nA vote."
        assert article_text("", "It stays.", "") == "It stays."

    def test_markup_is_taken_out(self) -> None:
        body = (
            "<!-- ad --><p class='x'>Tom &amp; Anna<br/>won</p><script>var a = '<p>';</script><style>p {}</style> 2 < 3"
        )
        assert article_text("Final", "", body) == "Final\nTom & Anna won 2 < 3"
        assert article_text("<p></p>", "<img src=x>", "<script>never closed") == ""

    def test_a_title_may_compare(self) -> None:
        assert article_text("a <b and c> d, x<y, 1<2>0, <3") == "a d, x<y, 1<2>0, <3"

    @pytest.mark.parametrize(
        "piece", ["word ", "<p>", "<a ", "<!-- ", "<script ", "<script>", "&amp;", "&#", "\0", " "]
    )
    def test_a_body_of_megabytes_is_cut_before_it_is_read(self, piece: str) -> None:
        text = article_text("Title", "Abstract", piece * (5_000_000 // len(piece)))
        assert text.startswith("Title\nAbstract")
        assert len(text) <= ARTICLE_CHARACTERS

    def test_the_title_comes_first_when_all_is_long(self) -> None:
        assert article_text("t" * 9000, "a" * 9000, "b" * 9000) == "t" * ARTICLE_CHARACTERS
        assert len(article_text("t" * 4000, "a" * 9000, "b" * 9000)) == ARTICLE_CHARACTERS

    @given(anything, anything, anything)
    def test_any_text_will_do(self, title: str, abstract: str, body: str) -> None:
        assert len(article_text(title, abstract, body)) <= ARTICLE_CHARACTERS


class TestManifest:
    def test_the_artifact_was_proven(self) -> None:
        manifest = read_manifest(ARTIFACT)
        assert manifest.parity is not None
        assert manifest.parity.texts >= 200
        assert manifest.parity.worst_cosine >= 0.9999

    def test_attention_and_layer_norms_of_the_artifact_are_fused(self) -> None:
        assert read_manifest(ARTIFACT).fused.items() >= {"attention": 6, "skip_layer_normalization": 12}.items()

    def test_generation_names_encoder_and_interest_model(self, encoder: TextEncoder) -> None:
        manifest = encoder.manifest
        interest: dict[str, object] = {"model": "decay", "half_life_hours": [720.0, 2.0]}
        generation = generation_of(manifest, interest)
        assert len(generation) == 8
        assert int(generation, 16) >= 0
        assert generation == generation_of(manifest, dict(reversed(interest.items())))
        assert generation != generation_of(manifest, interest | {"half_life_hours": [720.0, 3.0]})
        other_dims = msgspec.structs.replace(manifest, dims=manifest.dims + 1)
        assert generation != generation_of(other_dims, interest)
        other_versions = msgspec.structs.replace(
            manifest, packages={"torch": "1"}, parity=Parity(texts=1, worst_cosine=1, mean_cosine=1)
        )
        assert generation == generation_of(other_versions, interest)

    def test_no_encoder_at_the_path(self, tmp_path: Path) -> None:
        with pytest.raises(EncoderUnusable, match=r"no encoder at .*nowhere: run `make encoder`"):
            TextEncoder.load(tmp_path / "nowhere")

    def test_a_changed_file_is_refused(self, copy: Path) -> None:
        read_manifest(copy)
        (copy / TOKENIZER_FILE).write_bytes((copy / TOKENIZER_FILE).read_bytes().replace(b"the", b"teh", 1))
        with pytest.raises(EncoderUnusable, match=r"tokenizer\.json is not the file that its manifest describes"):
            TextEncoder.load(copy)

    def test_a_missing_file_is_refused(self, copy: Path) -> None:
        (copy / MODEL_FILE).unlink()
        with pytest.raises(EncoderUnusable, match=r"model\.onnx cannot be read"):
            TextEncoder.load(copy)

    @pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"model": 3}', b"[]"])
    def test_a_manifest_that_is_none(self, copy: Path, content: bytes) -> None:
        (copy / MANIFEST_FILE).write_bytes(content)
        with pytest.raises(EncoderUnusable, match=r"is not a manifest .*make encoder"):
            TextEncoder.load(copy)

    def test_a_newer_format(self, copy: Path) -> None:
        rewrite(copy, format=99)
        with pytest.raises(EncoderUnusable, match="has format 99"):
            TextEncoder.load(copy)

    def test_files_outside_the_folder_or_unnamed(self, copy: Path) -> None:
        files = read_manifest(copy).files
        rewrite(copy, files=files | {"../manifest.json": files[TOKENIZER_FILE]})
        with pytest.raises(EncoderUnusable, match="not a file in its own folder"):
            TextEncoder.load(copy)
        rewrite(copy, files={TOKENIZER_FILE: files[TOKENIZER_FILE]})
        with pytest.raises(EncoderUnusable, match=r"names no model\.onnx"):
            TextEncoder.load(copy)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (MODEL_FILE, "ONNX Runtime cannot load .*export it again"),
            (TOKENIZER_FILE, "cannot be used as a tokenizer.*export it again"),
        ],
    )
    def test_a_corrupt_file_that_its_manifest_vouches_for(self, copy: Path, name: str, message: str) -> None:
        (copy / name).unlink()
        (copy / name).write_bytes(b"not what the name says")
        rewrite(copy, files=msgspec.json.decode((copy / MANIFEST_FILE).read_bytes(), type=Manifest).files | {
            name: describe_file(copy / name)
        })  # fmt: skip
        with pytest.raises(EncoderUnusable, match=message):
            TextEncoder.load(copy)

    def test_a_graph_of_other_dimensions(self, copy: Path) -> None:
        rewrite(copy, dims=7)
        with pytest.raises(EncoderUnusable, match=r"gives \d+ dimensions, its manifest says 7: export it again"):
            TextEncoder.load(copy)


class TestDevice:
    def test_the_provider_is_one_of_those_there_are(self, encoder: TextEncoder) -> None:
        assert encoder.provider == "CPUExecutionProvider"
        assert TextEncoder.load(ARTIFACT, device="auto").provider in onnxruntime.get_available_providers()

    def test_auto_says_in_the_log_what_it_chose(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "stoppress.encoder"):
            chosen = TextEncoder.load(ARTIFACT, device="auto", threads=1).provider
        (line,) = [record for record in caplog.records if record.message == "device"]
        assert line.__dict__["fields"] == {"asked": "auto", "provider": chosen, "threads": 1}

    def test_cuda_runs_on_cuda_or_ends_the_start(self) -> None:
        try:
            assert TextEncoder.load(ARTIFACT, device="cuda").provider == "CUDAExecutionProvider"
        except EncoderUnusable as error:
            missing = r"stoppress\[gpu\]|lib\w+\.so|no usable GPU"
            assert re.search(f"device = cuda, but .*({missing})", str(error))  # noqa: PT017  either is right

    @pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="here CUDA may work")
    def test_cuda_that_is_built_in_and_finds_no_driver_names_the_library(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        for module in (onnxruntime, onnxruntime.capi._pybind_state):  # what asks, and what refuses an unknown name
            monkeypatch.setattr(module, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
        with pytest.raises(EncoderUnusable, match=r"CUDA does not work here: lib\w+\.so"):
            TextEncoder.load(ARTIFACT, device="cuda")
        with caplog.at_level(logging.INFO, "stoppress.encoder"):
            assert TextEncoder.load(ARTIFACT, device="auto").provider == CPU
        assert ".so" in caplog.records[-1].__dict__["fields"]["no_cuda"]

    def test_two_distributions_over_each_other(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        second = tmp_path / "onnxruntime_gpu-1.0.dist-info"
        second.mkdir()
        (second / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.0\n")
        (second / "top_level.txt").write_text("onnxruntime\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(EncoderUnusable, match="onnxruntime and onnxruntime-gpu are installed over each other"):
            TextEncoder.load(ARTIFACT)

    def test_serving_needs_no_torch(self) -> None:
        program = "import sys, encoders.text, encoders.session, export.encoder; print('torch' in sys.modules)"
        run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "False"
