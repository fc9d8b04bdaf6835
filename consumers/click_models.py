"""The folder ``ranker_shadow``, watched on a thread of its own: which click model serves, and which is to be judged."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from prometheus_client import Counter

from contract.errors import ClickModelUnusable, StoppressError
from contract.settings import Settings
from encoders import click_versions
from encoders.click_versions import VERDICT_FILE
from encoders.manifest import MANIFEST_FILE
from encoders.onnx_clicks import GRAPH_FILE, OnnxClicks
from ranking.reranker import FEATURES, VERSION
from streams.worker import Log

LOOK_SECONDS = 2.0
CANDIDATES = Counter(
    "stoppress_shadow_candidates_total", "Click models to be judged on live events, by what became of them", ["outcome"]
)


class Version(NamedTuple):
    """A click model by the name of its version, "" where it is the settings'; no ``model``: the hand-made formula."""

    name: str
    model: OnnxClicks | None

    def about(self) -> dict[str, str]:
        """What a metric says of it."""
        if self.model is None:
            return {"model": "by hand", "sha256": ""}
        return {"model": self.name or "ranker_model", "sha256": self.model.about.files[GRAPH_FILE].sha256}


class Changed(NamedTuple):
    """From now on ``serving`` serves, and ``candidate`` is to be judged, where there is one."""

    serving: Version
    candidate: Version | None


class Verdict(NamedTuple):
    """What became of the candidate ``name``, and the figures that said so."""

    name: str
    outcome: str
    figures: dict[str, Any]


def serving_of(settings: Settings) -> Version:
    """Return what the settings say that serves: the version named in ``ranker_shadow``, else ``ranker_model``.

    A version that cannot be used is passed over. Raises :class:`ClickModelUnusable` where ``ranker_model`` cannot be
    used, or ``ranker_shadow`` is no folder of versions.
    """
    folder = Path(settings.ranker_shadow)
    if settings.ranker_shadow:
        if (folder / MANIFEST_FILE).exists() or (folder.exists() and not folder.is_dir()):
            raise ClickModelUnusable(
                f"ranker_shadow = {folder} is not a folder that holds click models: name the one to which "
                "`stoppress train ranker --from-topics … --every HOURS` writes them, or give a model as ranker_model"
            )
        with suppress(StoppressError, OSError):
            if name := click_versions.serving(folder):
                return Version(name, _opened(folder / name))
    return _by_settings(settings.ranker_model)


