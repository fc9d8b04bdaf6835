"""Trainings as runs in MLflow, where a tracking URI is set."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from contract.errors import SetupError
from contract.settings import Settings, without_credentials

EXPERIMENT = "stoppress"
_NOT_IN_A_KEY = re.compile(r"[^\w\-./ ]+")
_ENVIRONMENT = "MLFLOW_TRACKING_URI"


class Tracking:
    """MLflow's experiment ``stoppress`` at one tracking URI."""

    def __init__(self, uri: str) -> None:
        """Find the experiment, or make it. Blocks while a server is asked.

        Raises :class:`SetupError` without mlflow, or where the URI cannot be used.
        """
        self.uri = without_credentials(uri)
        if find_spec("mlflow") is None:
            raise SetupError(
                f"trainings are to be recorded at {self.uri}, but mlflow is not installed here: "
                f"install stoppress[tracking], or leave tracking_uri and {_ENVIRONMENT} empty"
            )
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow wants to be told that a folder is meant
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self._failures = (MlflowException, OSError)
        try:
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(EXPERIMENT)
            self._experiment = found.experiment_id if found is not None else self._client.create_experiment(EXPERIMENT)
        except self._failures as error:
            raise SetupError(
                f"trainings cannot be recorded at {self.uri}: {' '.join(str(error).split())[:300]}"
            ) from None

    @classmethod
    def of(cls, settings: Settings) -> Tracking | None:
        """Where ``settings`` say, or else MLflow's own variable of the environment; None where neither does."""
        uri = settings.tracking_uri or os.environ.get(_ENVIRONMENT, "")
        return cls(uri) if uri else None

    def record(self, record: dict[str, Any], folder: Path | None, console: Console) -> None:
        """Make a run of a training's ``record``: parameters, losses by epoch, metrics, and all files of ``folder``.

        A store that fails is said on ``console``; the training has been written by then.
        """
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        losses = [
            Metric(f"loss/{name}", epoch[name], now, epoch["epoch"])
            for epoch in record["loss"] for name in ("trained", "held_back") if epoch[name] is not None
        ]  # fmt: skip
        metrics = [Metric(name, value, now, record["best_epoch"]) for name, value in flat(record["metrics"])]
        known = {**record["parameters"], **{f"data.{name}": value for name, value in record["data"].items()}}
        params = [Param(name, str(value)) for name, value in known.items()]
        said = {name: record.get(name) or "" for name in ("stopped", "experimental")}
        try:
            run = self._client.create_run(self._experiment, run_name=record["model"])
            tags = [RunTag(name, text) for name, text in said.items()]
            self._client.log_batch(run.info.run_id, [*losses, *metrics], params, tags)
            if folder is not None:
                self._client.log_artifacts(run.info.run_id, str(folder))
            self._client.set_terminated(run.info.run_id)
        except self._failures as error:
            console.print(f"[yellow]not recorded at {self.uri}: {' '.join(str(error).split())[:300]}")
        else:
            console.print(f"recorded at {self.uri} as run {run.info.run_id}")


def flat(metrics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield nested metrics as MLflow's keys; of a difference with its interval also ``.low`` and ``.high``."""
    for name, value in metrics.items():
        key = prefix + _NOT_IN_A_KEY.sub("_", name.replace("@", "_at_").replace("+", "and"))
        if isinstance(value, dict):
            yield from flat(value, f"{key}/")
        elif isinstance(value, list | tuple):
            yield from zip((key, f"{key}.low", f"{key}.high"), map(float, value), strict=True)
        else:
            yield key, float(value)
