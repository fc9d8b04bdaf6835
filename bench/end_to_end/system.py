"""The system under load: a broker and the workers as the demo starts them, with users who have a past."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from contract.errors import StoppressError
from contract.messages import Article, Event, ShownItem
from contract.settings import Settings, load
from contract.topics import Topics
from demo.processes import Child, environment
from demo.supervisor import PARTITIONS, WORKERS
from encoders.interest import interest_model
from encoders.manifest import generation_of, read_manifest
from producers.sender import Sender
from streams.admin import create_topics
from streams.local_broker import LocalBroker

FIRST_PORT = 18_971
READY_SECONDS = 120.0
HISTORY_CLICKS = 12
HISTORY_VIEWS = 6
HISTORY_MS = 6 * 3_600_000
SHOWN = 10
FAVOURITES = 2
_TICK = os.sysconf("SC_CLK_TCK")
_METRIC = re.compile(r'^stoppress_rankings_put_off(_seconds)?\{cause="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class System:
    """What runs: where, and under which process ids."""

    settings: Settings
    topics: Topics
    workers: dict[str, Child]
    broker: LocalBroker

    def cpu_seconds(self) -> dict[str, float]:
        """Return the processor time by process until now; ``load`` is this one, which sends, reads and measures."""
        pids = {name: child.pid for name, child in self.workers.items()}
        pids |= {"broker": self.broker.pid, "load": os.getpid()}
        return {name: _cpu_seconds(pid) for name, pid in pids.items()}

    def put_off(self) -> dict[str, tuple[float, float]]:
        """Return by kind of cause how many users wait for their ranking now, and for how many seconds the first has."""
        with urlopen(f"http://127.0.0.1:{self.workers['ranker'].port}/metrics", timeout=5) as answer:
            found = _METRIC.findall(answer.read().decode())
        counts = {kind: float(value) for seconds, kind, value in found if not seconds}
        ages = {kind: float(value) for seconds, kind, value in found if seconds}
        return {kind: (count, ages.get(kind, 0.0)) for kind, count in counts.items()}

    def check(self) -> None:
        """Raise :class:`StoppressError` where a worker has ended."""
        for child in self.workers.values():
            if not child.running:
                raise StoppressError(f"the {child.name} worker has ended: {child.last_line()}")


@contextmanager
def started(folder: Path, overrides: Sequence[str] = ()) -> Iterator[System]:
    """Start a broker and the workers with the demo's partitions, and stop them at the end; blocks until all are ready.

    ``overrides`` are further settings, ``name=value``.
    """
    with LocalBroker.start(folder / "kafka", throughput=True) as broker:
        settings = load(
            [f"partitions={PARTITIONS}", *overrides, f"bootstrap_servers={broker.bootstrap_servers}"], environ={}
        )
        manifest = read_manifest(settings.encoder)
        topics = Topics(settings, generation_of(manifest, interest_model(settings, manifest.dims).manifest()))
        create_topics(settings, topics.specs())
        workers = {
            name: Child(
                name, ["run", name], environment(settings.model_copy(update={"port": port})), folder / f"{name}.log",
                port=port,
            )
            for port, name in enumerate(WORKERS, FIRST_PORT)
        }  # fmt: skip
        system = System(settings, topics, workers, broker)
        try:
            for child in workers.values():
                child.start()
            _wait_ready(system)
            yield system
        finally:
            for child in workers.values():
                child.terminate()
            for child in workers.values():
                child.stop(settings.shutdown_seconds)


def send_history(sender: Sender, users: Sequence[str], archive: Sequence[Article], seed: int = 1) -> None:
    """Send what every user saw and clicked in the last hours, most of it of two favourite categories; blocks."""
    draw, now_ms = random.Random(seed), time.time_ns() // 1_000_000
    by_category: dict[str, list[str]] = {}
    for article in archive:
        by_category.setdefault(article.category, []).append(article.article_id)
    everything = [article.article_id for article in archive]
    names = sorted(by_category)
    for user_id in users:
        liked = [article for name in draw.sample(names, FAVOURITES) for article in by_category[name]]
        clicks = draw.sample(liked, min(len(liked), HISTORY_CLICKS - 2)) + draw.sample(everything, 2)
        moments = sorted(now_ms - draw.randrange(HISTORY_MS) for _ in range(len(clicks) + HISTORY_VIEWS))
        what: list[str | None] = [*clicks, *[None] * HISTORY_VIEWS]
        draw.shuffle(what)
        for at, clicked in zip(moments, what, strict=True):
            if clicked is None:
                seen = draw.sample(everything, SHOWN)
                items = [ShownItem(article_id=article, position=place) for place, article in enumerate(seen)]
                sender.event(Event(user_id=user_id, kind="impression", at=at, shown=items))
            else:
                sender.event(Event(user_id=user_id, kind="click", at=at, article_id=clicked))
        sender.serve()
    sender.flush()


def _wait_ready(system: System) -> None:
    deadline = time.monotonic() + READY_SECONDS
    waiting = dict(system.workers)
    while waiting:
        system.check()
        waiting = {name: child for name, child in waiting.items() if not child.ready()}
        if time.monotonic() > deadline:
            raise StoppressError(f"not ready after {READY_SECONDS:.0f} s: {', '.join(waiting)}")
        time.sleep(0.05)


def _cpu_seconds(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / _TICK
