"""The torch side of an export: the model as it is published, and the graph that is made of it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir
import torch
import transformers
from numpy.typing import NDArray
from onnxscript.rewriter.ort_fusions import optimize_for_ort

from contract.errors import StoppressError
from encoders.text import OUTPUT, batches
from export.models import SourceModel
from export.projection import LearnedProjection

OPSET = 20

Track = Callable[[Sequence[NDArray[np.int64]]], Iterable[NDArray[np.int64]]]


class SentenceModel(torch.nn.Module):  # type: ignore[misc]
    """Token ids and mask, int64 [batch, sequence], to float32 [batch, dims]: body, mean pooling, projection."""

    mean: torch.Tensor
    components: torch.Tensor

    def __init__(self, source: SourceModel, attention: Literal["eager", "sdpa"]) -> None:
        """Load the body from ``source.folder`` in fp32 with the given attention implementation."""
        super().__init__()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(source.folder)
        self.body = transformers.AutoModel.from_pretrained(
            source.folder, attn_implementation=attention, add_pooling_layer=False, dtype=torch.float32
        )
        self.max_length = source.max_length
        self.normalised = source.normalised
        self.projected = False
        self.eval()

    def set_projection(self, projection: LearnedProjection) -> None:
        """Put centring and projection behind the pooling."""
        self.register_buffer("mean", torch.from_numpy(projection.mean))
        self.register_buffer("components", torch.from_numpy(np.ascontiguousarray(projection.components.T)))
        self.projected = True

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Mean over the tokens, in fp32; unit rows where the model normalises, and after the projection."""
        hidden = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        mask = attention_mask.unsqueeze(-1).float()
        vectors = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        if self.normalised:
            vectors = torch.nn.functional.normalize(vectors)
        if self.projected:
            vectors = torch.nn.functional.normalize((vectors - self.mean) @ self.components)
        return vectors

    def encode(self, texts: Sequence[str], budget: int, track: Track = iter) -> NDArray[np.float32]:
        """Return float32 [len(texts), dims], with transformers' own tokenizer, in batches of ``budget`` padded tokens.

        A budget of 1 runs each text alone, without padding. ``track`` wraps the batches to show progress.
        """
        tokens = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"]
        rows: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        with torch.inference_mode():
            for batch in track(list(batches([len(ids) for ids in tokens], budget))):
                padded = self.tokenizer.pad({"input_ids": [tokens[i] for i in batch]}, return_tensors="pt")
                rows.append((batch, self(padded["input_ids"], padded["attention_mask"]).numpy()))
        vectors = np.concatenate([vectors for _, vectors in rows])
        order = np.concatenate([batch for batch, _ in rows])
        restored = np.empty_like(vectors)
        restored[order] = vectors
        return restored


def write_onnx(model: SentenceModel, path: Path) -> None:
    """Export ``model`` with dynamic batch and sequence, fuse attention and layer norms, and write one file.

    The same model gives the same bytes. Raises :class:`StoppressError` where nothing could be fused,
    since the graph would be right but a third slower.
    """
    input_ids = torch.tensor([[101, 2739, 102, 0], [101, 2739, 2651, 102]])
    axes = {0: "batch", 1: "sequence"}
    for chatty in ("torch.onnx", "torch.utils.flop_counter"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
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
        if program is None:
            raise StoppressError("torch.onnx.export gave no graph")
        graph, fused = optimize_for_ort(program.model, clear_metadata=True)
    if not fused["attention"] or not fused["skip_layer_normalization"]:
        raise StoppressError(f"attention and layer norms were not fused ({fused}); nothing was written")
    onnx_ir.save(graph, path)
