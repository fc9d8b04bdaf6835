"""``stoppress export encoder``: a sentence model becomes a folder that serves without torch."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from contract.errors import EncoderUnusable, SetupError
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
from export.folder import folder_beside, put_in_place
from export.models import SourceModel, find_model
from export.parity import LEAST_COSINE, ParityFailed, Precision, compare, parity_texts
from export.projection import LEAST_TEXTS, MOST_TEXTS, LearnedProjection, learn_projection, project

if TYPE_CHECKING:
    from export.graph import SentenceModel

NEEDS = ("torch", "transformers", "onnxscript", "onnxruntime")
_VERSIONS = ("torch", "transformers", "onnxscript", "onnx-ir", "onnxruntime", "tokenizers", "numpy")
_CORPUS_BATCH_TOKENS = 2048


def export_encoder(
    model: str | SourceModel,
    out: Path,
    *,
    dims: int | None = None,
    corpus: Iterable[str] | None = None,
    precision: Precision = "fp32",
    least_cosine: float | None = None,
    console: Console | None = None,
) -> Manifest:
    """Export ``model`` to the folder ``out``: model.onnx, tokenizer.json, manifest.json, with dims also projection.npy.

    ``model`` is what :func:`export.models.find_model` takes or gives. With ``dims`` the vectors are centred and
    projected, learned from the article texts in ``corpus`` (:func:`encoders.text.article_text`).
    ``precision`` fp16 halves the body alone. The folder is built beside ``out``, proven against the
    torch model in fp32 and only then put in its place; whatever fails leaves ``out`` as it was. Blocks
    for half a minute or more; says on ``console`` (standard error) what it is doing.

    Raises :class:`SetupError` for a model, corpus, width or folder that cannot be used, and
    :class:`export.parity.ParityFailed` where a vector's cosine to torch's is below ``least_cosine``
    (by default that of the precision).
    """
    console = console or Console(stderr=True, soft_wrap=True)
    texts = usable_corpus(dims, corpus, console)
    check_encoder_out(out)
    source = model if isinstance(model, SourceModel) else find_model(model)
    absent = [name for name in NEEDS if find_spec(name) is None]
    if absent:
        raise SetupError(
            f"not installed here: {', '.join(absent)}; run `make encoder`, or install stoppress[export,cpu]"
        )
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported: the files are all here now
    least = LEAST_COSINE[precision] if least_cosine is None else least_cosine
    with folder_beside(out) as work:
        manifest = _build(source, work, dims, texts, precision, least, console)
        put_in_place(work, out)
    size = sum(file.size for file in manifest.files.values())
    console.print(f"wrote {out}: {size / 1e6:.0f} MB, {manifest.dims} dimensions, digest {manifest.digest[:16]}")
    return manifest


def _build(
    source: SourceModel,
    work: Path,
    dims: int | None,
    texts: list[str],
    precision: Precision,
    least_cosine: float,
    console: Console,
) -> Manifest:
    console.print(f"loading {source.name} from {source.folder}")
    from export.graph import SentenceModel

    def shown(batches: Sequence[NDArray[np.int64]]) -> Iterable[NDArray[np.int64]]:
        return track(batches, "encoding", console=console, transient=True, disable=not console.is_terminal)

    model = SentenceModel(source, attention="sdpa")
    width = model.width
    projection: LearnedProjection | None = None
    if dims is not None:
        if not 1 <= dims <= width:
            raise SetupError(f"--dims {dims}: {source.name} has {width} dimensions, give 1 to {width}")
        if len(texts) <= dims:
            raise SetupError(
                f"--dims {dims}: {len(texts)} different articles have no more than {len(texts) - 1} axes; "
                "give a --corpus of more, or fewer dimensions"
            )
        console.print(f"learning a projection to {dims} of {width} dimensions from {len(texts)} articles")
        projection = learn_projection(model.encode(texts, _CORPUS_BATCH_TOKENS, shown), dims)
        console.print(
            f"the projection keeps {projection.variance_kept:.1%} of the variance; of an article's ten nearest "
            f"others {projection.neighbours_kept:.1%} are still among its ten nearest"
        )
        model.set_projection(projection)
        np.save(work / PROJECTION_FILE, projection.rows)
    if precision == "fp16":
        model.halve()
    model.write_tokenizer(work / TOKENIZER_FILE)

    probes = parity_texts()
    expected = SentenceModel(source, attention="eager").encode(probes, 1, shown)
    if projection is not None:
        expected = project(expected, projection.rows)
    manifest = Manifest(
        model=source.name,
        dims=dims or width,
        max_length=source.max_length,
        pooling=source.pooling,
        normalised=source.normalised,
        precision=precision,
        files={},
        packages={name: version(name) for name in (*filter(None, [source.distribution]), *_VERSIONS)},
        prompt=source.prompt,
        lower_case=source.lower_case,
        projection=projection.summary if projection else None,
    )
    try:
        return _prove(model, manifest, work, probes, expected, least_cosine, console, fuse=True)
    except (ParityFailed, EncoderUnusable) as error:
        # The fusions know the common architectures; on another they may take one operator for one alike.
        console.print(f"[yellow]fused, it fails ({error}); exporting it without fusions, which is slower")
        return _prove(model, manifest, work, probes, expected, least_cosine, console, fuse=False)


def _prove(
    model: SentenceModel,
    manifest: Manifest,
    work: Path,
    probes: list[str],
    expected: NDArray[np.float32],
    least_cosine: float,
    console: Console,
    *,
    fuse: bool,
) -> Manifest:
    """Write graph and manifest to ``work`` and compare what they give with ``expected``."""
    from export.graph import write_onnx

    console.print(f"exporting to ONNX in {manifest.precision}{', fusing attention and layer norms' if fuse else ''}")
    fused = write_onnx(model, work / MODEL_FILE, fuse=fuse)
    console.print("fused: " + (", ".join(f"{count} {kind}" for kind, count in fused.items()) or "nothing"))
    files = {path.name: describe_file(path) for path in sorted(work.iterdir()) if path.name != MANIFEST_FILE}
    manifest = msgspec.structs.replace(manifest, fused=fused, files=files)
    write_manifest(work, manifest)
    console.print(f"comparing with the torch model on {len(probes)} texts")
    # one thread: ONNX Runtime's thread pool and torch's in one process slow each other down many times
    exported = TextEncoder.load(work, device="cpu", threads=1).encode(probes)
    parity = compare(expected, exported, least_cosine)
    console.print(f"worst cosine {parity.worst_cosine:.7f}, mean {parity.mean_cosine:.7f}")
    manifest = msgspec.structs.replace(manifest, parity=parity)
    write_manifest(work, manifest)
    return manifest


def usable_corpus(dims: int | None, corpus: Iterable[str] | None, console: Console) -> list[str]:
    """Different texts of ``corpus``; of more than MOST_TEXTS an even sample, the same one every time."""
    if dims is None:
        if corpus is not None:
            raise SetupError("a corpus is only read to learn a projection: give --dims too, or leave --corpus out")
        return []
    draw = random.Random(0)
    sample: dict[int, str] = {}
    seen: set[int] = set()
    for text in corpus or ():
        if not text.strip() or hash(text) in seen:
            continue
        seen.add(hash(text))
        place = len(seen) - 1 if len(seen) <= MOST_TEXTS else draw.randrange(len(seen))
        if place < MOST_TEXTS:
            sample[place] = text
    if len(seen) < LEAST_TEXTS:
        raise SetupError(
            f"a projection is learned from at least {LEAST_TEXTS} different articles, the corpus has {len(seen)}: "
            "give a --corpus of more, or leave --dims out"
        )
    if len(seen) > MOST_TEXTS:
        console.print(f"learning from {MOST_TEXTS} of the corpus' {len(seen)} different articles")
    return list(sample.values())


def check_encoder_out(out: Path) -> None:
    """Raise :class:`SetupError` where ``out`` is something else than an encoder or an empty folder."""
    if out.exists() and not (out / MANIFEST_FILE).exists() and not (out.is_dir() and not any(out.iterdir())):
        raise SetupError(f"{out} exists and is not an encoder: name another folder, or remove it first")
