"""``stoppress export encoder``: a sentence model becomes a folder that serves without torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from contract.errors import SetupError
from encoders.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    PROJECTION_FILE,
    TOKENIZER_FILE,
    Manifest,
    describe_file,
    write_manifest,
)
from encoders.text import TextEncoder
from export.models import SourceModel, find_model
from export.parity import LEAST_COSINE, compare, parity_texts
from export.projection import LEAST_TEXTS, LearnedProjection, learn_projection, project

_NEEDS = ("torch", "transformers", "onnxscript", "onnxruntime")
_VERSIONS = ("torch", "transformers", "onnxscript", "onnx-ir", "onnxruntime", "tokenizers", "numpy")
_CORPUS_BATCH_TOKENS = 2048


def export_encoder(
    model: str,
    out: Path,
    *,
    dims: int | None = None,
    corpus: Sequence[str] | None = None,
    least_cosine: float = LEAST_COSINE,
    console: Console | None = None,
) -> Manifest:
    """Export ``model`` to the folder ``out``: model.onnx, tokenizer.json, manifest.json, with dims also projection.npy.

    With ``dims`` the vectors are centred and projected, learned from the article texts in ``corpus``
    (:func:`encoders.text.article_text`). The folder is built beside ``out``, proven against the torch
    model and only then put in its place; whatever fails leaves ``out`` as it was. Blocks for half a
    minute or more; says on ``console`` (standard error) what it is doing.

    Raises :class:`SetupError` for a model, corpus, width or folder that cannot be used, and
    :class:`export.parity.ParityFailed` where a vector's cosine to torch's is below ``least_cosine``.
    """
    console = console or Console(stderr=True, soft_wrap=True)
    texts = _usable_corpus(dims, corpus)
    _check_out(out)
    source = find_model(model)
    absent = [name for name in _NEEDS if find_spec(name) is None]
    if absent:
        raise SetupError(
            f"not installed here: {', '.join(absent)}; run `make encoder`, or install stoppress[export,cpu]"
        )
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported: packaged weights need no network
    with _folder_beside(out) as work:
        manifest = _build(source, work, dims, texts, least_cosine, console)
        _put_in_place(work, out)
    size = sum(file.size for file in manifest.files.values())
    console.print(f"wrote {out}: {size / 1e6:.0f} MB, {manifest.dims} dimensions, digest {manifest.digest[:16]}")
    return manifest


def _build(
    source: SourceModel, work: Path, dims: int | None, texts: list[str], least_cosine: float, console: Console
) -> Manifest:
    console.print(f"loading {source.name} from {source.distribution} {version(source.distribution)}")
    from export.graph import SentenceModel, write_onnx

    def shown(batches: Sequence[NDArray[np.int64]]) -> Iterable[NDArray[np.int64]]:
        return track(batches, "encoding", console=console, transient=True, disable=not console.is_terminal)

    model = SentenceModel(source, attention="sdpa")
    width = int(model.body.config.hidden_size)
    projection: LearnedProjection | None = None
    if dims is not None:
        if not 1 <= dims <= width:
            raise SetupError(f"--dims {dims}: {source.name} has {width} dimensions, give 1 to {width}")
        console.print(f"learning a projection to {dims} of {width} dimensions from {len(texts)} articles")
        projection = learn_projection(model.encode(texts, _CORPUS_BATCH_TOKENS, shown), dims)
        console.print(f"the projection keeps {projection.variance_kept:.1%} of the variance")
        model.set_projection(projection)
        np.save(work / PROJECTION_FILE, projection.rows)

    console.print("exporting to ONNX, fusing attention and layer norms")
    write_onnx(model, work / MODEL_FILE)
    shutil.copyfile(source.folder / TOKENIZER_FILE, work / TOKENIZER_FILE)
    manifest = Manifest(
        model=source.name,
        dims=dims or width,
        max_length=source.max_length,
        pooling=source.pooling,
        normalised=source.normalised or projection is not None,
        precision="fp32",
        files={path.name: describe_file(path) for path in sorted(work.iterdir())},
        packages={name: version(name) for name in (source.distribution, *_VERSIONS)},
        projection=projection.summary if projection else None,
    )
    write_manifest(work, manifest)

    probes = parity_texts()
    console.print(f"comparing with the torch model on {len(probes)} texts")
    expected = SentenceModel(source, attention="eager").encode(probes, 1, shown)
    if projection is not None:
        expected = project(expected, projection.rows)
    # one thread: ONNX Runtime's thread pool and torch's in one process slow each other down many times
    exported = TextEncoder.load(work, device="cpu", threads=1).encode(probes)
    parity = compare(expected, exported, least_cosine)
    console.print(f"worst cosine {parity.worst_cosine:.7f}, mean {parity.mean_cosine:.7f}")
    manifest = msgspec.structs.replace(manifest, parity=parity)
    write_manifest(work, manifest)
    return manifest


def _usable_corpus(dims: int | None, corpus: Sequence[str] | None) -> list[str]:
    if dims is None:
        if corpus is not None:
            raise SetupError("a corpus is only read to learn a projection: give --dims too, or leave --corpus out")
        return []
    texts = list(dict.fromkeys(text for text in corpus or () if text.strip()))
    if len(texts) < LEAST_TEXTS:
        raise SetupError(
            f"a projection is learned from at least {LEAST_TEXTS} different articles, the corpus has {len(texts)}: "
            "give a --corpus of more, or leave --dims out"
        )
    return texts


def _check_out(out: Path) -> None:
    if out.exists() and not (out / MANIFEST_FILE).exists() and not (out.is_dir() and not any(out.iterdir())):
        raise SetupError(f"{out} exists and is not an encoder: name another folder, or remove it first")


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """Make a folder to build in, on the same file system as ``out``; whatever is left in it goes at the end."""
    work = out.parent / f".{out.name}.{os.getpid()}"
    try:
        work.mkdir(parents=True)
    except OSError as error:
        raise SetupError(f"cannot write beside {out}: {error.strerror}") from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _put_in_place(work: Path, out: Path) -> None:
    """Rename ``work`` to ``out``; what stood there goes only after that."""
    former = work.with_name(work.name + ".former")
    if out.exists():
        out.rename(former)
    work.rename(out)
    shutil.rmtree(former, ignore_errors=True)
