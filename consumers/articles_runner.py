"""Runs one batch of tokenised texts at a time on a thread, so that reading, tokenising and committing go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Self

import numpy as np
from prometheus_client import Counter, Histogram, Info

from consumers.articles_backlog import Version
from contract.errors import BadRecord, EncoderUnusable
from contract.settings import Settings
from encoders.session import CUDA
from encoders.text import TextEncoder, Vectors

TEXTS = Counter("stoppress_encoder_texts_total", "Texts run")
TOKENS = Counter("stoppress_encoder_tokens_total", "Tokens run, by whether they are text or padding", ["kind"])
BATCH = Histogram(
    "stoppress_encoder_batch_articles", "Articles in a micro-batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
)
PADDING = Histogram(
    "stoppress_encoder_padding_ratio", "Tokens run in a micro-batch, padding included, for each token of text",
    buckets=(1, 1.05, 1.1, 1.2, 1.3, 1.5, 2, 3, 5),
)  # fmt: skip
WAITING = Histogram(
    "stoppress_encoder_waiting_seconds", "From an article's being read to its being run",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 15, 60, 300, 1800),
)  # fmt: skip
RUNNING = Histogram(
    "stoppress_encoder_running_seconds", "Running one micro-batch",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)  # fmt: skip
ENCODER = Info("stoppress_encoder", "What embeds, and in which generation")


@dataclass(frozen=True)
class Bounds:
    """Of a micro-batch. On CPU a text alone reaches 84 % of the rate, so nothing waits; CUDA's are not measured."""

    articles: int
    tokens: int
    wait_seconds: float

    @classmethod
    def of(cls, settings: Settings, encoder: TextEncoder) -> Self:
        """Take what is set, and where nothing is, what suits the provider; tokens are what the encoder runs at once."""
        articles, wait_ms = (512, 5) if encoder.provider == CUDA else (64, 0)
        chosen_wait_ms = wait_ms if settings.encoder_wait_ms is None else settings.encoder_wait_ms
        return cls(settings.encoder_batch_articles or articles, encoder.batch_tokens, chosen_wait_ms / 1000)


@dataclass(frozen=True)
class Embedded:
    """A batch with float32 [len(batch), dims] unit vectors; ``failed`` are the rows without, and why."""

    batch: Sequence[Version]
    vectors: Vectors
    failed: dict[int, BadRecord]


class Runner:
    """Close it: the thread ends with its batch."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._executor = ThreadPoolExecutor(1, "encoder")
        self._future: Future[Embedded] | None = None

    @property
    def busy(self) -> bool:
        """Whether a batch was started and not collected."""
        return self._future is not None

    def start(self, batch: Sequence[Version]) -> None:
        """Begin to run a batch; not while busy."""
        assert self._future is None
        now = time.monotonic()
        for version in batch:
            WAITING.observe(now - version.read_at)
        self._future = self._executor.submit(self._run, batch)

    def wait(self, seconds: float) -> None:
        """Block until the batch is done, at most ``seconds``."""
        if self._future is not None:
            wait([self._future], seconds)

    def collect(self) -> Embedded | None:
        """Return the batch if it is done; raises :class:`EncoderUnusable` where the encoder itself fails."""
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        return future.result()

    def close(self) -> None:
        """Block until the batch is done; its vectors are dropped."""
        self._executor.shutdown()

    def _run(self, batch: Sequence[Version]) -> Embedded:
        began = time.perf_counter()
        failed: dict[int, BadRecord] = {}
        try:
            vectors = self._vectors(batch)
        except Exception:  # noqa: BLE001  ONNX Runtime's errors have no base class of their own
            vectors, failed = self._run_each_alone(batch)
        for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)):
            failed[int(row)] = BadRecord(
                "not_embeddable", "the encoder's numbers for this text are not finite; send it with other words"
            )
        if len(failed) == len(batch):
            self._check_itself()
        RUNNING.observe(time.perf_counter() - began)
        _count([len(version.tokens) for version in batch])
        return Embedded(batch, vectors, failed)

    def _run_each_alone(self, batch: Sequence[Version]) -> tuple[Vectors, dict[int, BadRecord]]:
        vectors = np.zeros((len(batch), self._encoder.dims), np.float32)
        failed = {}
        for row, version in enumerate(batch):
            try:
                vectors[row] = self._vectors([version])[0]
            except Exception as error:  # noqa: BLE001  as above
                first_line = (str(error).splitlines() or [type(error).__name__])[0]
                failed[row] = BadRecord(
                    "not_embeddable", f"the encoder fails on this text: {first_line}; send it with other words"
                )
        return vectors, failed

    def _check_itself(self) -> None:
        """Where nothing could be run, a text that always could tells whether the texts are to blame."""
        try:
            self._encoder.encode(["warm up"])
        except Exception as error:  # noqa: BLE001  as above
            raise EncoderUnusable(
                f"the encoder no longer runs on {self._encoder.provider}: {error}; start it again"
            ) from None

    def _vectors(self, batch: Sequence[Version]) -> Vectors:
        return self._encoder.run([version.tokens for version in batch])


def _count(lengths: Sequence[int]) -> None:
    tokens, padded = sum(lengths), max(lengths) * len(lengths)
    BATCH.observe(len(lengths))
    PADDING.observe(padded / max(1, tokens))
    TEXTS.inc(len(lengths))
    TOKENS.labels("text").inc(tokens)
    TOKENS.labels("padding").inc(padded - tokens)
