"""The torch side of an export: the model as it is published, and the graph that is made of it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir
import torch
import transformers
from numpy.typing import NDArray
from onnxscript.rewriter.ort_fusions import optimize_for_ort
from tokenizers import Tokenizer

from contract.errors import SetupError, StoppressError
from encoders.text import EMPTY, OUTPUT, batches
from export.models import Dense, SourceModel
from export.projection import LearnedProjection

OPSET = 20
LARGEST_FILE = 1_900_000_000  # protobuf holds 2 GB: larger weights lie in a file beside

Track = Callable[[Sequence[NDArray[np.int64]]], Iterable[NDArray[np.int64]]]


class SentenceModel(torch.nn.Module):  # type: ignore[misc]
    """Token ids and mask, int64 [batch, sequence], padded on the right, to unit rows, float32 [batch, dims]."""

    mean: torch.Tensor
    components: torch.Tensor

    def __init__(self, source: SourceModel, attention: Literal["eager", "sdpa"]) -> None:
        """Load body and dense layers in fp32, with the given attention where the architecture has it.

        Raises :class:`SetupError` for files that transformers cannot load; code of a model's own is never run.
        """
        super().__init__()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.tokenizer = _loaded(transformers.AutoTokenizer, source, use_fast=True)
        if not self.tokenizer.is_fast:
            raise SetupError(f"{source.name} has a tokenizer that `tokenizers` cannot run: it cannot be exported")
        try:
            self.body = _loaded(transformers.AutoModel, source, attn_implementation=attention, dtype=torch.float32)
        except SetupError:  # few architectures have no sdpa: whatever else is wrong is raised again
            self.body = _loaded(transformers.AutoModel, source, attn_implementation="eager", dtype=torch.float32)
        if hasattr(self.body, "pooler"):
            self.body.pooler = None
        self.body.config.use_cache = False
        self.dense = torch.nn.Sequential(*(_dense(layer) for layer in source.dense))
        self.pooling = source.pooling
        self.max_length = source.max_length
        self.prompt = source.prompt
        self.lower_case = source.lower_case
        self.truncate_dim = source.truncate_dim
        self.projected = False
        self.eval()

    @property
    def width(self) -> int:
        """Numbers in a vector before the projection."""
        layers = [layer for layer in self.dense.modules() if isinstance(layer, torch.nn.Linear)]
        made = int(layers[-1].out_features if layers else self.body.config.hidden_size)
        return min(made, self.truncate_dim or made)

    def set_projection(self, projection: LearnedProjection) -> None:
        """Put centring and projection behind the pooling."""
        self.register_buffer("mean", torch.from_numpy(projection.mean))
        self.register_buffer("components", torch.from_numpy(np.ascontiguousarray(projection.components.T)))
        self.projected = True

    def halve(self) -> None:
        """Put the body, and nothing behind it, into fp16."""
        self.body.half()

    def write_tokenizer(self, path: Path) -> None:
        """Write the tokenizer as transformers runs it, for ``tokenizers``."""
        tokenizer = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.save(str(path))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Body, and in fp32 pooling, dense layers, normalisation; where set, projection and normalisation again."""
        hidden = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        if self.pooling == "cls":
            vectors = hidden[:, 0]
        elif self.pooling == "last":
            last = (attention_mask.sum(1) - 1).reshape(-1, 1, 1).expand(-1, 1, hidden.shape[-1])
            vectors = hidden.gather(1, last).squeeze(1)
        else:
            mask = attention_mask.unsqueeze(-1).float()
            vectors = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        vectors = self.dense(vectors)
        if self.truncate_dim is not None:
            vectors = vectors[:, : self.truncate_dim]
        vectors = torch.nn.functional.normalize(vectors)
        if self.projected:
            vectors = torch.nn.functional.normalize((vectors - self.mean) @ self.components)
        return vectors

    def encode(self, texts: Sequence[str], budget: int, track: Track = iter) -> NDArray[np.float32]:
        """Return float32 [len(texts), dims], with transformers' own tokenizer, in batches of ``budget`` padded tokens.

        A budget of 1 runs each text alone, without padding. ``track`` wraps the batches to show progress.
        """
        prompted = [self.prompt + text for text in texts]
        if self.lower_case:
            prompted = [text.lower() for text in prompted]
        tokens = [
            ids or EMPTY.tolist()
            for ids in self.tokenizer(prompted, truncation=True, max_length=self.max_length)["input_ids"]
        ]
        rows: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        pad = self.tokenizer.pad_token_id or 0
        with torch.inference_mode():
            for batch in track(list(batches([len(ids) for ids in tokens], budget))):
                longest = max(len(tokens[i]) for i in batch)
                input_ids = torch.tensor([tokens[i] + [pad] * (longest - len(tokens[i])) for i in batch])
                mask = torch.tensor([[1] * len(tokens[i]) + [0] * (longest - len(tokens[i])) for i in batch])
                rows.append((batch, self(input_ids, mask).numpy()))
        vectors = np.concatenate([vectors for _, vectors in rows])
        order = np.concatenate([batch for batch, _ in rows])
        restored = np.empty_like(vectors)
        restored[order] = vectors
        return restored


