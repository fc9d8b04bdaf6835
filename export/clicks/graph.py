"""The ONNX side of a click model: its graph, and the proof that it gives torch's numbers."""

from __future__ import annotations

import logging
import warnings
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from encoders.manifest import describe_file, write_manifest
from encoders.onnx_clicks import GRAPH_FILE, INPUT, OUTPUT, ClickManifest, ClickParity, OnnxClicks
from export.graph import OPSET
from export.parity import ParityFailed
from ranking.listwise import FARTHEST, Weights
from ranking.reranker import FEATURES, VERSION

MOST_DIFFERENCE = 1e-3
_PAIRS = 2000


class ClickGraph(nn.Module):  # type: ignore[misc]
    """:meth:`ranking.listwise.Weights.log_odds` in torch."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        for name in ("mean", "deviation", "linear", "inner", "bias", "outer"):
            self.register_buffer(name, torch.from_numpy(getattr(weights, name)))
        self.slope, self.constant = weights.slope, weights.constant

    def forward(self, features: Tensor) -> Tensor:
        """[m, f] -> [m]."""
        x = ((features - self.mean) / self.deviation).clamp(-FARTHEST, FARTHEST)
        scores = x @ self.linear + torch.tanh(x @ self.inner + self.bias) @ self.outer
        return self.slope * scores + self.constant


def write_click_model(
    weights: Weights, folder: Path, *, learned_to: int, metrics: dict[str, dict[str, float]], experimental: str
) -> ClickManifest:
    """Write graph and manifest to ``folder``. Blocks for some seconds.

    Raises :class:`export.parity.ParityFailed` where the graph does not give torch's numbers.
    """
    graph = ClickGraph(weights).eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph, (torch.zeros(3, len(FEATURES)),), folder / GRAPH_FILE, input_names=[INPUT], output_names=[OUTPUT],
            dynamic_shapes=({0: "pairs"},), opset_version=OPSET, external_data=False, dynamo=True, verbose=False,
        )  # fmt: skip
    manifest = ClickManifest(
        features=list(FEATURES),
        features_version=VERSION,
        learned_to=learned_to,
        metrics=metrics,
        files={GRAPH_FILE: describe_file(folder / GRAPH_FILE)},
        packages={package: version(package) for package in ("torch", "onnxscript", "onnxruntime", "numpy")},
        experimental=experimental,
    )
    write_manifest(folder, manifest)
    manifest = msgspec.structs.replace(manifest, parity=_compare(graph, weights, folder))
    write_manifest(folder, manifest)
    return manifest


def _compare(graph: ClickGraph, weights: Weights, folder: Path) -> ClickParity:
    """Hold the graph against torch, and torch against what was trained, on pairs as spread as those learned from."""
    draw = np.random.default_rng(3)
    pairs = (weights.mean + 2 * weights.deviation * draw.standard_normal((_PAIRS, len(FEATURES)))).astype(np.float32)
    with torch.no_grad():
        expected = graph(torch.from_numpy(pairs)).numpy()
    found = OnnxClicks.load(folder, FEATURES, VERSION).log_odds(pairs)
    worst = float(max(np.abs(found - expected).max(), np.abs(weights.log_odds(pairs) - expected).max()))
    if not worst <= MOST_DIFFERENCE:
        raise ParityFailed(
            f"the exported graph differs from the torch model by {worst:.2g} over {_PAIRS} pairs, "
            f"{MOST_DIFFERENCE} is allowed; nothing was written"
        )
    return ClickParity(pairs=_PAIRS, worst_difference=worst)
