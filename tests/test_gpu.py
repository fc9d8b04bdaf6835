"""The encoder on CUDA: `make test-gpu`, where there is a GPU. Every other run leaves these out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from encoders.text import TextEncoder

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[1]
ARTIFACT = Path(os.environ.get("STOPPRESS_ENCODER", ROOT / "var" / "encoder"))
BATCHES = 10_000


@pytest.fixture(scope="module")
def on_cuda() -> TextEncoder:
    return TextEncoder.load(ARTIFACT, device="cuda")


def used_mb() -> int:
    """Memory that this process has on the GPU, as the driver counts it."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    used = {int(pid): int(memory) for pid, memory in (row.split(",") for row in rows)}
    return used[os.getpid()]


def test_the_vectors_are_those_of_the_cpu(on_cuda: TextEncoder) -> None:
    texts = [" ".join(["storm over the harbour"] * n) for n in range(200)]
    cosines = (on_cuda.encode(texts) * TextEncoder.load(ARTIFACT, device="cpu").encode(texts)).sum(axis=1)
    assert cosines.min() >= 0.9999


def test_auto_takes_cuda() -> None:
    assert TextEncoder.load(ARTIFACT, device="auto").provider == "CUDAExecutionProvider"


@pytest.mark.timeout(1800)
def test_memory_does_not_grow_over_ten_thousand_batches(on_cuda: TextEncoder) -> None:
    """Batches of every size and length within the budget, drawn anew each time."""
    draw = np.random.default_rng(1)
    longest = on_cuda.manifest.max_length
    marks = []
    for number in range(BATCHES):
        length = int(draw.integers(1, longest + 1))
        rows = int(draw.integers(1, on_cuda.batch_tokens // length + 1))
        on_cuda.run([draw.integers(5, 1000, length).astype(np.int32) for _ in range(rows)])
        if number in (BATCHES // 10, BATCHES - 1):
            marks.append(used_mb())
    assert marks[1] <= marks[0]
