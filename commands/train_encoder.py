"""``stoppress train encoder``: the text encoder, tuned on clicks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.display import Display
from commands.wiring import settings_of
from contract.errors import SettingsError

EPOCHS = 8


def encoder(
    context: typer.Context,
    dataset: Annotated[Path, typer.Argument(help="the folder with the data set")],
    out: Annotated[Path, typer.Argument(help="the folder to write")],
    format_: Annotated[str, typer.Option("--format", help="of the data: mind")],
    model: Annotated[str, typer.Option(help="minilm (packaged), a folder, or a Hugging Face name")] = "minilm",
    dims: Annotated[int, typer.Option(min=1, help="centre and project to this many dimensions")] = 96,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same numbers")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="at most")] = EPOCHS,
    keep: Annotated[bool, typer.Option("--keep", help="write it too where it is not better, as experimental")] = False,
) -> None:
    """Text encoder: LoRA in the last layers; written only if it is better on later clicks."""
    from rich.console import Console

    from encoders.text import article_text
    from export.tracking import Tracking
    from export.tuned_encoder import Text, train_encoder
    from producers.broken_lines import BrokenLines
    from producers.mind import read_behaviours, read_news

    if format_ != "mind":
        raise SettingsError(f"the format {format_!r} has no texts that an encoder could learn from; give mind")
    settings = settings_of(context)
    tracking = Tracking.of(settings)
    with Display(Console(stderr=True, soft_wrap=True)) as display:
        broken = BrokenLines(display.say)
        behaviours = list(read_behaviours(dataset, broken))
        texts: dict[str, Text] = {}
        for news in read_news(dataset, broken):
            texts.setdefault(news.article_id, Text(article_text(news.title, news.abstract), news.category))
        broken.sum_up()
        train_encoder(
            behaviours, texts, out, settings, track=display.track, model=model, dims=dims, seed=seed,
            epochs=epochs, keep=keep, tracking=tracking, console=display.console,
        )  # fmt: skip
