"""``stoppress train encoder``: a sentence model is tuned on clicks, judged on later ones, and exported if it wins."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from contract.errors import SetupError, StoppressError
from contract.settings import Settings
from encoders.manifest import Manifest, write_manifest
from evaluation.articles import Articles
from evaluation.impressions import impressions
from evaluation.left_out import LeftOut
from evaluation.models.registry import make_models
from evaluation.prequential import METRICS, replay
from evaluation.requests import Impression, Moment
from export.encoder import NEEDS, check_encoder_out, export_encoder, usable_corpus
from export.folder import folder_beside, put_in_place
from export.interest.judging import better_by
from export.interest.log import ReadingLog, log_of_impressions
from export.models import SourceModel, find_model
from export.projection import learn_projection, project
from export.runs import loss_of, write_run
from export.tracking import Tracking

if TYPE_CHECKING:
    from export.fitting import Epoch
    from export.interest.training import Trained
    from export.tuning import SplitModel

ROWS = ("decay", "mean")
"""The rows of the evaluation that both encoders are judged by; the first decides."""
Floats = NDArray[np.float32]
Display = Callable[[Sequence[Any], str], Iterable[Any]]


class NotBetter(StoppressError):
    """The tuned encoder is not better on later clicks; nothing was written."""


class Text(NamedTuple):
    """An article: what the encoder reads of it, and its category."""

    text: str
    category: str


def train_encoder(
    shown: Sequence[Impression],
    texts: Mapping[str, Text],
    out: Path,
    settings: Settings,
    *,
    track: Display,
    model: str = "minilm",
    dims: int = 96,
    seed: int = 0,
    epochs: int = 8,
    keep: bool = False,
    tracking: Tracking | None = None,
    console: Console | None = None,
) -> Manifest:
    """Tune ``model`` on what was ``shown`` and clicked; export it to the folder ``out`` where that made it better.

    The first half of the time is learned from, the next tenth says when to stop, on the rest the tuned encoder is held
    against the untuned one: both centred and projected to ``dims`` (learned from all ``texts``), in the prequential
    evaluation. With ``keep`` one that is not better is written too and its manifest says that it is experimental. The
    folder also gets run.json and loss.svg; ``tracking`` gets a run either way. The same data and seed give the same
    numbers. Killed and started again, the training goes on after its last epoch. Blocks for minutes.

    Raises :class:`NotBetter`, :class:`SetupError` for data, models and folders that cannot be used, and
    :class:`export.parity.ParityFailed` where the exported graph does not give torch's vectors.
    """
    console = console or Console(stderr=True, soft_wrap=True)
    check_encoder_out(out)
    absent = [package for package in (*NEEDS, "peft") if find_spec(package) is None]
    if absent:
        raise SetupError(
            f"not installed here: {', '.join(absent)}; run it as .venv-export/bin/stoppress (made by "
            "`make .venv-export/installed`), or install stoppress[export,cpu]"
        )
    usable_corpus(dims, (text.text for text in texts.values()), console)
    source = find_model(model)
    from export.fitting import Checkpoint
    from export.tuning import LEARNING_RATE, RANK, TUNED_LAYERS, SplitModel, tune

    console.print(f"{len(shown):,} impressions, {len(texts):,} articles; reading them with {source.name}")
    split = SplitModel(source)
    if not 1 <= dims <= split.model.width:
        raise SetupError(f"--dims {dims}: {source.name} has {split.model.width} dimensions, give 1 to that")
    lower = split.lower([text.text for text in texts.values()], track)
    untuned = split.vectors(lower)
    projection = learn_projection(untuned, dims)
    log = log_of_impressions(shown, dict(zip(texts, untuned, strict=True)), seed)
    if not log.requests:
        raise SetupError("the last part of the log has no request with something clicked and something not: give more")
    split.model.set_projection(projection)
    parameters = {
        "model": source.name, "dims": dims, "seed": seed, "epochs": epochs, "learning_rate": LEARNING_RATE,
        "lora_rank": RANK, "tuned_layers": TUNED_LAYERS,
    }  # fmt: skip
    checkpoint = Checkpoint(out, {"parameters": parameters, "data": log.digest})
    trained = tune(
        split, lower, log, seed=seed, epochs=epochs, track=track, checkpoint=checkpoint,
        on_epoch=lambda number, epoch: console.print(_line(number, epoch)),
    )  # fmt: skip
    console.print(f"{trained.stopped}; the weights are those of epoch {trained.best}")
    split.model.projected = False
    tuned = split.vectors(lower)
    judged = compared(shown, texts, untuned, tuned, dims, settings, log.judged_from)
    _say(console, judged, len(log.requests))
    doubts = _doubts(judged)
    record = {**_record(log, trained, judged, parameters), "experimental": doubts}
    if doubts and not keep:
        checkpoint.remove()
        if tracking is not None:
            tracking.record(record, None, console)
        raise NotBetter(f"{doubts}; nothing was written (--keep writes it all the same)")
    with folder_beside(out) as work:
        manifest = _exported(split, source, work, [text.text for text in texts.values()], dims, console)
        manifest = msgspec.structs.replace(manifest, experimental=doubts)
        write_manifest(work / "encoder", manifest)
        write_run(work / "encoder", {**record, "packages": manifest.packages})
        put_in_place(work / "encoder", out)
    checkpoint.remove()
    if tracking is not None:
        tracking.record(record, out, console)
    console.print(f"wrote {out}; use it with --set encoder={out}")
    return manifest


def compared(
    shown: Sequence[Impression],
    texts: Mapping[str, Text],
    untuned: Floats,
    tuned: Floats,
    dims: int,
    settings: Settings,
    judged_from: int,
) -> dict[str, dict[str, Any]]:
    """Replay what was ``shown`` with either's vectors [n, width]; return each row's measures of what came later.

    ``better`` is by how much the tuned one's first measure is above the other's: mean and 95 % interval, paired.
    """
    names = METRICS["impressions"]
    both = [_measured(shown, texts, vectors, dims, settings, judged_from) for vectors in (untuned, tuned)]
    found = {}
    for row in ROWS:
        before, after = (measured[row] for measured in both)
        found[row] = {
            "untuned": dict(zip(names, before.mean(axis=0).round(4).tolist(), strict=True)),
            "tuned": dict(zip(names, after.mean(axis=0).round(4).tolist(), strict=True)),
            "better": [round(x, 4) for x in better_by(after[:, 0], before[:, 0])],
        }
    return found


def _measured(
    shown: Sequence[Impression],
    texts: Mapping[str, Text],
    vectors: Floats,
    dims: int,
    settings: Settings,
    judged_from: int,
) -> dict[str, NDArray[np.float64]]:
    projected = project(vectors, learn_projection(vectors, dims).rows)
    articles = Articles(dims)
    for (article_id, text), vector in zip(texts.items(), projected, strict=True):
        articles.describe(article_id, text.category, vector)
    ordered = sorted(shown, key=lambda impression: impression.at)
    moments = impressions(ordered, articles, LeftOut(lambda _: None), np.random.default_rng(0))
    later = (m if m.at >= judged_from else Moment(m.at, [], m.feedback, m.read) for m in moments)
    judged = replay("impressions", later, articles, make_models("impressions", ROWS, articles, settings, 0))
    return {row: judged.values(row) for row in ROWS}


def _exported(
    split: SplitModel, source: SourceModel, work: Path, corpus: Sequence[str], dims: int, console: Console
) -> Manifest:
    """Write the tuned model in transformers' layout, and export that."""
    folder = work / "torch"
    shutil.copytree(source.folder, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "onnx", "openvino"))
    split.merged().save_pretrained(folder)
    tuned = dataclasses.replace(source, name=f"{source.name}, tuned on clicks", folder=folder)
    return export_encoder(tuned, work / "encoder", dims=dims, corpus=corpus, console=console)


