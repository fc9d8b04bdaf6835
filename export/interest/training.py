"""The training loop that all interest models share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from contract.errors import SetupError
from encoders.onnx_interest import READ_WEIGHT
from export.fitting import Checkpoint, Epoch, Fitted, fit
from export.interest.log import SHOWN, ReadingLog
from export.interest.parts import Interest, Targets
from export.interest.run import LEARNING_RATE

LENGTH = 32
"""Reads in a window; the first half of it is there to have a state, but at the beginning of a user's reads."""
TARGETS = 512
"""Reads to be foretold in a batch, at least."""
LEAST_TRAINED = 200
LEAST_HELD_BACK = 20
PATIENCE = 3
WEIGHT_DECAY = 1e-3


@dataclass(frozen=True)
class Trained(Fitted):
    """How a training went, and from how much."""

    reads: int
    reads_held_back: int


@dataclass(frozen=True)
class Windows:
    """Stretches of reads: event numbers [W, L], -1 where there is none, and which are to be foretold [W, L].

    ``ended_at`` [W] is when the last of them was read.
    """

    events: NDArray[np.int64]
    foretold: NDArray[np.bool_]
    ended_at: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.events)


def windows(log: ReadingLog, since: int, until: int) -> Windows:
    """Cut each user's reads such that each one of that time (epoch ms, ``until`` excluded) is foretold once."""
    half = LENGTH // 2
    events, foretold, ended_at = [], [], []
    wanted = (log.ats >= since) & (log.ats < until)
    wanted[log.starts[:-1][np.diff(log.starts) > 0]] = False  # of the first read nothing was known before
    for begin, end in zip(log.starts[:-1].tolist(), log.starts[1:].tolist(), strict=True):
        if not wanted[begin:end].any():
            continue
        for middle in range(begin + half, max(end, begin + half + 1), half):
            some = np.arange(middle - half, min(middle + half, end))
            mine = wanted[some] & (some >= (middle if middle > begin + half else begin))
            if mine.any():
                some, mine = some[: int(np.flatnonzero(mine)[-1]) + 1], mine[: int(np.flatnonzero(mine)[-1]) + 1]
                events.append(np.pad(some, (0, LENGTH - len(some)), constant_values=-1))
                ended_at.append(int(log.ats[some[-1]]))
                foretold.append(np.pad(mine, (0, LENGTH - len(mine))))
    if not events:
        return Windows(np.zeros((0, LENGTH), np.int64), np.zeros((0, LENGTH), np.bool_), np.zeros(0, np.int64))
    return Windows(np.array(events), np.array(foretold), np.array(ended_at))


