"""``stoppress dead-letters``."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.wiring import settings_of
from contract.topics import Topics

app = typer.Typer(no_args_is_help=True, help="See and send again what could not be used.")


@app.command("list")
def dead_letters_list(
    context: typer.Context,
    reason: Annotated[str | None, typer.Option(help="only those with this reason")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object a line, original bytes as base64")] = False,
) -> None:
    """List what could not be used, with the reason."""
    import msgspec

    from streams.admin import require_topics
    from streams.dead_letters import letters

    settings = settings_of(context)
    topics = Topics(settings)
    require_topics(settings, topics.public())
    count = 0
    for letter in letters(settings, topics):
        if reason is not None and letter.reason != reason:
            continue
        count += 1
        typer.echo(msgspec.json.encode(letter) if as_json else str(letter))
    if not as_json:
        typer.echo(f"{count} dead letter{'s' * (count != 1)}")


@app.command("requeue")
def dead_letters_requeue(
    context: typer.Context, reason: Annotated[str, typer.Option(help="send again those with this reason")]
) -> None:
    """Send dead letters of one reason to their topic again, each once."""
    from streams.admin import require_topics
    from streams.dead_letters import requeue

    settings = settings_of(context)
    topics = Topics(settings)
    require_topics(settings, topics.public())
    outcome = requeue(settings, topics, reason)
    typer.echo(f"{outcome.sent} sent again")
    for why, count in outcome.kept.items():
        typer.echo(f"{count} not: {why}")
