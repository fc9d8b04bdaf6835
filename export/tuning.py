"""Fine-tuning of a sentence model on clicks: LoRA (Hu et al. 2021) in its last layers, p = sigmoid(a u . e + b).

u is the direction of the mean of what was read, e an article's vector: just what the served ``decay`` compares. All
layers below the tuned ones stay as they are, so what they make of each text is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import peft
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from contract.errors import SetupError
from encoders.text import EMPTY, batches
from export.fitting import Checkpoint, Epoch, fit
from export.graph import SentenceModel
from export.interest.log import ReadingLog
from export.interest.training import Trained, Windows, learned_and_held_back
from export.models import SourceModel

TUNED_LAYERS = 2
TOKENS = 32
"""Of a text so many are read while tuning and judging; most titles have fewer than 20."""
RANK = 8
LEARNING_RATE = 1e-3
PATIENCE = 2
WINDOWS = 12
"""Stretches of reads in a batch."""
WINDOWS_OF_AN_EPOCH = 120
BATCH_TOKENS = 2048
OPPOSITE = 4
"""Other reads of the batch that stand against each read."""

Floats = NDArray[np.float32]
Track = Callable[[Sequence[Any], str], Iterable[Any]]
"""Wraps batches to show progress under a name."""


class _Given(nn.Module):  # type: ignore[misc]
    """Stands for embeddings and lower layers: gives what they made of a text before."""

    hidden: Tensor

    def forward(self, *_inputs: Any, **_named: Any) -> Tensor:
        return self.hidden


class SplitModel:
    """A sentence model cut below its last layers.

    ``lower`` are what the layers below make of each text, float16 [tokens, width] each; ``upper`` makes vectors of
    them, with a gradient.
    """

    def __init__(self, source: SourceModel) -> None:
        """Raises :class:`SetupError` for an architecture that cannot be cut, and as :class:`SentenceModel`."""
        self.model = SentenceModel(source, attention="sdpa")
        body = self.model.body
        layers = getattr(getattr(body, "encoder", None), "layer", None)
        if not isinstance(layers, nn.ModuleList) or not hasattr(body, "embeddings"):
            raise SetupError(
                f"{source.name} is a {type(body).__name__}, which cannot be tuned: what can be are BERT and its kin, "
                "whose layers are in encoder.layer"
            )
        self._body, self._embeddings, self._layers = body, body.embeddings, list(layers)
        self._given = _Given()
        self._pad = self.model.tokenizer.pad_token_id or 0
        body.requires_grad_(False)

    def lower(self, texts: Sequence[str], track: Track) -> list[Tensor]:
        """Run all but the last layers once; a text is cut to its first 32 tokens."""
        prompted = [self.model.prompt + text for text in texts]
        if self.model.lower_case:
            prompted = [text.lower() for text in prompted]
        longest = min(TOKENS, self.model.max_length)
        ids = self.model.tokenizer(prompted, truncation=True, max_length=longest)["input_ids"] if prompted else []
        tokens = [torch.tensor(some or EMPTY.tolist()) for some in ids]
        self._set(self._embeddings, self._layers[:-TUNED_LAYERS])
        found: list[Tensor] = [torch.empty(0)] * len(tokens)
        with torch.inference_mode():
            for batch in track(list(batches([len(some) for some in tokens], BATCH_TOKENS)), "reading texts"):
                input_ids, mask = self._padded([tokens[i] for i in batch])
                hidden = self._body(input_ids=input_ids, attention_mask=mask).last_hidden_state.half()
                for row, i in enumerate(batch):
                    found[i] = hidden[row, : len(tokens[i])].clone()
        return found

    def tune(self, seed: int) -> nn.Module:
        """Put adapters into the last layers; return those layers, in which nothing else is trained."""
        torch.manual_seed(seed)
        self._set(self._given, self._layers[-TUNED_LAYERS:])
        config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.1, target_modules="all-linear")
        self._adapted = peft.get_peft_model(self._body, config)
        return self._body

    def upper(self, lower: Sequence[Tensor]) -> Tensor:
        """Return unit rows [n, dims], projected where a projection is set."""
        if self._body.embeddings is not self._given:
            self._set(self._given, self._layers[-TUNED_LAYERS:])
        parts, order = [], []
        for batch in batches([len(some) for some in lower], BATCH_TOKENS):  # of about one length: little padding
            self._given.hidden, mask = self._padded([lower[i].float() for i in batch])
            parts.append(self.model(torch.zeros(mask.shape, dtype=torch.int64), mask))
            order.append(batch)
        return torch.cat(parts)[np.argsort(np.concatenate(order))]

    def vectors(self, lower: Sequence[Tensor]) -> Floats:
        """The same without a gradient, float32 [n, dims]."""
        self._body.eval()
        with torch.no_grad():
            found: Floats = self.upper(lower).numpy()
        return found

    def merged(self) -> Any:
        """Add the adapters to the weights they adapt; return the whole body."""
        body = self._adapted.merge_and_unload()
        self._set(self._embeddings, self._layers)
        return body

    def _set(self, embeddings: nn.Module, layers: Sequence[nn.Module]) -> None:
        self._body.embeddings = embeddings
        self._body.encoder.layer = nn.ModuleList(layers)

    def _padded(self, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Rows of different length as one tensor, and a mask of what is there."""
        padded = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=self._pad)
        lengths = torch.tensor([len(row) for row in rows])
        return padded, (torch.arange(padded.shape[1]) < lengths[:, None]).long()


