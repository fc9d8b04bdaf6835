"""A trained click model: a folder with an ONNX graph and a manifest, run over whole batches of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from contract.errors import ClickModelUnusable
from encoders.manifest import MANIFEST_FILE, File, check_file
from encoders.session import Session, open_session

Floats = NDArray[np.float32]
FORMAT = 1
GRAPH_FILE = "clicks.onnx"
INPUT, OUTPUT = "features", "log_odds"
_HOW = "run `stoppress train ranker`"


class ClickParity(msgspec.Struct, frozen=True, kw_only=True):
    """How the graph compared with the torch model: over how many pairs, and the largest difference in log-odds."""

    pairs: int
    worst_difference: float


class ClickManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the folder of a click model holds.

    ``features`` are the columns of its input, ``features_version`` what they mean. ``learned_to`` is the time (epoch
    ms) of the last request that it learned from; ``metrics`` what it reached on later ones, beside the hand-made
    formula. ``experimental`` says why the model should not serve yet, empty where nothing speaks against it.
    """

    features: list[str]
    features_version: int
    learned_to: int
    metrics: dict[str, dict[str, float]]
    files: dict[str, File]
    packages: dict[str, str]
    experimental: str = ""
    parity: ClickParity | None = None
    format: int = FORMAT


class OnnxClicks:
    """An exported click model; see :class:`ranking.reranker.ClickModel`."""

    def __init__(self, folder: Path, manifest: ClickManifest) -> None:
        """Use :meth:`load`."""
        self._folder = folder
        self.about = manifest

    @classmethod
    def load(cls, folder: Path, features: Sequence[str], version: int) -> OnnxClicks:
        """Check the folder against its manifest and against the features that the ranker has, and open the graph.

        Raises :class:`ClickModelUnusable` where the folder cannot be used.
        """
        model = cls(folder, read_click_manifest(folder, features, version))
        model.log_odds(np.zeros((1, len(features)), np.float32))
        return model

    def log_odds(self, features: Floats) -> Floats:
        """Return the log-odds of a click, [m, f] -> [m]; one call of ONNX Runtime for all."""
        if not len(features):
            return np.zeros(0, np.float32)
        return self._session.run(OUTPUT, {INPUT: np.ascontiguousarray(features, np.float32)})

    @cached_property
    def _session(self) -> Session:
        return open_session(self._folder / GRAPH_FILE, "cpu", threads=1)


def read_click_manifest(folder: Path, features: Sequence[str], version: int) -> ClickManifest:
    """Read the manifest of a click model and check the graph and the features against it.

    Raises :class:`ClickModelUnusable` where there is none, it cannot be read, its graph is not the one described, or it
    was trained for other features.
    """
    file = folder / MANIFEST_FILE
    try:
        manifest = msgspec.json.decode(file.read_bytes(), type=ClickManifest)
    except OSError:
        raise ClickModelUnusable(f"no click model at {folder}: {_HOW}, or leave ranker_model empty") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ClickModelUnusable(f"{file} is not the manifest of a click model ({error}): {_HOW}") from None
    if manifest.format > FORMAT:
        raise ClickModelUnusable(
            f"{folder} has format {manifest.format}, this stoppress reads up to {FORMAT}: update it or {_HOW}"
        )
    if manifest.features_version != version or tuple(manifest.features) != tuple(features):
        others = sorted(set(manifest.features) ^ set(features))
        what = f"version {manifest.features_version} of the features, here it is {version}"
        if others:
            what = f"other features than this ranker has ({', '.join(others[:5])})"
        raise ClickModelUnusable(f"{folder} was trained for {what}: {_HOW} anew")
    if list(manifest.files) != [GRAPH_FILE]:
        raise ClickModelUnusable(f"{file} names other files than {GRAPH_FILE}: {_HOW}")
    check_file(folder / GRAPH_FILE, manifest.files[GRAPH_FILE], ClickModelUnusable, _HOW)
    return manifest
