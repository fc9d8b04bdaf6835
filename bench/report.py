"""A benchmark's result: rows with ratios to the first one, as a table and as JSON."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


class Row(msgspec.Struct, kw_only=True):
    """One measurement. ``ratio`` is to the first row of the same unit and ``group``; None where it has no peer."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    group: str = ""
    detail: dict[str, float | str] = {}


class Machine(msgspec.Struct):
    """Where it was measured."""

    processor: str
    cores: int
    memory_gb: float
    python: str
    system: str


def machine() -> Machine:
    """Return what this machine says of itself."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return Machine(
        processor=names[0] if names else platform.processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        python=platform.python_version(),
        system=platform.system(),
    )


def with_ratios(rows: list[Row]) -> list[Row]:
    """Give each row its ratio to the first one of its group and unit."""
    first: dict[tuple[str, str], float] = {}
    for row in rows:
        base = first.setdefault((row.group, row.unit), row.value)
        row.ratio = round(row.value / base, 3) if base else None
    return rows


def write(name: str, rows: list[Row]) -> Path:
    """Print the rows and write ``bench/results/NAME.json``; return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    result = {"machine": machine(), "rows": with_ratios(rows)}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    table = Table("", "value", "unit", "ratio", "")
    group = ""
    for row in rows:
        if row.group != group:
            table.add_section()
            table.add_row(f"[bold]{row.group}[/bold]")
            group = row.group
        detail = ", ".join(f"{key} {value}" for key, value in row.detail.items())
        table.add_row(row.name, f"{row.value:,.4g}", row.unit, "" if row.ratio is None else f"{row.ratio:.2f}", detail)
    Console().print(table)
    return path


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