def _doubts(judged: dict[str, dict[str, Any]]) -> str:
    """Say why the tuned encoder is none to use, nothing where it is better beyond chance."""
    difference, low, high = judged[ROWS[0]]["better"]
    if low > 0:
        return ""
    return (
        f"on later clicks the tuned encoder is not better beyond chance: the AUC of {ROWS[0]} differs by "
        f"{difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}"
    )


def _record(
    log: ReadingLog, trained: Trained, judged: dict[str, dict[str, Any]], parameters: dict[str, Any]
) -> dict[str, Any]:
    return {
        "model": "encoder",
        "parameters": parameters,
        "data": {
            "sha256": log.digest,
            "task": log.task,
            "reads": len(log.rows),
            "users": len(log.starts) - 1,
            "foretold": trained.reads,
            "held_back": trained.reads_held_back,
            "requests_judged": len(log.requests),
        },
        "loss": loss_of(trained.curve),
        "best_epoch": trained.best,
        "stopped": trained.stopped,
        "metrics": judged,
    }


def _line(number: int, epoch: Epoch) -> str:
    return f"epoch {number}: loss {epoch.trained:.4f}, held back {epoch.held_back:.4f}"


def _say(console: Console, judged: dict[str, dict[str, Any]], requests: int) -> None:
    console.print(f"judged on the last {requests:,} requests")
    for row, found in judged.items():
        for which in ("untuned", "tuned"):
            figures = "  ".join(f"{name} {value:.4f}" for name, value in found[which].items())
            console.print(f"{row:6}{which:9}{figures}", highlight=False)
        difference, low, high = found["better"]
        console.print(f"{row:6}AUC {difference:+.4f} ({low:+.4f} to {high:+.4f})", highlight=False)
