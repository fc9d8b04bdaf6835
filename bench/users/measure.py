"""What is measured of a contender: rate, restore, latency, and how its cost grows with the users."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator

import numpy as np
from confluent_kafka import Producer
from numpy.typing import NDArray

from bench.report import Row
from bench.users.contenders import Contender, Run
from bench.users.input import PARTITIONS, create_topic, places, read_changelog, send
from bench.users.reduced import STATE, Events, Reference, worst_error
from bench.users.watch import Committed, Processes
from contract.settings import load
from streams.table import TableReader

LATENCY_SECONDS = 24.0
SETTLING_SECONDS = 8.0


def rate(contender: Contender, run: Run, events: int, reference: Reference | None, *, seconds: float = 900) -> Row:
    """Let the contender fold the whole input, and hold what it wrote against the reference."""
    if not contender.creates:
        create_topic(run.bootstrap, contender.changelog, compact=True)
    committed = Committed(run.bootstrap, contender.group, run.source, PARTITIONS)
    begun: list[tuple[float, int]] = []
    half: list[tuple[float, int]] = []
    with _started(contender, run) as processes:

        def reached_the_end() -> float | None:
            done, now = committed.total(), time.time()
            if done and not begun:
                begun.append((now, done))
            if done >= events / 2 and not half:
                half.append((now, done))
            return now if done >= events else None

        ended_at = processes.wait_until(reached_the_end, "all events are committed", seconds)
        processes.measure()
        firsts = [float(line[1]) for line in processes.printed("FIRST")]
    # Who does not say when the first record came is timed from its first commit on, by what came after.
    began_at, before = (min(firsts), 0) if firsts else begun[0]
    (half_at, half_done) = half[0]
    detail: dict[str, float | str] = {
        "second half": round((events - half_done) / max(ended_at - half_at, 1e-3)),
        "CPU s": round(processes.cpu_seconds, 1),
        "peak MB": round(processes.peak_mb),
    }
    if reference is not None:
        states, records = read_changelog(run.bootstrap, contender.changelog)
        detail["changelog records"] = records
        detail["worst error"] = f"{worst_error(reference, states):.0e}"
    value = round((events - before) / (ended_at - began_at))
    return Row(name=contender.name, value=value, unit="events/s", group="rate", detail=detail)


def fill_states(run: Run, changelog: str, users: int) -> None:
    """Write a state of each of ``users`` into a new changelog."""
    create_topic(run.bootstrap, changelog, compact=True)
    everybody = Events(*(np.arange(users),) * 3)

    def records() -> Iterator[tuple[bytes, bytes]]:
        table = np.zeros(1000, STATE)
        table["sum"] = np.random.default_rng(3).standard_normal((1000, 96)) / 10
        table["folded"] = 1
        values, size = table.tobytes(), STATE.itemsize
        for user in range(users):
            at = user % 1000 * size
            yield b"user-%07d" % user, values[at : at + size]

    send(run.bootstrap, changelog, records(), places(everybody)[0].tolist())


def restore(contender: Contender, run: Run, users: int) -> Row:
    """Let the contender restore ``users`` states, which are in its changelog already."""
    with _started(contender, run) as processes:
        line = processes.await_line("RESTORED", 300)[0]
        processes.measure()
    if int(line[1]) != users:
        raise ValueError(f"{contender.name} restored {line[1]} of {users}")
    detail: dict[str, float | str] = {"CPU s": round(processes.cpu_seconds, 1), "peak MB": round(processes.peak_mb)}
    value = round(users / float(line[2]))
    return Row(name=contender.name, value=value, unit="states/s", group="restore", detail=detail)


def latency(contender: Contender, run: Run, events: Events, per_second: int) -> list[Row]:
    """Send ``events`` evenly; time each until a read_committed reader sees a state that holds it."""
    create_topic(run.bootstrap, run.source)
    if not contender.creates:
        create_topic(run.bootstrap, contender.changelog, compact=True)
    with _started(contender, run) as processes:
        if contender.creates:
            processes.await_line("RUNNING", 60)
        reader = TableReader(
            load([f"bootstrap_servers={run.bootstrap}"], environ={}), contender.changelog, name="bench-latency"
        )
        measured, cores = _send_and_time(run, events, per_second, reader, processes)
        reader.close()
    name, detail = contender.name, {"max ms": float(round(measured.max())), "measured": float(len(measured))}
    return [
        Row(name=name, value=round(float(np.percentile(measured, 99)), 1), unit="ms, p99", group="latency",
            detail={"p50 ms": round(float(np.percentile(measured, 50)), 1), **detail}),
        Row(name=name, value=round(cores, 3), unit="cores", group="latency"),
    ]  # fmt: skip


def _send_and_time(
    run: Run, events: Events, per_second: int, reader: TableReader, processes: Processes
) -> tuple[NDArray[np.float64], float]:
    producer = Producer({"bootstrap.servers": run.bootstrap, "linger.ms": 0})
    partitions, offsets = places(events)
    pending: dict[bytes, deque[tuple[int, float]]] = defaultdict(deque)
    measured: list[float] = []
    records = zip(events.records(), partitions.tolist(), offsets.tolist(), strict=True)
    began = time.perf_counter()
    settled_cpu, settled_at, sent, waiting = 0.0, 0.0, 0, 0
    while sent < len(events) or waiting:
        now = time.perf_counter()
        if now - began > len(events) / per_second + 20:
            raise ValueError(f"{waiting} events were never seen on the changelog")
        if not settled_at and now - began > SETTLING_SECONDS:
            processes.measure()
            settled_cpu, settled_at = processes.cpu_seconds, now
        while sent < min(len(events), (now - began) * per_second):
            (key, value), partition, offset = next(records)
            pending[key].append((offset, time.perf_counter()))
            producer.produce(run.source, value, key, partition)
            sent, waiting = sent + 1, waiting + 1
        producer.poll(0)
        for record in reader.poll(0.002, limit=500):
            seen, state = time.perf_counter(), record.value()
            last = int.from_bytes((state or b"")[24:32], "little", signed=True)
            mine = pending[record.key() or b""]
            while mine and mine[0][0] <= last:
                sent_at = mine.popleft()[1]
                waiting -= 1
                if sent_at - began > SETTLING_SECONDS:
                    measured.append((seen - sent_at) * 1000)
    processes.measure()
    return np.array(measured), (processes.cpu_seconds - settled_cpu) / (time.perf_counter() - settled_at)


def growth(contender: Contender, run: Run, events: Events, users: int) -> tuple[Row, float]:
    """Restore ``users`` states, then fold ``events``: processor time for each changelog record, and MB at the end.

    It compares where a changelog record is of as many events everywhere: batches are to be small against ``users``.
    """
    committed = Committed(run.bootstrap, contender.group, run.source, PARTITIONS)
    with _started(contender, run) as processes:
        processes.await_line("RESTORED", 300)
        processes.measure()
        before = processes.cpu_seconds
        send(run.bootstrap, run.source, events.records(), places(events)[0].tolist())
        processes.wait_until(lambda: committed.total() >= len(events) or None, "all events are committed", 300)
        processes.measure()
        spent = processes.cpu_seconds - before
    _, records = read_changelog(run.bootstrap, contender.changelog)
    written = records - users
    value = round(spent / written * 1e6, 2)
    row = Row(name=f"{contender.name}, {users:,} users", value=value, unit="CPU µs a changelog record", group="growth",
              detail={"MB": round(processes.now_mb), "changelog records": written,
                      "events a record": round(len(events) / written, 3)})  # fmt: skip
    return row, processes.now_mb


def _started(contender: Contender, run: Run) -> Processes:
    return Processes(contender.commands, run.folder / "logs" / f"{contender.group}.log")
