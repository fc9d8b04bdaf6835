"""Text to vectors: tokenise, sort by length, run in batches of bounded size, restore the order."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from contract.errors import EncoderUnusable
from encoders.manifest import MODEL_FILE, TOKENIZER_FILE, Manifest, read_manifest
from encoders.session import Device, open_session

ARTICLE_CHARACTERS = 4096
OUTPUT = "sentence_embedding"

_CHARACTERS_PER_TOKEN = 32
_MARKUP_CHARACTERS = 4  # characters of marked-up text read for each one that is kept
_TOKENISE_AT_ONCE = 1024
_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(script|style)\b[^<>]*>.*?(?:</\1\s*>|\Z)"
    r"|</?[a-z][^<>]*>",
    re.DOTALL | re.IGNORECASE,
)

Tokens = NDArray[np.int64]
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


class TextEncoder:
    """An exported sentence encoder, run by ``tokenizers`` and ONNX Runtime. Safe to use from several threads."""

    def __init__(self, folder: Path, manifest: Manifest, device: Device, threads: int, batch_tokens: int) -> None:
        """Use :meth:`load`."""
        self.manifest = manifest
        self.dims = manifest.dims
        self.batch_tokens = batch_tokens
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        except Exception as error:  # noqa: BLE001  tokenizers raises nothing narrower
            raise EncoderUnusable(f"{folder / TOKENIZER_FILE} cannot be used as a tokenizer: {error}") from None
        self._tokenizer.enable_truncation(manifest.max_length)
        self._tokenizer.no_padding()
        self._characters = manifest.max_length * _CHARACTERS_PER_TOKEN
        self._session = open_session(folder / MODEL_FILE, device, threads)
        self._inputs = frozenset(node.name for node in self._session.get_inputs())
        self.provider: str = self._session.get_providers()[0]
        width = {node.name: node.shape[-1] for node in self._session.get_outputs()}.get(OUTPUT)
        if width != self.dims:
            raise EncoderUnusable(f"{folder / MODEL_FILE} gives {width} dimensions, its manifest says {self.dims}")

    @classmethod
    def load(cls, path: Path, device: Device = "auto", threads: int = 0, batch_tokens: int = 512) -> TextEncoder:
        """Check the encoder folder ``path`` against its manifest, open it and run it once.

        ``threads`` 0 means one per core; ``batch_tokens`` bounds a batch, padding counted. Blocks for
        about a second. Raises :class:`EncoderUnusable` where the folder or the device cannot be used.
        """
        encoder = cls(path, read_manifest(path), device, threads, batch_tokens)
        encoder.encode(["warm-up"])
        return encoder

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 [len(texts), dims], unit rows in the order of ``texts``. Blocks; any text will do, even ''."""
        return self.run(self.tokenise(texts))

    def tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        """Return each text's token ids, int64 [1..max_length]; what is beyond 32 characters a token is not read."""
        tokens: list[Tokens] = []
        for start in range(0, len(texts), _TOKENISE_AT_ONCE):
            chunk = [
                self.manifest.prompt + _encodable(text[: self._characters])
                for text in texts[start : start + _TOKENISE_AT_ONCE]
            ]
            encodings = self._tokenizer.encode_batch_fast(chunk)
            tokens.extend(np.array(encoding.ids, dtype=np.int64) for encoding in encodings)
        return tokens

    def run(self, tokens: Sequence[Tokens]) -> Vectors:
        """Return float32 [len(tokens), dims] for texts already tokenised, in their order."""
        vectors = np.zeros((len(tokens), self.dims), dtype=np.float32)
        for batch in batches([len(ids) for ids in tokens], self.batch_tokens):
            vectors[batch] = self._run_batch([tokens[i] for i in batch])
        return vectors

    def _run_batch(self, tokens: list[Tokens]) -> Vectors:
        lengths = np.array([len(ids) for ids in tokens])
        attention_mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        input_ids = np.zeros_like(attention_mask)
        input_ids[attention_mask.astype(bool)] = np.concatenate(tokens)
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = np.zeros_like(input_ids)
        output: Vectors = self._session.run([OUTPUT], feed)[0]
        return output


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
