"""``stoppress train``; needs the extra ``export``."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from commands.display import Display
from commands.train_encoder import encoder
from commands.train_ranker import ranker
from commands.wiring import settings_of
from export.interest.run import EPOCHS, MODELS, check_out, train_interest
from export.tracking import Tracking

if TYPE_CHECKING:
    from contract.settings import Settings
    from export.interest.log import ReadingLog

app = typer.Typer(no_args_is_help=True, help="Train models from clicks; needs the extra `export`.")
GLOBO_DIMS = 64


class Format(Enum):
    MIND = "mind"
    GLOBO = "globo"


def _command(name: str) -> Callable[..., None]:
    def train(
        context: typer.Context,
        dataset: Annotated[Path, typer.Argument(help="the folder with the data set")],
        out: Annotated[Path, typer.Argument(help="the folder to write")],
        format_: Annotated[Format, typer.Option("--format", help="of the data")],
        encoder: Annotated[Path | None, typer.Option(help="gives articles with texts their vectors")] = None,
        seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same numbers")] = 0,
        epochs: Annotated[int, typer.Option(min=1, help="at most")] = EPOCHS,
        plain: Annotated[
            bool, typer.Option("--plain", help="leave out what the model is named for, to see what that is worth")
        ] = False,
    ) -> None:
        check_out(out)
        settings = settings_of(context, encoder=encoder)
        tracking = Tracking.of(settings)
        with Display(Console(stderr=True, soft_wrap=True)) as display:
            if format_ is Format.MIND:
                log = _impressions(dataset, settings, seed, display)
            else:
                log = _clicks(dataset, display)
            train_interest(
                name, log, out, seed=seed, epochs=epochs, plain=plain, console=display.console,
                on_progress=lambda done: display.show("epochs", done, epochs), tracking=tracking,
            )  # fmt: skip

    return train


def _impressions(folder: Path, settings: Settings, seed: int, display: Display) -> ReadingLog:
    from evaluation.left_out import LeftOut
    from evaluation.vectors import read_articles
    from export.interest.log import log_of_impressions
    from producers.broken_lines import BrokenLines
    from producers.mind import read_behaviours, read_news
    from streams.local_broker.jars import cache_dir

    broken = BrokenLines(display.say)
    behaviours = list(read_behaviours(folder, broken))
    articles = read_articles(
        read_news(folder, broken), settings, cache_dir() / "vectors", LeftOut(display.say),
        lambda done, total: display.show("texts embedded", done, total),
    )  # fmt: skip
    broken.sum_up()
    display.say(f"{len(behaviours):,} impressions, {len(articles):,} articles")
    return log_of_impressions(behaviours, dict(zip(articles.ids, articles.vectors, strict=False)), seed)


def _clicks(folder: Path, display: Display) -> ReadingLog:
    from export.interest.log import log_of_clicks
    from producers.broken_lines import BrokenLines
    from producers.globo import read_clicks

    broken = BrokenLines(display.say)
    clicks = list(read_clicks(folder, broken))
    broken.sum_up()
    display.say(f"{len(clicks):,} clicks; learning vectors from what is read together")
    return log_of_clicks(clicks, GLOBO_DIMS, lambda done: display.show("clicks", done, len(clicks)))


for _name, _help in MODELS.items():
    app.command(_name, help=f"Interest model: {_help}.")(_command(_name))
app.command("encoder")(encoder)
app.command("ranker")(ranker)
