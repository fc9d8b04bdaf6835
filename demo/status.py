"""What the demo says in its terminal: a live table there, a plain line every few seconds in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

PLAIN_EVERY_SECONDS = 5.0
LIVE_EVERY_SECONDS = 0.5


class Status:
    """Lines and live figures on standard output."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._shown_at = 0.0
        self._began = time.monotonic()

    def say(self, line: str) -> None:
        """Print one line, with the seconds since the start."""
        self._console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  {line}", markup=True)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show figures in place while the body runs, where standard output is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def show(self, figures: Callable[[], dict[str, Any]]) -> None:
        """Show the figures of the moment if it is time to."""
        now = time.monotonic()
        if now - self._shown_at < (LIVE_EVERY_SECONDS if self._live else PLAIN_EVERY_SECONDS):
            return
        self._shown_at = now
        rows = _rows(figures())
        if self._live is None:
            self.say("  ".join(f"{name} {value}" for name, value in rows if value))
            return
        table = Table.grid(padding=(0, 3))
        for name, value in rows:
            table.add_row(f"[dim]{name}[/dim]", value)
        self._live.update(table, refresh=True)

    def end(self, report: dict[str, Any]) -> None:
        """Print the figures of the whole run."""
        latency = report["event_to_list_ms"]
        publish = report["publish_to_list_ms"]
        ctr = report["ctr"]
        self.say(
            f"{report['events_sent']:,} events sent = {report['events_folded']:,} folded + {report['waiting']:,} waiting"
            f" + {report['duplicate']:,} duplicate + {report['dead_letters']:,} dead, lost {report['lost']:,}"
        )
        self.say(
            f"{report['articles_published']:,} articles, {report['articles_embedded']:,} embedded; "
            f"{report['lists_published']:,} lists; event to list {_latency(latency)}; publish to list {_latency(publish)}"
        )
        if ctr["personal"] is not None:
            self.say(f"CTR personal {ctr['personal']:.2%}, popular {_percent(ctr['popular'])}")


def _rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    account, rates, ctr = figures["account"], figures["rates"], figures["ctr"]
    parts = " + ".join(f"{account[name]:,} {name}" for name in ("folded", "waiting", "duplicate", "dead"))
    kill = figures["kill"]
    return [
        ("events", f"{account['sent']:,} sent = {parts} + {account['in_flight']:,} in flight, lost {account['lost']:,}"),
        ("rate", f"{rates['events_per_s']:,.0f} events/s, {rates['lists_per_s']:,.0f} lists/s"),
        ("articles", f"{figures['articles']['published']:,} published, {figures['articles']['embedded']:,} embedded"),
        ("event to list", _latency(figures["latency"]["event_to_list_ms"])),
        ("publish to list", _latency(figures["latency"]["publish_to_list_ms"])),
        ("CTR", "" if ctr["personal"] is None else f"{_percent(ctr['personal'])} personal, {_percent(ctr['popular'])} popular"),
        ("kill", "" if kill is None else f"{kill['phase']}, all accounted after {kill['accounted_s'] or 0:.1f} s"),
    ]  # fmt: skip


def _latency(figures: dict[str, Any]) -> str:
    if figures["p50"] is None:
        return "not measured"
    return f"p50 {figures['p50']:,.0f} ms, p99 {figures['p99']:,.0f} ms"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"
