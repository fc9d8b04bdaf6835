"""``stoppress inspect``: what became of a user's list or an event."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.wiring import model_of, settings_of

app = typer.Typer(no_args_is_help=True, help="See what became of a user's list or an event, from the topics alone.")
AsJson = Annotated[bool, typer.Option("--json", help="everything, as JSON")]


@app.command("user")
def user(
    context: typer.Context,
    user_id: str,
    candidates: Annotated[int, typer.Option(min=1, help="how many to print")] = 40,
    as_json: AsJson = False,
) -> None:
    """Rank the user once more and show the calculation: candidates, parts, probability, and what rules did."""
    import msgspec

    from commands.display import wide_console
    from consumers.inspect_table import calculation_tables
    from consumers.inspect_user import inspect_user
    from streams.admin import require_topics

    settings = settings_of(context)
    topics, model = model_of(settings)
    require_topics(settings, topics.specs())
    found = inspect_user(settings, topics, model, user_id)
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        wide_console().print(*calculation_tables(found, candidates), sep="\n")


@app.command("event")
def event(
    context: typer.Context,
    event_id: str,
    user_id: Annotated[str, typer.Option("--user", help="whose event it is: reads one partition alone")] = "",
    as_json: AsJson = False,
) -> None:
    """Tell one event's story: accepted, folded at which offset, which list it caused or why none, and ms each."""
    import msgspec

    from commands.display import wide_console
    from consumers.inspect_event import inspect_event
    from consumers.inspect_table import story_tables
    from streams.admin import require_topics

    settings = settings_of(context)
    topics, _ = model_of(settings)
    require_topics(settings, topics.specs())
    stories = inspect_event(settings, topics, event_id, user_id)
    if as_json:
        typer.echo(msgspec.json.encode(stories))
    else:
        wide_console().print(*story_tables(stories), sep="\n")
