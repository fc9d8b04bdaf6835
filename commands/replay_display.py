"""``produce replay`` as its user sees it: bars on a terminal, now and then a line elsewhere, or lines of JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from commands.display import Display
from contract.errors import SettingsError
from contract.settings import Settings
from producers.broken_lines import BrokenLines
from producers.replay import SECONDS, replay, require_data
from streams.worker import Stop

NEWS, IMPRESSIONS = "news from before", "impressions"


class ReplayDisplay(Display):
    """Takes what :func:`producers.replay.replay` tells of its progress."""

    def archive(self, embedded: int, total: int) -> None:
        """So many of the news from before have a vector."""
        self.show(NEWS, embedded, total, "have vectors", line=embedded == total)

    def impressions(self, figures: dict[str, Any]) -> None:
        """The figures of a :class:`producers.replay.ReplayReport`."""
        sent = figures["events"].get("impression", 0)
        total = sent + figures["impressions_left"]
        self.show(IMPRESSIONS, sent, total, " · ".join(described(figures)), line=sent == total)


def show_replay(
    settings: Settings,
    format_: str,
    folder: Path,
    *,
    speed_up: float | None,
    seconds: float | None,
    keep_times: bool,
    as_json: bool,
    article_vectors: str | None,
    stop: Stop,
) -> None:
    """Replay a folder and show how far it has come (see :func:`producers.replay.replay`). Blocks until it has ended.

    Raises :class:`SettingsError` for what cannot be asked for, and as the replay does.
    """
    if speed_up is not None and seconds is not None:
        raise SettingsError("--speed-up and --seconds say the same thing in two ways; give one of them")
    if seconds is not None and not 0 < seconds < math.inf:
        raise SettingsError(f"--seconds is {seconds}; it must be greater than 0")
    require_data(format_, folder)
    with ReplayDisplay(Console(stderr=as_json)) as display:
        broken = BrokenLines(display.say)
        report = replay(
            settings,
            folder,
            speed_up=speed_up,
            seconds=SECONDS if seconds is None else seconds,
            keep_times=keep_times,
            on_progress=print_json if as_json else display.impressions,
            on_archive=None if as_json else display.archive,
            on_broken=broken,
            article_vectors=article_vectors,
            stop=stop,
        )
        broken.sum_up()
    if not as_json:
        ended = f"{report.impressions_left:,} impressions were left" if report.impressions_left else "all was sent"
        display.say(f"{ended} after {report.seconds:.0f} s: {' · '.join(described(msgspec.to_builtins(report)))}")


def print_json(figures: dict[str, Any]) -> None:
    """A line of JSON for whoever runs this as a process."""
    print(msgspec.json.encode(figures).decode(), flush=True)


def described(figures: dict[str, Any]) -> Iterator[str]:
    """The parts of a line about the figures of a :class:`producers.replay.ReplayReport`."""
    yield f"{figures['events_sent']:,} events"
    yield f"{figures['articles_published']:,} articles"
    yield f"{figures['users']:,} users"
    for name, text in (("personal", "own lists"), ("popular", "popular list")):
        rate = figures["ctr"][name]
        if rate is not None:
            yield f"CTR of what the {text} held {rate:.1%}"