class Clicked(nn.Module):  # type: ignore[misc]
    """p = sigmoid(a u . e + b) with the adapted layers that make both vectors."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.log_scale = nn.Parameter(torch.tensor(math.log(5.0)))
        self.bias = nn.Parameter(torch.tensor(0.0))

    def log_odds(self, cosines: Tensor) -> Tensor:
        return self.log_scale.exp() * cosines + self.bias


@dataclass(frozen=True)
class Pairs:
    """Cosines of users with what they read [P], with what they passed over [N], with others' reads [M]."""

    read: Tensor
    passed: Tensor
    others: Tensor

    def loss(self, judge: Clicked) -> Tensor:
        """Binary cross-entropy; each kind counts the same."""
        loss = softplus(-judge.log_odds(self.read)).mean()
        for wrong in (self.passed, self.others):
            if len(wrong):
                loss = loss + 0.5 * softplus(judge.log_odds(wrong)).mean()
        return loss


def tune(
    split: SplitModel,
    lower: Sequence[Tensor],
    log: ReadingLog,
    *,
    seed: int,
    epochs: int,
    track: Track,
    on_epoch: Callable[[int, Epoch], None],
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Tune the last layers of ``split`` on ``log``, whose row r is the text of ``lower[r]``. Blocks for minutes.

    The best weights are left in it, not yet merged. Raises :class:`SetupError` for a log that is too short.
    """
    learned, held_back = learned_and_held_back(log)
    judge = Clicked(split.tune(seed))
    draw = np.random.default_rng(seed)
    with torch.no_grad():
        some = [_pairs(split, lower, log, learned, batch) for batch in _batches(learned, draw)[:8]]
    _calibrate(judge, some)
    trained = [weight for weight in judge.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=0.01)
    draw = np.random.default_rng(seed)

    def one_epoch(_progress: float) -> float:
        judge.train()
        losses = []
        for some in track(_batches(learned, draw), "learning"):
            optimiser.zero_grad()
            loss = _pairs(split, lower, log, learned, some).loss(judge)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                break
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
        return float(np.mean(losses))

    def measure() -> float:
        judge.eval()
        same = np.random.default_rng(0)
        with torch.no_grad():
            losses = [float(_pairs(split, lower, log, held_back, b).loss(judge)) for b in _batches(held_back, same)]
        return float(np.mean(losses))

    fitted = fit(
        judge, optimiser, draw, epochs=epochs, patience=PATIENCE, one_epoch=one_epoch, measure=measure,
        on_epoch=on_epoch, checkpoint=checkpoint,
    )  # fmt: skip
    counts = int(learned.foretold.sum()), int(held_back.foretold.sum())
    return Trained(fitted.curve, fitted.best, fitted.stopped, *counts)


def _batches(some: Windows, draw: np.random.Generator) -> list[NDArray[np.intp]]:
    """Draw an epoch's windows, in batches of the same time: what is told apart is then no matter of the hour."""
    drawn = np.sort(draw.permutation(len(some))[:WINDOWS_OF_AN_EPOCH])
    order = drawn[np.argsort(some.ended_at[drawn], kind="stable")]
    cut = np.array_split(order, math.ceil(len(order) / WINDOWS))
    return [cut[i] for i in draw.permutation(len(cut))]


def _pairs(
    split: SplitModel, lower: Sequence[Tensor], log: ReadingLog, some: Windows, batch: NDArray[np.intp]
) -> Pairs:
    """Make the vectors that these windows need, each once, and compare."""
    events, foretold = some.events[batch], some.foretold[batch]
    rows = np.where(events >= 0, log.rows[np.maximum(events, 0)], -1)
    shown = np.where(foretold[..., None], log.shown[np.maximum(events, 0)], -1)
    needed = np.union1d(rows[rows >= 0], shown[shown >= 0])
    vectors = split.upper([lower[row] for row in needed.tolist()])
    articles = vectors[np.searchsorted(needed, np.maximum(rows, needed[0])).clip(0, len(needed) - 1)]
    articles = articles * torch.from_numpy(rows >= 0)[..., None]
    before = articles.cumsum(dim=1) - articles
    users = normalize(before[torch.from_numpy(foretold)], dim=1)
    read = rows[foretold]
    passed = shown[foretold]
    own = (users * articles[torch.from_numpy(foretold)]).sum(dim=1)
    who, place = np.nonzero(passed >= 0)
    against = (users[who] * vectors[np.searchsorted(needed, passed[who, place])]).sum(dim=1)
    window = np.nonzero(foretold)[0]
    others = []
    for shift in range(1, OPPOSITE + 1):
        turn = np.roll(np.arange(len(read)), shift * max(1, len(read) // (OPPOSITE + 1)))
        foreign = np.flatnonzero((window != window[turn]) & (read != read[turn]))
        other = vectors[np.searchsorted(needed, read[turn[foreign]])]
        others.append((users[foreign] * other).sum(dim=1))
    return Pairs(own, against, torch.cat(others))


def _calibrate(judge: Clicked, some: Sequence[Pairs]) -> None:
    """Find a and b for the vectors as they are, so that what training lowers afterwards is the order."""
    whole = Pairs(*(torch.cat([getattr(p, kind) for p in some]) for kind in ("read", "passed", "others")))
    weights = [judge.log_scale, judge.bias]
    optimiser = torch.optim.LBFGS(weights, max_iter=50)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = whole.loss(judge)
        value.backward()
        return value

    optimiser.step(loss)
