"""A trained interest model: a folder of ONNX graphs with a manifest, run in the order of events."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from contract.errors import InterestModelUnusable
from encoders.manifest import MANIFEST_FILE, File, check_file
from encoders.session import Session, open_session

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

FORMAT = 1
STEP_FILE = "step.onnx"
QUERY_FILE = "query.onnx"
SCORE_FILE = "score.onnx"
SPREAD_FILE = "spread.onnx"
OUTPUT = "result"
READ_WEIGHT = 1.0
"""Trained models learn from what was read: what weighs less (an impression, a dwell, a dislike) changes nothing."""


class InterestParity(msgspec.Struct, frozen=True, kw_only=True):
    """How the graphs compared with the torch model: over how many events, and the largest difference of a number."""

    events: int
    worst_difference: float


class InterestManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the folder of a trained interest model holds.

    ``dims`` is d, ``state_size`` S, ``queries`` q. ``experimental`` says why the model should not serve yet, empty
    where nothing speaks against it. ``files`` are the graphs: step and query always, score and spread where the model
    has them.
    """

    model: str
    dims: int
    state_size: int
    queries: int
    files: dict[str, File]
    packages: dict[str, str]
    experimental: str = ""
    parity: InterestParity | None = None
    format: int = FORMAT


class OnnxInterest:
    """An exported interest model; see :class:`encoders.interest.InterestModel`."""

    def __init__(self, folder: Path, manifest: InterestManifest) -> None:
        """Use :meth:`load`."""
        self._folder = folder
        self.about = manifest
        self.dims = manifest.dims
        self.state_size = manifest.state_size

    @classmethod
    def load(cls, folder: Path) -> OnnxInterest:
        """Check the folder against its manifest; the graphs are opened when they are first run.

        Raises :class:`InterestModelUnusable` where the folder cannot be used.
        """
        return cls(folder, read_interest_manifest(folder))

    @property
    def scores(self) -> bool:
        """Whether the model has :meth:`score`."""
        return SCORE_FILE in self.about.files

    @property
    def spreads(self) -> bool:
        """Whether the model has :meth:`spread`."""
        return SPREAD_FILE in self.about.files

    def manifest(self) -> dict[str, object]:
        """What defines the states that this model makes; part of the generation."""
        return {
            "model": self.about.model,
            "dims": self.dims,
            "state_size": self.state_size,
            "files": {name: file.sha256 for name, file in sorted(self.about.files.items())},
        }

    def step(self, state: Floats, article: Floats, event: Doubles) -> Floats:
        """Take one event into each state: [B, S], [B, d], [B, 3] -> [B, S]; below a weight of 1 none changes."""
        if not len(state):
            return state.astype(np.float32)
        return self._step.run(OUTPUT, {"state": _flat(state), "article": _flat(article), "event": _flat(event)})

    def fold(
        self, state: Floats, elapsed_ms: Doubles, users: NDArray[np.intp], article: Floats, age_ms: Doubles,
        weight: Doubles,
    ) -> Floats:  # fmt: skip
        """Take E events into U states: first the first event of every user, then the second of each, and so on."""
        folded = np.array(state, np.float32)
        events = np.flatnonzero(weight >= READ_WEIGHT)
        events = events[np.argsort(users[events], kind="stable")]
        of = users[events]
        rank = np.arange(len(of)) - np.searchsorted(of, of)
        by_rank = np.argsort(rank, kind="stable")
        ends = np.searchsorted(rank[by_rank], np.arange(int(rank.max(initial=-1)) + 2))
        for begin, end in pairwise(ends):
            now = events[by_rank[begin:end]]
            # The graphs know order, not time: what matters of an event is its article and that it counts.
            event = np.stack([elapsed_ms[users[now]], age_ms[now], weight[now]], axis=1)
            folded[users[now]] = self.step(folded[users[now]], article[now], event)
        return folded

    def query(self, state: Floats) -> Floats:
        """Return the vectors to search articles with, [B, S] -> [B, q, d]: unit rows, zero where nothing is known."""
        if not len(state):
            return np.zeros((0, self.about.queries, self.dims), np.float32)
        return self._query.run(OUTPUT, {"state": _flat(state)})

    def score(self, state: Floats, article: Floats) -> Floats:
        """Return the log-odds that each user reads each article: [B, S], [n, d] -> [B, n]. Only where ``scores``."""
        if not len(state) or not len(article):
            return np.zeros((len(state), len(article)), np.float32)
        return self._score.run(OUTPUT, {"state": _flat(state), "article": _flat(article)})

    def spread(self, state: Floats) -> Floats:
        """Return how unsure the model is of each user's interest, [B, S] -> [B], > 0. Only where ``spreads``."""
        if not len(state):
            return np.zeros(0, np.float32)
        return self._spread.run(OUTPUT, {"state": _flat(state)})

    @cached_property
    def _step(self) -> Session:
        return self._open(STEP_FILE)

    @cached_property
    def _query(self) -> Session:
        return self._open(QUERY_FILE)

    @cached_property
    def _score(self) -> Session:
        return self._open(SCORE_FILE)

    @cached_property
    def _spread(self) -> Session:
        return self._open(SPREAD_FILE)

    def _open(self, name: str) -> Session:
        # One thread: the graphs are small, and a worker is a process for one core.
        return open_session(self._folder / name, "cpu", threads=1)


def _flat(numbers: NDArray[Any]) -> Floats:
    return np.ascontiguousarray(numbers, np.float32)


def read_interest_manifest(folder: Path) -> InterestManifest:
    """Read the manifest of an interest model and check every file against it.

    Raises :class:`InterestModelUnusable` where there is none, it cannot be read, or a file is not the one described.
    """
    how = "run `stoppress train`"
    try:
        manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=InterestManifest)
    except OSError:
        raise InterestModelUnusable(f"no interest model at {folder}: {how}, or leave interest_model empty") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InterestModelUnusable(
            f"{folder / MANIFEST_FILE} is not the manifest of an interest model ({error}): {how}"
        ) from None
    if manifest.format > FORMAT:
        raise InterestModelUnusable(
            f"{folder} has format {manifest.format}, this stoppress reads up to {FORMAT}: update it or {how}"
        )
    for name in (STEP_FILE, QUERY_FILE):
        if name not in manifest.files:
            raise InterestModelUnusable(f"{folder / MANIFEST_FILE} names no {name}: {how}")
    for name, expected in manifest.files.items():
        if name not in (STEP_FILE, QUERY_FILE, SCORE_FILE, SPREAD_FILE):
            raise InterestModelUnusable(f"{folder / MANIFEST_FILE} names {name!r}, which no interest model has: {how}")
        check_file(folder / name, expected, InterestModelUnusable, how)
    return manifest
