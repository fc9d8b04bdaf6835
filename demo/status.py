"""What the demo says in its terminal: a live table there, a plain line every few seconds in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
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
        self._console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  {escape(line)}")

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
            self.say(" | ".join(f"{name} {value}" for name, value in rows))
            return
        table = Table.grid(padding=(0, 3))
        for name, value in rows:
            table.add_row(f"[dim]{name}[/dim]", value)
        self._live.update(table, refresh=True)

    def end(self, report: dict[str, Any]) -> None:
        """Print the figures of the whole run."""
        names = ("events_folded", "waiting", "duplicate", "dead_letters")
        parts = " + ".join(f"{report[name]:,} {name.removeprefix('events_').replace('_', ' ')}" for name in names)
        self.say(f"{report['events_sent']:,} events sent = {parts}, lost {report['lost']:,}")
        self.say(f"{report['articles_published']:,} articles, {report['articles_embedded']:,} embedded")
        self.say(f"{report['lists_published']:,} lists")
        self.say(f"event to list {_latency(report['event_to_list_ms'])}")
        self.say(f"publish to list {_latency(report['publish_to_list_ms'])}")
        if report["ctr"]["personal"] is not None:
            self.say(f"CTR {_arms(report['ctr'])}")


def _rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    account, rates, articles = figures["account"], figures["rates"], figures["articles"]
    parts = " + ".join(f"{account[name]:,} {name}" for name in ("folded", "waiting", "duplicate", "dead"))
    kill = figures["kill"]
    rows = [
        ("events", f"{account['sent']:,} = {parts} + {account['in_flight']:,} in flight, lost {account['lost']:,}"),
        ("rate", f"{rates['events_per_s']:,.0f} events/s, {rates['lists_per_s']:,.0f} lists/s"),
        ("articles", f"{articles['published']:,} published, {articles['embedded']:,} embedded"),
        ("event to list", _latency(figures["latency"]["event_to_list_ms"])),
        ("publish to list", _latency(figures["latency"]["publish_to_list_ms"])),
    ]
    if figures["ctr"]["personal"] is not None:
        rows.append(("CTR", _arms(figures["ctr"])))
    if kill is not None:
        rows.append(("last kill", f"{kill['phase']}, all accounted for after {kill['accounted_s'] or 0:.1f} s"))
    return rows


def _latency(figures: dict[str, Any]) -> str:
    if figures["p50"] is None:
        return "not measured"
    return f"p50 {figures['p50']:,.0f} ms, p99 {figures['p99']:,.0f} ms"


def _arms(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {'–' if value is None else f'{value:.2%}'}" for name, value in figures.items())
