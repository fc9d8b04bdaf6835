"""Vectors of a data set's texts, embedded once and kept in a cache by what they were made of."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.errors import SetupError
from contract.settings import Settings
from encoders.manifest import read_manifest
from encoders.text import TextEncoder, article_text
from evaluation.articles import Articles
from evaluation.left_out import LeftOut
from evaluation.requests import Text

AT_ONCE = 2048
NEWS_TWICE = "news that are in the file twice, the first taken"
OnEmbedded = Callable[[int, int], None]
"""Is told how many texts have a vector, and how many there are."""


def read_articles(
    texts: Iterable[Text],
    settings: Settings,
    cache: Path,
    left_out: LeftOut,
    on_embedded: OnEmbedded | None = None,
) -> Articles:
    """Return the articles of ``texts`` with the vectors that the encoder of ``settings`` gives, as a worker would.

    Vectors are read from ``cache`` where the same encoder has embedded the same texts before. Blocks while it embeds.
    Raises :class:`contract.errors.EncoderUnusable` without an encoder, :class:`SetupError` where ``cache`` cannot be
    written to.
    """
    manifest = read_manifest(settings.encoder)
    known: dict[str, tuple[str, str]] = {}
    for text in texts:
        if text.article_id in known:
            left_out(NEWS_TWICE, text.article_id)
            continue
        known[text.article_id] = text.category, article_text(text.title, text.abstract)
    digest = hashlib.sha256(manifest.digest.encode())
    for _, text_ in known.values():
        digest.update(text_.encode(errors="surrogatepass") + b"\0")
    vectors = _vectors(
        [text_ for _, text_ in known.values()], settings, cache / f"{digest.hexdigest()[:32]}.npy", on_embedded
    )
    articles = Articles(manifest.dims)
    for (article_id, (category, _)), vector in zip(known.items(), vectors, strict=True):
        articles.describe(article_id, category, vector)
    return articles


def _vectors(texts: list[str], settings: Settings, file: Path, on_embedded: OnEmbedded | None) -> NDArray[np.float32]:
    try:
        kept: NDArray[np.float32] = np.load(file)
        return kept
    except (OSError, ValueError):  # not there, or damaged
        pass
    encoder = TextEncoder.load(
        settings.encoder, settings.device, settings.encoder_threads, settings.encoder_batch_tokens or 0
    )
    vectors = np.empty((len(texts), encoder.dims), np.float32)
    for start in range(0, len(texts), AT_ONCE):
        vectors[start : start + AT_ONCE] = encoder.encode(texts[start : start + AT_ONCE])
        if on_embedded is not None:
            on_embedded(min(start + AT_ONCE, len(texts)), len(texts))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
            np.save(part, vectors)
        os.replace(part.name, file)
    except OSError as error:
        raise SetupError(f"cannot keep the vectors in {file.parent}: {error.strerror}; set XDG_CACHE_HOME") from None
    return vectors
