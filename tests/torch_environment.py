"""Scripts that need torch, run by the environment that has it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TORCH_PYTHON = ROOT / ".venv-export" / "bin" / "python"


def written_with_torch(script: str, out: Path, *arguments: str) -> Path:
    """Let ``tests/script`` write into the folder ``out``; return that. Blocks for a minute or two."""
    if not TORCH_PYTHON.exists():
        pytest.fail(f"no {TORCH_PYTHON} (torch): `make .venv-export/installed` makes it")
    run = subprocess.run(
        [TORCH_PYTHON, ROOT / "tests" / script, out, *arguments],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=880, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return out
