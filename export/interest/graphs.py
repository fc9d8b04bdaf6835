"""The ONNX side of an interest model: one graph for each function of the contract, and the proof that they agree."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from encoders.manifest import describe_file, write_manifest
from encoders.onnx_interest import (
    OUTPUT,
    QUERY_FILE,
    SCORE_FILE,
    SPREAD_FILE,
    STEP_FILE,
    InterestManifest,
    InterestParity,
    OnnxInterest,
)
from export.graph import OPSET
from export.interest.parts import Interest
from export.parity import ParityFailed

MOST_DIFFERENCE = 1e-3
"""Scores are sums of hundreds of products in float32, in another order."""
_USERS, _EVENTS = 7, 60


class _Function(nn.Module):  # type: ignore[misc]
    """One function of a model as a module of its own."""

    def __init__(self, model: Interest, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def write_graphs(model: Interest, name: str, folder: Path) -> InterestManifest:
    """Write the model's graphs and manifest to ``folder``. Blocks for some seconds.

    Raises :class:`export.parity.ParityFailed` where they do not give torch's numbers.
    """
    model = model.eval()
    state, article, event = torch.zeros(2, model.state_size), torch.zeros(3, model.dims), torch.ones(2, 3)
    graphs: dict[str, tuple[Callable[..., Tensor], dict[str, tuple[Tensor, str]]]] = {
        STEP_FILE: (
            model.step,
            {"state": (state, "users"), "article": (article[:2], "users"), "event": (event, "users")},
        ),
        QUERY_FILE: (model.query, {"state": (state, "users")}),
    }
    if model.scores:
        graphs[SCORE_FILE] = (model.score, {"state": (state, "users"), "article": (article, "articles")})
    if model.spreads:
        graphs[SPREAD_FILE] = (model.spread, {"state": (state, "users")})
    for file, (function, inputs) in graphs.items():
        _write(_Function(model, function), inputs, folder / file)
    manifest = InterestManifest(
        model=name,
        dims=model.dims,
        state_size=model.state_size,
        queries=1,
        files={file: describe_file(folder / file) for file in graphs},
        packages={package: version(package) for package in ("torch", "onnxscript", "onnxruntime", "numpy")},
    )
    write_manifest(folder, manifest)
    manifest = msgspec.structs.replace(manifest, parity=_compare(model, OnnxInterest.load(folder)))
    write_manifest(folder, manifest)
    return manifest


def _write(function: _Function, inputs: dict[str, tuple[Tensor, str]], path: Path) -> None:
    for chatty in ("torch.onnx", "torch.utils.flop_counter"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            function,
            tuple(tensor for tensor, _ in inputs.values()),
            path,
            input_names=list(inputs),
            output_names=[OUTPUT],
            dynamic_shapes=(tuple({0: axis} for _, axis in inputs.values()),),
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )


def _compare(model: Interest, exported: OnnxInterest) -> InterestParity:
    """Take the same random events into both, of every weight, and compare all that the model gives after each."""
    draw = np.random.default_rng(3)
    state, worst = np.zeros((_USERS, model.state_size), np.float32), 0.0
    articles = draw.standard_normal((_EVENTS, _USERS, model.dims)).astype(np.float32)
    articles /= np.linalg.norm(articles, axis=2, keepdims=True)
    for number in range(_EVENTS):
        event = np.zeros((_USERS, 3))
        event[:, 2] = draw.choice([1.0, 2.0, 0.2, -1.0], _USERS, p=[0.7, 0.1, 0.1, 0.1])
        article = articles[number]
        pairs: list[tuple[Any, Any, tuple[Any, ...]]] = [
            (model.step, exported.step, (state, article, event)),
            (model.query, exported.query, (state,)),
        ]
        if model.scores:
            pairs.append((model.score, exported.score, (state, articles[:, 0])))
        if model.spreads:
            pairs.append((model.spread, exported.spread, (state,)))
        for ours, theirs, inputs in pairs:
            with torch.no_grad():
                expected = ours(*(torch.from_numpy(x.astype(np.float32)) for x in inputs)).numpy()
            worst = max(worst, float(np.abs(theirs(*inputs) - expected).max()))
        state = exported.step(state, article, event)
    if not worst <= MOST_DIFFERENCE:
        raise ParityFailed(
            f"the exported graphs differ from the torch model by {worst:.2g} over {_EVENTS} events, "
            f"{MOST_DIFFERENCE} is allowed; nothing was written"
        )
    return InterestParity(events=_EVENTS * _USERS, worst_difference=worst)
