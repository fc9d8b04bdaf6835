"""``python -m bench.end_to_end``: clicks and publications into a system of 20,000 users, lists out, on this machine.

A ladder of clicks a second; each click comes with an impression of the ten items that were looked at, and one
article a second is published. ``--clicks 500`` measures one step, ``--set name=value`` gives the workers a setting.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.end_to_end.load import Measured, Readers
from bench.end_to_end.system import SHOWN, System, send_history, started
from bench.report import Row, write
from producers.embedded import wait_for_vectors
from producers.newsroom import Newsroom
from producers.sender import Sender
from streams.table import TableReader
from streams.worker import Stop

EVENT_P99_MS = 250.0
PUBLISH_P99_MS = 1000.0
SETTLING_SECONDS = 5.0
PATIENCE_SECONDS = 90.0


def main() -> None:
    """Measure and write ``bench/results/end-to-end.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", default="250,500,1000,2000", help="a second, one step after the other")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each step, after five to settle")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--articles", type=int, default=1000, help="fresh ones at the start")
    parser.add_argument("--publications", type=float, default=1.0, help="a second")
    parser.add_argument("--set", action="append", default=[], help="name=value, a setting of the workers")
    parser.add_argument("--result", default="end-to-end", help="the name of the result's file")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-end-to-end-") as folder,
        started(Path(folder), options.set) as system,
    ):
        readers = prepared(system, options.users, options.articles)
        rows: list[Row] = []
        for rate in map(float, options.clicks.split(",")):
            for row in step(system, readers, rate, options.publications, options.seconds):
                rows.append(row)
                print(f"{row.group}: {row.name}: {row.value:,.4g} {row.unit} {row.detail}", flush=True)
    print(write(options.result, rows))


def prepared(system: System, users: int, articles: int) -> Readers:
    """Publish articles, send every user's past, and wait until all of them have lists of their own."""
    began, stop = time.perf_counter(), Stop()
    newsroom, sender = Newsroom(1), Sender(system.settings, system.topics, name="bench", linger_ms=1)
    archive = [article for article, _ in newsroom.archive(articles, time.time_ns() // 1_000_000 - 1000)]
    for article in archive:
        sender.article(article)
    sender.flush()
    if not wait_for_vectors(system.settings, system.topics.article_vectors, [a.article_id for a in archive], stop):
        raise SystemExit("the articles worker embeds nothing")
    ids = [f"user-{number:05d}" for number in range(users)]
    reader = TableReader(system.settings, system.topics.recommendations, name="bench", fetch_wait_ms=500)
    readers = Readers(ids, reader, sender, newsroom, seed=1)
    send_history(sender, ids, archive)
    deadline = time.perf_counter() + PATIENCE_SECONDS
    while readers.personal_lists() < 0.97 * users:  # the holdout has the popular one
        system.check()
        if readers.listen(0.5):
            deadline = time.perf_counter() + PATIENCE_SECONDS
        if time.perf_counter() > deadline:
            raise SystemExit(f"only {readers.personal_lists()} of {users} users have a list of their own")
    readers.drain(PATIENCE_SECONDS)
    print(f"{users} users and {articles} articles are there after {time.perf_counter() - began:.0f} s", flush=True)
    return readers


def step(system: System, readers: Readers, rate: float, publications: float, seconds: float) -> Iterator[Row]:
    """Measure one rate, then wait until all of it is done; yield what it was like."""
    before, began = system.cpu_seconds(), time.perf_counter()
    measured = readers.run(rate, publications, seconds, SETTLING_SECONDS, SHOWN)
    system.check()
    put_off, took = system.put_off(), time.perf_counter() - began
    spent = {name: round((now - before[name]) / took, 2) for name, now in system.cpu_seconds().items()}
    lists, left = dict(measured.lists), readers.open_clicks
    behind = readers.drain(PATIENCE_SECONDS)
    untold = readers.forget_open()
    group = f"{rate:g} clicks/s, as many impressions of {SHOWN}, {publications:g} publication/s"
    yield from latencies(measured, group, untold)
    detail: dict[str, float | str] = {kind: round(count / took, 1) for kind, count in sorted(lists.items())}
    yield Row(name="lists", value=round(sum(lists.values()) / took), unit="lists/s", group=group, detail=detail)
    cores: dict[str, float | str] = dict(spent)
    yield Row(name="processor time", value=round(sum(spent.values()), 2), unit="cores", group=group, detail=cores)
    waiting: dict[str, float | str] = {
        kind: f"{count:.0f} for {age:.1f} s" for kind, (count, age) in put_off.items() if count
    }
    yield Row(
        name="put off when the load ended", value=sum(count for count, _ in put_off.values()), unit="users",
        group=group, detail={"clicks in no list yet": left, "last list after s": round(behind, 1), **waiting},
    )  # fmt: skip


def latencies(measured: Measured, group: str, untold: int) -> Iterator[Row]:
    """Yield the 99th percentiles beside their targets, to which their ratio is."""
    events: dict[str, float | str] = {"clicks": measured.counted, "that changed no list": untold}
    for what, of, target, more in (
        ("event to list", "event_to_list", EVENT_P99_MS, events),
        ("publication to lists", "publish_to_list", PUBLISH_P99_MS, {}),
    ):
        detail: dict[str, float | str] = {
            f"p{percent}": round(measured.percentile(of, percent), 1) for percent in (50, 90)
        }
        detail["measured"] = len(getattr(measured, of))
        unit, value = f"ms, {what}", round(measured.percentile(of, 99), 1)
        yield Row(name="target, p99", value=target, unit=unit, group=group)
        yield Row(name="stoppress, p99", value=value, unit=unit, group=group, detail=detail | more)


if __name__ == "__main__":
    main()
