"""``stoppress train ranker`` as a process: from a data set, and again and again from a running system's topics."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.settings import Settings, load
from demo.processes import environment
from encoders.click_versions import KEPT, prune, serve, serving, versions
from encoders.onnx_clicks import OnnxClicks
from producers.simulation import Simulation
from ranking.reranker import FEATURES, VERSION
from streams.local_broker import LocalBroker
from streams.worker import Stop
from tests.command import refused, stoppress
from tests.data_sets import chains_of_reading
from tests.pipeline import await_true, pipeline_on
from tests.torch_environment import TORCH_PYTHON

pytestmark = pytest.mark.timeout(600)  # each training waits for torch


class Training:
    """``stoppress train ranker ARGUMENTS`` in the environment that has torch, and what it says."""

    def __init__(self, settings: Settings, *arguments: str) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [TORCH_PYTHON, "-m", "stoppress", "train", "ranker", *arguments],
            env=environment(settings), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def until(self, words: str, count: int = 1) -> str:
        """Block until ``count`` lines have these words; return the last of them."""

        def found() -> str | None:
            lines = [line for line in self.lines if words in line]
            return lines[count - 1] if len(lines) >= count else None

        return await_true(found, f"{count} times {words!r}", 300, lambda: self.lines)

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def exit_code(self) -> int:
        code = self._process.wait(500)
        self._reader.join(10)
        return code

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._reader.join(10)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip())


@contextmanager
def training(settings: Settings, *arguments: str) -> Iterator[Training]:
    started = Training(settings, *arguments)
    try:
        yield started
    finally:
        started.close()


def test_from_a_data_set_of_sessions(tmp_path: Path) -> None:
    data = chains_of_reading(tmp_path / "data", sessions=180)
    out = tmp_path / "clicks"
    with training(load(environ={}), str(data), str(out), "--format", "globo", "--every", "1") as train:
        assert train.exit_code() == 0, train.lines
        train.until(f"serve it with --set ranker_model={out}")
    run = json.loads((out / "run.json").read_bytes())
    assert run["data"]["requests"] >= 200
    assert run["metrics"]["model"]["auc"] > 0.9, "each article has a successor"
    OnnxClicks.load(out, FEATURES, VERSION)


def test_a_running_systems_log_is_learned_from_again_and_again(broker: LocalBroker, tmp_path: Path) -> None:
    """What cannot be used yet is said and tried again; each model is a version of its own; Ctrl-C ends it."""
    folder = tmp_path / "models"
    with pipeline_on(broker, tmp_path) as pipeline:
        pipeline.start("articles", "users")
        simulation = Simulation(pipeline.settings, users=150, seed=3)
        simulation.publish_archive(150)
        simulation.wait_for_vectors(pipeline.topics.article_vectors, Stop())
        with training(pipeline.settings, "--from-topics", str(folder), "--every", "0.0005") as train:
            assert "clients have to send an `impression` event" in train.until("no new model")
            assert not folder.exists() or not versions(folder)
            simulation.publish_history(3.0)
            simulation.close()
            train.until("serve it with --set ranker_model=", 2)
            first, second = versions(folder)[:2]
            train.interrupt()
            assert train.exit_code() == 0, train.lines
            assert train.lines[-1] == "ended; what was trained stays"
        models = [OnnxClicks.load(folder / name, FEATURES, VERSION).about for name in (first, second)]
        assert models[0].learned_to == models[1].learned_to
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [], "nothing half done is left"


def test_what_cannot_be_a_folder_of_versions_is_refused(tmp_path: Path) -> None:
    settings = load(environ={})
    (tmp_path / "manifest.json").write_text("{}")
    arguments = "train", "ranker", "--from-topics", str(tmp_path), "--every", "1"
    assert "is a click model itself: name another folder" in refused(stoppress(settings, *arguments))
    line = refused(stoppress(settings, "train", "ranker", "data", str(tmp_path), "--format", "globo", "--every", "0.5"))
    assert line.startswith("--every 0.5 is no number of clicks")


def test_old_versions_go_and_the_one_that_serves_stays(tmp_path: Path) -> None:
    for number in range(KEPT + 5):
        (tmp_path / f"20260101T0000{number:02}Z").mkdir()
        (tmp_path / f"20260101T0000{number:02}Z" / "manifest.json").touch()
    for left in (".20260101T000001Z.17", ".20260101T000001Z.17.former", ".20260101T000054Z.18"):
        (tmp_path / left).mkdir()
    serve(tmp_path, "20260101T000001Z")
    prune(tmp_path)
    assert versions(tmp_path) == ["20260101T000001Z", *(f"20260101T0000{n:02}Z" for n in range(5, KEPT + 5))]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".20260101T000054Z.18"]
    assert serving(tmp_path) == "20260101T000001Z"
