"""``make chaos``: two long runs, the toll of each and ``bench/results/chaos.json``."""

from __future__ import annotations

import logging
import math
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.report import RESULTS, machine
from tests.chaos.kills import Toll
from tests.chaos.load import World
from tests.chaos.run import random_phases, run
from tests.chaos.verdict import Verdict

console = Console()
SUMS = (
    "events", "lost", "duplicated", "misordered", "mismatched_keys", "states_seen", "versions_compared",
    "users_compared", "statistics_compared", "co_reads_compared", "merges", "absorbs", "dead_letters", "users_limited",
)  # fmt: skip


def main(
    kills: Annotated[int, typer.Option(min=1, help="of workers")] = 100,
    restarts: Annotated[int, typer.Option(min=0, help="of the broker, by kill -9")] = 5,
    seed: Annotated[int, typer.Option(help="of what happens in which order")] = 1,
) -> None:
    """Kill users workers and their broker under load, and hold what is left against a plain fold of the log.

    That many in the first run, where all is compared exactly; a fifth of them more in a second one, where articles
    come late, are rewritten all the time, and withdrawn now and then.
    """
    logging.disable(logging.CRITICAL)  # what clients say while their broker is away
    runs = []
    for name, part, changing in (("fixed articles", 1, False), ("changing articles", 5, True)):
        count, hard = math.ceil(kills / part), math.ceil(restarts / part)
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder, _progress(name, count + hard) as say:
            phases = list(random_phases(count, hard, seed))
            runs.append(
                (name, *run(Path(folder), phases, World(events_per_second=250, changing=changing, seed=seed), say))
            )
        _show(*runs[-1])
    _write(runs)
    if not all(verdict.good for _, _, verdict in runs):
        raise typer.Exit(1)


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, a line each elsewhere."""
    if not console.is_terminal:
        done = iter(range(1, total + 1))
        yield lambda line: print(f"{name} {next(done)}/{total}: {line}", flush=True)
        return
    columns = TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)
        yield lambda line: progress.update(task, advance=1, description=line)


def _show(name: str, toll: Toll, verdict: Verdict) -> None:
    table = Table(title=f"{name}: {'good' if verdict.good else 'NOT GOOD'}", title_justify="left")
    table.add_column("what")
    table.add_column("count", justify="right")
    for what, count in (toll.by_kind | {"broker restart": toll.broker_restarts}).items():
        table.add_row(what, f"{count:,}")
    table.add_section()
    table.add_row("workers struck", f"{toll.workers_struck:,}")
    for what in SUMS:
        table.add_row(what, f"{getattr(verdict, what):,}")
    for topic, count in verdict.aborted.items():
        table.add_row(f"records aborted in {topic}", f"{count:,}")
    table.add_row("of them seen", f"{verdict.aborted_seen:,}")
    for what, count in verdict.outcomes.items():
        table.add_row(what, f"{count:,}")
    table.add_row("recovery, median / longest", f"{_median(toll.recovery_s):.1f} s / {max(toll.recovery_s):.1f} s")
    console.print(table)
    for finding in verdict.findings:
        print(f"  {finding}", file=sys.stderr)


def _write(runs: list[tuple[str, Toll, Verdict]]) -> None:
    tolls, verdicts = [toll for _, toll, _ in runs], [verdict for _, _, verdict in runs]
    recovery = [seconds for toll in tolls for seconds in toll.recovery_s]
    result = {
        "machine": machine(),
        "kills": sum(toll.kills for toll in tolls),
        "broker_restarts": sum(toll.broker_restarts for toll in tolls),
        "workers_struck": sum(toll.workers_struck for toll in tolls),
        **{what: sum(getattr(verdict, what) for verdict in verdicts) for what in SUMS},
        "aborted": dict(sum((Counter(verdict.aborted) for verdict in verdicts), start=Counter())),
        "aborted_seen": sum(verdict.aborted_seen for verdict in verdicts),
        "recovery_s": round(_median(recovery), 2),
        "recovery_max_s": round(max(recovery), 2),
        "by_kind": dict(sum((toll.by_kind for toll in tolls), start=type(tolls[0].by_kind)())),
        "findings": [finding for verdict in verdicts for finding in verdict.findings],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "chaos.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    print(path)


def _median(seconds: list[float]) -> float:
    return statistics.median(seconds) if seconds else math.nan


if __name__ == "__main__":
    typer.run(main)
