"""``stoppress evaluate``: rankers judged on a data set, score first, then learn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.wiring import model_of, settings_of
from contract.errors import SettingsError
from contract.settings import Settings

if TYPE_CHECKING:
    from commands.display import Display
    from evaluation.left_out import LeftOut
    from evaluation.next_click import Protocol
    from evaluation.results import Result
    from evaluation.run import Asked


def evaluate(
    context: typer.Context,
    dataset: Annotated[Path | None, typer.Argument(help="the folder with the data set")] = None,
    format_: Annotated[str, typer.Option("--format", help="of the data: mind or globo")] = "",
    from_topics: Annotated[
        bool, typer.Option("--from-topics", help="instead of a data set: what the running system showed")
    ] = False,
    hours: Annotated[float | None, typer.Option(min=0, help="from topics: only the log's last hours")] = None,
    models: Annotated[str, typer.Option(help="names separated by commas; all of the task where not given")] = "",
    versus: Annotated[str, typer.Option(help="the model that all are held against")] = "blend",
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same numbers")] = 1,
    every: Annotated[int, typer.Option(min=1, help="globo: judge every n-th follow-up click, learn from all")] = 4,
    warm_up_hours: Annotated[float, typer.Option(min=0, help="globo: hours only learned from")] = 6.0,
    report: Annotated[Path | None, typer.Option(help="write report.html, report.md and report.json here")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the figures as JSON instead of a table")] = False,
) -> None:
    """Judge rankers on real clicks: score, then learn, in the order of time."""
    from rich.console import Console

    from commands.display import Display
    from evaluation.left_out import LeftOut
    from evaluation.models.registry import check_names
    from evaluation.next_click import Protocol
    from evaluation.run import Asked
    from evaluation.table import all_tables, rich_table

    settings = settings_of(context)
    if from_topics == (dataset is not None) or (from_topics and format_):
        raise SettingsError("give a data set and its --format, or --from-topics")
    if hours is not None and not from_topics:
        raise SettingsError("--hours goes with --from-topics")
    if not from_topics and format_ not in ("mind", "globo"):
        raise SettingsError(f"the format {format_!r} is not known; known: mind, globo")
    names = tuple(name.strip() for name in models.split(",") if name.strip())
    check_names("next click" if format_ == "globo" else "impressions", (*names, versus), settings)
    name = dataset.resolve().name if dataset is not None else f"{settings.namespace}user-events"
    asked = Asked(name, names, versus, seed)
    with Display(Console(stderr=True)) as display:
        left_out = LeftOut(display.say)
        if dataset is None:
            result = _on_own_log(settings, asked, left_out, display, hours)
        elif format_ == "mind":
            result = _on_impressions(dataset, settings, asked, left_out, display)
        else:
            result = _on_clicks(dataset, settings, asked, left_out, display, Protocol(every, warm_up_hours))
        left_out.sum_up()
    if report is not None:
        from evaluation.report import write_report

        files = write_report(report, result)
        typer.echo(f"wrote {', '.join(map(str, files))}", err=True)
    if as_json:
        sys.stdout.buffer.write(result.to_json() + b"\n")
    else:
        console = Console(width=None if sys.stdout.isatty() else 160)
        console.print(f"{result.dataset}: {result.task}, {result.requests:,} requests", highlight=False)
        for rows in all_tables(result):
            console.print(rich_table(rows))


def _on_impressions(folder: Path, settings: Settings, asked: Asked, left_out: LeftOut, display: Display) -> Result:
    from evaluation.run import evaluate_impressions
    from evaluation.vectors import read_articles
    from producers.mind import behaviours_at, offsets_by_time, read_news
    from streams.local_broker.jars import cache_dir

    offsets = offsets_by_time(folder, _broken(left_out))
    articles = read_articles(
        read_news(folder, _broken(left_out)),
        settings,
        cache_dir() / "vectors",
        left_out,
        lambda done, total: display.show("texts embedded", done, total),
    )
    shown = behaviours_at(folder, offsets)
    return evaluate_impressions(
        shown, articles, settings, asked, left_out, lambda read, _: display.show("impressions", read, len(offsets))
    )


def _on_clicks(
    folder: Path, settings: Settings, asked: Asked, left_out: LeftOut, display: Display, protocol: Protocol
) -> Result:
    from evaluation.articles import Articles
    from evaluation.next_click import Clicks
    from evaluation.run import evaluate_next_click
    from producers.globo import read_clicks

    articles = Articles()
    clicks = Clicks(read_clicks(folder, _broken(left_out)), articles, left_out)
    return evaluate_next_click(
        clicks, articles, settings, asked, left_out, protocol,
        lambda read, judged: display.show("clicks", read, len(clicks), f"{judged:,} judged"),
    )  # fmt: skip


def _on_own_log(settings: Settings, asked: Asked, left_out: LeftOut, display: Display, hours: float | None) -> Result:
    from consumers.shown_log import read_shown, read_vectors
    from evaluation.articles import Articles
    from evaluation.run import evaluate_own_log
    from streams.admin import require_topics

    topics, model = model_of(settings)
    require_topics(settings, topics.specs())
    articles = Articles(model.dims)
    for article_id, article in read_vectors(settings, topics, model.dims, left_out):
        articles.describe(article_id, article.meta.category, article.vector, article.published_at)
    log = read_shown(settings, topics, left_out, hours=hours)
    result = evaluate_own_log(
        log.shown, articles, settings, asked, left_out,
        lambda read, judged: display.show("impressions", read, len(log.shown), f"{judged:,} judged"),
    )  # fmt: skip
    if result.off_policy is None:
        display.say(
            "no place that was given by chance was shown, so nothing can be said of what else would have been clicked: "
            "clients have to send `shown` with the propensities of the list, and `exploration` has to be above 0"
        )
    return result


def _broken(left_out: LeftOut) -> Callable[[object], None]:
    return lambda line: left_out("lines left out", str(line))