def _loaded(kind: Any, source: SourceModel, **options: Any) -> Any:
    try:
        return kind.from_pretrained(source.folder, trust_remote_code=False, local_files_only=True, **options)
    except Exception as error:  # noqa: BLE001  transformers, safetensors and torch raise what they like
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise SetupError(
            f"transformers cannot load {source.name} from {source.folder} ({why}): "
            "give a model that it knows without code of the model's own, with all its files"
        ) from None


def _dense(layer: Dense) -> torch.nn.Module:
    weights = _weights(layer.folder)
    linear = torch.nn.Linear(*reversed(weights["linear.weight"].shape), bias="linear.bias" in weights)
    linear.load_state_dict({name.removeprefix("linear."): tensor.float() for name, tensor in weights.items()})
    return torch.nn.Sequential(linear, getattr(torch.nn, layer.activation)())


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    try:
        if (folder / "model.safetensors").exists():
            from safetensors.torch import load_file

            return dict(load_file(folder / "model.safetensors"))
        return dict(torch.load(folder / "pytorch_model.bin", weights_only=True, map_location="cpu"))
    except Exception as error:  # noqa: BLE001  as above
        raise SetupError(f"the weights of the dense layer {folder} cannot be read: {error}") from None


def write_onnx(model: SentenceModel, path: Path, *, fuse: bool = True) -> dict[str, int]:
    """Export ``model`` with dynamic batch and sequence to ``path``; return what was fused, how often.

    Weights beyond what one file can hold are written beside it. The same model gives the same bytes.
    Raises :class:`StoppressError` where torch cannot trace the architecture.
    """
    input_ids = torch.tensor([[5, 7, 9, 0], [5, 7, 8, 9]])
    axes = {0: "batch", 1: "sequence"}
    for chatty in ("torch.onnx", "torch.utils.flop_counter"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                model,
                kwargs={"input_ids": input_ids, "attention_mask": (input_ids != 0).long()},
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes={"input_ids": axes, "attention_mask": axes},
                output_names=[OUTPUT],
                external_data=False,
                verbose=False,
            )
        except Exception as error:
            why = " ".join(str(error).split())[:200]
            raise StoppressError(
                f"torch cannot export this architecture to ONNX ({why}); nothing was written"
            ) from error
        if program is None:
            raise StoppressError("torch.onnx.export gave no graph; nothing was written")
        graph, fused = optimize_for_ort(program.model, clear_metadata=True) if fuse else (program.model, {})
    large = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()) > LARGEST_FILE
    onnx_ir.save(graph, path, external_data=f"{path.name}.data" if large else None)
    return {name: count for name, count in fused.items() if count}
