"""``stoppress topics``."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.wiring import model_of, settings_of

app = typer.Typer(no_args_is_help=True, help="Create and check the topics of the namespace.")


@app.command("create")
def topics_create(
    context: typer.Context,
    alter: Annotated[bool, typer.Option(help="also change settings of topics that were there already")] = False,
) -> None:
    """Create the topics that are missing; say what differs in those that are there."""
    from streams.admin import create_topics

    settings = settings_of(context)
    lines = create_topics(settings, model_of(settings)[0].specs(), alter=alter)
    for line in lines or ["nothing to do: all topics are as they should be"]:
        typer.echo(line)
    if any(line.startswith("differs") for line in lines):
        typer.echo(
            "nothing that was there was changed; `stoppress topics create --alter` changes settings, never counts"
        )
        raise typer.Exit(1)


@app.command("check")
def topics_check(context: typer.Context) -> None:
    """Say in which ways the cluster's topics differ from what is needed."""
    from streams.admin import check_topics

    settings = settings_of(context)
    lines = check_topics(settings, model_of(settings)[0].specs())
    for line in lines or ["all topics are as they should be"]:
        typer.echo(line)
    if lines:
        raise typer.Exit(1)
