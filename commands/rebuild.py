"""``stoppress rebuild``."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.wiring import model_of, settings_of

app = typer.Typer(no_args_is_help=True, help="Make a state anew from the log, while the workers run.")


@app.callback()
def rebuild() -> None:
    pass


@app.command("user")
def rebuild_user_command(
    context: typer.Context,
    user_id: Annotated[str | None, typer.Argument(help="whose; everybody's whose state cannot be read if none")] = None,
) -> None:
    """Replay a user's events from the log and write their state."""
    from consumers.rebuild import rebuild_user, unreadable_users
    from contract.errors import SettingsError
    from streams.admin import require_topics

    settings = settings_of(context)
    topics, model = model_of(settings)
    require_topics(settings, topics.specs())
    if user_id is not None and (not user_id or user_id.startswith("~")):
        raise SettingsError(f"{user_id!r} is no user_id")
    users = unreadable_users(settings, topics, model) if user_id is None else [user_id]
    for user in users:
        typer.echo(str(rebuild_user(settings, topics, model, user)))
    if not users:
        typer.echo("no state is damaged")
