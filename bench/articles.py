"""The articles worker, Kafka to Kafka: one article while it is idle, and a backfill against the encoder's own rate.

    python -m bench.articles

A broker of its own, the worker as a process, texts of the simulated newsroom. Takes about two minutes.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.report import Row, write
from contract.messages import Article, encode
from contract.settings import Settings, load
from contract.topics import Topics
from demo.processes import Child, environment
from encoders.decay import Decay
from encoders.manifest import generation_of, read_manifest
from encoders.text import TextEncoder, article_text
from producers.newsroom.newsroom import Newsroom
from streams.admin import create_topics
from streams.clients import make_producer
from streams.local_broker import LocalBroker
from streams.table import TableReader

ALONE = 300
BACKFILL = 2000
WARM_UP = 400  # a young broker still compiles what it runs
DAY_MS = 86_400_000


def main() -> None:
    """Measure and write ``bench/results/articles.json``."""
    with tempfile.TemporaryDirectory() as folder, LocalBroker.start(Path(folder) / "kafka", throughput=True) as broker:
        settings = load([f"bootstrap_servers={broker.bootstrap_servers}", "namespace=bench."], environ={})
        rows = _one_at_a_time(settings, Path(folder)) + _backfill(settings, Path(folder))
    write("articles", rows)


def _one_at_a_time(settings: Settings, folder: Path) -> list[Row]:
    settings = settings.model_copy(update={"namespace": "bench-alone.", "port": 18_961})
    newsroom, pauses = Newsroom(1), random.Random(1)
    topics = _topics(settings)
    producer = make_producer(settings, name="bench", extra={"linger.ms": 0})
    latencies = []
    with _worker(settings, folder):
        reader = TableReader(settings, topics.article_vectors, name="bench", fetch_wait_ms=500)
        for number in range(WARM_UP + ALONE):
            if number >= WARM_UP:
                threading.Event().wait(pauses.uniform(0.05, 0.15))
            article = newsroom.article(_now_ms())[0]
            began = time.perf_counter()
            producer.produce(topics.articles, encode(article), article.article_id)
            while not any(record.key() == article.article_id.encode() for record in reader.poll(0.5, limit=1)):
                producer.poll(0)
            if number >= WARM_UP:
                latencies.append((time.perf_counter() - began) * 1000)
        reader.close()
    return [
        Row(name=f"stoppress, {quantile}", value=round(float(np.percentile(latencies, percent)), 1), unit="ms",
            group=f"one article in an idle worker ({ALONE} of them)")
        for quantile, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("longest", 100))
    ]  # fmt: skip


def _backfill(settings: Settings, folder: Path) -> list[Row]:
    settings = settings.model_copy(update={"namespace": "bench-backfill.", "port": 18_962})
    articles = [article for article, _ in Newsroom(2).archive(BACKFILL, _now_ms(), hours=20 * 24)]
    topics = _topics(settings)
    producer = make_producer(settings, name="bench")
    for article in articles:
        producer.produce(topics.articles, encode(article), article.article_id)
    producer.flush(30)
    with _worker(settings, folder, ready=False):
        times = _times_written(settings, topics, BACKFILL)
    rate = _rate_between(times)
    alone = _encoder_rate(settings, articles)
    group = f"a backfill of {BACKFILL} articles"
    return [
        Row(name="the encoder alone, all texts at once", value=round(alone, 1), unit="articles/s", group=group),
        Row(name="stoppress", value=round(rate, 1), unit="articles/s", group=group),
    ]


def _times_written(settings: Settings, topics: Topics, count: int) -> list[float]:
    reader = TableReader(settings, topics.article_vectors, name="bench", fetch_wait_ms=20)
    times: list[float] = []
    while len(times) < count:
        times += [time.perf_counter()] * len(reader.poll(0.1))
    reader.close()
    return times


def _rate_between(times: Sequence[float]) -> float:
    """Articles a second from the first tenth on: before that the worker starts and reads ahead."""
    first = len(times) // 10
    return (len(times) - first) / (times[-1] - times[first])


def _encoder_rate(settings: Settings, articles: Sequence[Article]) -> float:
    encoder = TextEncoder.load(settings.encoder, settings.device, settings.encoder_threads)
    texts = [article_text(article.title, article.abstract, article.body) for article in articles]
    encoder.encode(texts[:200])
    began = time.perf_counter()
    encoder.encode(texts)
    return len(texts) / (time.perf_counter() - began)


def _topics(settings: Settings) -> Topics:
    manifest = read_manifest(settings.encoder)
    model = Decay.of(settings, manifest.dims)
    topics = Topics(settings, generation_of(manifest, model.manifest()))
    create_topics(settings, topics.specs())
    return topics


@contextmanager
def _worker(settings: Settings, folder: Path, *, ready: bool = True) -> Iterator[None]:
    assert settings.port is not None
    log = folder / f"{settings.namespace}log"
    child = Child("articles", ["run", "articles"], environment(settings), log, port=settings.port)
    child.start()
    try:
        while ready and not child.ready():
            if not child.running:
                raise SystemExit(f"the worker has ended: {child.last_line()}")
            threading.Event().wait(0.1)
        yield
    finally:
        child.stop(10)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
