"""What ``stoppress verify`` found, for people."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from consumers.verify import Report


def verify_table(report: Report) -> list[Table | str]:
    """The report for people: what was compared, and the differences."""
    compared = Table(box=SIMPLE_HEAD)
    for name in ("compared", "checked", "not checked"):
        compared.add_column(name, justify="left" if name == "compared" else "right")
    compared.add_row("counts and hash sums of users", f"{report.users:,}", f"{report.unchecked_users:,}")
    compared.add_row("vectors of users", f"{report.vectors:,}", f"{report.users - report.vectors:,}")
    compared.add_row("totals of partitions", f"{report.partitions:,}", f"{report.unchecked_partitions:,}")
    if report.equal:
        return [
            compared,
            f"equal, over {report.events:,} events, {report.later_events:,} of which came between two looks",
        ]
    differences = Table(box=SIMPLE_HEAD)
    for name in ("partition", "offset", "key", "what", "found", "expected"):
        differences.add_column(name, overflow="fold")
    for d in report.differences:
        differences.add_row(str(d.partition), str(d.offset), escape(d.key), d.what, escape(d.found), escape(d.expected))
    told = f"{report.different:,} records of user-vectors differ, over {report.events:,} events"
    return [compared, told, differences, "a user's state is made anew by: stoppress rebuild user ID"]
