"""``stoppress train ranker``: the click model by which the ranker scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from commands.display import Display
from commands.wiring import settings_of
from contract.errors import SettingsError
from export.clicks.run import EPOCHS as CLICK_EPOCHS
from ranking.listwise import LEARNING_RATE


def ranker(
    context: typer.Context,
    folders: Annotated[list[Path], typer.Argument(metavar="[DATASET] OUT", help="the data, and where to write")],
    format_: Annotated[str, typer.Option("--format", help="of the data set: mind or globo")] = "",
    from_topics: Annotated[
        bool, typer.Option("--from-topics", help="instead of a data set: what the running system showed")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same numbers")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="at most")] = CLICK_EPOCHS,
    learning_rate: Annotated[float, typer.Option(min=1e-6, help="of Adam")] = LEARNING_RATE,
    every: Annotated[int, typer.Option(min=1, help="globo: learn from every n-th follow-up click")] = 4,
) -> None:
    """Click model of the ranker: replays the data through its fold and features, and learns list by list."""
    from commands.click_log import from_data_set, from_own_topics
    from evaluation.left_out import LeftOut
    from export.clicks.run import check_out as check_clicks_out
    from export.clicks.run import train_clicks

    if len(folders) != (1 if from_topics else 2) or from_topics == bool(format_):
        raise SettingsError("give a data set, its --format and the folder to write, or --from-topics and that folder")
    if format_ not in ("", "mind", "globo"):
        raise SettingsError(f"the format {format_!r} is not known; known: mind, globo")
    settings = settings_of(context, ranker_model="")
    check_clicks_out(folders[-1])
    console = Console(stderr=True, soft_wrap=True)
    with Display(console) as display:
        left_out = LeftOut(display.say)
        if from_topics:
            log, digest = from_own_topics(settings, seed, left_out, display)
        else:
            log, digest = from_data_set(folders[0], format_, settings, seed, every, left_out, display)
        left_out.sum_up()
    train_clicks(
        log, folders[-1], digest=digest, seed=seed, epochs=epochs, learning_rate=learning_rate, console=console,
    )  # fmt: skip