class ClickModels:
    """Looks every two seconds: no looking, loading or writing holds up the ranker's loop.

    A candidate stays until its verdict, here or by another ranker that looks at the same folder; then the newest
    version takes its place where it is newer than what serves and has no verdict.
    """

    def __init__(self, settings: Settings, serving: Version) -> None:
        self._folder = Path(settings.ranker_shadow)
        self._ranker_model = settings.ranker_model
        self._serving = serving
        self._candidate: Version | None = None
        self._pointer = serving.name
        self._unusable: dict[str, tuple[int, ...]] = {}
        self._complaint = ""
        self._log = Log("ranker")
        self._changes: queue.SimpleQueue[Changed] = queue.SimpleQueue()
        self._verdicts: queue.SimpleQueue[Verdict | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._watch, name="click models", daemon=True)
        self._thread.start()

    def changed(self) -> Changed | None:
        """Return the present state where it is not as it was at the last call; does not block."""
        newest = None
        with suppress(queue.Empty):
            while True:
                newest = self._changes.get_nowait()
        return newest

    def conclude(self, verdict: Verdict) -> None:
        """Let a candidate serve or go, and write that down; does not block."""
        self._verdicts.put(verdict)

    def close(self) -> None:
        """End the thread; blocks while it loads or writes."""
        self._verdicts.put(None)
        self._thread.join(5)

    def _watch(self) -> None:
        while True:
            with self._complaining():
                self._look()
            try:
                verdict = self._verdicts.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if verdict is None:
                return
            with self._complaining():
                self._settle(verdict)

    def _look(self) -> None:
        """Find what is to serve and what is to be judged, and tell where anything is not as it was."""
        before = self._serving, self._candidate
        pointer = self._pointer
        with self._complaining():
            pointer = click_versions.serving(self._folder) or ""
        if pointer != self._pointer and self._folder.is_dir():  # one that is away for a while says nothing
            self._pointer = pointer
            named = self._load(pointer) if pointer else _by_settings(self._ranker_model)
            self._serving = named or self._serving
        candidate = self._candidate
        if candidate is not None and (candidate.name == self._serving.name or self._has_verdict(candidate.name)):
            self._candidate = None
        if self._candidate is None:
            self._candidate = self._next()
        if (self._serving, self._candidate) != before:
            self._changes.put(Changed(self._serving, self._candidate))

    def _next(self) -> Version | None:
        for name in reversed(click_versions.versions(self._folder)):
            if name <= self._serving.name or self._has_verdict(name):
                return None
            if self._unusable.get(name) != self._state_of(name) and (version := self._load(name)) is not None:
                return version
        return None

    def _load(self, name: str) -> Version | None:
        self._unusable[name] = self._state_of(name)
        try:
            version = Version(name, _opened(self._folder / name))
        except (StoppressError, OSError) as error:
            CANDIDATES.labels("unusable").inc()
            self._log.warning("click_model_unusable", model=name, what=str(error))
            return None
        del self._unusable[name]
        return version

    def _settle(self, verdict: Verdict) -> None:
        candidate = self._candidate
        if candidate is None or candidate.name != verdict.name or self._has_verdict(verdict.name):
            return  # another ranker was faster
        CANDIDATES.labels(verdict.outcome).inc()
        self._candidate = None
        if verdict.outcome == "promoted":
            self._serving = candidate
        self._changes.put(Changed(self._serving, None))
        said = msgspec.json.format(msgspec.json.encode({"outcome": verdict.outcome, **verdict.figures}))
        try:
            click_versions.write_whole(self._folder / verdict.name / VERDICT_FILE, said + b"\n")
            if verdict.outcome == "promoted":
                click_versions.serve(self._folder, verdict.name)
                self._pointer = verdict.name
        except OSError as error:  # it serves here all the same, until the next start
            self._unusable[verdict.name] = self._state_of(verdict.name)
            self._log.warning("verdict_not_written", model=verdict.name, what=str(error))

    def _has_verdict(self, name: str) -> bool:
        return (self._folder / name / VERDICT_FILE).exists()

    def _state_of(self, name: str) -> tuple[int, ...]:
        """What changes as soon as somebody mends a version."""
        found = []
        for file in (MANIFEST_FILE, GRAPH_FILE):
            with suppress(OSError):
                found.append((self._folder / name / file).stat().st_mtime_ns)
        return tuple(found)

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        """Log, once, what cannot be done, and go on."""
        try:
            yield
        except (StoppressError, OSError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                self._log.warning("shadow_folder_unusable", what=str(error))


def _by_settings(ranker_model: str) -> Version:
    return Version("", OnnxClicks.load(Path(ranker_model), FEATURES, VERSION) if ranker_model else None)


def _opened(folder: Path) -> OnnxClicks:
    """Raises :class:`ClickModelUnusable` also for what ONNX Runtime makes of a graph that is none of ours."""
    try:
        model = OnnxClicks.load(folder, FEATURES, VERSION)
        odds = model.log_odds(np.zeros((2, len(FEATURES)), np.float32))
    except StoppressError:
        raise
    except Exception as error:  # noqa: BLE001  ONNX Runtime's errors have no base class of their own
        raise ClickModelUnusable(f"{folder} cannot be run: {str(error).splitlines()[0]}") from None
    if odds.shape != (2,) or not np.isfinite(odds).all():
        raise ClickModelUnusable(f"{folder} gives {odds!r} for two pairs, which are no log-odds")
    return model