def train(
    model: Interest,
    log: ReadingLog,
    *,
    seed: int,
    epochs: int,
    on_epoch: Callable[[int, Epoch], None],
    learning_rate: float = LEARNING_RATE,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train ``model`` until the held-back part of ``log`` gets no better; leave its best weights in it. Blocks.

    The same seed gives the same weights, also where a killed training goes on from ``checkpoint``. Raises
    :class:`SetupError` for a log that is too short.
    """
    torch.set_num_threads(1)  # the matrices are small, and one thread adds up in one order
    learned, held_back = learned_and_held_back(log)
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    source = _Source(log)
    _calibrate(model, source, learned)
    optimiser = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=WEIGHT_DECAY)
    fitted = fit(
        model,
        optimiser,
        draw,
        epochs=epochs,
        patience=PATIENCE,
        one_epoch=lambda progress: _epoch(model, source, learned, optimiser, draw, progress),
        measure=lambda: _measure(model, source, held_back),
        on_epoch=on_epoch,
        checkpoint=checkpoint,
    )
    return Trained(
        fitted.curve, fitted.best, fitted.stopped, int(learned.foretold.sum()), int(held_back.foretold.sum())
    )


def learned_and_held_back(log: ReadingLog) -> tuple[Windows, Windows]:
    """Return the windows to learn from and those that say when to stop.

    Raises :class:`SetupError` where either has too few reads.
    """
    learned, held_back = windows(log, 0, log.trained_until), windows(log, log.trained_until, log.judged_from)
    counts = int(learned.foretold.sum()), int(held_back.foretold.sum())
    if counts[0] < LEAST_TRAINED or counts[1] < LEAST_HELD_BACK:
        raise SetupError(
            f"the log is too short to train on: {counts[0]} reads that follow another of their user, and {counts[1]} "
            f"held back to know when to stop; {LEAST_TRAINED} and {LEAST_HELD_BACK} are needed: give more days or users"
        )
    return learned, held_back


def _calibrate(model: Interest, source: _Source, learned: Windows) -> None:
    """Find the scale of cosines first: what counts as better afterwards is an order, not how sure it is of it."""
    model.eval()
    batches = list(_batches(learned))[:: max(1, len(learned) // (TARGETS * 2))]
    losses = {}
    with torch.no_grad():
        for log_scale in np.linspace(0, 4, 17).tolist():
            model.log_scale.fill_(log_scale)
            losses[log_scale] = sum(float(model.loss(source.targets(model, learned, b), 1.0)) for b in batches[:10])
        model.log_scale.fill_(min(losses, key=losses.__getitem__))


def _epoch(
    model: Interest,
    source: _Source,
    learned: Windows,
    optimiser: torch.optim.Optimizer,
    draw: np.random.Generator,
    progress: float,
) -> float:
    model.train()
    losses = []
    batches = list(_batches(learned))
    for number in draw.permutation(len(batches)):
        batch = batches[number]
        optimiser.zero_grad()
        loss = model.loss(source.targets(model, learned, batch), progress)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return float(np.mean(losses))


def _measure(model: Interest, source: _Source, held_back: Windows) -> float:
    model.eval()
    with torch.no_grad():
        losses = [float(model.loss(source.targets(model, held_back, batch), 1.0)) for batch in _batches(held_back)]
    return float(np.mean(losses))


def _batches(some: Windows) -> Iterator[NDArray[np.intp]]:
    """Cut the windows, in the order of time, where enough reads are to be foretold; a rest goes with the last.

    What is told apart in a batch is then news of the same time: to know the hour is no interest.
    """
    order = np.argsort(some.ended_at, kind="stable")
    ends = np.cumsum(some.foretold[order].sum(axis=1)) // TARGETS
    cuts = np.flatnonzero(np.diff(ends)) + 1
    cuts = cuts[: max(0, int(ends[-1]) - 1)]
    yield from np.split(order, cuts)


class _Source:
    """Vectors and numbers of a log as tensors."""

    def __init__(self, log: ReadingLog) -> None:
        self._log = log
        self._vectors = torch.from_numpy(np.ascontiguousarray(log.vectors))

    def targets(self, model: Interest, some: Windows, batch: NDArray[np.intp]) -> Targets:
        """Run the model over these windows and return what is to be foretold in them."""
        log = self._log
        length = int(np.flatnonzero(some.foretold[batch].any(axis=0))[-1]) + 1
        events, foretold = some.events[batch, :length], some.foretold[batch, :length]
        articles = self._vectors[log.rows[np.maximum(events, 0)]]
        event = torch.full((len(batch), 3), READ_WEIGHT)
        state, before = torch.zeros(len(batch), model.state_size), []
        for i in range(length):
            before.append(state[foretold[:, i]])
            if i + 1 < length:
                state = model.step(state, articles[:, i], event)
        chosen = events.T[foretold.T]
        rows = log.rows[chosen]
        _, number, counts = np.unique(log.articles[rows], return_inverse=True, return_counts=True)
        shown = log.shown[chosen].reshape(-1, SHOWN)
        return Targets(
            state=torch.cat(before),
            article=self._vectors[rows],
            number=torch.from_numpy(number),
            log_q=torch.from_numpy(np.log(counts[number] / len(rows)).astype(np.float32)),
            shown=self._vectors[np.maximum(shown, 0)],
            was_shown=torch.from_numpy(shown >= 0),
        )
