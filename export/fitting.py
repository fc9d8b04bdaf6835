"""The loop of epochs that every training shares: stop where it gets no better, keep the best, go on after a kill."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

Weights = dict[str, torch.Tensor]


class Epoch(NamedTuple):
    """Mean losses of an epoch; ``trained`` is NaN for the state before the first."""

    trained: float
    held_back: float


@dataclass(frozen=True)
class Fitted:
    """How a training went; the module holds what was best on the held-back part. ``best`` is an index of ``curve``."""

    curve: list[Epoch]
    best: int
    stopped: str


class Checkpoint:
    """What a training needs to go on between two epochs, in a hidden file beside the folder that it will write."""

    def __init__(self, out: Path, made_of: dict[str, Any]) -> None:
        """``made_of`` says what is trained on what and how: another training takes no notice of the file."""
        self._file = out.parent / f".{out.name}.checkpoint"
        self._made_of = made_of

    def load(self) -> dict[str, Any] | None:
        """Return what :meth:`save` was given last, None where there is nothing of this training."""
        try:
            kept = torch.load(self._file, weights_only=True)
        except Exception:  # noqa: BLE001  not there, or cut off by a crash: whatever torch raises then
            return None
        return kept["state"] if isinstance(kept, dict) and kept.get("made_of") == self._made_of else None

    def save(self, state: dict[str, Any]) -> None:
        """Put ``state`` (tensors and plain values) into the file, whole or not at all."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        part = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            torch.save({"made_of": self._made_of, "state": state}, part)
            part.replace(self._file)
        finally:
            part.unlink(missing_ok=True)

    def remove(self) -> None:
        """The training has come to its end."""
        self._file.unlink(missing_ok=True)


def fit(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    draw: np.random.Generator,
    *,
    epochs: int,
    patience: int,
    one_epoch: Callable[[float], float],
    measure: Callable[[], float],
    on_epoch: Callable[[int, Epoch], None],
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Train until ``measure`` (the held-back loss) gets no better for ``patience`` epochs. Blocks.

    ``one_epoch`` is told how far the training is (0 to 1), moves the weights and returns the mean loss. With the same
    ``draw`` and torch seed it ends in the same weights, also where it was killed and goes on from ``checkpoint``.
    ``on_epoch`` is told of every epoch, of those before a kill too.
    """
    past = checkpoint.load() if checkpoint is not None else None
    if past is None:
        curve, best, kept = [Epoch(math.nan, measure())], 0, _weights(module)
    else:
        curve, best, kept = [Epoch(*losses) for losses in past["curve"]], past["best"], past["kept"]
        _set_weights(module, past["weights"])
        optimiser.load_state_dict(past["optimiser"])
        draw.bit_generator.state = past["draw"]
        torch.set_rng_state(past["torch"])
        for number, epoch in enumerate(curve[1:], 1):
            on_epoch(number, epoch)
    stopped = f"after {epochs} epochs"
    for number in range(len(curve), epochs + 1):
        if number - 1 - best >= patience:
            stopped = f"no better for {patience} epochs"
            break
        epoch = Epoch(one_epoch((number - 1) / epochs), measure())
        curve.append(epoch)
        on_epoch(number, epoch)
        if not (math.isfinite(epoch.trained) and math.isfinite(epoch.held_back)):
            stopped = f"the loss diverged in epoch {number}; epoch {best} is kept"
            break
        if epoch.held_back < curve[best].held_back:
            best, kept = number, _weights(module)
        if checkpoint is not None:
            checkpoint.save(
                {
                    "curve": [tuple(losses) for losses in curve],
                    "best": best,
                    "kept": kept,
                    "weights": _weights(module),
                    "optimiser": optimiser.state_dict(),
                    "draw": draw.bit_generator.state,
                    "torch": torch.get_rng_state(),
                }
            )
    _set_weights(module, kept)
    module.eval()
    return Fitted(curve, best, stopped)


def _weights(module: nn.Module) -> Weights:
    """A copy of what is trained."""
    return {name: weight.detach().clone() for name, weight in module.named_parameters() if weight.requires_grad}


def _set_weights(module: nn.Module, weights: Weights) -> None:
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.requires_grad:
                weight.copy_(weights[name])
