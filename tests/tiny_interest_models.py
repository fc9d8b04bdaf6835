"""Interest models trained on synthetic reads: some with a signal, some without.

Run by the environment that has torch. ``python tests/tiny_interest_models.py OUT contract`` writes each model, hardly
trained, to OUT, and one to OUT/plain and OUT/served; ``... OUT training`` writes each, trained, to OUT/signal, some to
OUT/noise, OUT/sessions, OUT/killed and OUT/tracked, and what else was tried to OUT/results.json.

The signal: an article is of one of six topics, and who reads one reads one of the next topic next. So the mean of what
was read says nothing of it, order does.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mlflow.tracking import MlflowClient
from rich.console import Console

from contract.errors import StoppressError
from contract.settings import load
from encoders.manifest import File
from encoders.onnx_interest import SCORE_FILE, InterestManifest, OnnxInterest
from export.interest import training
from export.interest.judging import judge
from export.interest.log import ReadingLog, log_of_clicks, log_of_impressions
from export.interest.parts import Interest
from export.interest.run import MODELS, made, train_interest
from export.interest.training import LENGTH, train, windows
from export.tracking import Tracking

DIMS, TOPICS, ARTICLES = 16, 6, 240
ENCODER_DIMS = 96
USERS, READS, SHOWN = 200, 12, 10


class Impression(NamedTuple):
    impression_id: str
    user_id: str
    at: int
    history: list[str]
    candidates: list[str]
    clicked: list[bool]


class Click(NamedTuple):
    user_id: str
    session_id: str
    article_id: str
    at: int
    context: Mapping[str, str] = {}


def synthetic(*, order: bool, users: int = USERS, dims: int = DIMS) -> ReadingLog:
    """Impressions of ten articles, of which one is clicked: by the signal, or any."""
    draw = np.random.default_rng(11)
    topics = np.arange(ARTICLES) % TOPICS
    axes = np.linalg.qr(draw.standard_normal((dims, dims)))[0]
    vectors = axes[topics] + 0.15 * draw.standard_normal((ARTICLES, dims))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    impressions = []
    for user in range(users):
        topic, at = int(draw.integers(TOPICS)), int(draw.integers(1_000_000))
        for _ in range(READS):
            topic, at = (topic + 1) % TOPICS, at + 1000
            shown = draw.choice(np.flatnonzero(topics != topic), SHOWN, replace=False)
            shown[-1] = draw.choice(np.flatnonzero(topics == topic))
            clicked = SHOWN - 1 if order else int(draw.integers(SHOWN))
            labels = [place == clicked for place in range(SHOWN)]
            impressions.append(Impression(f"{user} {at}", f"u{user}", at, [], [f"a{a}" for a in shown], labels))
    return log_of_impressions(impressions, {f"a{a}": vector for a, vector in enumerate(vectors)}, seed=1)


def sessions() -> ReadingLog:
    """Clicks alone, without texts: who reads an article reads others of its topic."""
    draw = np.random.default_rng(5)
    clicks = []
    for user in range(900):
        topic, at = int(draw.integers(TOPICS)), int(draw.integers(20 * 3_600_000))
        for place in range(3):
            article = TOPICS * int(draw.integers(8)) + topic
            clicks.append(Click(f"u{user}", f"s{user}", f"a{article}", at + 60_000 * place))
    return log_of_clicks(clicks, 8, lambda read: None)


def refused(log: ReadingLog, out: Path, **options: Any) -> dict[str, Any]:
    """Train what cannot be trained; return the error."""
    try:
        train_interest("gru", log, out, console=Console(quiet=True), **options)
    except StoppressError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    return {"error": "", "exit_code": 0}


def same_seed_same_weights(log: ReadingLog) -> bool:
    first, second = made("gan", DIMS, 3, plain=False), made("gan", DIMS, 3, plain=False)
    runs = [train(model, log, seed=3, epochs=1, on_epoch=lambda number, epoch: None) for model in (first, second)]
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return runs[0].curve[1:] == runs[1].curve[1:] and all(torch.equal(a, b) for a, b in pairs)


def diverged(log: ReadingLog) -> dict[str, Any]:
    """Train with a rate that no loss survives; say whether what is kept is what was best."""
    model = made("gru", DIMS, 0, plain=False)
    before = copy.deepcopy(model.state_dict())
    run = train(model, log, seed=0, epochs=5, on_epoch=lambda number, epoch: None, learning_rate=1e30)
    same = all(torch.equal(a, b) for n, a in model.state_dict().items() if n != "log_scale" for b in [before[n]])
    return {"stopped": run.stopped, "kept": run.best, "as_it_was": same}


class InTorch(OnnxInterest):
    """A model that is not exported, which takes seconds."""

    def __init__(self, name: str, model: Interest) -> None:
        size, graphs = model.state_size, dict.fromkeys([SCORE_FILE] if model.scores else [], File(size=0, sha256=""))
        about = InterestManifest(
            model=name, dims=model.dims, state_size=size, queries=1, files=graphs, packages={}
        )  # fmt: skip
        super().__init__(Path("nowhere"), about)
        self._model = model

    def step(self, *inputs: Any) -> Any:
        return self._run(self._model.step, *inputs)

    def query(self, *inputs: Any) -> Any:
        return self._run(self._model.query, *inputs)

    def score(self, *inputs: Any) -> Any:
        return self._run(self._model.score, *inputs)

    def _run(self, function: Callable[..., torch.Tensor], *inputs: Any) -> Any:
        with torch.no_grad():
            return function(*(torch.from_numpy(numbers.astype(np.float32)) for numbers in inputs)).numpy()


def found_in(log: ReadingLog, name: str) -> dict[str, float]:
    """Train a model and return the AUC of each way to rank by it."""
    model = made(name, DIMS, 0, plain=False)
    train(model, log, seed=0, epochs=3, on_epoch=lambda number, epoch: None, learning_rate=1e-2)
    ways = judge(InTorch(name, model), log)
    return {way: float(rows[:, 0].mean()) for way, rows in ways.items() if not way.endswith("popular")}


def foretold(log: ReadingLog) -> dict[str, bool]:
    """Whether windows foretell each read but a user's first once, in the part of its time, and in its order."""
    parts = [windows(log, 0, log.trained_until), windows(log, log.trained_until, 1 << 62)]
    events = [part.events[part.foretold] for part in parts]
    rest = np.setdiff1d(np.arange(len(log.rows)), log.starts[:-1])
    return {
        "each once": bool(np.array_equal(np.sort(np.concatenate(events)), rest)),
        "in its time": bool((log.ats[events[0]] < log.trained_until).all()),
        "in order": all(
            (np.diff(row[row >= 0]) == 1).all() for part in parts for row in part.events
        ),
        "with what was before": all(
            wanted.argmax() >= min(row[wanted.argmax()] - log.starts[log.starts <= row[0]].max(), LENGTH // 2)
            for part in parts for row, wanted in zip(part.events, part.foretold, strict=True)
        ),
    }  # fmt: skip


def long_reads() -> ReadingLog:
    """Users with 1 to 100 reads."""
    draw = np.random.default_rng(4)
    impressions = [
        Impression(
            f"{reads} {place}", f"u{reads}", 1000 * place + reads, [], [f"a{draw.integers(50)}", "b"], [True, False]
        )
        for reads in range(1, 101) for place in range(reads)
    ]  # fmt: skip
    vectors = {f"a{a}": np.eye(DIMS, dtype=np.float32)[a % DIMS] for a in range(50)}
    return log_of_impressions(impressions, vectors | {"b": np.ones(DIMS, np.float32)}, seed=1)


def killed(log: ReadingLog, out: Path) -> dict[str, Any]:
    """Train one model at a stretch and one whose training is killed in its second epoch, and started again."""
    options: dict[str, Any] = {"epochs": 3, "console": Console(quiet=True)}
    train_interest("gan", log, out / "whole", **options)
    child = multiprocessing.get_context("spawn").Process(target=_killed_in_epoch_2, args=(log, out / "resumed"))
    child.start()
    child.join()
    left = sorted(path.name for path in out.iterdir())
    done: list[float] = []
    one_epoch = training._epoch

    def counted(*inputs: Any) -> float:
        done.append(inputs[-1])
        return one_epoch(*inputs)

    training._epoch = counted  # type: ignore[assignment]
    train_interest("gan", log, out / "resumed", **options)
    training._epoch = one_epoch
    return {
        "exit code": child.exitcode, "left": left, "epochs after it": len(done),
        "at the end": sorted(path.name for path in out.iterdir()),
    }  # fmt: skip


def _killed_in_epoch_2(log: ReadingLog, out: Path) -> None:
    def on_progress(epochs: int) -> None:
        if epochs == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    train_interest("gan", log, out, epochs=3, console=Console(quiet=True), on_progress=on_progress)


def tracked(log: ReadingLog, out: Path) -> dict[str, Any]:
    """Train with MLflow's store in a folder; return what MLflow says of the run, and what is said of other URIs."""
    uri = f"file://{out / 'mlruns'}"
    tracking = Tracking.of(load([f"tracking_uri={uri}"], environ={}))
    train_interest("gru", log, out / "gru", epochs=2, console=Console(quiet=True), tracking=tracking)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("stoppress")
    (run,) = client.search_runs([experiment.experiment_id])
    refusals = []
    try:
        Tracking("nowhere://at-all")
    except StoppressError as error:
        refusals.append([error.exit_code, str(error)])
    return {
        "status": run.info.status, "name": run.info.run_name, "params": run.data.params, "metrics": run.data.metrics,
        "losses": [metric.value for metric in client.get_metric_history(run.info.run_id, "loss/held_back")],
        "files": sorted(file.path for file in client.list_artifacts(run.info.run_id)), "refusals": refusals,
    }  # fmt: skip


def for_the_contract(out: Path) -> None:
    quiet = Console(quiet=True)
    log = synthetic(order=True, users=80)
    for name in MODELS:
        train_interest(name, log, out / name, epochs=1, console=quiet)
    train_interest("vae", log, out / "plain" / "vae", epochs=1, plain=True, console=quiet)
    served = synthetic(order=True, users=80, dims=ENCODER_DIMS)
    train_interest("transformer", served, out / "served" / "transformer", epochs=2, console=quiet)


def for_the_training(out: Path) -> None:
    quiet = Console(quiet=True)
    with_order, noise = synthetic(order=True), synthetic(order=False)
    for name in MODELS:
        train_interest(name, with_order, out / "signal" / name, epochs=12, learning_rate=1e-2, console=quiet)
    train_interest("gru", noise, out / "noise" / "gru", epochs=2, console=quiet)
    train_interest("gan", sessions(), out / "sessions" / "gan", epochs=3, console=quiet)
    (out / "letters").write_text("dear")
    results: dict[str, Any] = {
        "noise": {name: found_in(noise, name) for name in MODELS},
        "windows": foretold(long_reads()),
        "same seed": same_seed_same_weights(noise),
        "killed": killed(synthetic(order=True, users=80), out / "killed"),
        "tracked": tracked(synthetic(order=True, users=80), out / "tracked"),
        "diverged": diverged(noise),
        "too short": refused(synthetic(order=True, users=9), out / "short"),
        "empty": refused(log_of_impressions([], {"a": np.ones(3, np.float32)}, seed=0), out / "empty"),
        "letters": refused(with_order, out / "letters"),
        "plain gru": refused(with_order, out / "gru", plain=True),
    }
    (out / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    {"contract": for_the_contract, "training": for_the_training}[sys.argv[2]](Path(sys.argv[1]))
