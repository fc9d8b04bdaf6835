"""``python -m bench.users``: rates, restores, latencies and growth, one after the other on one broker, and a profile.

``--events 300000`` for a quick look; ``--only restore,latency`` for some groups.
"""

from __future__ import annotations

import argparse
import pstats
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.report import Row, write
from bench.users import contenders, measure
from bench.users.contenders import Run
from bench.users.full_record import worst_error_of_full
from bench.users.input import create_topic, places, read_changelog, reference_of, send
from bench.users.reduced import Events, make_events, uniform_events, write_articles
from streams.local_broker import LocalBroker

USERS = 80_000
RESTORED_USERS = 1_000_000
LATENCY_EVENTS_PER_SECOND = 2000
GROWTH_USERS = (10_000, 100_000, 1_000_000)
GROWTH_EVENTS = 400_000
GROWTH_BATCH = 200
PROFILED_EVENTS = 500_000
PROFILED_FUNCTIONS = 12
SLOW_EVENTS = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=3_000_000)
    parser.add_argument("--only", default="rate,restore,latency,growth,profile")
    options = parser.parse_args()
    groups = options.only.split(",")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-users-") as scratch:
        folder = Path(scratch)
        with LocalBroker.start(folder / "kafka", throughput=True) as broker:
            write_articles(folder / "articles.bin")
            run = Run(broker.bootstrap_servers, "clicks", folder / "articles.bin", folder)
            for name, rows_of in (
                ("rate", _rates),
                ("restore", _restores),
                ("latency", _latencies),
                ("growth", _growth),
                ("profile", _profiles),
            ):
                if name in groups:
                    for row in rows_of(run, options.events):
                        rows.append(row)
                        print(f"{row.group}: {row.name}: {row.value:,g} {row.unit} {row.detail}", flush=True)
    if rows:
        write("users", rows)


def _rates(run: Run, count: int) -> Iterator[Row]:
    articles = write_articles(run.articles)
    events = make_events(count, USERS)
    _fill(run, events)
    reference = reference_of(events, articles)
    for contender in (
        contenders.kafka_streams(run),
        contenders.stoppress(run),
        contenders.stoppress(run, 2),
        contenders.kafka_streams(run, "rocksdb"),
        contenders.consume_only(run),
    ):
        checked = None if contender.changelog == "" else reference
        yield measure.rate(contender, run, count, checked)
        shutil.rmtree(run.folder / "state", ignore_errors=True)
    full = contenders.full_record(run, events)
    row = measure.rate(full, replace(run, source=full.source), count, None)
    states, row.detail["changelog records"] = read_changelog(run.bootstrap, full.changelog)
    row.detail["worst error"] = f"{worst_error_of_full(events, articles, states, full.model):.0e}"
    yield row
    yield measure.rate(contenders.quix_streams(run), run, count, reference)
    few = Events(events.user[:SLOW_EVENTS], events.article[:SLOW_EVENTS], events.at[:SLOW_EVENTS])
    slow = replace(run, source="clicks-few")
    _fill(slow, few)
    row = measure.rate(contenders.faust_streaming(slow), slow, len(few), reference_of(few, articles))
    row.detail["events"] = len(few)
    yield row


def _restores(run: Run, _: int) -> Iterator[Row]:
    idle = replace(run, source="no-clicks")
    create_topic(run.bootstrap, idle.source)
    for contender in (
        contenders.kafka_streams(idle, heap_mb=3072, tag="-restore"),
        contenders.stoppress(idle, tag="-restore"),
        contenders.kafka_streams(idle, "rocksdb", tag="-restore"),
    ):
        measure.fill_states(run, contender.changelog, RESTORED_USERS)
        yield measure.restore(contender, idle, RESTORED_USERS)
        shutil.rmtree(run.folder / "state", ignore_errors=True)


def _latencies(run: Run, _: int) -> Iterator[Row]:
    events = make_events(round(measure.LATENCY_SECONDS * LATENCY_EVENTS_PER_SECOND), USERS, seed=2)
    for wait_ms in (50, 20):
        tag = f"-{wait_ms}ms"
        theirs, ours = (replace(run, source=f"paced{tag}-{whose}") for whose in ("theirs", "ours"))
        for contender, paced in (
            (contenders.kafka_streams(theirs, commit_ms=wait_ms, heap_mb=512, tag=tag), theirs),
            (contenders.stoppress(ours, wait_ms=wait_ms, tag=tag), ours),
        ):
            named = replace(contender, name=f"{contender.name}, {wait_ms} ms commits")
            yield from measure.latency(named, paced, events, LATENCY_EVENTS_PER_SECOND)


def _growth(run: Run, _: int) -> Iterator[Row]:
    sizes = {}
    for users in GROWTH_USERS:
        source = replace(run, source=f"growth-{users}")
        create_topic(run.bootstrap, source.source)
        contender = contenders.stoppress(source, batch=GROWTH_BATCH, tag=f"-growth-{users}")
        measure.fill_states(run, contender.changelog, users)
        row, sizes[users] = measure.growth(contender, source, uniform_events(GROWTH_EVENTS, users), users)
        yield row
    fewest, most = min(sizes), max(sizes)
    a_user = (sizes[most] - sizes[fewest]) * 2**20 / (most - fewest)
    yield Row(name="stoppress, memory", value=round(a_user), unit="bytes a user", group="growth")


def _profiles(run: Run, count: int) -> Iterator[Row]:
    """Print where the time of our two goes; a run under the profiler is no measurement, so there are no rows."""
    articles_of = replace(run, source="clicks-profiled")
    events = make_events(min(count, PROFILED_EVENTS), USERS)
    write_articles(run.articles)
    _fill(articles_of, events)
    full = contenders.full_record(run, events, namespace="profiled.")
    for contender, source in (
        (contenders.stoppress(articles_of, tag="-profiled"), articles_of.source),
        (full, full.source),
    ):
        saved = run.folder / f"{contender.group}.profile"
        measure.rate(contenders.profiled(contender, saved), replace(run, source=source), len(events), None)
        print(f"profile: {contender.name}, {len(events):,} events", flush=True)
        pstats.Stats(str(saved)).strip_dirs().sort_stats("tottime").print_stats(PROFILED_FUNCTIONS)
    yield from ()


def _fill(run: Run, events: Events) -> None:
    create_topic(run.bootstrap, run.source)
    began = time.monotonic()
    send(run.bootstrap, run.source, events.records(), places(events)[0].tolist())
    print(f"{len(events):,} events sent in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
