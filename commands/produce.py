"""``stoppress produce``: articles and events from a simulation or a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from commands.wiring import article_vectors_of, settings_of

app = typer.Typer(no_args_is_help=True, help="Write articles and events.")


@app.command("simulate")
def produce_simulate(
    context: typer.Context,
    users: Annotated[int, typer.Option(min=1)] = 2000,
    archive: Annotated[int, typer.Option(min=1, help="articles published before the first click")] = 1000,
    history: Annotated[float, typer.Option(min=0, help="clicks per user before the first list")] = 0.0,
    clicks_per_second: Annotated[float, typer.Option(min=0)] = 500.0,
    publications_per_second: Annotated[float, typer.Option(min=0)] = 1.0,
    seconds: Annotated[float | None, typer.Option(help="how long to click; until Ctrl-C where not given")] = None,
    seed: Annotated[int, typer.Option()] = 1,
    taste: Annotated[bool, typer.Option(help="whether users differ in what they like")] = True,
    report: Annotated[Path | None, typer.Option(help="write the figures as JSON")] = None,
    progress: Annotated[bool, typer.Option("--progress", help="a line of JSON a second instead of text")] = False,
    corpus: Annotated[Path | None, typer.Option(help="only write articles to this file, JSON lines")] = None,
    corpus_articles: Annotated[int, typer.Option(min=1, help="how many of them")] = 3000,
    beside: Annotated[
        list[str] | None, typer.Option(help="mind=DIR or globo=DIR: only print how the shapes compare with real data")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="with --beside: the shapes as JSON")] = False,
) -> None:
    """A newsroom that publishes, and readers who look at their real lists and click by hidden tastes."""
    from producers.newsroom import write_corpus
    from producers.simulate import progress_line, simulate
    from streams.worker import Stop, set_up_logging

    if corpus is not None:
        write_corpus(corpus, corpus_articles)
        typer.echo(f"{corpus_articles} articles in {corpus}")
        return
    if beside:
        from producers.beside import compare

        compare(beside, seed=seed, as_json=as_json)
        return
    settings = settings_of(context)
    set_up_logging("warning")
    result = simulate(
        settings,
        users=users,
        archive=archive,
        history=history,
        clicks_per_second=clicks_per_second,
        publications_per_second=publications_per_second,
        seconds=seconds,
        seed=seed,
        taste=taste,
        report=report,
        on_progress=lambda figures: typer.echo(json.dumps(figures) if progress else progress_line(figures)),
        article_vectors=article_vectors_of(settings),
        stop=Stop.on_signals(),
    )
    if not progress:
        typer.echo(
            f"CTR personal {result.ctr.personal or 0:.1%}, popular {result.ctr.popular or 0:.1%}; "
            f"precision {result.precision.personal or 0:.1%}, {result.precision.popular or 0:.1%}"
        )


@app.command("replay")
def produce_replay(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="the folder with the data set")],
    format_: Annotated[str, typer.Option("--format", help="of the data: mind")],
    speed_up: Annotated[
        float | None, typer.Option(help="how many times as fast as it was; inf: as fast as Kafka takes it")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="how long it takes where no speed-up is given: 120")] = None,
    keep_times: Annotated[bool, typer.Option("--keep-times", help="leave at and published_at as they were")] = False,
    progress: Annotated[bool, typer.Option("--progress", help="a line of JSON a second instead of text")] = False,
) -> None:
    """Real impressions, clicks and news in their order, sped up, moved in time so that they end now."""
    from commands.replay_display import show_replay
    from streams.worker import Stop, set_up_logging

    settings = settings_of(context)
    set_up_logging("warning")
    show_replay(
        settings,
        format_,
        folder,
        speed_up=speed_up,
        seconds=seconds,
        keep_times=keep_times,
        as_json=progress,
        article_vectors=article_vectors_of(settings),
        stop=Stop.on_signals(),
    )
