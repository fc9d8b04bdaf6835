"""What is kept of a training: ``run.json`` and a plot of its losses in its folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from evaluation.charts import curves, image

if TYPE_CHECKING:
    from export.fitting import Epoch

RUN_FILE = "run.json"
PLOT_FILE = "loss.svg"


def loss_of(curve: Sequence[Epoch]) -> list[dict[str, Any]]:
    """The losses of a training as a record has them, those of the untrained model first."""
    return [
        {"epoch": number, "trained": None if math.isnan(epoch.trained) else epoch.trained, "held_back": epoch.held_back}
        for number, epoch in enumerate(curve)
    ]


def write_run(folder: Path, record: dict[str, Any]) -> None:
    """Write ``record`` to run.json in ``folder``, and its ``loss`` as a plot beside it."""
    (folder / RUN_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
    lines = {
        name.replace("_", " "): [(epoch["epoch"], loss) for epoch in record["loss"] if _finite(loss := epoch[name])]
        for name in ("trained", "held_back")
    }
    (folder / PLOT_FILE).write_text(image(curves(lines, "epoch")), encoding="utf-8")


def _finite(loss: float | None) -> bool:
    return loss is not None and math.isfinite(loss)
