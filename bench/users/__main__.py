"""``python -m bench.users``: rates, restores, latencies and growth, one after the other on one broker.

``--events 300000`` for a quick look; ``--only rate,restore`` for a part.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from bench.report import Row, write
from bench.users import contenders
from bench.users.contenders import Contender, Run
from bench.users.input import PARTITIONS, create_topic, places, read_changelog, reference_of, send
from bench.users.reduced import Events, Reference, make_events, worst_error, write_articles
from bench.users.watch import Committed, Processes
from streams.local_broker import LocalBroker

USERS = 80_000


def measure_rate(contender: Contender, run: Run, events: int, reference: Reference) -> Row:
    """Let the contender fold the whole input; check what it wrote."""
    if not contender.creates:
        create_topic(run.bootstrap, contender.changelog, compact=True)
    committed = Committed(run.bootstrap, contender.group, run.source, PARTITIONS)
    half_at = 0.0
    with Processes(contender.commands, run.folder / "logs" / f"{contender.group}.log") as processes:
        processes.await_line("FIRST", 60)

        def reached_the_end() -> float | None:
            nonlocal half_at
            done, now = committed.total(), time.time()
            if not half_at and done >= events / 2:
                half_at, processes.half_done = now, done
            return now if done >= events else None

        ended_at = processes.wait_until(reached_the_end, "all events are committed", 900)
        processes.measure()
        began_at = min(float(line[1]) for line in processes.printed("FIRST"))
    states, records = read_changelog(run.bootstrap, contender.changelog, contender.strip)
    worst = worst_error(reference, states)
    second_half = (events - processes.half_done) / (ended_at - half_at) if ended_at > half_at else 0.0
    return Row(
        name=contender.name,
        value=round(events / (ended_at - began_at)),
        unit="events/s",
        group="rate",
        detail={
            "second half": round(second_half),
            "CPU s": round(processes.cpu_seconds, 1),
            "peak MB": round(processes.peak_mb),
            "changelog records": records,
            "worst error": f"{worst:.0e}",
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-users-") as scratch:
        folder = Path(scratch)
        with LocalBroker.start(folder / "kafka", throughput=True) as broker:
            articles = write_articles(folder / "articles.bin")
            events = make_events(options.events, USERS)
            run = Run(broker.bootstrap_servers, "clicks", folder / "articles.bin", folder)
            _fill(run, events)
            reference = reference_of(events, articles)
            rows = []
            for number in range(options.rounds):
                tag = f"-{number}"
                for contender in (
                    contenders.kafka_streams(run, tag=tag),
                    contenders.stoppress(run, tag=tag),
                    contenders.stoppress(run, 2, tag=tag),
                    contenders.kafka_streams(run, "rocksdb", tag=tag),
                ):
                    rows.append(measure_rate(contender, run, len(events), reference))
                    print(rows[-1], flush=True)
                    shutil.rmtree(folder / "state", ignore_errors=True)
            write("users", rows)


def _fill(run: Run, events: Events) -> None:
    create_topic(run.bootstrap, run.source)
    began = time.monotonic()
    send(run.bootstrap, run.source, events.records(), places(events)[0].tolist())
    print(f"{len(events):,} events sent in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
