"""The text encoder against sentence-transformers, fastembed and plain transformers: the same model, texts and run.

    python -m bench.encoder

Each contender is a process in its own environment. They take turns over parts of the texts, so that whatever else the
machine does meets all of them. Writes ``bench/results/encoder.json``; takes some ten minutes on two cores.
"""

from __future__ import annotations

import json
import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from tokenizers import Tokenizer

from bench.report import Row, machine, write
from encoders.manifest import TOKENIZER_FILE, read_manifest
from encoders.text import article_text
from producers.newsroom.newsroom import Newsroom

ROOT = Path(__file__).parents[1]
WORK = ROOT / "var" / "bench" / "encoder"
CONTENDER = ROOT / "bench" / "encoder_contender.py"
VENVS = (".venv", ".venv-export", ".venv-bench-encoder", ".venv-bench-encoder-onnx")
OURS, EXPORT, TORCH, ONNX = (ROOT / venv / "bin" / "python" for venv in VENVS)
TEXTS = 2000
PARTS = 5
BUDGETS = (128, 256, 512, 1024, 2048, 4096)
LAYERS, HIDDEN, INNER = 6, 384, 1536  # of MiniLM


@dataclass
class Contender:
    """A running contender and what it has said so far; ``budget`` 0 is the contender's own."""

    name: str
    kind: str
    python: Path
    model: Path
    seconds: float = 0.0
    processor: float = 0.0
    gflops: float = 0.0
    peak_mb: float = 0.0
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self, texts: Path) -> bool:
        """Load it and let it warm up; return whether it is ready."""
        command = [str(part) for part in (self.python, CONTENDER, self.kind, texts, self.model)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self._answer().get("ready", False) is True

    def turn(self, start: int, step: int, budget: int = 0) -> tuple[float, float]:
        """Let it encode texts[start::step]; return the seconds it took, and those of the processor."""
        assert self.process is not None
        stdin: IO[str] | None = self.process.stdin
        assert stdin is not None
        stdin.write(f"{start} {step} {budget}\n")
        stdin.flush()
        answer = self._answer()
        self.gflops = max(self.gflops, answer.get("gflops", 0.0))
        return answer.get("seconds", 0.0), answer.get("processor", 0.0)

    def end(self) -> None:
        """Close its input, and keep what it says of its memory."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.peak_mb = self._answer().get("peak_mb", 0.0)
        if self.process.wait() != 0:
            raise SystemExit(f"{self.name} failed: see above")

    def _answer(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # whatever else libraries print goes by
                answer: dict[str, Any] = json.loads(line)
                return answer
        return {}


def main() -> None:
    """Measure and write the result."""
    WORK.mkdir(parents=True, exist_ok=True)
    source, exported, onnx = _models()
    texts = _texts()
    file = WORK / "texts.json"
    file.write_text(json.dumps(texts))
    contenders = [
        Contender("sentence-transformers torch fp32", "torch-fp32", TORCH, source),
        Contender("stoppress CPU fp32", "cpu", OURS, exported),
        Contender("stoppress CUDA fp32", "cuda", OURS, exported),
        Contender("sentence-transformers torch bf16", "torch-bf16", TORCH, source),
        Contender("sentence-transformers ONNX", "st-onnx", ONNX, onnx),
        Contender("fastembed", "fastembed", ONNX, onnx),
        Contender("plain transformers torch fp32", "transformers", EXPORT, source),
        Contender("peak fp32", "peak-fp32", EXPORT, source),
        Contender("peak bf16", "peak-bf16", EXPORT, source),
    ]
    running = [contender for contender in contenders if _starts(contender, file)]
    for part in range(PARTS):
        for contender in running:
            seconds, processor = contender.turn(part, PARTS)
            contender.seconds += seconds
            contender.processor += processor
    ours = next(contender for contender in running if contender.kind == "cpu")
    by_budget = dict.fromkeys(BUDGETS, 0.0)
    for part in range(PARTS):
        for budget in BUDGETS:
            by_budget[budget] += ours.turn(part, PARTS, budget)[0]
    for contender in running:
        contender.end()
    write("encoder", _rows(running, by_budget, texts, exported))


def _starts(contender: Contender, texts: Path) -> bool:
    if contender.start(texts):
        return True
    if contender.kind != "cuda":
        raise SystemExit(f"{contender.name} does not start: see above")
    print("so there is no row for CUDA")
    return False


def _rows(running: list[Contender], by_budget: dict[int, float], texts: list[str], exported: Path) -> list[Row]:
    peaks = {contender.kind: contender.gflops for contender in running if contender.kind.startswith("peak")}
    encoders = [contender for contender in running if contender.kind not in peaks]
    lengths = _lengths(texts, exported)
    gflop = sum(LAYERS * (2 * n * (4 * HIDDEN**2 + 2 * HIDDEN * INNER) + 4 * n * n * HIDDEN) for n in lengths) / 1e9
    reference = np.load(WORK / f"{encoders[0].kind}.npy")
    speed, processor, memory = [], [], []
    for contender in encoders:
        vectors = np.load(WORK / f"{contender.kind}.npy")
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
        cosines = (vectors * reference).sum(axis=1) / norms
        detail: dict[str, float | str] = {
            "worst_cosine": round(float(cosines.min()), 6),
            "mean_cosine": round(float(cosines.mean()), 6),
            "gflops": round(gflop / contender.seconds, 1),
            "share_of_fp32_peak": round(gflop / contender.seconds / peaks["peak-fp32"], 3),
        }
        speed.append(
            Row(name=contender.name, value=len(texts) / contender.seconds, unit="texts/s", group="speed", detail=detail)
        )
        rate = len(texts) / contender.processor  # what matters where a broker is on the same machine
        share = round(gflop / contender.processor * machine().cores / peaks["peak-fp32"], 3)
        processor.append(
            Row(name=contender.name, value=rate, unit="texts/s", group="per second of one core",
                detail={"share_of_fp32_peak": share})
        )  # fmt: skip
        memory.append(Row(name=contender.name, value=contender.peak_mb, unit="MB", group="peak memory"))
    limits = [
        Row(name=f"matrix product {kind[5:]}", value=peak, unit="GFLOP/s", group="peak of this machine")
        for kind, peak in peaks.items()
    ]
    budgets = [
        Row(name=f"stoppress CPU fp32, {budget} tokens", value=len(texts) / seconds, unit="texts/s",
            group="token budget")
        for budget, seconds in by_budget.items()
    ]  # fmt: skip
    return speed + processor + budgets + memory + limits


def _texts() -> list[str]:
    """Texts of the newsroom: headlines, most with an abstract, some with bodies up to what the model reads."""
    draw = random.Random(7)
    stories = (article for article, _ in Newsroom(3).archive(4 * TEXTS, 1_790_000_000_000, hours=24.0 * 30))
    texts: list[str] = []
    while len(texts) < TEXTS:
        first = next(stories)
        more = draw.choices((None, 0, 1, 3, 5), (0.3, 0.4, 0.15, 0.1, 0.05))[0]
        if more is None:
            texts.append(article_text(first.title))
            continue
        bodies = [first.body, *(f"{story.abstract} {story.body}" for story in (next(stories) for _ in range(more)))]
        texts.append(article_text(first.title, first.abstract, " ".join(bodies)))
    return texts


def _lengths(texts: list[str], exported: Path) -> list[int]:
    tokenizer = Tokenizer.from_file(str(exported / TOKENIZER_FILE))
    tokenizer.enable_truncation(read_manifest(exported).max_length)
    return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts)]


def _models() -> tuple[Path, Path, Path]:
    """The published model, ours without projection, and sentence-transformers' own export; built once."""
    where = "from export.models import find_model; print(find_model('minilm').folder)"
    found = subprocess.run([EXPORT, "-c", where], cwd=ROOT, capture_output=True, text=True, check=True)
    source, exported, onnx = Path(found.stdout.strip()), WORK / "minilm", WORK / "minilm-onnx"
    if not (exported / "manifest.json").exists():
        command = [str(EXPORT), "-m", "stoppress", "export", "encoder", "minilm", str(exported)]
        subprocess.run(command, cwd=ROOT, check=True)
    if not (onnx / "model.onnx").exists():
        subprocess.run([ONNX, CONTENDER, "prepare", source, onnx], check=True)
    return source, exported, onnx


if __name__ == "__main__":
    main()
