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
    user_id: Annotated[str | None, typer.Argument(help="whose; without it, all that cannot be read is mended")] = None,
) -> None:
    """Replay a user's events from the log and write their state.

    Without an ID: of everybody whose state cannot be read; totals of partitions that cannot be read are counted anew,
    and statistics that cannot be read begin anew.
    """
    from consumers.rebuild import rebuild_user
    from consumers.rebuild_partition import Unreadable, rebuild_partition, unreadable
    from contract.errors import SettingsError
    from streams.admin import require_topics

    settings = settings_of(context)
    topics, model = model_of(settings)
    require_topics(settings, topics.specs())
    if user_id is not None and (not user_id or user_id.startswith("~")):
        raise SettingsError(f"{user_id!r} is no user_id")
    if user_id is not None:
        typer.echo(str(rebuild_user(settings, topics, model, user_id)))
        return
    found = unreadable(settings, topics, model)
    for partition in found.partitions:
        typer.echo(str(rebuild_partition(settings, topics, model, partition, found)))
    for user in found.users:
        typer.echo(str(rebuild_user(settings, topics, model, user)))
    for partition in sorted(found.totals & set(found.users.values())):  # what waits in those states is known by now
        again = Unreadable(totals={partition})
        typer.echo(str(rebuild_partition(settings, topics, model, partition, again)))
    if not (found.users or found.partitions):
        typer.echo("no state is damaged")
