"""``stoppress train``: an interest model is trained, exported, proven, judged, and put into a folder."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console

from contract.errors import InterestModelUnusable, SetupError
from encoders.manifest import MANIFEST_FILE, write_manifest
from encoders.onnx_interest import InterestManifest, OnnxInterest, read_interest_manifest
from export.folder import folder_beside, put_in_place
from export.interest.judging import MEASURES, better_by, decay_of, judge
from export.interest.log import ReadingLog
from export.runs import RUN_FILE, loss_of, write_run
from export.tracking import Tracking

if TYPE_CHECKING:
    from export.fitting import Epoch
    from export.interest.parts import Interest
    from export.interest.training import Trained

EPOCHS = 20
LEARNING_RATE = 2e-3
MODELS = {
    "gru": "one gated recurrent unit over the articles as they were read",
    "transformer": "causal self-attention over the last 16 articles, with a head that scores pairs",
    "vae": "a variational auto-encoder of what was read, which also says how unsure it is",
    "gan": "a generator of the next article's vector and a discriminator that scores pairs",
}


def train_interest(
    name: str,
    log: ReadingLog,
    out: Path,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    plain: bool = False,
    learning_rate: float = LEARNING_RATE,
    console: Console | None = None,
    on_progress: Callable[[int], None] = lambda epochs: None,
    tracking: Tracking | None = None,
) -> InterestManifest:
    """Train the model ``name`` on ``log`` and write it to the folder ``out``: graphs, manifest.json, run.json.

    ``plain`` leaves out what the model is named for, to see what that is worth. The folder is built beside ``out`` and
    put in its place at the end; whatever fails leaves ``out`` as it was. The same log and seed give the same numbers.
    Killed and started again, the training goes on after its last epoch. Blocks for minutes; says on ``console``
    (standard error) what it is doing, and to ``on_progress`` how many epochs are done. ``tracking`` gets a run.

    Raises :class:`SetupError` for a log or folder that cannot be used, and :class:`export.parity.ParityFailed` where
    the graphs do not give torch's numbers.
    """
    console = console or Console(stderr=True, soft_wrap=True)
    check_out(out)
    absent = [package for package in ("torch", "onnxscript", "onnxruntime") if find_spec(package) is None]
    if absent:
        raise SetupError(
            f"not installed here: {', '.join(absent)}; run it as .venv-export/bin/stoppress (made by "
            "`make .venv-export/installed`), or install stoppress[export,cpu]"
        )
    from export.fitting import Checkpoint
    from export.interest.graphs import write_graphs
    from export.interest.training import train

    parameters = {"seed": seed, "epochs": epochs, "plain": plain, "learning_rate": learning_rate}
    model = made(name, log.vectors.shape[1], seed, plain=plain)
    console.print(f"training {name}{' without its idea' if plain else ''} on {len(log.rows):,} reads")

    def on_epoch(number: int, epoch: Epoch) -> None:
        on_progress(number)
        console.print(f"epoch {number}: loss {epoch.trained:.4f}, held back {epoch.held_back:.4f}")

    checkpoint = Checkpoint(out, {"model": name, "parameters": parameters, "data": log.digest})
    trained = train(
        model, log, seed=seed, epochs=epochs, on_epoch=on_epoch, learning_rate=learning_rate, checkpoint=checkpoint
    )
    console.print(f"{trained.stopped}; the weights are those of epoch {trained.best}")
    with folder_beside(out) as work:
        manifest = write_graphs(model, name, work)
        judged = _judged(OnnxInterest.load(work), log)
        manifest = msgspec.structs.replace(manifest, experimental=_doubts(name, log, judged))
        write_manifest(work, manifest)
        record = _record(log, trained, judged, manifest, parameters)
        write_run(work, record)
        put_in_place(work, out)
    checkpoint.remove()
    if tracking is not None:
        tracking.record(record, out, console)
    _say(console, name, out, log, judged, manifest)
    return manifest


def check_out(out: Path) -> None:
    """Raise :class:`SetupError` where ``out`` is something else than an interest model or an empty folder."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        read_interest_manifest(out)
    except InterestModelUnusable:
        if (out / RUN_FILE).exists() and (out / MANIFEST_FILE).exists():
            return
        raise SetupError(
            f"{out} exists and is not an interest model: name another folder, or remove it first"
        ) from None


def made(name: str, dims: int, seed: int, *, plain: bool) -> Interest:
    """Return an untrained model; ``plain`` as for :func:`train_interest`."""
    import torch

    from export.interest.gan import Gan
    from export.interest.gru import Gru
    from export.interest.transformer import Transformer
    from export.interest.vae import Vae

    torch.manual_seed(seed)
    made: dict[str, Callable[..., Interest]] = {"gru": Gru, "transformer": Transformer, "vae": Vae, "gan": Gan}
    return made[name](dims, plain=plain)


def _judged(model: OnnxInterest, log: ReadingLog) -> dict[str, dict[str, Any]]:
    """Return the measures of each way to rank, and how far each is from ``decay``'s."""
    if not log.requests:
        return {}
    decay, ours = judge(decay_of(log), log), judge(model, log)
    rows: dict[str, dict[str, Any]] = {}
    for prefix, ways in (("decay", decay), (model.about.model, ours)):
        for way, measured in ways.items():
            row: dict[str, Any] = dict(zip(MEASURES[log.task], measured.mean(axis=0).round(4).tolist(), strict=True))
            if prefix != "decay":
                theirs = decay["query + popular" if way.endswith("popular") else "query"]
                row["better_than_decay"] = [round(x, 4) for x in better_by(measured[:, 0], theirs[:, 0])]
            rows[f"{prefix} {way}"] = row
    return rows


def _doubts(name: str, log: ReadingLog, judged: dict[str, dict[str, Any]]) -> str:
    """Say why the model is experimental, nothing where it is better than ``decay`` beyond chance."""
    row = judged.get(f"{name} query + popular")
    if row is None:
        return "it was not judged: the log has no requests in its last part"
    difference, low, high = row["better_than_decay"]
    if low > 0:
        return ""
    return (
        f"with popularity, its {MEASURES[log.task][0]} on the last {len(log.requests)} requests is {difference:+.4f} "
        f"against decay's, 95 % interval {low:+.4f} to {high:+.4f}"
    )


def _record(
    log: ReadingLog,
    trained: Trained,
    judged: dict[str, dict[str, Any]],
    manifest: InterestManifest,
    parameters: dict[str, Any],
) -> dict[str, Any]:
    return {
        "model": manifest.model,
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
        "packages": manifest.packages,
        "loss": loss_of(trained.curve),
        "best_epoch": trained.best,
        "stopped": trained.stopped,
        "metrics": judged,
        "experimental": manifest.experimental,
        "parity": msgspec.to_builtins(manifest.parity),
    }


def _say(
    console: Console,
    name: str,
    out: Path,
    log: ReadingLog,
    judged: dict[str, dict[str, Any]],
    manifest: InterestManifest,
) -> None:
    measures = MEASURES[log.task]
    for way, row in judged.items():
        against = row.get("better_than_decay")
        beside = "" if against is None else f"   {against[0]:+.4f} [{against[1]:+.4f}, {against[2]:+.4f}] against decay"
        console.print(f"{way:32}" + "  ".join(f"{m} {row[m]:.4f}" for m in measures) + beside, highlight=False)
    if manifest.experimental:
        console.print(f"[yellow]{name} is experimental: {manifest.experimental}")
    console.print(f"wrote {out}; serve it with --set interest_model={out}")
