"""``stoppress train ranker``: the click model by which the ranker scores."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from commands.display import Display
from commands.wiring import model_of, settings_of
from contract.errors import SettingsError
from export.clicks.run import EPOCHS as CLICK_EPOCHS
from ranking.listwise import LEARNING_RATE

FOLLOW_UPS = 4


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
    every: Annotated[
        float | None,
        typer.Option(
            min=0.0001,
            help="from topics: train again every so many hours, each time into a new folder in OUT; "
            f"globo: learn from every n-th follow-up click ({FOLLOW_UPS})",
        ),
    ] = None,
) -> None:
    """Click model of the ranker: replays the data through its fold and features, and learns list by list."""
    from commands.click_log import from_data_set, from_own_topics
    from evaluation.left_out import LeftOut
    from export.clicks.run import check_out, check_packages, train_clicks
    from export.clicks.schedule import check_versions, how_to_serve, train_every
    from streams.admin import require_topics

    if len(folders) != (1 if from_topics else 2) or from_topics == bool(format_):
        raise SettingsError("give a data set, its --format and the folder to write, or --from-topics and that folder")
    if format_ not in ("", "mind", "globo"):
        raise SettingsError(f"the format {format_!r} is not known; known: mind, globo")
    if not from_topics and every is not None and (every < 1 or every % 1):
        raise SettingsError(f"--every {every:g} is no number of clicks; hours go with --from-topics")
    settings = settings_of(context, ranker_model="", ranker_shadow="")
    console = Console(stderr=True, soft_wrap=True)

    def train(out: Path) -> None:
        check_out(out)
        with Display(console) as display:
            left_out = LeftOut(display.say)
            if from_topics:
                log, digest = from_own_topics(settings, seed, left_out, display)
            else:
                follow_ups = round(every or FOLLOW_UPS)
                log, digest = from_data_set(folders[0], format_, settings, seed, follow_ups, left_out, display)
            left_out.sum_up()
        train_clicks(log, out, digest=digest, seed=seed, epochs=epochs, learning_rate=learning_rate, console=console)

    if not from_topics or every is None:
        train(folders[-1])
        return
    check_versions(folders[-1])
    check_packages()
    require_topics(settings, model_of(settings)[0].specs())
    console.print(how_to_serve(folders[-1]), markup=False, highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a container's end is the keyboard's
    try:
        train_every(every, folders[-1], train, lambda text: console.print(text, markup=False, highlight=False))
    except KeyboardInterrupt:
        console.print("ended; what was trained stays")
