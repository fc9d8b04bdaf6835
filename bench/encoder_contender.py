"""One contender of the encoder's benchmark, in a process and an environment of its own.

    python bench/encoder_contender.py KIND TEXTS MODEL

Answers each line on standard input with a line of JSON: ``START STEP BUDGET`` encodes texts[START::STEP] and says
how long it took, and how much of the processor; the end of input ends it, with the peak of its memory. Vectors
go to KIND.npy beside TEXTS. Imports nothing of stoppress but in its own kind, since the peers' environments have
other packages.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

THREADS = len(os.sched_getaffinity(0))
Encode = Callable[[Sequence[str], int], Any]


def ours(model: Path, device: str) -> Encode:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from contract.errors import EncoderUnusable
    from encoders.text import TextEncoder

    try:
        encoder = TextEncoder.load(model, device=device)  # type: ignore[arg-type]
    except EncoderUnusable as error:
        sys.exit(str(error))
    own = encoder.batch_tokens

    def encode(texts: Sequence[str], budget: int) -> Any:
        encoder.batch_tokens = budget or own
        return encoder.encode(texts)

    return encode


def sentence_transformers(model: Path, **options: Any) -> Encode:
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(str(model), device="cpu", **options)
    return lambda texts, _: loaded.encode(texts, convert_to_numpy=True, show_progress_bar=False)


def sentence_transformers_bf16(model: Path) -> Encode:
    import torch
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(str(model), device="cpu").to(torch.bfloat16)
    return lambda texts, _: loaded.encode(texts, convert_to_tensor=True, show_progress_bar=False).float().numpy()


def fastembed(model: Path) -> Encode:
    from fastembed import TextEmbedding

    loaded = TextEmbedding(
        "sentence-transformers/all-MiniLM-L6-v2", specific_model_path=str(model), providers=["CPUExecutionProvider"]
    )
    return lambda texts, _: np.stack(list(loaded.embed(texts)))


def plain_transformers(model: Path) -> Encode:
    """As model cards show it: batches of 32 as they come, mean over the tokens, normalised."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, body = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()

    def encode(texts: Sequence[str], _: int) -> Any:
        rows = []
        for start in range(0, len(texts), 32):
            batch = tokenizer(
                list(texts[start : start + 32]), padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden = body(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            rows.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy())
        return np.concatenate(rows)

    return encode


def matrix_peak(bf16: bool) -> Encode:
    """No encoder: the best rate of matrix products, large ones and ones of the model's own shape, in GFLOP/s."""
    import torch

    torch.set_num_threads(THREADS)
    kind = torch.bfloat16 if bf16 else torch.float32

    def encode(_texts: Sequence[str], _: int) -> Any:
        best = 0.0
        for m, k, n, times in ((2048, 2048, 2048, 8), (512, 384, 1536, 100), (2048, 384, 1536, 40)):
            a, b = torch.randn(m, k).to(kind), torch.randn(k, n).to(kind)
            for _repeat in range(times):
                began = time.perf_counter()
                a @ b
                best = max(best, 2 * m * k * n / (time.perf_counter() - began) / 1e9)
        return np.full((1, 1), best, np.float32)

    return encode


KINDS: dict[str, Callable[[Path], Encode]] = {
    "cpu": lambda model: ours(model, "cpu"),
    "cuda": lambda model: ours(model, "cuda"),
    "torch-fp32": sentence_transformers,
    "torch-bf16": sentence_transformers_bf16,
    "st-onnx": lambda model: sentence_transformers(
        model, backend="onnx", model_kwargs={"file_name": "onnx/model.onnx", "provider": "CPUExecutionProvider"}
    ),
    "fastembed": fastembed,
    "transformers": plain_transformers,
    "peak-fp32": lambda _: matrix_peak(False),
    "peak-bf16": lambda _: matrix_peak(True),
}


def prepare_onnx(source: Path, target: Path) -> None:
    """Export the model as sentence-transformers does, and lay it out for fastembed too (run in its environment)."""
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(
        str(source), device="cpu", backend="onnx", model_kwargs={"export": True, "provider": "CPUExecutionProvider"}
    )
    loaded.save_pretrained(str(target))
    (target / "model.onnx").unlink(missing_ok=True)
    os.link(target / "onnx" / "model.onnx", target / "model.onnx")
    tokenizer = json.loads((target / "tokenizer_config.json").read_text())
    tokenizer["model_max_length"] = tokenizer["max_length"] = 256  # fastembed reads no sentence_bert_config.json
    (target / "tokenizer_config.json").write_text(json.dumps(tokenizer))


def main(kind: str, texts_file: Path, model: Path) -> None:
    """Load, answer ``ready``, then one line for each line that comes."""
    texts = json.loads(texts_file.read_text())
    vectors: Any = None
    encode = KINDS[kind](model)
    encode(texts[:64], 0)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        start, step, budget = map(int, line.split())
        began, spent = time.perf_counter(), time.process_time()
        rows = np.asarray(encode(texts[start::step], budget), dtype=np.float32)
        seconds, processor = time.perf_counter() - began, time.process_time() - spent
        if kind.startswith("peak"):
            print(json.dumps({"gflops": float(rows.max())}), flush=True)
            continue
        vectors = np.zeros((len(texts), rows.shape[1]), np.float32) if vectors is None else vectors
        vectors[start::step] = rows
        print(json.dumps({"seconds": seconds, "processor": processor}), flush=True)
    if vectors is not None:
        np.save(texts_file.with_name(f"{kind}.npy"), vectors)
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare_onnx(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
