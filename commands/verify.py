"""``stoppress verify``: whether a running system's states are what its log says."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.wiring import model_of, settings_of


def verify(
    context: typer.Context,
    seconds: Annotated[float, typer.Option(min=0, help="how long to wait before comparing again")] = 5.0,
    sample: Annotated[int | None, typer.Option(min=1, help="only so many users; totals are always compared")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the report as JSON")] = False,
) -> None:
    """Compare states and totals with the log, twice; exit code 1 where something differs.

    Counts, hash sums and totals are counted by an account of its own; vectors and windows are folded anew by the
    worker's own fold. Affinities, article-stats and co-reads are not compared.
    """
    import msgspec
    from rich.console import Console

    from consumers.verify import verify as compare
    from consumers.verify_table import verify_table
    from streams.admin import require_topics
    from streams.worker import Stop

    settings = settings_of(context)
    topics, model = model_of(settings)
    require_topics(settings, topics.specs())
    report = compare(settings, topics, model, Stop.on_signals(), seconds=seconds, sample=sample)
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        Console().print(*verify_table(report), sep="\n")
    if not report.equal:
        raise typer.Exit(1)
