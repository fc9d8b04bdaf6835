"""Text to vectors: tokenise, sort by length, run in batches of bounded size, restore the order."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from contract.errors import EncoderUnusable
from encoders.manifest import MODEL_FILE, TOKENIZER_FILE, Manifest, read_manifest
from encoders.session import CPU, CUDA, Device, Session, open_session

ARTICLE_CHARACTERS = 4096
OUTPUT = "sentence_embedding"
EMPTY = np.zeros(1, dtype=np.int32)  # stands for a text without tokens, where a tokenizer adds none of its own
# Measured on two cores: docs/encoder.md. The one for CUDA has not been measured.
BATCH_TOKENS = {CPU: 512, CUDA: 16_384}

_CHARACTERS_PER_TOKEN = 32
_MARKUP_CHARACTERS = 4  # characters of marked-up text read for each one that is kept
_TOKENISE_CHARACTERS = 1 << 18  # at once: tokenizers holds some 400 bytes a token before it truncates
_TOKENISE_TEXTS = 1024
_ENCODE_TEXTS = 8192  # at once: what is sorted by length together
_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(script|style)\b[^<>]*>.*?(?:</\1\s*>|\Z)"
    r"|</?[a-z][^<>]*>",
    re.DOTALL | re.IGNORECASE,
)

Tokens = NDArray[np.int32]
Vectors = NDArray[np.float32]


def article_text(title: str, abstract: str = "", body: str = "") -> str:
    """Return the text that stands for an article: title, abstract and body, a line each, 4,096 characters at most.

    Tags, comments, scripts and styles are taken out, character references resolved and white space
    collapsed. Only the first 16,384 characters of each part are looked at, so a long body costs
    nothing. Empty where the parts hold nothing but markup.
    """
    lines = []
    left = ARTICLE_CHARACTERS
    for part in (title, abstract, body):
        line = _plain(part[: ARTICLE_CHARACTERS * _MARKUP_CHARACTERS])[:left] if left > 0 else ""
        if line:
            lines.append(line)
            left -= len(line) + 1
    return "\n".join(lines)


@dataclass(frozen=True)
class Totals:
    """What an encoder has run since it was loaded, the warm-up left out; ``padded_tokens`` include the padding."""

    texts: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    batches: int = 0


class TextEncoder:
    """An exported sentence encoder, run by ``tokenizers`` and ONNX Runtime. Safe to use from several threads."""

    def __init__(self, folder: Path, manifest: Manifest, device: Device, threads: int, batch_tokens: int) -> None:
        """Use :meth:`load`."""
        self.manifest = manifest
        self.dims = manifest.dims
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        except Exception as error:  # noqa: BLE001  tokenizers raises nothing narrower
            raise EncoderUnusable(
                f"{folder / TOKENIZER_FILE} cannot be used as a tokenizer: {error}; export it again"
            ) from None
        self._tokenizer.enable_truncation(manifest.max_length)
        self._tokenizer.no_padding()
        # A tokenizer may drop white space and more: what an article's text holds is always looked at.
        self._characters = max(manifest.max_length * _CHARACTERS_PER_TOKEN, 2 * ARTICLE_CHARACTERS)
        self._session: Session = open_session(folder / MODEL_FILE, device, threads)
        self.provider: str = self._session.provider
        self.batch_tokens = batch_tokens or BATCH_TOKENS[self.provider]
        width = self._session.outputs.get(OUTPUT)
        if width != self.dims:
            raise EncoderUnusable(
                f"{folder / MODEL_FILE} gives {width} dimensions, its manifest says {self.dims}: export it again"
            )
        self._warm_up(folder)
        self._totals = Totals()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path, device: Device = "auto", threads: int = 0, batch_tokens: int = 0) -> TextEncoder:
        """Check the encoder folder ``path`` against its manifest, open it and run its largest batches once.

        ``threads`` 0 means one per core; ``batch_tokens`` bounds a batch, padding counted, 0 takes the
        provider's own of ``BATCH_TOKENS``. Blocks for about a second. Raises :class:`EncoderUnusable`
        where the folder or the device cannot be used.
        """
        return cls(path, read_manifest(path), device, threads, batch_tokens)

    @property
    def totals(self) -> Totals:
        """What was run so far; take the difference of two for one call, or for a metric."""
        return self._totals

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 [len(texts), dims], unit rows in the order of ``texts``. Blocks; any text will do, even ''.

        Beside texts and vectors it needs the same memory for any number of texts of any length.
        """
        vectors = np.empty((len(texts), self.dims), dtype=np.float32)
        for start in range(0, len(texts), _ENCODE_TEXTS):
            some = slice(start, start + _ENCODE_TEXTS)
            vectors[some] = self.run(self.tokenise(texts[some]))
        return vectors

    def tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        """Return each text's token ids, int32 [1..max_length]; of a text 32 characters a token are read, or 8,192."""
        tokens: list[Tokens] = []
        chunk: list[str] = []
        characters = 0
        for text in texts:
            text = self.manifest.prompt + _encodable(text[: self._characters])
            chunk.append(text.lower() if self.manifest.lower_case else text)
            characters += len(chunk[-1])
            if characters >= _TOKENISE_CHARACTERS or len(chunk) == _TOKENISE_TEXTS:
                tokens += self._tokenise(chunk)
                chunk, characters = [], 0
        return tokens + self._tokenise(chunk)

    def _tokenise(self, chunk: list[str]) -> list[Tokens]:
        encodings = self._tokenizer.encode_batch_fast(chunk)
        return [np.array(encoding.ids, dtype=np.int32) if encoding.ids else EMPTY for encoding in encodings]

    def run(self, tokens: Sequence[Tokens]) -> Vectors:
        """Return float32 [len(tokens), dims] for texts already tokenised, in their order."""
        vectors = np.empty((len(tokens), self.dims), dtype=np.float32)
        padded = runs = 0
        for batch in batches([len(ids) for ids in tokens], self.batch_tokens):
            vectors[batch] = self._run_batch([tokens[i] for i in batch])
            padded += len(batch) * len(tokens[batch[-1]])
            runs += 1
        with self._lock:
            was = self._totals
            self._totals = replace(
                was,
                texts=was.texts + len(tokens),
                tokens=was.tokens + sum(len(ids) for ids in tokens),
                padded_tokens=was.padded_tokens + padded,
                batches=was.batches + runs,
            )
        return vectors

    def _run_batch(self, tokens: list[Tokens]) -> Vectors:
        lengths = np.array([len(ids) for ids in tokens])
        attention_mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        input_ids = np.zeros_like(attention_mask)
        input_ids[attention_mask.astype(bool)] = np.concatenate(tokens)
        return self._session.run(OUTPUT, {"input_ids": input_ids, "attention_mask": attention_mask})

    def _warm_up(self, folder: Path) -> None:
        """Run the largest batches there will be, so that memory is reserved and kernels are built before any news."""
        longest = self.manifest.max_length
        for length in {min(16, longest), longest}:
            rows = [np.zeros(length, dtype=np.int32)] * max(1, self.batch_tokens // length)
            try:
                vectors = self._run_batch(rows)
            except Exception as error:  # noqa: BLE001  ONNX Runtime's errors have no base class of their own
                raise EncoderUnusable(
                    f"{folder / MODEL_FILE} cannot be run: {str(error).splitlines()[0]}; export it again, "
                    "or name another --set encoder=FOLDER"
                ) from None
            if vectors.shape != (len(rows), self.dims) or not np.isfinite(vectors).all():
                raise EncoderUnusable(f"{folder / MODEL_FILE} gives no usable vectors: export it again")


def batches(lengths: Sequence[int], budget: int) -> Iterator[NDArray[np.int64]]:
    """Cut indices, shortest first, into batches whose padded size is at most ``budget`` tokens (or one text)."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for end, index in enumerate(order):
        if end > start and (end - start + 1) * lengths[index] > budget:
            yield order[start:end]
            start = end
    if start < len(order):
        yield order[start:]


def _plain(text: str) -> str:
    if "<" in text:
        text = _MARKUP.sub(" ", text)
    if "&" in text:
        text = html.unescape(text)
    return " ".join(text.split())


def _encodable(text: str) -> str:
    """Join surrogate pairs and put U+FFFD for a half that stands alone: neither can become UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
