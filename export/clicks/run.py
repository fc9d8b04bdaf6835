"""``stoppress train ranker``: a click model is trained, judged, exported, proven, and put into a folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console

from contract.errors import ClickModelUnusable, SetupError
from encoders.manifest import MANIFEST_FILE
from encoders.onnx_clicks import ClickManifest, read_click_manifest
from export.clicks.training import Trained, train
from export.folder import folder_beside, put_in_place
from ranking.listwise import LEARNING_RATE, ClickLog, Shown, Weights, hand_formula, loss_of
from ranking.reranker import FEATURES, VERSION

RUN_FILE = "run.json"
EPOCHS = 20
LEAST_REQUESTS = 200
RESAMPLES = 1000


def train_clicks(
    log: ClickLog, out: Path, *, digest: str, seed: int = 0, epochs: int = EPOCHS, learning_rate: float = LEARNING_RATE,
    console: Console | None = None,
) -> ClickManifest:  # fmt: skip
    """Train on ``log`` and write the folder ``out``: graph, manifest.json, run.json. ``digest`` names the data.

    In the order of time three fifths of the requests are learned from, the next fifth says when to stop and calibrates,
    the last one judges; then as many epochs are learned from all. The folder appears whole or not at all. The same log
    and seed give the same numbers. Blocks for a minute or so.

    Raises :class:`SetupError` for a log or folder that cannot be used, and :class:`export.parity.ParityFailed`.
    """
    console = console or Console(stderr=True, soft_wrap=True)
    check_out(out)
    if len(log.shown) < LEAST_REQUESTS:
        raise SetupError(
            f"the log has {len(log.shown)} requests of which something was clicked and something passed over, "
            f"{LEAST_REQUESTS} are needed: gather longer, or name more data"
        )
    check_packages()
    from export.clicks.graph import write_click_model

    fifth = len(log.shown) // 5
    learned, stops, judges = log.shown[: -2 * fifth], log.shown[-2 * fifth : -fifth], log.shown[-fifth:]
    console.print(f"training on {len(learned):,} requests, {len(stops):,} say when to stop, {len(judges):,} judge")
    trained = train(
        learned, stops, seed=seed, epochs=epochs, learning_rate=learning_rate,
        on_epoch=lambda n, loss, held: console.print(f"epoch {n}: loss {loss:.4f}, held back {held:.4f}"),
    )  # fmt: skip
    console.print(f"{trained.stopped}; as many epochs as were best: {trained.best}")
    metrics, difference = judged(trained.weights, judges, seed)
    why_not = doubts(difference, len(judges))
    final = train(log.shown, stops, seed=seed, epochs=trained.best, learning_rate=learning_rate, patience=None)
    with folder_beside(out) as work:
        manifest = write_click_model(
            final.weights, work, learned_to=int(log.at[-1]), metrics=metrics, experimental=why_not
        )
        parameters = {"seed": seed, "epochs": epochs, "learning_rate": learning_rate}
        record = _record(log, digest, trained, manifest, parameters, difference)
        (work / RUN_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
        put_in_place(work, out)
    for name, row in metrics.items():
        console.print(f"{name:10}" + "  ".join(f"{m} {x:.4f}" for m, x in row.items()), highlight=False)
    if why_not:
        console.print(f"[yellow]the model is experimental: {why_not}")
    console.print(f"wrote {out}; serve it with --set ranker_model={out}")
    return manifest


def check_packages() -> None:
    """Raise :class:`SetupError` where what an export needs is not installed."""
    absent = [package for package in ("torch", "onnxscript", "onnxruntime") if find_spec(package) is None]
    if absent:
        raise SetupError(
            f"not installed here: {', '.join(absent)}; run it as .venv-export/bin/stoppress (made by "
            "`make .venv-export/installed`), or install stoppress[export,cpu]"
        )


def check_out(out: Path) -> None:
    """Raise :class:`SetupError` where ``out`` is something else than a click model or an empty folder."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        read_click_manifest(out, FEATURES, VERSION)
    except ClickModelUnusable:
        if (out / RUN_FILE).exists() and (out / MANIFEST_FILE).exists():
            return
        raise SetupError(f"{out} exists and is not a click model: name another folder, or remove it first") from None


def judged(
    weights: Weights, some: list[Shown], seed: int
) -> tuple[dict[str, dict[str, float]], tuple[float, float, float]]:
    """Return measures of the model and of the hand-made formula, and how much larger the model's AUC is, with its 95 %
    bootstrap interval over requests; among the rows that were kept of each."""
    by_hand = hand_formula()
    own = np.array([auc(weights.scores(s.features), s.clicked) for s in some])
    theirs = np.array([auc(s.features @ by_hand, s.clicked) for s in some])
    clicked = np.concatenate([s.clicked for s in some])
    odds = np.concatenate([weights.log_odds(s.features) for s in some]).astype(np.float64)
    count = np.exp(np.concatenate([s.offset for s in some]).astype(np.float64))
    log_loss = float((count * np.logaddexp(0, np.where(clicked, -odds, odds))).sum() / count.sum())
    rows = {
        "model": {"auc": float(own.mean()), "listwise_loss": loss_of(weights, some), "log_loss": log_loss},
        "by hand": {"auc": float(theirs.mean()), "listwise_loss": loss_of(Weights.by_hand(some), some)},
    }
    draws = np.random.default_rng(seed).integers(0, len(own), (RESAMPLES, len(own)))
    low, high = np.quantile((own - theirs)[draws].mean(axis=1), [0.025, 0.975])
    return rows, (float((own - theirs).mean()), float(low), float(high))


def auc(scores: np.ndarray, clicked: np.ndarray) -> float:
    """Return how often a clicked row stands above one that was not, ties counting half."""
    above = scores[clicked][:, None] - scores[~clicked]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def doubts(difference: tuple[float, float, float], requests: int) -> str:
    """Say why a model should not serve, nothing where it is better than the formula beyond chance."""
    if difference[1] > 0:
        return ""
    return (
        f"its AUC on the last {requests} requests is {difference[0]:+.4f} against the hand-made formula's, "
        f"95 % interval {difference[1]:+.4f} to {difference[2]:+.4f}"
    )


def _record(
    log: ClickLog, digest: str, trained: Trained, manifest: ClickManifest, parameters: dict[str, Any],
    difference: tuple[float, float, float],
) -> dict[str, Any]:  # fmt: skip
    return {
        "model": "ranker",
        "parameters": parameters,
        "data": {"sha256": digest, "requests": len(log.shown), "from": int(log.at[0]), "to": int(log.at[-1])},
        "packages": manifest.packages,
        "loss": [{"epoch": i, "trained": a, "held_back": b} for i, (a, b) in enumerate(trained.curve)],
        "best_epoch": trained.best,
        "stopped": trained.stopped,
        "metrics": manifest.metrics,
        "better_than_by_hand": difference,
        "experimental": manifest.experimental,
        "parity": msgspec.to_builtins(manifest.parity),
    }
