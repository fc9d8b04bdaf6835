"""``stoppress demo``: the whole system on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.wiring import model_of, settings_of


def demo(
    context: typer.Context,
    seconds: Annotated[float | None, typer.Option(help="end by itself after this long")] = None,
    replay: Annotated[tuple[str, Path] | None, typer.Option(help="FORMAT DIR: real impressions, sped up")] = None,
    report: Annotated[Path | None, typer.Option(help="write the figures as JSON")] = None,
    users: Annotated[int, typer.Option(min=1)] = 2000,
    articles: Annotated[int, typer.Option(min=1, help="how many are fresh at the start")] = 1000,
    clicks_per_second: Annotated[float, typer.Option(min=0)] = 500.0,
) -> None:
    """Everything on this machine: broker, workers, a simulated newsroom with its readers, and a page."""
    from demo.supervisor import run_demo
    from streams.worker import Stop, set_up_logging

    settings = settings_of(context)
    set_up_logging("warning")
    source = ["produce", "simulate", "--progress", f"--users={users}", f"--archive={articles}",
              f"--clicks-per-second={clicks_per_second}"]  # fmt: skip
    strap = f"{users:,} simulated readers, {articles:,} fresh articles, a real Kafka on this machine"
    if replay is not None:
        from producers.replay import require_data

        require_data(*replay)
        source = ["produce", "replay", "--progress", "--format", replay[0], str(replay[1].resolve())]
        if seconds is not None:
            source.append(f"--seconds={seconds}")
        strap = "A real day of news and clicks, sped up, through a real Kafka on this machine"
    stop = Stop.on_signals()
    code = run_demo(
        settings, lambda s: model_of(s)[0], stop, source=source, strap=strap, seconds=seconds, report=report
    )
    raise typer.Exit(code)
